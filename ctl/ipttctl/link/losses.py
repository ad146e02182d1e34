# SPDX-License-Identifier: GPL-2.0
"""Exact counts of the events that an observer did not see.

Each CPU numbers its events, lost ones included, and counts its own losses by cause. Numbers that
are missing beyond those were dropped at this observer's socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ipttctl.link.model import CpuStatus
from ipttproto import EventBatch, Loss

_IN_MODULE: Final = (Loss.RING, Loss.MEMORY)


@dataclass(frozen=True)
class Losses:
    """Losses since the observer began, by cause.

    Lost events: ``observer`` at its own socket; ``ring`` because a CPU's ring was full; ``memory``
    because there was no memory for a message. ``nested`` counts program runs that were left out;
    their events cannot be counted.
    """

    observer: int = 0
    ring: int = 0
    memory: int = 0
    nested: int = 0

    @property
    def events(self) -> int:
        """Number of events that were emitted and not seen."""
        return self.observer + self.ring + self.memory


class _Stream:
    """One CPU's stream: its beginning, its progress, and the events seen."""

    def __init__(self, start: CpuStatus) -> None:
        self.start = start
        self.next = start.sequence
        self.seen = 0
        self.lost: Mapping[Loss, int] = start.lost

    def since_start(self, cause: Loss) -> int:
        return max(0, self.lost[cause] - self.start.lost[cause])

    @property
    def gap(self) -> int:
        return self.next - self.start.sequence - self.seen

    @property
    def in_module(self) -> int:
        return sum(self.since_start(cause) for cause in _IN_MODULE)


class LossCounter:
    """A counter that turns the batches of a stream into totals of its losses.

    Begin with the module's status after subscribing, ``add`` each batch, and ``finish`` with a
    status after which no more events come. Then the totals are exact. Before that, losses in the
    module after the last batch are not yet distinguished from losses at the socket.
    """

    def __init__(self, cpus: Iterable[CpuStatus] = ()) -> None:
        self._streams = {cpu.cpu: _Stream(cpu) for cpu in cpus}

    def add(self, batch: EventBatch) -> int:
        """Count a batch; returns how many of its first events precede the stream's beginning."""
        stream = self._streams.get(batch.cpu)
        if stream is None:
            start = CpuStatus(batch.cpu, batch.sequence, batch.lost)
            stream = self._streams[batch.cpu] = _Stream(start)
        early = min(len(batch), max(0, stream.start.sequence - batch.sequence))
        stream.seen += len(batch) - early
        if batch.sequence + len(batch) >= stream.next:
            stream.next = batch.sequence + len(batch)
            stream.lost = batch.lost
        return early

    def finish(self, cpus: Iterable[CpuStatus]) -> None:
        """Update the totals with a status of the module."""
        for cpu in cpus:
            stream = self._streams.get(cpu.cpu)
            if stream is None:
                stream = self._streams[cpu.cpu] = _Stream(_nothing(cpu.cpu))
            if cpu.sequence >= stream.next:
                stream.next = cpu.sequence
                stream.lost = cpu.lost

    def awaits(self, cpus: Iterable[CpuStatus]) -> bool:
        """Whether events before a status may still come: neither seen nor lost in the module.

        A CPU's events come in order: after a later event no earlier one comes.
        """
        for cpu in cpus:
            stream = self._streams.get(cpu.cpu) or _Stream(_nothing(cpu.cpu))
            lost = sum(cpu.lost[cause] - stream.start.lost[cause] for cause in _IN_MODULE)
            missing = cpu.sequence - stream.start.sequence - stream.seen - lost
            if cpu.sequence > stream.next and missing > 0:
                return True
        return False

    def totals(self) -> Losses:
        """The losses so far."""
        streams = self._streams.values()
        return Losses(
            observer=sum(max(0, s.gap - s.in_module) for s in streams),
            ring=sum(s.since_start(Loss.RING) for s in streams),
            memory=sum(s.since_start(Loss.MEMORY) for s in streams),
            nested=sum(s.since_start(Loss.NESTED) for s in streams),
        )


def _nothing(cpu: int) -> CpuStatus:
    """The status of a CPU that has emitted nothing."""
    return CpuStatus(cpu, 0, dict.fromkeys(Loss, 0))
