# SPDX-License-Identifier: GPL-2.0
"""Descriptions of compiled sources and object files: plain values, nothing in the kernel.

As in cilium/ebpf, constants and map sizes are set on a ``CollectionSpec``, from which a
``Collection`` is then loaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import bpfcc, files_read, libbpf_object, syscalls
from ipttctl.bpf.files_read import FilesRead
from ipttctl.bpf.instructions import is_map_load, set_wide_load, wide_loads
from ipttctl.bpf.spec_cache import SpecCache, source_key
from ipttctl.bpf.values import encode
from ipttctl.errors import ProgramError, UsageError, os_reason

CONST_MARK: Final = 0x1B77C0DE
"""Upper half of the 64-bit immediate that marks a constant (bpf/ipttrace.h)."""

_NAME_SIZE: Final = 32
"""Number of bytes of a constant's name that are hashed."""

_DECLARATION: Final = re.compile(
    r"^\s*IPTTRACE_CONST\(\s*(?P<type>[^,()]+?)\s*,\s*(?P<name>\w+)\s*\)", re.MULTILINE
)
_FIELD: Final = re.compile(
    r"^\s*IPTTRACE_FIELD\([^,()]+,\s*\w+\s*,\s*(?P<structure>\w+)\s*,\s*(?P<member>[\w.]+)\s*\)",
    re.MULTILINE,
)
_WIDTH: Final = re.compile(r"^(?:__)?[us](8|16|32|64)$")


@dataclass
class ProgramSpec:
    """A program.

    ``instructions`` and ``maps`` (names by the index of the instruction that loads them) are set
    for a compiled source only; libbpf keeps those of an object file. ``section`` and ``type`` are
    set for an object file only; a program of a source has the type it is loaded as.
    """

    name: str
    instructions: bytes = b""
    maps: dict[int, str] = field(default_factory=dict)
    section: str = ""
    type: int = 0


@dataclass
class MapSpec:
    """A map to create. Its members may be changed before the collection is loaded.

    A ``pinned`` map is shared by name: loading uses the map pinned under its name in the directory
    of shared maps, or creates it and pins it there. ``key_type`` and ``value_type`` are type
    numbers in the collection's ``btf``; 0 is none.
    """

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    pinned: bool = False
    key_type: int = 0
    value_type: int = 0


