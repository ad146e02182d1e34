# SPDX-License-Identifier: GPL-2.0
"""What BPF sources compile to: plain values, without anything of the kernel's.

In the manner of cilium/ebpf: constants and map sizes are set on a ``CollectionSpec``, which a
``Collection`` is then loaded from.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from ipttctl import bpf, bpfcc, spec_cache
from ipttctl.errors import ProgramError

CONST_MARK: Final = 0x1B77C0DE
"""Upper half of the 64-bit loads that stand for constants (bpf/ipttrace.h)."""

_NAME_SIZE: Final = 32
"""Bytes of a constant's name that are hashed."""

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
    """A program's bytecode, with the maps it uses by name."""

    name: str
    instructions: bytes
    maps: dict[int, str] = field(default_factory=dict)
    """Map names by the index of the instruction that loads them."""


@dataclass
class MapSpec:
    """A map to create."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0


@dataclass
class CollectionSpec:
    """Programs, maps and constants of one compiled source; nothing in the kernel yet."""

    programs: dict[str, ProgramSpec]
    maps: dict[str, MapSpec]
    constants: dict[str, int] = field(default_factory=dict)
    """Width in bits of each constant by its name."""
    fields: list[str] = field(default_factory=list)
    """Fields of kernel structs, such as ``sk_buff.len``, that the source declares."""
    license: str = "GPL"
    values: dict[str, int] = field(default_factory=dict)
    """Values of the constants that are set; the others are 0."""

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
        """Compile a C source with bpfcc, or take what it compiled to before.

        Args:
            source: the C file.
            include: directories of headers, besides the source's own.
            cflags: more options for clang.
            use_cache: keep the result on disk and use what is there.
            on_compile: called before a compilation, which takes seconds.

        Raises:
            ProgramError: no such source; it does not compile; bpfcc or the kernel's headers are
                missing; somebody else can write to the cache.
        """
        path = Path(source)
        directories = [path.parent, *include]
        key = spec_cache.source_key(path, include=include, cflags=cflags)
        stored = spec_cache.entry(key) if use_cache else None
        if stored and (content := spec_cache.read(stored)) is not None:
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                return cls._from_json(content)
        if on_compile:
            on_compile()
        options = [*(f"-I{directory.absolute()}" for directory in directories), *cflags]
        spec = cls._from_compiled(bpfcc.compile_source(path, options))
        spec.constants, spec.fields = _declarations(path, directories)
        if stored:
            spec_cache.write(stored, spec._to_json())
        return spec

    def set_constants(self, values: Mapping[str, int]) -> None:
        """Set constants that the source declares with IPTTRACE_CONST.

        Raises:
            ProgramError: there is no such constant, or the value does not fit its type.
        """
        for name, value in values.items():
            if name not in self.constants:
                known = ", ".join(sorted(self.constants)) or "none"
                raise ProgramError(f"the programs have no constant {name}", f"there are: {known}")
            width = self.constants[name]
            if not -(1 << width - 1) <= value < 1 << width:
                raise ProgramError(f"constant {name} has {width} bits, which cannot hold {value}")
        self.values.update(values)

    def used_fields(self, program: str) -> list[str]:
        """The fields of kernel structs whose offsets a program needs."""
        loaded = {load.value for load in bpf.wide_loads(self.programs[program].instructions)}
        return [name for name in self.fields if const_marker(name) in loaded]

    def instructions(self, program: str, offsets: Mapping[str, int] | None = None) -> bytes:
        """A program's bytecode with constants and offsets in place; its maps are not.

        Raises:
            ProgramError: it uses a constant or a field that is not declared or not in ``offsets``.
        """
        by_mark = {
            const_marker(name): self.values.get(name, 0) % (1 << width)
            for name, width in self.constants.items()
        }
        by_mark |= {const_marker(name): offset for name, offset in (offsets or {}).items()}
        code = bytearray(self.programs[program].instructions)
        for load in bpf.wide_loads(code):
            if load.source == 0 and load.value >> 32 == CONST_MARK:
                if load.value not in by_mark:
                    raise ProgramError(
                        f"program {program} uses a constant or a field that is not declared",
                        "declare it in the source or in a header of its directories",
                    )
                bpf.set_wide_load(code, load.index, by_mark[load.value])
        return bytes(code)

    @classmethod
    def _from_compiled(cls, compiled: dict[str, Any]) -> Self:
        """What the compiler answered, with map names in the place of descriptors."""
        names = {entry["fd"]: name for name, entry in compiled["maps"].items()}
        programs = {}
        for name, code in compiled["programs"].items():
            instructions = bytearray.fromhex(code)
            maps = {}
            for load in bpf.wide_loads(instructions):
                if bpf.is_map_load(load):
                    if load.value not in names:
                        raise ProgramError(f"program {name} uses a map of another source")
                    maps[load.index] = names[load.value]
                    bpf.set_wide_load(instructions, load.index, 0)
            programs[name] = ProgramSpec(name, bytes(instructions), maps)
        specs = {}
        for name, entry in compiled["maps"].items():
            if entry["type"] in {bpf.MapType.ARRAY_OF_MAPS, bpf.MapType.HASH_OF_MAPS}:
                raise ProgramError(f"map {name} is a map of maps", "use one map with a larger key")
            specs[name] = MapSpec(name, **{k: v for k, v in entry.items() if k != "fd"})
        return cls(programs, specs, license=compiled["license"])

    @classmethod
    def _from_json(cls, content: bytes) -> Self:
        """The spec that ``_to_json`` wrote; whatever error where it is none."""
        stored = json.loads(content)
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
        return cls(programs, maps, constants, fields, stored["license"])

    def _to_json(self) -> bytes:
        stored = {
            "license": self.license,
            "constants": self.constants,
            "fields": self.fields,
            "programs": {
                name: {"instructions": spec.instructions.hex(), "maps": spec.maps}
                for name, spec in self.programs.items()
            },
            "maps": {name: asdict(spec) for name, spec in self.maps.items()},
        }
        return json.dumps(stored).encode()


def const_marker(name: str) -> int:
    """The 64-bit value that stands for a constant in bytecode: mark and FNV-1a hash."""
    value = 2166136261
    for byte in name.encode().ljust(_NAME_SIZE, b"\0"):
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return CONST_MARK << 32 | value


def _declarations(source: Path, directories: Sequence[Path]) -> tuple[dict[str, int], list[str]]:
    """The constants, with their widths, and the fields that a source and its headers declare."""
    constants: dict[str, int] = {}
    fields: set[str] = set()
    for file in (source, *spec_cache.headers(directories)):
        text = file.read_text()
        fields |= {f"{match['structure']}.{match['member']}" for match in _FIELD.finditer(text)}
        for match in _DECLARATION.finditer(text):
            width = _WIDTH.match(match["type"])
            constants[match["name"]] = int(width[1]) if width else 64
    names = [*constants, *fields]
    if len({const_marker(name) for name in names}) < len(names):
        raise ProgramError(f"{source}: two constants' names have one hash", "rename one")
    return constants, sorted(fields)
