# SPDX-License-Identifier: GPL-2.0
"""The maps that the programs of a link use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ipttctl import bpf
from ipttctl.errors import ProgramError
from ipttctl.maps import Map
from ipttctl.objects import Link
from ipttctl.programs import Program
from ipttproto import Slot

_NAME_LENGTH: Final = bpf.NAME_SIZE - 1


@dataclass(frozen=True)
class UsedMap:
    """A map, and the slots whose programs use it."""

    map: Map
    slots: tuple[Slot, ...]


@contextmanager
def maps_of(link: Link) -> Iterator[list[UsedMap]]:
    """The maps of a link's programs by their ids, open until the end.

    Raises:
        PrivilegeError: the caller may not open programs and maps by id (CAP_SYS_ADMIN).
    """
    with ExitStack() as stack:
        slots: dict[int, list[Slot]] = {}
        for slot, info in sorted(link.programs.items()):
            with suppress(ProgramError), Program.from_id(info.id) as program:  # swapped meanwhile
                for identifier in program.maps():
                    slots.setdefault(identifier, []).append(slot)
        used = []
        for identifier in sorted(slots):
            with suppress(ProgramError):
                opened = stack.enter_context(Map.from_id(identifier))
                used.append(UsedMap(opened, tuple(slots[identifier])))
        yield used


@contextmanager
def map_of(link: Link, name: str) -> Iterator[Map]:
    """The map of a link's programs that has a name, or that has it as its id.

    A name longer than the kernel keeps is cut as the kernel cuts it.

    Raises:
        ProgramError: there is none, or more than one of the name.
        PrivilegeError: as for ``maps_of``.
    """
    with maps_of(link) as used:
        maps = [entry.map for entry in used]
        found = [entry for entry in maps if str(entry.info.id) == name]
        found = found or [entry for entry in maps if entry.name == _cut(name)]
        if not found:
            known = ", ".join(f"{entry.name or '-'} ({entry.info.id})" for entry in maps)
            raise ProgramError(
                f"link {link.id} has no map {name}", f"there are: {known}" if known else ""
            )
        if len(found) > 1:
            ids = ", ".join(str(entry.info.id) for entry in found)
            raise ProgramError(
                f"link {link.id} has maps {ids} of the name {name}",
                f"take one by its id, as in {link.id}/{found[0].info.id}",
            )
        yield found[0]


def _cut(name: str) -> str:
    return name.encode()[:_NAME_LENGTH].decode(errors="replace")
