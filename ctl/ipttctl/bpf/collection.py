# SPDX-License-Identifier: GPL-2.0
"""Sets of BPF programs and their maps, loaded as one, with an explicit lifetime.

spec = CollectionSpec.from_source("bpf/count.c")  # or from_object("count.o")
spec.set_constants({"minimum_cost": 1000})
spec.maps["verdicts"].max_entries = 16
with Collection.load(spec) as collection:
    fd = collection.programs["count_exit"].fd
    print(collection.maps["verdicts"].get(1))
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from ipttctl.bpf import libbpf_object, syscalls
from ipttctl.bpf.btf import Btf
from ipttctl.bpf.constants_map import bind_constants
from ipttctl.bpf.descriptors import Closing
from ipttctl.bpf.instructions import set_wide_load
from ipttctl.bpf.kernel_types import field_offsets
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.specs import CollectionSpec, MapSpec, ObjectFile, ProgramSpec
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import ProgramError, os_reason

__all__ = ["Collection", "CollectionSpec", "Map", "MapSpec", "ProgramSpec"]

PIN_DIRECTORY: Final = Path("/sys/fs/bpf")
"""Directory of the maps that are shared by name, the same as libbpf's."""

_MAPS_DIR: Final = "maps"
_COMPARED: Final = ("type", "key_size", "value_size", "max_entries", "flags")


