# SPDX-License-Identifier: GPL-2.0
"""How long stories take to come: a host that is starved, or far, tells them late."""

from __future__ import annotations

from typing import Final

_SPAN: Final = 30_000_000_000
"""Time (ns) after which a delay begins to be forgotten; after twice that it is."""


class Delays:
    """The greatest delay of the last time. All times are in ns, of one clock."""

    def __init__(self) -> None:
        """Know of none."""
        self._since = 0
        self._before = 0
        self._newest = 0

    def note(self, delay: int, now: int) -> None:
        """Take note of the delay of a story."""
        self._forget(now)
        self._newest = max(self._newest, delay)

    def greatest(self, now: int) -> int:
        """The greatest one of the last half minute at least, and of the last minute at most."""
        self._forget(now)
        return max(self._before, self._newest)

    def _forget(self, now: int) -> None:
        passed = now - self._since
        if passed >= _SPAN:
            self._before = self._newest if passed < 2 * _SPAN else 0
            self._newest, self._since = 0, now
