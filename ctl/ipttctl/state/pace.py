# SPDX-License-Identifier: GPL-2.0
"""The pace of mending: at once on a quiet host, slower and slower while somebody undoes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

FIRST: Final = 0.5
"""Seconds before the third attempt, if the second came soon after the first."""

LONGEST: Final = 60.0
"""Most seconds between two attempts."""

_QUIET: Final = 10.0


class Pace:
    """The time between attempts. Each that comes soon after the last one doubles it.

    So of two controllers that undo each other's work each makes about ten swaps in the first two
    minutes, and one a minute from then on.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a wait; ``clock`` is in seconds."""
        self._clock = clock
        self._last: float | None = None
        self._delay = 0.0

    @property
    def left(self) -> float:
        """Seconds until the next attempt may be made."""
        if self._last is None:
            return 0.0
        return max(0.0, self._last + self._delay - self._clock())

    def attempted(self) -> None:
        """Note an attempt, whatever came of it."""
        now = self._clock()
        soon = self._last is not None and now - self._last < 2 * self._delay + _QUIET
        self._delay = min(max(FIRST, 2 * self._delay), LONGEST) if soon else 0.0
        self._last = now
