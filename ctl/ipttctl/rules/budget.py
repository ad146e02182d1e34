# SPDX-License-Identifier: GPL-2.0
"""A bounded share of time for each namespace, whose owner may change its rules without pause."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.25
"""The share of the time that work for one namespace may take."""

BURST = 3.0
"""Seconds of work that may be done at once."""


class Budget:
    """Time that is spent, and earned again as it passes."""

    def __init__(
        self,
        share: float = SHARE,
        burst: float = BURST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing spent."""
        self._share = share
        self._burst = burst
        self._clock = clock
        self._debt = 0.0
        self._at = clock()

    @property
    def wait(self) -> float:
        """Seconds until work may go on; 0 if it may now."""
        self._earn()
        return max(0.0, (self._debt - self._burst) / self._share)

    def spend(self, seconds: float) -> None:
        """Count time that work took."""
        self._earn()
        self._debt += seconds

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the processor's time that this thread takes in the block."""
        begin = time.thread_time()
        try:
            yield
        finally:
            self.spend(time.thread_time() - begin)

    def _earn(self) -> None:
        now = self._clock()
        self._debt = max(0.0, self._debt - (now - self._at) * self._share)
        self._at = now
