# SPDX-License-Identifier: GPL-2.0
"""Times in which events were lost: stories of packets that were on their way then may lack some."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ipttproto import EventBatch

_MOST: Final = 1 << 10
"""Most gaps that are remembered."""


class Gap(NamedTuple):
    """A time (CLOCK_MONOTONIC, ns) in which events of a CPU were lost."""

    since: int
    until: int


class GapFinder:
    """Finds gaps in the batches of a stream: each CPU numbers its events, lost ones included.

    Of batches of chosen events it says nothing, nor of recorded ones, which know of no losses.
    """

    def __init__(self) -> None:
        #: by CPU: the number of the next event, and the time of the last
        self._ends: dict[int, tuple[int, int]] = {}

    def find(self, batches: Iterable[EventBatch]) -> Iterator[Gap]:
        """The gaps before batches, and between them."""
        for batch in batches:
            if batch.places is not None or not batch.lost or not len(batch):
                continue
            begin = batch.time(0)
            number, time = self._ends.get(batch.cpu, (batch.sequence, begin))
            if batch.sequence > number:
                yield Gap(time, begin)
            end = batch.sequence + len(batch)
            if end >= number:
                self._ends[batch.cpu] = end, batch.time(len(batch) - 1)


class Gaps:
    """The gaps of late."""

    def __init__(self) -> None:
        self._gaps: deque[Gap] = deque()

    def __bool__(self) -> bool:
        return bool(self._gaps)

    def add(self, gap: Gap) -> None:
        """Remember a gap; two of the oldest become one if there are too many."""
        self._gaps.append(gap)
        if len(self._gaps) > _MOST:
            one, other = self._gaps.popleft(), self._gaps.popleft()
            both = Gap(min(one.since, other.since), max(one.until, other.until))
            self._gaps.appendleft(both)

    def forget(self, before: int) -> None:
        """Forget those that had ended before a time."""
        while self._gaps and self._gaps[0].until < before:
            self._gaps.popleft()

    def within(self, began: int, ended: int) -> bool:
        """Whether there was one between two times."""
        return any(one.since <= ended and one.until >= began for one in self._gaps)
