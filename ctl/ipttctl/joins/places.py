# SPDX-License-Identifier: GPL-2.0
"""Places of sightings in an index: those that can be of the same packet have one in common."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final, TypeAlias

from ipttctl.joins.chains import Sighting

Place: TypeAlias = tuple[tuple[object, ...], int]
"""The key of a mark, and the number of a bucket of its bytes."""

_BUCKET: Final = 12
"""Bits of the number of a byte of TCP that places do not tell apart."""

_BUCKETS: Final = 1 << 32 - _BUCKET
_NUMBERS: Final = 1 << 32

_Entry: TypeAlias = tuple[int, int, int, Sighting]
"""The first byte, what tells equal ones apart, the byte behind the last one, and what has them."""


def places_of(sighting: Sighting) -> list[Place]:
    """The places of a sighting: one, or one for each bucket of its bytes."""
    if not sighting.mark.has_data:
        return [(sighting.key, 0)]
    begin, end = sighting.mark.span
    buckets = range(begin >> _BUCKET, (max(begin, end - 1) >> _BUCKET) + 1)
    return [(sighting.key, bucket % _BUCKETS) for bucket in buckets]


class SightingIndex:
    """Sightings by their places.

    At each place those of about the same number of bytes are in the order of these. So who looks
    for those that overlap with some bytes passes over few others, however many are there.
    """

    def __init__(self) -> None:
        """Begin with none."""
        #: by place, and by the bits of the number of bytes
        self._places: dict[Place, dict[int, list[_Entry]]] = {}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._places)

    def add(self, one: Sighting) -> int:
        """Add a sighting; returns the number of its places."""
        places = places_of(one)
        for place in places:
            entry = _entry(one, place)
            there = self._places.setdefault(place, {})
            insort(there.setdefault(_size(entry), []), entry)
        return len(places)

    def remove(self, one: Sighting) -> None:
        """Remove a sighting that was added."""
        for place in places_of(one):
            entry, there = _entry(one, place), self._places[place]
            alike = there[_size(entry)]
            del alike[bisect_left(alike, entry)]
            if not alike:
                del there[_size(entry)]
            if not there:
                del self._places[place]

    def at(self, place: Place) -> list[Sighting]:
        """All that are at a place."""
        return [one for alike in self._places.get(place, {}).values() for _, _, _, one in alike]

    def overlapping(self, one: Sighting, place: Place) -> tuple[list[Sighting], int]:
        """Those at one of its places with bytes of a sighting, and how many were passed over."""
        begin, _, end, _ = _entry(one, place)
        found: list[Sighting] = []
        passed = 0
        for size, alike in self._places.get(place, {}).items():
            # none of them has more bytes than that
            first = bisect_left(alike, (begin - (1 << size) + 2,))
            near = alike[first : bisect_left(alike, (end,))]
            hit = [other for _, _, behind, other in near if behind > begin]
            found += hit
            passed += len(near) - len(hit)
        return found, passed


def _entry(one: Sighting, place: Place) -> _Entry:
    """A sighting as one of its places has it; its bytes are counted from those of the place."""
    if not one.mark.has_data:
        return 0, id(one), 1, one
    ahead = one.mark.sequence - (place[1] << _BUCKET)
    begin = (ahead + _NUMBERS // 2) % _NUMBERS - _NUMBERS // 2
    return begin, id(one), begin + one.mark.payload, one


def _size(entry: _Entry) -> int:
    return (entry[2] - entry[0]).bit_length()
