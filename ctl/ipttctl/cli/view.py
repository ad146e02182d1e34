# SPDX-License-Identifier: GPL-2.0
"""The events that a command shows: of one link or all, up to a count."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from ipttctl.cli.output import EventPrinter
from ipttctl.events.packets import PacketCounter
from ipttctl.events.records import EventRecord, decode_event
from ipttctl.link.limits import LeftOut
from ipttproto import EventBatch, JoinedBatches, Kind

_LEFT_OUT: Final = int(Kind.LEFT_OUT)


class EventView:
    """A printer that counts events and their packets."""

    def __init__(
        self, printer: EventPrinter, links: Collection[int] | None, count: int | None
    ) -> None:
        """Show ``count`` events of ``links``; None means no limit, or all links."""
        self._printer = printer
        self._links = links
        self._count = count
        self.events = 0
        self.packets = PacketCounter()
        #: packets that a link has left out so far, as it told last
        self.left_out: dict[int, LeftOut] = {}

    @property
    def full(self) -> bool:
        """Whether ``count`` events were shown."""
        return self._count is not None and self.events >= self._count

    def show(self, batches: Iterable[EventBatch]) -> None:
        """Print the wanted events of some batches."""
        events = JoinedBatches.of(batches)
        if self._links is not None:
            events = events.select([link in self._links for link in events.values("link")])
        kinds = events.values("kind")
        begin = 0
        while _LEFT_OUT in kinds[begin:]:
            place = kinds.index(_LEFT_OUT, begin)
            self._show(events.part(begin, place))
            self._tell_left_out(decode_event(events, place))
            begin = place + 1
        self._show(events.part(begin, len(events)))

    def _tell_left_out(self, record: EventRecord) -> None:
        self.left_out[record.link] = LeftOut.from_record(record)
        self._printer.tell_left_out(record)

    def _show(self, events: JoinedBatches) -> None:
        if self._count is not None:
            events = events.first(self._count - self.events)
        if events:
            self.events += len(events)
            self.packets.add(events)
            self._printer.print(events)
