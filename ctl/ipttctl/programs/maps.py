# SPDX-License-Identifier: GPL-2.0
"""The maps that the programs of a link use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.errors import ProgramError
from ipttctl.link.model import Link
from ipttproto import Slot

_NAME_LENGTH: Final = syscalls.NAME_SIZE - 1


@dataclass(frozen=True)
class UsedMap:
    """A map, and the slots whose programs use it."""

    map: Map
    slots: tuple[Slot, ...]


@contextmanager
def maps_of(link: Link) -> Iterator[list[UsedMap]]:
    """The maps of a link's programs, ordered by id, open until the end of the block.

    Raises:
        PrivilegeError: the caller may not open programs and maps by id (CAP_SYS_ADMIN).
    """
    with ExitStack() as stack:
        used = []
        for identifier, slots in sorted(_slots_of_maps(link).items()):
            with suppress(ProgramError):
                opened = stack.enter_context(Map.from_id(identifier))
                used.append(UsedMap(opened, tuple(slots)))
        yield used


def map_of(link: Link, name: str) -> Map:
    """Open a map of a link's programs, given by its name or its id. The caller closes it.

    A name longer than the kernel keeps is truncated as in the kernel.

    Raises:
        ProgramError: there is no such map, or several have the name.
        PrivilegeError: as for ``maps_of``.
    """
    return _chosen(_slots_of_maps(link), name, f"link {link.id}", f"{link.id}/")


def map_of_programs(programs: Iterable[int], name: str) -> Map:
    """Open a map as ``map_of`` does, of programs given as descriptors."""
    identifiers = {number for fd in programs for number in syscalls.program_maps(fd)}
    return _chosen(identifiers, name, "the program set", "")


def _slots_of_maps(link: Link) -> dict[int, list[Slot]]:
    """The ids of the maps that a link's programs use -> the slots of these programs."""
    slots: dict[int, list[Slot]] = {}
    for slot, info in sorted(link.programs.items()):
        with suppress(ProgramError), Program.from_id(info.id) as program:  # swapped meanwhile
            for identifier in program.maps():
                slots.setdefault(identifier, []).append(slot)
    return slots


def _chosen(identifiers: Iterable[int], name: str, owner: str, prefix: str) -> Map:
    """The only map with a name or an id; ``owner`` and ``prefix`` are for error messages.

    One is open at a time: a link may have more maps than the process may open.
    """
    known: dict[int, str] = {}
    for identifier in sorted(identifiers):
        with suppress(ProgramError), Map.from_id(identifier) as one:
            known[identifier] = one.name
    found = [number for number in known if str(number) == name]
    found = found or [number for number, own in known.items() if own == shortened(name)]
    if not found:
        listed = ", ".join(f"{own or '-'} ({number})" for number, own in known.items())
        raise ProgramError(f"{owner} has no map {name}", f"there are: {listed}" if listed else "")
    if len(found) > 1:
        ids = ", ".join(map(str, found))
        raise ProgramError(
            f"{owner} has maps {ids} of the name {name}",
            f"take one by its id, as in {prefix}{found[0]}",
        )
    return Map.from_id(found[0])


def shortened(name: str) -> str:
    """A map's name as the kernel keeps it."""
    return os.fsencode(name)[:_NAME_LENGTH].decode(errors="replace")
