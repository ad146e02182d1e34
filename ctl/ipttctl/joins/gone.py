# SPDX-License-Identifier: GPL-2.0
"""Departures that do not wait any more, though an arrival could be of one of them.

Without them that arrival could only be of what is left, and be joined with that wrongly.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ipttctl.joins.chains import Sighting, overlap
from ipttctl.joins.clocks import Clocks, Life
from ipttctl.joins.marks import Mark
from ipttctl.joins.places import Place, places_of

_MOST_PLACES: Final = 1 << 15
_MOST_ALIKE: Final = 16
"""Most of a place that are told apart; more are of any arrival there."""


@dataclass(frozen=True, slots=True)
class _Gone:
    life: Life
    mark: Mark
    time: int
    until: int


class GoneDepartures:
    """Remembers departures for a time, by their places."""

    def __init__(self) -> None:
        """Remember none yet."""
        self._places: OrderedDict[Place, list[_Gone]] = OrderedDict()

    def note(self, one: Sighting, now: int, until: int) -> None:
        """Remember a departure until a time (ns)."""
        gone = _Gone(one.told.life, one.mark, one.time, until)
        for place in places_of(one):
            there = self._places.setdefault(place, [])
            self._places.move_to_end(place)
            there[:] = [*there[-_MOST_ALIKE + 1 :], gone]
        while len(self._places) > _MOST_PLACES or self._is_over(now):
            self._places.popitem(last=False)

    def count(self, came: Sighting, now: int, clocks: Clocks) -> int:
        """The number of those that an arrival could be of, about."""
        found: set[_Gone] = set()
        for place in places_of(came):
            there = self._places.get(place, ())
            alike = [one for one in there if one.until >= now]
            if len(alike) < _MOST_ALIKE:
                alike = [one for one in alike if _could_be(one, came, clocks)]
            found.update(alike)
        return len(found)

    def _is_over(self, now: int) -> bool:
        """Whether nobody needs the oldest place any more."""
        oldest = next(iter(self._places.values()), None)
        return oldest is not None and oldest[-1].until < now


def _could_be(gone: _Gone, came: Sighting, clocks: Clocks) -> bool:
    if gone.life[0] == came.told.life[0] or not overlap(gone.mark, came.mark):
        return False
    return clocks.allow(gone.life, came.told.life, gone.time, came.time)
