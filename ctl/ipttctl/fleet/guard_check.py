# SPDX-License-Identifier: GPL-2.0
"""Guards of a roll-out, checked by whoever rolls out: also for links that no swap made.

The module checks them by itself for the links that it swaps. Here they are checked by what hosts
tell, so by differences between two looks; a link that was attached has them too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Final

from ipttctl.link.condition import Condition
from ipttproto import Comparison, Counter

_COMPARE: Final[Mapping[int, Callable[[int, int], bool]]] = {
    Comparison.BELOW: operator.lt,
    Comparison.AT_MOST: operator.le,
    Comparison.ABOVE: operator.gt,
    Comparison.AT_LEAST: operator.ge,
}
_UPPER: Final = frozenset({Comparison.BELOW, Comparison.AT_MOST})
_PACKETS: Final = "packets"


def violated(
    guard: Condition, before: Mapping[str, int], now: Mapping[str, int], elapsed: float
) -> str:
    """Words for how a guard does not hold between two looks; empty if it does, or is not due.

    ``elapsed`` are the seconds between them. A guard is due when the packets are as many as it
    wants at least, and, unless it is a bound from above, when its time has passed.
    """
    counter = Counter(guard.counter).name.lower()
    count = _difference(counter, before, now)
    packets = _difference(_PACKETS, before, now)
    time = max(1, int(elapsed * 1000))
    if packets < guard.minimum and counter != _PACKETS:
        return ""
    if guard.comparison not in _UPPER and time < (guard.window or guard.per_time):
        return ""
    if _holds(guard, count, packets, time):
        return ""
    return f"{guard}: {count} in {packets} packets, {elapsed:.1f}s"


def _holds(guard: Condition, count: int, packets: int, time: int) -> bool:
    compare = _COMPARE[guard.comparison]
    if guard.per_packets:
        return compare(count * guard.per_packets, guard.threshold * packets)
    if guard.per_time:
        # a moment that is shorter than the window is measured as the window
        return compare(count * guard.per_time, guard.threshold * max(time, guard.window))
    return compare(count, guard.threshold)


def _difference(name: str, before: Mapping[str, int], now: Mapping[str, int]) -> int:
    return max(0, now.get(name, 0) - before.get(name, 0))
