# SPDX-License-Identifier: GPL-2.0
"""A memory of the frames that a reader has had, so that none is taken twice."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import Final

from ipttctl.frames.head import FrameHead

MOST_STREAMS: Final = 4096
"""Most runs and kinds that are remembered, unless it is said."""

_MOST_GAPS: Final = 1024


class _Stream:
    """The numbers of one run and kind that have come."""

    __slots__ = ("ended", "first", "gaps", "next")

    def __init__(self) -> None:
        self.next = 0
        #: [first, end) of numbers before ``next`` that have not come, in order
        self.gaps: list[tuple[int, int]] = []
        #: the first number that has come or was expected; those before it are the beginning
        self.first: int | None = None
        #: number of the last frame without items
        self.ended = -1

    def take(self, begin: int, end: int) -> bool:
        """Note that numbers have come; returns whether they are new."""
        if begin >= self.next:
            self.expect(begin)
            self.next = end
            return True
        place = bisect_right(self.gaps, (begin, self.next)) - 1
        if place < 0:
            return False
        first, last = self.gaps[place]
        if begin >= last:
            return False
        self._wait_from(begin)
        # what is expected may end within a frame
        self.next = max(self.next, end)
        left = [(first, begin), (min(end, last), last)]
        self.gaps[place : place + 1] = [(one, other) for one, other in left if one < other]
        del self.gaps[:-_MOST_GAPS]
        return True

    def expect(self, number: int) -> None:
        """Note that there are all numbers before one, whether they have come or not."""
        self._wait_from(number)
        if number > self.next:
            first = self.next
            # nothing has come since that one: a frame may begin in it and end behind it
            if self.gaps and self.gaps[-1][1] == first:
                first = self.gaps.pop()[0]
            self.gaps.append((first, number))
            # what comes late of the oldest gap then passes for known
            del self.gaps[:-_MOST_GAPS]
            self.next = number

    def _wait_from(self, number: int) -> None:
        self.first = number if self.first is None else min(self.first, number)


class Seen:
    """Tells frames that come for the first time from those that come again.

    For each run and kind it keeps the number that is expected next and the ranges that are missing,
    at most 1024 of these; and as many runs and kinds as there is room for, those that were heard of
    last.
    """

    def __init__(self, most: int = MOST_STREAMS) -> None:
        """Remember ``most`` runs and kinds."""
        self._most = most
        self._streams: OrderedDict[tuple[str, str, str, str], _Stream] = OrderedDict()
        self.again = 0
        """Frames that came again."""
        self.forgotten = 0
        """Runs and kinds that are not remembered any more."""

    def first(self, head: FrameHead) -> bool:
        """Whether a frame comes for the first time; it is known from now on."""
        stream = self._stream(head.host, head.boot, head.run, head.kind)
        if head.count:
            new = stream.take(head.sequence, head.sequence + head.count)
        else:
            new = head.sequence > stream.ended
            stream.ended = max(stream.ended, head.sequence)
        self.again += not new
        return new

    def expect(self, host: str, boot: str, run: str, kind: str, number: int) -> None:
        """Note that a run has made all items of a kind before ``number``.

        Those that nobody has expected or had before are its beginning, which may have been missed.
        """
        self._stream(host, boot, run, kind).expect(number)

    def missing(self, *, beginnings: bool = True) -> int:
        """Numbers of items, of all that is remembered, that are expected, or before one that came.

        Without ``beginnings`` those before the first one that came, or from which on they are
        expected, do not count.
        """
        return sum(
            max(0, end - (begin if beginnings else max(begin, stream.first or 0)))
            for stream in self._streams.values()
            for begin, end in stream.gaps
        )

    def _stream(self, host: str, boot: str, run: str, kind: str) -> _Stream:
        """The numbers of a run and kind, which is the one that was heard of last from now on."""
        key = host, boot, run, kind
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream()
            if len(self._streams) > self._most:
                self._streams.popitem(last=False)
                self.forgotten += 1
        else:
            self._streams.move_to_end(key)
        return stream
