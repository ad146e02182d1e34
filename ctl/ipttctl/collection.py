# SPDX-License-Identifier: GPL-2.0
"""Sets of BPF programs and their maps, loaded as one and with an explicit end.

spec = CollectionSpec.from_source("bpf/count.c")
spec.set_constants({"minimum_cost": 1000})
with Collection.load(spec) as collection:
fd = collection.programs["count_exit"].fd
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from ipttctl import bpf
from ipttctl.bpf import ProgramType
from ipttctl.errors import ProgramError
from ipttctl.kernel_types import field_offsets
from ipttctl.maps import Map
from ipttctl.programs import Program
from ipttctl.specs import CollectionSpec, MapSpec, ProgramSpec

__all__ = ["Collection", "CollectionSpec", "Map", "MapSpec", "ProgramSpec"]

_MAPS_DIR: Final = "maps"


class Collection:
    """Loaded programs and maps by name. It owns them all: close it, or use it in ``with``."""

    def __init__(self, programs: dict[str, Program], maps: dict[str, Map]) -> None:
        """Take over programs and maps."""
        self.programs = programs
        self.maps = maps

    @classmethod
    def load(
        cls,
        spec: CollectionSpec,
        *,
        programs: Sequence[str] | None = None,
        program_type: ProgramType = ProgramType.KPROBE,
    ) -> Self:
        """Create a spec's maps and load its programs, or those named; all of it or nothing.

        Raises:
            ProgramError: no such program, or the kernel refuses one or a map.
            PrivilegeError: the caller may not load programs.
        """
        wanted = list(spec.programs) if programs is None else list(programs)
        for name in wanted:
            if name not in spec.programs:
                known = ", ".join(sorted(spec.programs))
                raise ProgramError(f"the source has no program {name}", f"there are: {known}")
        with ExitStack() as undo:
            maps: dict[str, Map] = {}
            for name, map_spec in spec.maps.items():
                maps[name] = Map.create(map_spec)
                undo.callback(maps[name].close)
            fields = {field for name in wanted for field in spec.used_fields(name)}
            offsets = field_offsets(fields) if fields else {}
            loaded: dict[str, Program] = {}
            for name in wanted:
                code = bytearray(spec.instructions(name, offsets))
                for index, used in spec.programs[name].maps.items():
                    bpf.set_wide_load(code, index, maps[used].fd)
                loaded[name] = Program.load(
                    bytes(code), name=name, type=program_type, license_name=spec.license
                )
                undo.callback(loaded[name].close)
            undo.pop_all()
        return cls(loaded, maps)

    @classmethod
    def open_pinned(cls, directory: str | os.PathLike[str]) -> Self:
        """Open what ``pin`` left in a directory.

        Raises:
            ProgramError: there is no such directory, or something else in it.
        """
        place = Path(directory)
        if not place.is_dir():
            bpf.open_pinned(place)
            raise ProgramError(f"no collection is pinned at {place}")
        with ExitStack() as undo:
            programs: dict[str, Program] = {}
            for path in sorted(entry for entry in place.iterdir() if not entry.is_dir()):
                programs[path.name] = Program.from_pinned(path)
                undo.callback(programs[path.name].close)
            maps: dict[str, Map] = {}
            for path in sorted((place / _MAPS_DIR).glob("*")):
                maps[path.name] = Map.from_pinned(path)
                undo.callback(maps[path.name].close)
            undo.pop_all()
        return cls(programs, maps)

    def pin(self, directory: str | os.PathLike[str]) -> None:
        """Pin everything below a new directory of a BPF file system, all of it or nothing.

        Programs get their names there, maps theirs in ``maps``. The directory appears when it is
        complete.

        Raises:
            ProgramError: it exists, or does not lie in a mounted BPF file system.
        """
        place = Path(directory)
        if not bpf.on_bpffs(place.parent):
            # Nobody wants a directory in /sys or on disk: let the pin itself fail.
            bpf.pin(next(iter(self.programs.values())).fd, place)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = place.with_name(f"tmp-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            temporary.mkdir(mode=0o700)
            for name, program in self.programs.items():
                program.pin(temporary / name)
            if self.maps:
                (temporary / _MAPS_DIR).mkdir(mode=0o700)
            for name, entry in self.maps.items():
                entry.pin(temporary / _MAPS_DIR / name)
            temporary.rename(place)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if place.exists():
                raise ProgramError(
                    f"{place} exists already", "remove it or choose another"
                ) from None
            raise ProgramError(f"cannot pin to {place}: {error.strerror}") from None
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def close(self) -> None:
        """Give all descriptors back; what is pinned or attached stays loaded."""
        for program in self.programs.values():
            program.close()
        for entry in self.maps.values():
            entry.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        *_: object,
    ) -> None:
        self.close()
