# SPDX-License-Identifier: GPL-2.0
"""The packets of a recording that options choose, found before their stories are told."""

from __future__ import annotations

from collections.abc import Iterator

from ipttctl.events.filter import EventFilter
from ipttctl.recordings.connections import Connections
from ipttctl.recordings.doubts import Doubts
from ipttctl.recordings.families import Families
from ipttctl.recordings.packet_pattern import PacketPattern
from ipttctl.stories.model import Story
from ipttproto import EventBatch, JoinedBatches


class ChosenPackets:
    """The packets that fit a pattern at a hook, and those with an event that passes a filter.

    A packet that fits is chosen, whatever becomes of its headers, and with it the story that it is
    in; a copy may fit the one and its original the other. With ``both_ways``, so are the other
    packets of its connection.
    """

    def __init__(
        self, pattern: PacketPattern | None, events: EventFilter | None, *, both_ways: bool
    ) -> None:
        """Choose by either or both."""
        self._pattern = pattern
        self._filter = events
        may_doubt = pattern is not None and pattern.filter is not None
        self._doubts = Doubts(pattern) if pattern is not None and may_doubt else None
        self._connections = Connections() if both_ways else None
        self._families = Families()
        self._fitting: set[int] = set()
        self._passing: set[int] = set()
        self._others: set[int] = set()
        self._uncertain: set[int] = set()

    def learn(self, batches: list[EventBatch]) -> None:
        """Look at events, those of each packet in order."""
        events = JoinedBatches.of(batches)
        if not events:
            return
        packets = events.values("packet")
        if self._pattern is not None:
            answers = self._pattern.answers(events)
            self._fitting |= {one for one, fits in zip(packets, answers, strict=True) if fits}
            if self._doubts is not None:
                self._doubts.learn(events, answers, self._fitting)
        if self._filter is not None:
            wanted = self._filter.wanted(events.events).tolist()
            self._passing |= {one for one, passes in zip(packets, wanted, strict=True) if passes}
        if self._connections is not None:
            self._connections.learn(events)
            self._families.learn(events)

    def finish(self) -> None:
        """Decide: all events were looked at."""
        if self._doubts is not None:
            self._uncertain = self._doubts.packets() - self._fitting
        if self._connections is not None:
            self._others = self._connections.others(self._chosen())

    def fits(self, story: Story) -> bool | None:
        """Whether a story is chosen; None: the recording does not tell."""
        numbers = set(_numbers(story))
        if not numbers.isdisjoint(self._others):
            return True
        if self._filter is not None and numbers.isdisjoint(self._passing):
            return False
        if self._pattern is None or not numbers.isdisjoint(self._fitting):
            return True
        return False if numbers.isdisjoint(self._uncertain) else None

    def _chosen(self) -> set[int]:
        """The packets whose connections are chosen: of stories that fit, those that fit."""
        if self._pattern is None:
            return self._passing
        if self._filter is None:
            return self._fitting
        passing = set(map(self._families.first, self._passing))
        return {one for one in self._fitting if self._families.first(one) in passing}


def _numbers(story: Story) -> Iterator[int]:
    """The numbers of the packets of a story."""
    # copies of copies may be many
    left = [story]
    while left:
        one = left.pop()
        yield one.number
        left += one.branches
