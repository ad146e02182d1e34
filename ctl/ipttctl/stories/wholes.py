# SPDX-License-Identifier: GPL-2.0
"""Fragments, and the packets that they are put together to."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ipttctl.stories.occurrences import Named, Weight
from ipttctl.stories.plots import Entries

_MOST: Final = 1 << 16
"""Most wholes that are remembered, for fragments whose stories are told later."""


class Wholes:
    """Packets by the numbers under which the module has fragments wait for their whole.

    Such a number is of one whole only. It is no number of a packet: none is there until the last
    fragment has come.
    """

    def __init__(self) -> None:
        self._packets: OrderedDict[int, int] = OrderedDict()

    def learn(self, awaited: int, packet: int) -> None:
        """Note the number of the packet that fragments have waited for."""
        self._packets[awaited] = packet
        if len(self._packets) > _MOST:
            self._packets.popitem(last=False)

    def name_in(self, entries: Entries) -> None:
        """Have events of a fragment name the packet that it became a part of, or 0."""
        named = entries.named or {}
        for place, happened in enumerate(entries.happened):
            if happened.weight in {Weight.WAITS, Weight.WHOLE} and place in named:
                named[place] = Named(self._packets.get(named[place].number, 0), 0)
