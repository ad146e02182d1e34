# SPDX-License-Identifier: GPL-2.0
"""The record of a declared link, as far as the declaration says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from ipttctl.hooks.hook import HookIdentity
from ipttctl.link.model import Link
from ipttctl.programs.sources import source_text
from ipttctl.state.journal import RecordedLink, program_ids
from ipttctl.state.model import DeclaredLink
from ipttproto import Slot, SwapOutcome

ROLLED_BACK: Final = frozenset(
    {SwapOutcome.ROLLBACK, SwapOutcome.ROLLBACK_REQUEST, SwapOutcome.ROLLBACK_GUARD}
)
"""Outcomes of a swap that was rolled back."""


def recorded(
    declared: DeclaredLink, identity: HookIdentity, digests: Mapping[Slot, str], owner: str
) -> RecordedLink:
    """The record of a declared link; the link itself is not in it."""
    wanted = declared.programs
    return RecordedLink(
        declared.name,
        link=0,
        generation=1,
        place=identity,
        programs={slot.name.lower(): source_text(s) for slot, s in wanted.sources.items()},
        digests={slot.name.lower(): digest for slot, digest in digests.items()},
        filter=wanted.filter,
        maps={name: [list(entry) for entry in m.entries] for name, m in declared.maps.items()},
        constants=wanted.constants,
        keep_maps=declared.keep_maps,
        expected={slot.name.lower(): digest for slot, digest in wanted.digests.items()},
        owner=owner,
    )


def undone(entry: RecordedLink | None, link: Link) -> RecordedLink | None:
    """The record of what apply swapped in last on trial; None if that was not rolled back."""
    if entry is None or entry.link != link.id or link.outcome not in ROLLED_BACK:
        return None
    back = entry.before is not None and entry.before.ids == program_ids(link)
    # nothing else changes the generation: what was there before may not have been recorded
    if back or entry.generation + 1 == link.generation:
        return replace(entry, before=None, undone=None)
    return entry.undone


def was_undone(
    wanted: RecordedLink, ids: Mapping[str, int], entries: Iterable[RecordedLink], link: Link
) -> bool:
    """Whether the programs that are wanted were swapped in last on trial, and rolled back.

    ``ids`` are those of the wanted programs that the record does not identify, by slot.
    """
    return any(
        _programs(tried) == _programs(wanted)
        and all(tried.ids.get(slot) == number for slot, number in ids.items())
        for entry in entries
        if (tried := undone(entry, link)) is not None
    )


def _programs(entry: RecordedLink) -> tuple[object, ...]:
    """The parts of a record that decide which programs a link has, and what these select."""
    sources = {slot: list(source) for slot, source in entry.programs.items()}
    return sources, dict(entry.digests), entry.filter, dict(entry.constants)
