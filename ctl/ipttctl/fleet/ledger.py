# SPDX-License-Identifier: GPL-2.0
"""The messages that the stream holds, and what is lost with those that its bound throws away."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from operator import attrgetter
from time import monotonic
from typing import Final, TypeAlias

from ipttctl.frames.head import EVENTS, STORIES, FrameHead

STREAM: Final = "stream"
"""The cause of losses by the bound of the stream."""

UNKNOWN: Final = "unknown"
"""The cause, and the kind, of messages that were thrown away and of which nobody knows what they
held: here messages are counted, not items."""

Losses: TypeAlias = Counter[tuple[str, str]]
"""Losses that frames have to say: numbers by the kind of the frames and the cause."""

RECENT: Final = 64
"""Numbers that are remembered one by one: messages are not stored in the order of their numbers."""

MOST_NUMBER: Final = 2**53
"""The highest number that is believed, and that all readers of JSON can read."""

_MOST_KNOWN: Final = 1 << 16
"""Most entries of what messages hold; where there are more, an entry is for several messages."""


#: a tenth of the time that comparing whole entries takes
_NUMBER: Final = attrgetter("number")


@dataclass(frozen=True, order=True)
class KeptMessage:
    """A message in the stream, or several of a kind up to one with ``number``.

    The first of them ``expires`` at that time, on the monotonic clock.
    """

    number: int
    kind: str
    items: int
    expires: float


class StreamLedger:
    """Knows how many items are in messages of the stream, and so how many are thrown away.

    A message that goes because of its age has been there as long as was asked for, and is not
    counted.
    """

    def __init__(self, age: float, most: int = _MOST_KNOWN) -> None:
        """Messages expire after ``age`` seconds; ``most`` entries remember what they hold."""
        self.age = age
        self._most = most
        #: a heap: several messages are on their way at once, and may be stored in another order
        self._kept: list[KeptMessage] = []
        self.recent: list[int] = []
        """The highest numbers that were taken note of, in order; smaller ones all were, or never
        will be."""
        self.newest = 0
        """The highest number of a message of ours."""
        self.lost: Counter[str] = Counter()
        """Items that were thrown away, by kind."""
        self.unknown = 0
        """Messages that were thrown away and of which it is not known what they held."""
        self.unsaid: Losses = Counter()
        """Items that were thrown away and that no frame which is stored says."""

    def stored(self, number: int, head: FrameHead, sent: float) -> None:
        """Take note of a message that the stream has under a number.

        It was sent first at ``sent``, on the monotonic clock: the stream has had it since then, or
        for less.
        """
        self.remember(number)
        self.unsaid -= said(head)
        if head.count:
            self.add(KeptMessage(number, head.kind, head.count, sent + self.age))

    def remember(self, number: int) -> None:
        """Take note of a number.

        A smaller one than all that are remembered comes late, of a frame that was sent again; or
        somebody has made it up. By it, those in between would be taken for new ones.
        """
        self.newest = max(self.newest, number)
        if not self.recent or (number > self.recent[0] and number not in self.recent):
            insort(self.recent, number)
            del self.recent[:-RECENT]

    def add(self, entry: KeptMessage) -> None:
        """Take note of messages that may be somebody else's."""
        self.newest = max(self.newest, entry.number)
        heappush(self._kept, entry)
        if len(self._kept) > self._most:
            self._kept = merged(self._kept)

    def take(self, first: int, last: int, newest: int) -> Counter[str]:
        """Take note of the first and last number that the stream has; returns what is newly lost.

        ``newest`` is what it was before the stream was asked. Numbers up to it that the stream has
        not reached are of a stream that is no more, or were not written when the power failed.
        """
        lost: Counter[str] = Counter()
        anew = []
        if newest > last:
            anew = [one for one in self._kept if last < one.number <= newest]
            self._kept = [one for one in self._kept if not last < one.number <= newest]
            heapify(self._kept)
            # frames without items have numbers, too
            there = [number for number in self.recent if not last < number <= newest]
            self.recent = there or [last]
            self.newest = max(self.recent[-1], *(one.number for one in self._kept), 0)
        while self._kept and self._kept[0].number < first:
            anew.append(heappop(self._kept))
        now = monotonic()
        for one in anew:
            if one.expires > now:
                lost[one.kind] += one.items
        self.count(lost)
        return lost

    def count(self, lost: Counter[str]) -> None:
        """Count what is lost, by kind."""
        for kind, number in lost.items():
            if kind == UNKNOWN:
                self.unknown += number
            else:
                self.lost[kind] += number
        self.unsaid += to_say(lost)

    def kept(self) -> list[KeptMessage]:
        """The messages that the stream has, in no order."""
        return self._kept.copy()


def to_say(lost: Counter[str]) -> Losses:
    """Losses that frames have to say, by kind."""
    found: Losses = Counter()
    for kind, number in lost.items():
        if kind == UNKNOWN:
            # whoever reads one kind of frames may have missed them
            for either in (EVENTS, STORIES):
                found[either, UNKNOWN] += number
        else:
            found[kind, STREAM] += number
    return found


def said(head: FrameHead) -> Losses:
    """Losses by the bound of the stream, as a frame says them."""
    return Counter({(head.kind, cause): head.lost.get(cause, 0) for cause in (STREAM, UNKNOWN)})


def condensed(kept: Iterable[KeptMessage], most: int) -> list[KeptMessage]:
    """The messages in order, in so many entries at most."""
    found = sorted(kept, key=_NUMBER)
    while len(found) > most:
        found = merged(found)
    return found


def merged(kept: Iterable[KeptMessage]) -> list[KeptMessage]:
    """Half as many entries, in order: neighbours of a kind, counted when the later one goes.

    By then the earlier one must not have expired: what is counted is never too much.
    """
    found: list[KeptMessage] = []
    open_: dict[str, KeptMessage] = {}
    for one in sorted(kept, key=_NUMBER):
        before = open_.pop(one.kind, None)
        if before is None:
            open_[one.kind] = one
        else:
            expires = min(before.expires, one.expires)
            found.append(replace(one, items=before.items + one.items, expires=expires))
    # in order, it is a heap
    return sorted([*found, *open_.values()], key=_NUMBER)
