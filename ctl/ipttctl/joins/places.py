# SPDX-License-Identifier: GPL-2.0
"""Places of sightings in an index: those that can be of the same packet have one in common."""

from __future__ import annotations

from typing import Final, TypeAlias

from ipttctl.joins.chains import Sighting

Place: TypeAlias = tuple[object, ...]

_BUCKET: Final = 12
"""Bits of the number of a byte of TCP that places do not tell apart."""


def places_of(sighting: Sighting) -> list[Place]:
    """The places of a sighting: one, or one for each bucket of its bytes."""
    if not sighting.mark.has_data:
        return [(sighting.key, 0)]
    begin, end = sighting.mark.span
    buckets = range(begin >> _BUCKET, (max(begin, end - 1) >> _BUCKET) + 1)
    return [(sighting.key, bucket & 0xFFFF) for bucket in buckets]
