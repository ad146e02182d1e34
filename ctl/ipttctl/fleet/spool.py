# SPDX-License-Identifier: GPL-2.0
"""Frames between the thread that reads events and the task that publishes them, within a bound."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ipttctl.frames.head import FrameHead
from ipttctl.frames.writer import FrameNumbers

SPOOL: Final = "spool"
"""The cause of losses by this bound."""

_OVERHEAD: Final = 1024
"""Bytes that a frame takes beside its body."""


@dataclass(frozen=True)
class Waiting:
    """A frame that waits. ``trace`` is the id of the trace that its stories are of."""

    head: FrameHead
    body: bytes
    trace: str = ""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + _OVERHEAD


class Spool:
    """A queue of frames that is never longer than some bytes.

    ``put`` never waits: where there is no room, the oldest frame goes. The next frame of its kind
    says how many items that were, and what was lost before them.
    """

    def __init__(self, numbers: FrameNumbers, most: int) -> None:
        """Number frames by ``numbers``, and keep ``most`` bytes."""
        self._numbers = numbers
        self._most = most
        self._lock = threading.Lock()
        self._frames: deque[Waiting] = deque()
        self._wake: Callable[[], None] = lambda: None
        self.bytes = 0
        """Bytes of frames that wait."""
        self.lost: Counter[str] = Counter()
        """Items that this bound threw away, by kind."""

    def __len__(self) -> int:
        return len(self._frames)

    def on_put(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called after each ``put``, by the thread that puts."""
        self._wake = wake

    def put(
        self, kind: str, count: int, form: Mapping[str, int], body: bytes, trace: str = ""
    ) -> None:
        """Put the next frame of a kind behind the others."""
        with self._lock:
            frame = Waiting(self._numbers.head(kind, count, form), body, trace)
            self._frames.append(frame)
            self.bytes += frame.size
            while self.bytes > self._most:
                self._throw_away()
        self._wake()

    def lose(self, kind: str, causes: Mapping[str, int]) -> None:
        """Count items that were lost before the next frame of a kind."""
        with self._lock:
            for cause, number in causes.items():
                self._numbers.lose(kind, cause, number)

    def unsaid(self, kind: str) -> bool:
        """Whether something was lost behind the last frame of a kind."""
        with self._lock:
            return self._numbers.unsaid(kind)

    def take(self) -> Waiting | None:
        """The oldest frame, which its taker then has; None if there is none."""
        with self._lock:
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self.bytes -= frame.size
            return frame

    def _throw_away(self) -> None:
        """Let the oldest frame go. The caller holds the lock."""
        gone = self._frames.popleft()
        self.bytes -= gone.size
        head = gone.head
        self.lost[head.kind] += head.count
        for place, frame in enumerate(self._frames):
            if frame.head.kind == head.kind:
                lost = _sum(head.lost, {SPOOL: head.count}, frame.head.lost)
                self._frames[place] = replace(frame, head=replace(frame.head, lost=lost))
                return
        self._numbers.throw_away(head, SPOOL)


def _sum(*losses: Mapping[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in losses:
        total.update(one)
    return dict(total)
