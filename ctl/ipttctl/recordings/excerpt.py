# SPDX-License-Identifier: GPL-2.0
"""A part of a recording: without events of some kinds, and until a moment."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ipttctl.recordings.reader import Due, Events, Recording
from ipttctl.stories.gaps import Gap
from ipttproto import EventBatch, Kind
from ipttproto.batches import as_array, joined_wire, select


@dataclass(frozen=True)
class Excerpt:
    """The events of a recording, and the moments at which stories were told.

    Events of the kinds ``without`` are left out, and all that was after ``until``
    (CLOCK_MONOTONIC, ns).
    """

    recording: Recording
    without: Collection[Kind] = ()
    until: int | None = None

    def items(self) -> Iterator[Events | Due | Gap]:
        """All that is in it, in order."""
        whole = not self.without and self.until is None
        for item in self.recording.items():
            match item:
                case Events():
                    yield item if whole else replace(item, batches=self._part(item.batches))
                case Due(moment) if self.until is None or moment <= self.until:
                    yield item
                case Gap():
                    yield item

    def _part(self, batches: list[EventBatch]) -> list[EventBatch]:
        from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

        wire = joined_wire(batches)
        events = as_array(wire)
        wanted = ~np.isin(events["kind"], [int(kind) for kind in self.without])
        if self.until is not None:
            wanted &= events["time"] <= self.until
        return [one for one in select(batches, wanted, wire) if len(one)]


def has_events(recording: Recording, kinds: Collection[Kind]) -> bool:
    """Whether a recording has an event of one of some kinds."""
    wanted = [bytes([kind]) for kind in kinds]
    return any(
        one in batch.events["kind"].tobytes()
        for item in recording.items()
        if isinstance(item, Events)
        for batch in item.batches
        for one in wanted
    )
