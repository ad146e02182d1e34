# SPDX-License-Identifier: GPL-2.0
"""The packets of a recording that options choose, found before their stories are told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from ipttctl.events.filter import EventFilter
from ipttctl.recordings.connections import Connections
from ipttctl.recordings.packet_pattern import PacketPattern
from ipttctl.stories.model import Story
from ipttctl.stories.steps import OF_HOOKS
from ipttproto import EventBatch, JoinedBatches

_OF_PASSAGE: Final = ("netns_cookie", "packet", "length", "pf", "hook", "protocol")
_ENDS: Final = ("sport", "dport", "saddr", "daddr")

_Passage: TypeAlias = bytes
"""What tells passages through hooks apart: with a tunnel's header, a packet has another length."""


@dataclass(slots=True)
class _Entry:
    """A packet as it came to a hook: its ends, and whether nothing tells if it fits."""

    packet: int
    ends: bytes
    in_doubt: bool


class ChosenPackets:
    """The packets that fit a pattern at a hook, and have an event that passes a filter.

    Once a packet fits it is chosen, whatever becomes of its headers, and with it the story that it
    is in. With ``both_ways``, so are the other packets of its connection.
    """

    def __init__(
        self, pattern: PacketPattern | None, events: EventFilter | None, *, both_ways: bool
    ) -> None:
        """Choose by either or both."""
        self._pattern = pattern
        self._filter = events
        self._connections = Connections() if both_ways else None
        self._fitting: set[int] = set()
        self._passing: set[int] = set()
        self._entries: dict[_Passage, _Entry] = {}
        self._chosen: set[int] = set()
        self._uncertain: set[int] = set()
        self.untold = 0
        """Stories that were asked for of which the recording does not tell whether they fit."""

    def learn(self, batches: list[EventBatch]) -> None:
        """Look at events, those of each packet in order."""
        events = JoinedBatches.of(batches)
        if not events:
            return
        packets = events.values("packet")
        if self._pattern is not None:
            self._ask(self._pattern, events, packets)
        if self._filter is not None:
            wanted = self._filter.wanted(events.events).tolist()
            self._passing |= {one for one, passes in zip(packets, wanted, strict=True) if passes}
        if self._connections is not None:
            self._connections.learn(events)

    def finish(self) -> None:
        """Decide: all events were looked at."""
        chosen = self._fitting if self._pattern is not None else self._passing
        uncertain = {entry.packet for entry in self._entries.values() if entry.in_doubt}
        if self._filter is not None:
            chosen = chosen & self._passing
            uncertain &= self._passing
        if self._connections is not None:
            chosen = chosen | self._connections.others(chosen)
        self._chosen, self._uncertain = chosen, uncertain - chosen
        self._entries.clear()

    def wants(self, story: Story) -> bool:
        """Whether the packet of a story is chosen, or a copy or part of it; counts doubts."""
        numbers = set(_numbers(story))
        if not numbers.isdisjoint(self._chosen):
            return True
        self.untold += not numbers.isdisjoint(self._uncertain)
        return False

    def _ask(self, pattern: PacketPattern, events: JoinedBatches, packets: list[int]) -> None:
        kinds, passages = events.values("kind"), events.keys(_OF_PASSAGE)
        ends, may_doubt = events.keys(_ENDS), pattern.filter is not None
        for place, answer in enumerate(pattern.answers(events)):
            packet = packets[place]
            if answer:
                self._fitting.add(packet)
            if not may_doubt or kinds[place] not in OF_HOOKS or packet in self._fitting:
                continue
            entry = self._entries.get(passages[place])
            if entry is None:
                self._entries[passages[place]] = _Entry(packet, ends[place], answer is None)
            # an event of the first function tells more than those of rules before it; what comes
            # behind NAT is not asked about before the next hook
            elif entry.ends == ends[place]:
                entry.in_doubt &= answer is None


def _numbers(story: Story) -> Iterator[int]:
    """The numbers of the packets of a story."""
    # copies of copies may be many
    left = [story]
    while left:
        one = left.pop()
        yield one.number
        left += one.branches
