# SPDX-License-Identifier: GPL-2.0
"""Parts of a program set that a swap keeps, taken from the set that it replaces."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace

from ipttctl.bpf import syscalls
from ipttctl.errors import ExpectationError, ProgramError, UsageError
from ipttctl.link.model import Link, Part, ProgramSet


def keep_parts(
    link: Link, programs: ProgramSet, parts: Collection[Part], opened: ExitStack
) -> ProgramSet:
    """The program set, with some parts as the link has them now; ``opened`` closes descriptors.

    ``link`` is requested alone, so that it comes with its filter. The payload is kept as the map
    that the new programs share with the old ones, or as their own map of the same name.

    Raises:
        UsageError: a part to keep is given too.
        ProgramError: the new programs have no map for the payload.
        PrivilegeError: the caller may not open maps by id (CAP_SYS_ADMIN).
    """
    for part in parts:
        if getattr(programs, part) is not None:
            raise UsageError(f"the {part} is to be kept, and another one is given", "give one")
    if Part.FILTER in parts:
        programs = replace(programs, filter=link.filter)
    if Part.COOKIE in parts:
        programs = replace(programs, cookie=link.cookie or None)
    if Part.LIMITS in parts:
        programs = replace(programs, limits=link.limits)
    if Part.PAYLOAD in parts and link.payload_map:
        fd = _payload(link, programs.programs.values())
        opened.callback(os.close, fd)
        programs = replace(programs, payload=fd)
    return programs


def unchanged_generation(link: Link, expected: int | None) -> int:
    """The generation to expect of a link, parts of which have been read.

    Raises:
        ExpectationError: another one was expected.
    """
    if expected not in {None, link.generation}:
        raise ExpectationError(
            f"swapping link {link.id}",
            errno.ESTALE,
            f"the link has generation {link.generation}, not {expected}",
        )
    return link.generation


def _payload(link: Link, programs: Iterable[int]) -> int:
    """A descriptor of the map of new programs that takes the place of the payload map."""
    used = sorted({number for fd in programs for number in syscalls.program_maps(fd)})
    if link.payload_map in used:
        return syscalls.map_by_id(link.payload_map)
    name = _name(link.payload_map)
    same = [number for number in used if name and _name(number) == name]
    if len(same) != 1:
        many = "several maps" if same else "no map"
        raise ProgramError(
            f"the payload of link {link.id} cannot be kept: the new programs have {many} of the "
            f"name {name or '-'}",
            "give the payload",
        )
    return syscalls.map_by_id(same[0])


def _name(identifier: int) -> str:
    """A map's name; empty if it has gone."""
    with suppress(ProgramError):
        fd = syscalls.map_by_id(identifier)
        try:
            return syscalls.map_info(fd).name
        finally:
            os.close(fd)
    return ""