class Collection(Closing):
    """Loaded programs and maps by name. It owns them: close it, or use it in ``with``."""

    def __init__(self, programs: dict[str, Program], maps: dict[str, Map]) -> None:
        """Take ownership of programs and maps."""
        self.programs = programs
        self.maps = maps

    @classmethod
    def load(
        cls,
        spec: CollectionSpec,
        *,
        programs: Sequence[str] | Mapping[str, ProgramType] | None = None,
        program_type: ProgramType = ProgramType.KPROBE,
        maps: Mapping[str, Map] | None = None,
        pins: str | os.PathLike[str] = PIN_DIRECTORY,
    ) -> Self:
        """Create a spec's maps and load its programs, all or nothing.

        Args:
            spec: the programs and maps; a spec can be loaded any number of times.
            programs: names of the programs to load, or their types by name; without it, all.
            program_type: type of the programs for which neither ``programs`` nor the spec has one.
            maps: maps to use instead of the spec's of the same names. The caller keeps them.
            pins: directory of the maps whose specs say ``pinned``. Maps found there are used, the
                others are created and pinned there.

        Raises:
            ProgramError: there is no such program or map, an existing map differs from its spec,
                or the kernel refuses one.
            PrivilegeError: the caller may not load programs.
        """
        types = _types(spec, programs, program_type)
        with _reused(spec, maps or {}, Path(pins)) as reused, ExitStack() as undo:
            if spec.elf:
                collection = cls._load_object(spec, spec.elf, types, reused)
            else:
                collection = cls._load_source(spec, types, reused)
            undo.callback(collection.close)
            for name, entry in spec.maps.items():
                if entry.pinned and name not in reused:
                    place = Path(pins, _pin_name(name))
                    collection.maps[name].pin(place)
                    undo.callback(place.unlink)
            undo.pop_all()
        return collection

    @classmethod
    def _load_source(
        cls, spec: CollectionSpec, types: Mapping[str, ProgramType], reused: Mapping[str, Map]
    ) -> Self:
        with ExitStack() as temporary, ExitStack() as undo:
            types_of_maps = temporary.enter_context(Btf.from_data(spec.btf)) if spec.btf else None
            maps: dict[str, Map] = {}
            for name, map_spec in spec.maps.items():
                given = reused.get(name)
                maps[name] = given.duplicate() if given else Map.create(map_spec, types_of_maps)
                undo.callback(maps[name].close)
            fields = {field for name in types for field in spec.used_fields(name)}
            offsets = field_offsets(fields) if fields else {}
            loaded: dict[str, Program] = {}
            for name, program_type in types.items():
                code = bytearray(spec.instructions(name, offsets))
                for index, used in spec.programs[name].maps.items():
                    set_wide_load(code, index, maps[used].fd)
                loaded[name] = Program.load(
                    bytes(code), name=name, type=program_type, license_name=spec.license
                )
                undo.callback(loaded[name].close)
            bind_constants(spec, loaded)
            undo.pop_all()
        return cls(loaded, maps)

    @classmethod
    def _load_object(
        cls,
        spec: CollectionSpec,
        elf: ObjectFile,
        types: Mapping[str, ProgramType],
        reused: Mapping[str, Map],
    ) -> Self:
        given = {name: entry.fd for name, entry in reused.items()}
        plan = elf.plan(types, spec.maps, spec.values, given)
        loaded = libbpf_object.load(elf.data, elf.name, plan)
        return cls(
            {name: Program(fd) for name, fd in loaded.programs.items()},
            {name: Map(fd) for name, fd in loaded.maps.items()},
        )

    @classmethod
    def open_pinned(cls, directory: str | os.PathLike[str]) -> Self:
        """Open the collection that ``pin`` left in a directory.

        Raises:
            ProgramError: there is no such directory, or it holds something else.
        """
        place = Path(directory)
        if not place.is_dir():
            syscalls.open_pinned(place)
            raise ProgramError(f"no collection is pinned at {place}")
        with ExitStack() as undo:
            programs: dict[str, Program] = {}
            for path in sorted(entry for entry in place.iterdir() if not entry.is_dir()):
                programs[path.name] = Program.from_pinned(path)
                undo.callback(programs[path.name].close)
            maps: dict[str, Map] = {}
            for path in sorted((place / _MAPS_DIR).glob("*")):
                opened = Map.from_pinned(path)
                undo.callback(opened.close)
                own = _pin_name(opened.name) == path.name
                maps[opened.name if own else path.name] = opened
            undo.pop_all()
        return cls(programs, maps)

    def pin(self, directory: str | os.PathLike[str]) -> None:
        """Pin everything below a new directory of a BPF file system, all or nothing.

        Programs are pinned under their names, maps in ``maps``, with ``_`` for each dot. The
        directory appears only when it is complete.

        Raises:
            ProgramError: the directory exists, or is not in a mounted BPF file system.
        """
        place = Path(directory)
        if not syscalls.on_bpffs(place.parent):
            # Nobody wants a directory in /sys or on disk: let the pin itself fail.
            syscalls.pin(next(iter(self.programs.values())).fd, place)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = place.with_name(f"tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            temporary.mkdir(mode=0o700)
            for name, program in self.programs.items():
                program.pin(temporary / name)
            if self.maps:
                (temporary / _MAPS_DIR).mkdir(mode=0o700)
            for name, entry in self.maps.items():
                entry.pin(temporary / _MAPS_DIR / _pin_name(name))
            temporary.rename(place)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if place.exists():
                raise ProgramError(
                    f"{place} exists already", "remove it or choose another"
                ) from None
            raise ProgramError(f"cannot pin to {place}: {os_reason(error)}") from None
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def close(self) -> None:
        """Close all descriptors. Pinned and attached programs and maps stay loaded."""
        for program in self.programs.values():
            program.close()
        for entry in self.maps.values():
            entry.close()


def _pin_name(name: str) -> str:
    """A map's file name in a BPF file system, which allows no dots; the same as libbpf's."""
    return name.replace(".", "_")


def _types(
    spec: CollectionSpec,
    programs: Sequence[str] | Mapping[str, ProgramType] | None,
    default: ProgramType,
) -> dict[str, ProgramType]:
    """The programs to load, with the type of each.

    Raises:
        ProgramError: there is no such program, or it is of another type.
    """
    types: dict[str, ProgramType] = {}
    for name in spec.programs if programs is None else programs:
        if name not in spec.programs:
            known = ", ".join(sorted(spec.programs))
            raise ProgramError(f"the source has no program {name}", f"there are: {known}")
        own = spec.programs[name].type
        wanted = programs[name] if isinstance(programs, Mapping) else own or default
        if own not in {0, wanted}:
            known = " and ".join(syscalls.program_type_name(kind) for kind in ProgramType)
            raise ProgramError(
                f"program {name} is of type {syscalls.program_type_name(own)} by its section "
                f"{spec.programs[name].section}, not {syscalls.program_type_name(wanted)}"
            )
        try:
            types[name] = ProgramType(wanted)
        except ValueError:
            known = " and ".join(syscalls.program_type_name(kind) for kind in ProgramType)
            raise ProgramError(
                f"program {name} is of type {syscalls.program_type_name(wanted)}",
                f"ipttrace takes {known}",
            ) from None
    return types


@contextmanager
def _reused(spec: CollectionSpec, given: Mapping[str, Map], pins: Path) -> Iterator[dict[str, Map]]:
    """The maps that exist already, by the spec's names; reopened, and closed at the end.

    Raises:
        ProgramError: the spec has no such map, or differs from it.
    """
    for name in given:
        if name not in spec.maps:
            known = ", ".join(sorted(spec.maps)) or "none"
            raise ProgramError(f"the programs have no map {name}", f"there are: {known}")
    with ExitStack() as opened:
        found: dict[str, Map] = {}
        for name, entry in spec.maps.items():
            if name in given:
                found[name] = opened.enter_context(given[name].duplicate())
            elif entry.pinned and (place := pins / _pin_name(name)).exists():
                found[name] = opened.enter_context(Map.from_pinned(place))
        for name, existing in found.items():
            for what in _COMPARED:
                has, wanted = getattr(existing.info, what), getattr(spec.maps[name], what)
                if has != wanted:
                    raise ProgramError(
                        f"map {name} exists already and has {what} {has}, not {wanted}",
                        "remove it or use another",
                    )
        yield found
