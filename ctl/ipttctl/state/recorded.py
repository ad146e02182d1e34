# SPDX-License-Identifier: GPL-2.0
"""The record of a declared link, as far as the declaration says it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ipttctl.hooks.hook import HookIdentity
from ipttctl.link.model import Link
from ipttctl.programs.sources import source_text
from ipttctl.state.journal import RecordedLink, program_ids
from ipttctl.state.model import DeclaredLink
from ipttproto import Slot


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


def was_undone(wanted: RecordedLink, entries: Iterable[RecordedLink], link: Link) -> bool:
    """Whether the programs that are wanted were swapped in last, and rolled back."""
    return any(
        entry.link == link.id
        and entry.before is not None
        and entry.before.ids == program_ids(link)
        and _programs(entry) == _programs(wanted)
        for entry in entries
    )


def _programs(entry: RecordedLink) -> tuple[object, ...]:
    """The parts of a record that decide which programs a link has, and what these select."""
    sources = {slot: list(source) for slot, source in entry.programs.items()}
    return sources, dict(entry.digests), entry.filter, dict(entry.constants)
