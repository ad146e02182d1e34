# SPDX-License-Identifier: GPL-2.0
"""The events that a command shows: of one link or all, up to a count."""

from __future__ import annotations

from collections.abc import Collection

from ipttctl.cli.output import EventPrinter
from ipttctl.events.packets import PacketCounter
from ipttctl.events.records import decode_events
from ipttproto import EventBatch


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

    @property
    def full(self) -> bool:
        """Whether ``count`` events were shown."""
        return self._count is not None and self.events >= self._count

    def show(self, batch: EventBatch) -> None:
        """Print the wanted events of a batch."""
        if self.full:
            return
        records = decode_events(batch, self._links)
        if self._count is not None:
            records = records[: self._count - self.events]
        if not records:
            return
        self.events += len(records)
        for record in records:
            self.packets.add(record)
        self._printer.print(records)
