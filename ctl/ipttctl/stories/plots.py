# SPDX-License-Identifier: GPL-2.0
"""Events of a packet told as a story; the plot is made once for all packets of the same way."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from ipttctl.stories.copies import ended_in_copies, is_nothing
from ipttctl.stories.ends import end_of
from ipttctl.stories.handed import handed_on
from ipttctl.stories.model import EndKind, Plot, Story
from ipttctl.stories.occurrences import Headers, Named, Occurrence
from ipttctl.stories.steps import Difference, steps_of

_MOST_PLOTS: Final = 1 << 14
"""Most plots that are kept for the next packets."""


_NONE: Final[dict[int, Named]] = {}

_WITH_ADDRESSES: Final = frozenset({0x0800, 0x0806, 0x86DD})
"""Ethertypes of packets whose addresses events tell: IPv4, ARP, IPv6."""


class StoryClosing(enum.Enum):
    """The reason why a story is told."""

    ENDED = ""
    """Its packet has come to an end."""
    QUIET = "nothing was heard of it"
    """No event came for a time."""
    CROWDED = "too many open stories"
    """Another one needed its room."""
    FLUSHED = "the stream ended"
    """There are no further events."""


class Entries:
    """The events of a packet, as lists: so many tuples would cost more than all else."""

    __slots__ = ("connections", "happened", "headers", "named", "times")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.happened: list[Occurrence] = []
        self.headers: list[Headers] = []
        self.connections: list[int] = []
        self.named: dict[int, Named] | None = None
        """The numbers that events name, by their index, if any do."""

    def name(self, named: Named) -> None:
        """Keep the numbers that the next event names."""
        if self.named is None:
            self.named = {}
        self.named[len(self.times)] = named

    def sort(self) -> None:
        """Sort the events by their times; those of the same time stay in order."""
        times = self.times
        if times == sorted(times):
            return
        order = sorted(range(len(times)), key=times.__getitem__)
        self.times = [times[place] for place in order]
        self.happened = [self.happened[place] for place in order]
        self.headers = [self.headers[place] for place in order]
        self.connections = [self.connections[place] for place in order]
        if self.named:
            named = self.named
            self.named = {new: named[old] for new, old in enumerate(order) if old in named}


class Plots:
    """Tells stories, and keeps their plots."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Plot] = {}

    def tell(
        self,
        number: int,
        clock_offset: int,
        entries: Entries,
        *,
        closing: StoryClosing,
        branches: Sequence[Story] = (),
        copy_of: int = 0,
        events_lost: bool = False,
    ) -> Story:
        """The story of a packet from its events, at least one, which are sorted."""
        entries.sort()
        times, happened = tuple(entries.times), tuple(entries.happened)
        headers = tuple(entries.headers)
        differences: tuple[Difference, ...] | None = None
        if headers.count(headers[0]) != len(headers):
            headers, differences = _followed(headers, handed_on(happened))
        begins: tuple[int, ...] = ()
        if branches:
            branches = sorted(branches, key=_began)
            begins = tuple(sum(time <= one.began for time in times) for one in branches)
        plots = tuple(branch.plot for branch in branches)
        key = happened, differences, begins, plots, closing, events_lost
        plot = self._known.get(key)
        if plot is None:
            if len(self._known) >= _MOST_PLOTS:
                self._known.clear()
            plot = self._known[key] = _plot(
                happened, differences, begins, plots, closing, events_lost=events_lost
            )
        return Story(
            number,
            plot,
            times,
            headers,
            clock_offset,
            tuple(branches),
            copy_of,
            entries.named or _NONE,
            tuple(entries.connections) if any(entries.connections) else (),
        )


def _began(story: Story) -> int:
    return story.times[0]


def _plot(
    happened: tuple[Occurrence, ...],
    differences: tuple[Difference, ...] | None,
    begins: tuple[int, ...],
    branches: tuple[Plot, ...],
    closing: StoryClosing,
    *,
    events_lost: bool,
) -> Plot:
    records = [one.record for one in happened]
    nothing = (Difference(0),) * len(records)
    handed = handed_on(happened)
    steps = steps_of(records, differences or nothing, begins, handed)
    end = end_of(
        [(one.record, one.weight) for one in happened],
        handed,
        unfinished=closing.value if closing in {StoryClosing.CROWDED, StoryClosing.FLUSHED} else "",
    )
    if ended_in_copies(end, records, branches, begins):
        end = replace(end, kind=EndKind.CONSUMED)
    if events_lost:
        end = replace(end, events_lost=True)
    cookies = tuple(dict.fromkeys(one.netns_cookie for one in records if one.netns_cookie))
    folded = frozenset(place for place, one in enumerate(branches) if is_nothing(one))
    return Plot(happened, steps, end, branches, cookies, folded, handed)


def _followed(
    told: tuple[Headers, ...], earlier: frozenset[int]
) -> tuple[tuple[Headers, ...], tuple[Difference, ...]]:
    """The headers at each event, those of the one before where it tells none; and differences.

    The events ``earlier`` tell headers that the packet had earlier.
    """
    known = next((one for one in told if not one.blank), told[0])
    headers = []
    for at, one in enumerate(told):
        if one is not known and not one.blank and at not in earlier and not _wraps(one, known):
            known = one
        headers.append(known)
    differences = [Difference(0), *(_difference(*two) for two in pairwise(headers))]
    return tuple(headers), tuple(differences)


def _wraps(one: Headers, known: Headers) -> bool:
    """Whether an event tells only what is in front of a known packet: a tag, PPPoE, MPLS."""
    return not _has_ends(one) and _has_ends(known)


def _has_ends(headers: Headers) -> bool:
    told = any(headers.saddr) or any(headers.daddr)
    return told or headers.ethertype in _WITH_ADDRESSES


def _difference(before: Headers, after: Headers) -> Difference:
    found = Difference(0)
    if before is after:
        return found
    if before.saddr != after.saddr or (
        before.sport != after.sport and before.sport and after.sport
    ):
        found |= Difference.SOURCE
    if before.daddr != after.daddr or (
        before.dport != after.dport and before.dport and after.dport
    ):
        found |= Difference.DESTINATION
    if (before.protocol, before.ethertype) != (after.protocol, after.ethertype):
        found |= Difference.PROTOCOL
    if found and after.length > before.length:
        found |= Difference.LONGER
    if found and after.length < before.length:
        found |= Difference.SHORTER
    return found
