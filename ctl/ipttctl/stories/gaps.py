# SPDX-License-Identifier: GPL-2.0
"""Times in which events were lost: stories of packets that were on their way then may lack some."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from ipttproto import EventBatch, Loss

_MOST: Final = 1 << 10
"""Most gaps that are remembered."""


class Gap(NamedTuple):
    """A time (CLOCK_MONOTONIC, ns) in which events of a CPU were lost."""

    since: int
    until: int

    def touches(self, began: int, ended: int) -> bool:
        """Whether some of it is between two times."""
        return self.since <= ended and self.until >= began


class Numbered(Protocol):
    """How far a CPU's events have come: ``ipttctl.link.model.CpuStatus``."""

    @property
    def cpu(self) -> int: ...  # noqa: D102  # as there
    @property
    def sequence(self) -> int: ...  # noqa: D102  # as there
    @property
    def lost(self) -> Mapping[Loss, int]: ...  # noqa: D102  # as there


class _Progress(NamedTuple):
    """A CPU's events so far: the number of the next, and the time of the last.

    ``lost`` have been lost in the module, ``behind`` of them after the last event.
    """

    number: int
    time: int
    lost: int
    behind: int = 0


class GapFinder:
    """Finds gaps in the batches of a stream: each CPU numbers its events, lost ones included.

    Of batches of chosen events it says nothing, nor of recorded ones, which know of no losses.
    """

    def __init__(self) -> None:
        self._cpus: dict[int, _Progress] = {}
        #: the numbers at which CPUs were when some events had been missed, and when that was
        self._awaited: dict[int, tuple[int, int]] = {}

    def begin(self, cpus: Iterable[Numbered], now: int) -> None:
        """Take in how far the CPUs were at the stream's beginning, at a time."""
        for cpu in cpus:
            self._cpus[cpu.cpu] = _Progress(cpu.sequence, now, _in_module(cpu.lost))

    def find(self, batches: Iterable[EventBatch], now: int) -> Iterator[Gap]:
        """The gaps before batches that were read at a time, between them, and behind the last.

        A CPU tells in a batch how many events it has lost behind it, if it had then.
        """
        for batch in batches:
            if batch.places is not None or not batch.lost or not len(batch):
                continue
            began, lost = batch.time(0), _in_module(batch.lost)
            before = self._cpus.get(batch.cpu, _Progress(batch.sequence, began, lost))
            missing = max(0, batch.sequence - before.number)
            if missing:
                yield Gap(before.time, began)
            end = batch.sequence + len(batch)
            if end < before.number:
                continue
            behind = max(0, lost - before.lost - max(0, missing - before.behind))
            ended = batch.time(len(batch) - 1)
            if behind:
                yield Gap(ended, max(now, ended))
            self._cpus[batch.cpu] = _Progress(end, ended, lost, behind)

    def overrun(self, cpus: Iterable[Numbered], now: int) -> None:
        """Take in how far the CPUs were at a time until which the observer missed some events.

        Only the next batch of a CPU tells whether they were its own, and that may be long to come.
        """
        self._awaited = {cpu.cpu: (cpu.sequence, now) for cpu in cpus}

    def suspected(self) -> list[Gap]:
        """The gaps that there may be, of CPUs of whose events some have not been read."""
        self._awaited = {
            cpu: (number, now)
            for cpu, (number, now) in self._awaited.items()
            if cpu in self._cpus and self._cpus[cpu].number < number
        }
        return [Gap(self._cpus[cpu].time, now) for cpu, (_, now) in self._awaited.items()]

    def finish(self, cpus: Iterable[Numbered], now: int) -> Iterator[Gap]:
        """The gaps behind the last batches, of a stream that has ended at a time."""
        for cpu in cpus:
            last = self._cpus.get(cpu.cpu)
            if last is not None and cpu.sequence > last.number:
                yield Gap(last.time, now)


def _in_module(lost: Mapping[Loss, int]) -> int:
    return lost[Loss.RING] + lost[Loss.MEMORY]


class Gaps:
    """The gaps of a stream, the latest of them one by one."""

    def __init__(self) -> None:
        #: each with the latest end of all until then
        self._gaps: deque[tuple[Gap, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._gaps)

    def add(self, gap: Gap) -> None:
        """Remember a gap; two of the oldest become one if there are too many."""
        latest = self._gaps[-1][1] if self._gaps else gap.until
        self._gaps.append((gap, max(latest, gap.until)))
        if len(self._gaps) > _MOST:
            (one, _), (other, latest) = self._gaps.popleft(), self._gaps.popleft()
            both = Gap(min(one.since, other.since), max(one.until, other.until))
            self._gaps.appendleft((both, latest))

    def within(self, began: int, ended: int) -> bool:
        """Whether there was one between two times, of which most are of late."""
        for gap, latest in reversed(self._gaps):
            if latest < began:
                return False
            if gap.touches(began, ended):
                return True
        return False
