# SPDX-License-Identifier: GPL-2.0
"""The maps that the programs of a link use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
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
        yield _chosen([entry.map for entry in used], name, f"link {link.id}", f"{link.id}/")


@contextmanager
def map_of_programs(programs: Iterable[int], name: str) -> Iterator[Map]:
    """As ``map_of``, for programs that are given as descriptors."""
    identifiers = sorted({number for fd in programs for number in bpf.program_maps(fd)})
    with ExitStack() as stack:
        maps = [stack.enter_context(Map.from_id(number)) for number in identifiers]
        yield _chosen(maps, name, "the program set", "")


def _chosen(maps: Sequence[Map], name: str, owner: str, prefix: str) -> Map:
    """The one map of a name or an id; ``owner`` and ``prefix`` are for complaints."""
    found = [entry for entry in maps if str(entry.info.id) == name]
    found = found or [entry for entry in maps if entry.name == _cut(name)]
    if not found:
        known = ", ".join(f"{entry.name or '-'} ({entry.info.id})" for entry in maps)
        raise ProgramError(f"{owner} has no map {name}", f"there are: {known}" if known else "")
    if len(found) > 1:
        ids = ", ".join(str(entry.info.id) for entry in found)
        raise ProgramError(
            f"{owner} has maps {ids} of the name {name}",
            f"take one by its id, as in {prefix}{found[0].info.id}",
        )
    return found[0]


def _cut(name: str) -> str:
    return os.fsencode(name)[:_NAME_LENGTH].decode(errors="replace")
