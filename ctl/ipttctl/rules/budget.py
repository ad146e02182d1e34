# SPDX-License-Identifier: GPL-2.0
"""A bounded share of time for each namespace, whose owner may change its rules without pause."""

from __future__ import annotations

import time
from collections import OrderedDict
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
    def left(self) -> float:
        """Seconds that may be spent at once; any thread may ask."""
        debt = self._debt - (self._clock() - self._at) * self._share
        return max(0.0, self._burst - max(0.0, debt))

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


PATIENCE_SHARE = 0.25
"""The share of the time that a reader may wait for one namespace."""

PATIENCE_BURST = 20.0
"""Seconds that it may wait for one after the other."""

_MOST_NAMESPACES = 4096


class Patience:
    """The time that a reader may still wait for each namespace.

    The owner of one can see to it that its rules take for ever: others' are not to wait for them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with patience for all."""
        self._clock = clock
        self._budgets: OrderedDict[int, Budget] = OrderedDict()

    def left(self, cookie: int) -> float:
        """Seconds that it may wait for the namespace with a cookie."""
        known = self._budgets.get(cookie)
        return PATIENCE_BURST if known is None else known.left

    def spend(self, cookie: int, seconds: float) -> None:
        """Count time that it waited."""
        known = self._budgets.pop(cookie, None)
        if known is None:
            known = Budget(PATIENCE_SHARE, PATIENCE_BURST, self._clock)
        known.spend(seconds)
        self._budgets[cookie] = known
        if len(self._budgets) > _MOST_NAMESPACES:
            self._budgets.popitem(last=False)
