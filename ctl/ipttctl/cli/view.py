# SPDX-License-Identifier: GPL-2.0
"""The events that a command takes from some links or all, and those that it shows."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from ipttctl.cli.output import EventPrinter, totals
from ipttctl.events.packets import PacketCounter
from ipttctl.events.records import EventRecord, decode_event
from ipttctl.link.limits import LeftOut
from ipttctl.link.losses import Losses
from ipttctl.link.model import CpuStatus
from ipttctl.stories.gaps import Gap, GapFinder, Numbered
from ipttproto import EventBatch, JoinedBatches, Kind

_LEFT_OUT: Final = int(Kind.LEFT_OUT)


class LinkEvents(ABC):
    """A taker of the events of some links, which are told apart from reports of the links."""

    def __init__(self, links: Collection[int] | None) -> None:
        """Take events of ``links``; None means all."""
        self._links = links
        self._gaps = GapFinder()
        self.events = 0
        """Events that were taken."""
        #: packets that a link has left out so far, as it told last
        self.left_out: dict[int, LeftOut] = {}

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether all that is wanted was shown."""

    @property
    def waiting(self) -> int:
        """Number of packets of which more may come."""
        return 0

    @property
    def timeout(self) -> float | None:
        """Seconds without events after which ``idle`` has something to do; None for never."""
        return None

    @property
    def progress(self) -> str | None:
        """The sentence for people who wait for the first output; None once there was some."""
        return None

    def show(self, batches: Iterable[EventBatch]) -> None:
        """Take the wanted events of some batches."""
        read = list(batches)
        for gap in self._gaps.find(read, time.monotonic_ns()):
            self.lose(gap)
        self.suspect(self._gaps.suspected())
        self._show(read)

    def expect(self, cpus: Iterable[Numbered], now: int) -> None:
        """Take in with which numbers the CPUs' events begin, at a time (CLOCK_MONOTONIC, ns)."""
        self._gaps.begin(cpus, now)

    def overrun(self, cpus: Iterable[CpuStatus]) -> None:
        """Take in how far the CPUs' events have come, of which some were missed before."""
        self._gaps.overrun(cpus, time.monotonic_ns())
        self.suspect(self._gaps.suspected())

    def miss(self, cpus: Iterable[CpuStatus]) -> None:
        """Take in how far the CPUs' events have come, of which no more are shown."""
        for gap in self._gaps.finish(cpus, time.monotonic_ns()):
            self.lose(gap)

    def lose(self, gap: Gap) -> None:  # noqa: B027 - most show single events
        """Take in that events were lost."""

    def suspect(self, gaps: Sequence[Gap]) -> None:  # noqa: B027 - most show single events
        """Take in when events may have been lost, which is not known yet, and no other times."""

    def _show(self, batches: Sequence[EventBatch]) -> None:
        events = JoinedBatches.of(batches)
        if self._links is not None:
            wanted = [link in self._links for link in events.values("link")]
            # choosing takes numpy, which is worth 60 ms at the first events
            events = events if all(wanted) else events.select(wanted)
        kinds = events.values("kind")
        begin = 0
        while _LEFT_OUT in kinds[begin:]:
            place = kinds.index(_LEFT_OUT, begin)
            self._take(events.part(begin, place))
            record = decode_event(events, place)
            self.left_out[record.link] = LeftOut.from_record(record)
            self._tell_left_out(record)
            begin = place + 1
        self._take(events.part(begin, len(events)))

    def idle(self) -> None:  # noqa: B027 - most have nothing to do then
        """Do what is to be done while no events come."""

    def end(self) -> None:  # noqa: B027 - most have nothing left
        """Show what is left: no more events come."""

    @abstractmethod
    def totals(
        self, losses: Losses, left_out: LeftOut, *, unfollowed: int, lost_sight: int
    ) -> None:
        """Print the totals at the end, with numbers of packets that are not in the events.

        Links ``left_out`` some, a journey had no room to follow one ``unfollowed`` times, and
        ``lost_sight`` of others.
        """

    @abstractmethod
    def _take(self, events: JoinedBatches) -> None:
        """Take events of packets."""

    @abstractmethod
    def _tell_left_out(self, record: EventRecord) -> None:
        """Report packets that a link leaves out."""


class EventView(LinkEvents):
    """A printer that counts events and their packets."""

    def __init__(
        self, printer: EventPrinter, links: Collection[int] | None, count: int | None
    ) -> None:
        """Show ``count`` events of ``links``; None means no limit, or all links."""
        super().__init__(links)
        self._printer = printer
        self._count = count
        self.packets = PacketCounter()

    @property
    def full(self) -> bool:
        """Whether ``count`` events were shown."""
        return self._count is not None and self.events >= self._count

    def totals(
        self, losses: Losses, left_out: LeftOut, *, unfollowed: int = 0, lost_sight: int = 0
    ) -> None:
        """Print events, packets and losses; those that are followed are told by stories."""
        del unfollowed, lost_sight
        totals(self.events, self.packets.count, losses, left_out)

    def _take(self, events: JoinedBatches) -> None:
        if self._count is not None:
            events = events.first(self._count - self.events)
        if events:
            self.events += len(events)
            self.packets.add(events)
            self._printer.print(events)

    def _tell_left_out(self, record: EventRecord) -> None:
        self._printer.tell_left_out(record)
