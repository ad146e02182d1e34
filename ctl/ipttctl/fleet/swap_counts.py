# SPDX-License-Identifier: GPL-2.0
"""Numbers of swaps that others had made here, by what became of them.

The module rolls swaps back by itself. So those that wait are looked at until it is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ipttctl.errors import IpttctlError
from ipttctl.fleet.host import KEPT, ROLLED_BACK, AgentHost, FleetLink
from ipttproto import ProtocolError

UNKNOWN: Final = "unknown"
"""The end of a swap whose link went, or was swapped several times between two looks."""

FAILURES: Final = (IpttctlError, ProtocolError, OSError)
"""The errors of a look: the module is not there, perhaps."""


class SwapCounts:
    """Counts swaps, each once. All methods are for the host's own thread."""

    def __init__(self, host: AgentHost) -> None:
        """Look at the links of ``host``."""
        self._host = host
        self._waiting: dict[int, int] = {}
        """The generations that swaps which wait have made, by their links."""
        self.done: Counter[str] = Counter()
        """Swaps by what became of them."""

    @property
    def waiting(self) -> bool:
        """Whether a look may tell something. For any thread."""
        return bool(self._waiting)

    def took(self, steps: Iterable[Mapping[str, Any]]) -> None:
        """Take note of steps that were taken, which are as ``apply`` prints them."""
        actions = {
            one["link"]: one["action"]
            for one in steps
            if one["action"] in ("attach", "swap") and one.get("link") is not None
        }
        if not actions and not self._waiting:
            return
        try:
            self._look(actions)
        except FAILURES:
            # the steps were taken all the same
            self.done[UNKNOWN] += sum(action == "swap" for action in actions.values())

    def look(self) -> None:
        """Count swaps that do not wait any more.

        Raises:
            IpttctlError: the links cannot be looked at.
        """
        self._look({})

    def _look(self, actions: Mapping[int, str]) -> None:
        links = {one.link: one for one in self._host.swapped({*self._waiting, *actions})}
        for number, generation in list(self._waiting.items()):
            now = links.get(number)
            if now is None or not now.waits or now.generation != generation:
                del self._waiting[number]
                self.done[_end(now, generation)] += 1
        for number, action in actions.items():
            now = links.get(number)
            if now is not None and now.waits:
                self._waiting[number] = now.generation
            # a new filter passes every packet at first, and is swapped in
            elif action == "swap" or (now is not None and now.end in ROLLED_BACK):
                self.done[(now and now.end) or UNKNOWN] += 1


def _end(link: FleetLink | None, generation: int) -> str:
    """The outcome of the swap that made a generation of a link."""
    if link is not None and link.generation == generation + 1:
        # it is the roll-back; or else the next swap, which is refused while one waits
        return link.end if link.end in ROLLED_BACK else KEPT
    if link is not None and link.generation == generation:
        return link.end or UNKNOWN
    return UNKNOWN
