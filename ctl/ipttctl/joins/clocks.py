# SPDX-License-Identifier: GPL-2.0
"""The clocks of hosts, compared by packets that went from one to the other.

A packet arrives after it left. So what the clock there showed less what the one here showed is at
least the difference of the clocks, and packets of the other direction bound it from the other side.
Clocks drift, so a bound becomes looser as it becomes older.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

Life: TypeAlias = tuple[str, str]
"""A host and its boot: the same CLOCK_MONOTONIC."""

DRIFT: Final = 1e-3
"""The most by which two clocks drift apart: the kernel slews each by 500 ppm at most."""

LONGEST: Final = 1_000_000_000
"""The longest time (ns) for which a packet is believed to be on its way between two hosts."""

_ENOUGH: Final = 20
_RATHER: Final = 4
_SHORT: Final = 10_000_000.0


@dataclass(slots=True)
class _Bound:
    """An upper bound, as it was at a time."""

    value: float
    time: int

    def at(self, time: int) -> float:
        """The bound at another time."""
        return self.value + abs(time - self.time) * DRIFT


class Clocks:
    """Bounds on the differences of hosts' clocks. All times are in ns."""

    def __init__(self, longest: int = LONGEST) -> None:
        """Believe that packets are on their way for ``longest`` at most."""
        self._longest = longest
        #: upper bounds on the clock of the second less that of the first
        self._over: dict[tuple[Life, Life], _Bound] = {}
        #: bounds on a host's clock less the asker's: from above, and of the negative value
        self._asked: dict[Life, tuple[_Bound, _Bound]] = {}
        #: packets that went from one host to another, and the longest time that one took at least
        self._usual: dict[tuple[Life, Life], tuple[int, float]] = {}
        self.jumps = 0
        """How often clocks were found not to be as they were, as after a host was suspended."""

    def matched(self, left: Life, came: Life, left_at: int, came_at: int) -> None:
        """Learn from a packet that left one host and came to another."""
        new = float(came_at - left_at)
        before = self._over.get((left, came))
        if before is None or new <= before.at(left_at):
            self._over[left, came] = _Bound(new, left_at)
        low, high = self.difference(left, came, left_at)
        count, most = self._usual.get((left, came), (0, 0.0))
        self._usual[left, came] = count + 1, max(most, new - high)
        if low > high:
            self.jumps += 1
            self._over.pop((came, left), None)
            self._asked.pop(left, None)
            self._asked.pop(came, None)
            self._over[left, came] = _Bound(new, left_at)

    def asked(self, host: Life, sent: int, clock: int, received: int) -> None:
        """Learn from an answer: the host's clock was read between two times of the asker's."""
        over, under = float(clock - sent), float(received - clock)
        before = self._asked.get(host)
        if before is not None:
            # the tighter one of each, as far as it still holds
            over = min(over, before[0].at(sent))
            under = min(under, before[1].at(sent))
            if over + under < 0:
                self.jumps += 1
                over, under = float(clock - sent), float(received - clock)
                # packets of before tell nothing of the clock as it is now
                for pair in [pair for pair in self._over if host in pair]:
                    del self._over[pair]
        self._asked[host] = _Bound(over, sent), _Bound(under, sent)

    def on_asker(self, host: Life, clock: int) -> int | None:
        """The latest time of the asker's clock at which a host's showed this; None if unknown."""
        known = self._asked.get(host)
        return None if known is None else clock + int(known[1].value)

    def difference(self, one: Life, other: Life, time: int) -> tuple[float, float]:
        """Bounds on the clock of ``other`` less that of ``one``, when that showed ``time``."""
        low, high = -math.inf, math.inf
        over, under = self._over.get((one, other)), self._over.get((other, one))
        if over:
            looser = over.at(time) - over.value
            high = over.value + looser
            low = over.value - self._longest - looser
        if under:
            # its time is on the other clock; what that differs by matters little to the drift
            there = time + int(over.value if over else -under.value)
            looser = under.at(there) - under.value
            low = max(low, -under.value - looser)
            high = min(high, -under.value + self._longest + looser)
        mine, its = self._asked.get(one), self._asked.get(other)
        if mine and its:
            # on the asker's clock, about
            now = int(time - mine[0].value)
            high = min(high, its[0].at(now) + mine[1].at(now))
            low = max(low, -its[1].at(now) - mine[0].at(now))
        return low, high

    def usual(self, left: Life, came: Life) -> float:
        """A time that packets hardly take from one host to another, as far as is known by now."""
        count, most = self._usual.get((left, came), (0, 0.0))
        return max(_SHORT, _RATHER * most) if count >= _ENOUGH else float(self._longest)

    def wire(self, left: Life, came: Life, left_at: int, came_at: int) -> tuple[float, float]:
        """Bounds on the time that a packet was on its way; below 0 it was not."""
        low, high = self.difference(left, came, left_at)
        passed = came_at - left_at
        return passed - high, passed - low

    def allow(self, left: Life, came: Life, left_at: int, came_at: int) -> bool:
        """Whether a packet that left one host then may be the one that came to another."""
        least, most = self.wire(left, came, left_at, came_at)
        return most >= 0 and least <= self._longest