@dataclass(frozen=True)
class ObjectFile:
    """An object file: its name, its bytes, and the content that libbpf finds in them."""

    name: str
    data: bytes
    content: libbpf_object.ObjectContent

    def plan(
        self,
        programs: Mapping[str, int],
        maps: Mapping[str, MapSpec],
        values: Mapping[str, Any],
        reused: Mapping[str, int],
    ) -> libbpf_object.LoadPlan:
        """The plan to load it with programs of these types, changed maps and constants."""
        changed = {}
        for entry in self.content.maps:
            spec = maps[entry.name]
            wanted = {
                "type": (entry.type, spec.type),
                "key_size": (entry.key_size, spec.key_size),
                "value_size": (entry.value_size, spec.value_size),
                "max_entries": (entry.max_entries, spec.max_entries),
                "map_flags": (entry.flags, spec.flags),
            }
            changed[entry.name] = {n: new for n, (old, new) in wanted.items() if new != old}
        constants: dict[str, dict[int, bytes]] = {}
        for name, value in values.items():
            constant = self.content.constants[name]
            data = encode(constant.place.type, value, f"constant {name}")
            constants.setdefault(constant.map, {})[constant.place.bits // 8] = data
        return libbpf_object.LoadPlan(programs, changed, reused, constants)


@dataclass
class CollectionSpec:
    """Programs, maps and constants of a source or an object file; nothing in the kernel yet."""

    programs: dict[str, ProgramSpec]
    maps: dict[str, MapSpec]
    constants: dict[str, int] = field(default_factory=dict)
    """Width in bits of each constant by its name."""
    fields: list[str] = field(default_factory=list)
    """Fields of kernel structs that the source declares, such as ``sk_buff.len``."""
    license: str = "GPL"
    btf: bytes = b""
    """The types of the file, those of the maps' keys and values among them."""
    values: dict[str, Any] = field(default_factory=dict)
    """Values of the constants that are set; the others are 0, or the object file's."""
    elf: ObjectFile | None = None
    """The object file that libbpf loads, if the collection comes from one."""
    declared: dict[str, str] = field(default_factory=dict)
    """The type of each constant of a source as its text has it, such as ``enum colour``."""

    @classmethod
    def from_source(
        cls,
        source: str | os.PathLike[str],
        *,
        include: Sequence[Path] = (),
        cflags: Sequence[str] = (),
        use_cache: bool = True,
        on_compile: Callable[[], None] | None = None,
    ) -> Self:
        """Compile a C source with bpfcc, or take the result from the cache.

        Args:
            source: the C file.
            include: directories of headers, in addition to the source's own.
            cflags: more options for clang.
            use_cache: read the result from the cache on disk, and store it there.
            on_compile: called before a compilation, which takes seconds.

        Raises:
            ProgramError: there is no such source, it does not compile, bpfcc or the kernel's
                headers are missing, or somebody else can write to the cache.
        """
        path = Path(source)
        directories = [path.parent, *include]
        try:
            text = files_read.read_whole(path)
        except OSError as error:
            raise ProgramError(f"cannot read BPF source {path}: {os_reason(error)}") from None
        key = source_key(text, directories, cflags)
        cache = SpecCache.open() if use_cache else None
        if cache is not None and (spec := cls._find(cache, key, directories)) is not None:
            return spec
        if on_compile:
            on_compile()
        if cache is None:
            return cls._compile(path, text, directories, cflags)[0]
        with cache.turn(key):
            if (spec := cls._find(cache, key, directories)) is not None:
                return spec
            spec, origin = cls._compile(path, text, directories, cflags)
            if origin is not None:
                cache.store(key, origin, spec._to_store())
        return spec

    @classmethod
    def _find(cls, cache: SpecCache, key: str, directories: Sequence[Path]) -> Self | None:
        """A result that a cache has for a source."""
        for stored in cache.find(key, directories):
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                return cls._from_stored(stored)
        return None

    @classmethod
    def _compile(
        cls, path: Path, text: bytes, directories: Sequence[Path], cflags: Sequence[str]
    ) -> tuple[Self, FilesRead | None]:
        """Compile the text of a source; None for its files if any changed meanwhile."""
        options = [*(f"-I{directory.absolute()}" for directory in directories), *cflags]
        begun = files_read.begin()
        compiled = bpfcc.compile_source(path, text, options)
        files = files_read.read_files(compiled["read"])
        spec = cls._from_compiled(compiled)
        spec.declared, spec.fields = _declarations(path, [text, *files.values()])
        spec.constants = {name: _width(kind) for name, kind in spec.declared.items()}
        return spec, FilesRead.of(text, files, directories, begun)

    @classmethod
    def from_object(cls, path: str | os.PathLike[str]) -> Self:
        """Read an object file made by ``clang -O2 -g -target bpf``.

        Raises:
            ProgramError: there is no such file, or it is not an object file of BPF programs.
        """
        place = Path(path)
        try:
            data = files_read.read_whole(place)
        except OSError as error:
            raise ProgramError(f"cannot read BPF object {place}: {os_reason(error)}") from None
        content = libbpf_object.read(data, place.name)
        return cls(
            programs={
                p.name: ProgramSpec(p.name, section=p.section, type=p.type)
                for p in content.programs
            },
            maps={entry.name: MapSpec(**asdict(entry)) for entry in content.maps},
            constants={n: 8 * c.place.type.size for n, c in content.constants.items()},
            btf=content.btf,
            elf=ObjectFile(place.name, data, content),
        )

    def set_constants(self, values: Mapping[str, Any]) -> None:
        """Set constants: IPTTRACE_CONST in sources, the variables of .rodata in object files.

        In object files also the initial values of other variables. Values are numbers; for an
        object file they can have any type, written as in a map. ``constants.set_constants`` takes
        text, and checks the types of a source's constants.

        Raises:
            ProgramError: there is no such constant, or the value does not fit its type.
        """
        for name, value in values.items():
            if name not in self.constants:
                known = ", ".join(sorted(self.constants)) or "none"
                raise ProgramError(f"the programs have no constant {name}", f"there are: {known}")
            if self.elf:
                try:
                    encode(self.elf.content.constants[name].place.type, value, f"constant {name}")
                except UsageError as error:
                    raise ProgramError(error.problem, error.remedy) from None
                continue
            width = self.constants[name]
            if not -(1 << width - 1) <= value < 1 << width:
                raise ProgramError(f"constant {name} has {width} bits, which cannot hold {value}")
        self.values.update(values)

    def find_program(self, name: str) -> str:
        """Find a program by its name, or the only one in a section of that name.

        Raises:
            ProgramError: there is no such program, or the section has several.
        """
        inside = [p.name for p in self.programs.values() if p.section and p.section == name]
        if len(inside) == 1:
            return inside[0]
        if name in self.programs:
            return name
        if inside:
            listed = ", ".join(sorted(inside))
            raise ProgramError(f"section {name} has several programs", f"name one: {listed}")
        known = ", ".join(
            f"{p.name} ({p.section})" if p.section else p.name for p in self.programs.values()
        )
        raise ProgramError(f"there is no program {name}", f"there are: {known or 'none'}")

    def content(self) -> bytes:
        """Bytes that differ whenever the file's content, or its compiled form, does."""
        return self.elf.data if self.elf else json.dumps(self._to_store()).encode()

    def used_fields(self, program: str) -> list[str]:
        """The fields of kernel structs whose offsets a program needs."""
        loaded = {load.value for load in wide_loads(self.programs[program].instructions)}
        return [name for name in self.fields if const_marker(name) in loaded]

    def instructions(self, program: str, offsets: Mapping[str, int] | None = None) -> bytes:
        """A program's bytecode with constants and offsets filled in, but not its maps.

        Raises:
            ProgramError: it uses a constant that is not declared, or a field not in ``offsets``.
        """
        by_mark = {
            const_marker(name): self.values.get(name, 0) % (1 << width)
            for name, width in self.constants.items()
        }
        by_mark |= {const_marker(name): offset for name, offset in (offsets or {}).items()}
        code = bytearray(self.programs[program].instructions)
        for load in wide_loads(code):
            if load.source == 0 and load.value >> 32 == CONST_MARK:
                if load.value not in by_mark:
                    raise ProgramError(
                        f"program {program} uses a constant or a field that is not declared",
                        "declare it in the source or in a header of its directories",
                    )
                set_wide_load(code, load.index, by_mark[load.value])
        return bytes(code)

    @classmethod
    def _from_compiled(cls, compiled: dict[str, Any]) -> Self:
        """The spec in the compiler's answer, with map names in place of descriptors."""
        names = {entry["fd"]: name for name, entry in compiled["maps"].items()}
        programs = {}
        for name, code in compiled["programs"].items():
            instructions = bytearray.fromhex(code)
            maps = {}
            for load in wide_loads(instructions):
                if is_map_load(load):
                    if load.value not in names:
                        raise ProgramError(f"program {name} uses a map of another source")
                    maps[load.index] = names[load.value]
                    set_wide_load(instructions, load.index, 0)
            programs[name] = ProgramSpec(name, bytes(instructions), maps)
        specs = {}
        for name, entry in compiled["maps"].items():
            if entry["type"] in {syscalls.MapType.ARRAY_OF_MAPS, syscalls.MapType.HASH_OF_MAPS}:
                raise ProgramError(f"map {name} is a map of maps", "use one map with a larger key")
            specs[name] = MapSpec(name, **{k: v for k, v in entry.items() if k != "fd"})
        types = bytes.fromhex(compiled.get("btf", ""))
        return cls(programs, specs, license=compiled["license"], btf=types)

    @classmethod
    def _from_stored(cls, stored: Any) -> Self:
        """The spec that ``_to_store`` wrote; any exception if ``stored`` is something else."""
        programs = {
            name: ProgramSpec(
                name,
                bytes.fromhex(entry["instructions"]),
                {int(index): used for index, used in entry["maps"].items()},
            )
            for name, entry in stored["programs"].items()
        }
        maps = {name: MapSpec(**entry) for name, entry in stored["maps"].items()}
        constants, fields = stored["constants"], stored["fields"]
        types, declared = bytes.fromhex(stored["btf"]), stored["declared"]
        return cls(programs, maps, constants, fields, stored["license"], types, declared=declared)

    def _to_store(self) -> dict[str, Any]:
        """The spec in a form for JSON, without the values of constants."""
        return {
            "license": self.license,
            "btf": self.btf.hex(),
            "constants": self.constants,
            "declared": self.declared,
            "fields": self.fields,
            "programs": {
                name: {"instructions": spec.instructions.hex(), "maps": spec.maps}
                for name, spec in self.programs.items()
            },
            "maps": {name: asdict(spec) for name, spec in self.maps.items()},
        }


def const_marker(name: str) -> int:
    """The 64-bit value that stands for a constant in bytecode: a mark and an FNV-1a hash."""
    value = 2166136261
    for byte in name.encode().ljust(_NAME_SIZE, b"\0"):
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return CONST_MARK << 32 | value


def _declarations(source: Path, texts: Iterable[bytes]) -> tuple[dict[str, str], list[str]]:
    """The constants with their types, and the fields, that the texts of a source declare."""
    constants: dict[str, str] = {}
    fields: set[str] = set()
    for text in (text.decode(errors="replace") for text in texts):
        fields |= {f"{match['structure']}.{match['member']}" for match in _FIELD.finditer(text)}
        for match in _DECLARATION.finditer(text):
            constants[match["name"]] = " ".join(match["type"].split())
    names = [*constants, *fields]
    if len({const_marker(name) for name in names}) < len(names):
        raise ProgramError(f"{source}: two constants' names have one hash", "rename one")
    return constants, sorted(fields)


def _width(kind: str) -> int:
    """The width in bits that a constant's type has at most."""
    width = _WIDTH.match(kind)
    return int(width[1]) if width else 64
