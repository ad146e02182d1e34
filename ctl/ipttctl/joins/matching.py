# SPDX-License-Identifier: GPL-2.0
"""The matching of departures with arrivals that are alike: all that is certain, and no more."""

from __future__ import annotations

from ipttctl.joins.chains import Sighting, overlap
from ipttctl.joins.clocks import Clocks


class Matching:
    """The departures that the arrivals of a cluster come from."""

    def __init__(self, cluster: list[Sighting], clocks: Clocks, doubtful: set[Sighting]) -> None:
        """Take sightings; ``doubtful`` are arrivals that may be of others, which do not wait."""
        self._clocks = clocks
        self._doubtful = doubtful
        self._left = [one for one in cluster if one.leaves]
        self._came = [one for one in cluster if not one.leaves]
        #: sightings are compared by identity
        self.found: dict[Sighting, list[Sighting]] = {}
        """The departures of arrivals that are known."""
        self.possible: dict[Sighting, list[Sighting]] = {}
        """Those that are possible, and not known to be another's."""
        self._taken: dict[Sighting, list[Sighting]] = {
            one: list(one.partners) for one in self._left
        }
        self._rooted: set[Sighting] = set()

    def run(self) -> None:
        """Find all that there is to be found."""
        for came in self._came:
            fitting = [left for left in self._left if self._fits(left, came)]
            self.possible[came] = _of_same_id(came, fitting)
        again = True
        while again:
            again = False
            for came in self._came:
                if came in self.found:
                    continue
                left = self.possible[came] = [
                    one for one in self.possible[came] if self._has_left(one, came)
                ]
                if left and self._is_certain(came, left):
                    self.found[came] = left
                    for one in left:
                        self._taken[one].append(came)
                    again = True

    def _fits(self, left: Sighting, came: Sighting) -> bool:
        if left.told.life[0] == came.told.life[0] or not overlap(left.mark, came.mark):
            return False
        return self._clocks.allow(left.told.life, came.told.life, left.time, came.time)

    def _wire(self, left: Sighting, came: Sighting) -> tuple[float, float]:
        return self._clocks.wire(left.told.life, came.told.life, left.time, came.time)

    def _has_left(self, left: Sighting, came: Sighting) -> bool:
        """Whether a departure, or a part of it, is not known to be another arrival's."""
        others = sum(self._excludes(other, came) for other in self._taken[left])
        return others < left.copies

    @staticmethod
    def _excludes(other: Sighting, came: Sighting) -> bool:
        """Whether of two arrivals one departure is of one alone."""
        if came.mark.is_multicast and other.told.life[0] != came.told.life[0]:
            return False
        return overlap(other.mark, came.mark)

    def _is_certain(self, came: Sighting, left: list[Sighting]) -> bool:
        """Whether an arrival is of some departures, which are all that it can be of."""
        if came in self._doubtful or any(one.rivals for one in left):
            return False
        if len({one.told.life for one in left}) > 1 or not _disjoint(left):
            return False
        rivals = [
            other
            for other in self._came
            if other is not came
            and other not in self.found
            and self._excludes(other, came)
            and any(one in left for one in self.possible[other] if self._has_left(one, other))
            and all(one in left for one in self.possible[other] if self._has_left(one, other))
        ]
        if rivals and len(rivals) >= min(one.copies for one in left):
            return False
        return all(self._is_plausible(one, came) for one in left) and all(
            self._may_precede(one, came) for one in left
        )

    def _is_plausible(self, left: Sighting, came: Sighting) -> bool:
        """Whether it is hardly an unseen repetition that came, where that would look the same."""
        if not left.mark.is_weak:
            return True
        if left.mark.fits_id(came.mark) is False:
            return False
        least, _ = self._wire(left, came)
        return least <= self._clocks.usual(left.told.life, came.told.life)

    def _may_precede(self, left: Sighting, came: Sighting) -> bool:
        """Whether a departure is before an arrival for certain.

        A host that passes a packet on as it came may be behind the other one as well as before it.
        """
        if self._is_rooted(left):
            return True
        least, _ = self._wire(left, came)
        return least >= 0

    def _is_rooted(self, first: Sighting) -> bool:
        """Whether a packet has got what the mark tells on this host, or one that is before it."""
        before: dict[Sighting, list[Sighting]] = {}
        queue = [first]
        for left in queue:
            if left in before or left in self._rooted:
                continue
            known = self._before(left)
            if known is None:
                return False
            before[left] = known
            queue += known
        # a circle, which no packet has gone, has no beginning
        again = True
        while again:
            rooted = [one for one, known in before.items() if self._rooted.issuperset(known)]
            again = bool(rooted)
            self._rooted.update(rooted)
            for one in rooted:
                del before[one]
        return first in self._rooted

    def _before(self, left: Sighting) -> list[Sighting] | None:
        """The departures that a departure is from, if that is so for certain; none begin here."""
        told = left.told
        if told.began_here:
            return []
        came = [one for one in told.sightings if not one.leaves]
        if not came:
            return None
        same = [one for one in came if one.key == left.key and overlap(one.mark, left.mark)]
        known = [one.partners or self.found.get(one, []) for one in same]
        return [one for some in known for one in some] if all(known) else None


def _of_same_id(came: Sighting, fitting: list[Sighting]) -> list[Sighting]:
    """Departures without those that differ in IPv4's id from one that does not.

    It tells repetitions of TCP apart, where timestamps do not. Of several that were merged, the
    first one's is seen.
    """
    number, mark = came.mark.id, came.mark
    if not number or not mark.is_tcp or mark.family != 4:
        return fitting
    same = [one for one in fitting if one.mark.id == number and one.mark.sequence == mark.sequence]
    return [
        one
        for one in fitting
        if one in same or not any(overlap(one.mark, other.mark) for other in same)
    ]


def _disjoint(sightings: list[Sighting]) -> bool:
    ordered = sorted(sightings, key=lambda one: one.mark.sequence)
    if len(ordered) > 1 and not ordered[0].mark.has_data:
        return False
    pairs = zip(ordered, [*ordered[1:], ordered[0]], strict=True)
    return not any(one is not other and overlap(one.mark, other.mark) for one, other in pairs)
