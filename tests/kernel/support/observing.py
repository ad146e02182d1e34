# SPDX-License-Identifier: GPL-2.0
"""Observers of events in tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ipttctl.events.records import EventRecord, decode_events
from ipttctl.link.controller import Controller
from ipttctl.link.streams import EventStream
from ipttproto import EventBatch, Kind


@dataclass(frozen=True)
class Step:
    """The parts of an event that can be compared: without times and addresses."""

    table: str
    chain: str
    kind: Kind
    rulenum: int


@dataclass
class Observer:
    """Collects the events of a stream."""

    stream: EventStream
    events: list[Any] = field(default_factory=list)
    cpus: list[int] = field(default_factory=list)
    """The CPU of each event."""

    def collect(
        self, until: Callable[[list[Any]], bool] = lambda _: True, *, seconds: float = 10
    ) -> list[Any]:
        """Read events until the condition holds; AssertionError if it does not in time."""
        end = time.monotonic() + seconds
        self.take()
        while not until(self.events):
            left = end - time.monotonic()
            assert left > 0, f"after {seconds} s only {steps(self.events)}"
            self.take(left)
        return self.events

    def take(self, timeout: float = 0) -> None:
        """Read the events that are there, or come within ``timeout`` seconds."""
        for batch in self.stream.read(timeout):
            self._add(batch)

    def drain(self) -> list[Any]:
        """Read all events emitted until now; ``stream.losses`` is exact afterwards."""
        for batch in self.stream.drain():
            self._add(batch)
        return self.events

    def _add(self, batch: EventBatch) -> None:
        self.events += list(batch.events)
        self.cpus += [batch.cpu] * len(batch.events)

    def complete(self) -> list[Any]:
        """Read all events emitted until now; AssertionError if one was lost."""
        self.drain()
        assert self.stream.losses.events == 0, self.stream.losses
        return self.events


@contextmanager
def observing(controller: Controller) -> Iterator[Observer]:
    """An observer of all events from now on."""
    with controller.events() as stream:
        yield Observer(stream)


@contextmanager
def records_of(
    controller: Controller, wanted: Callable[[EventRecord], bool] = lambda _: True
) -> Iterator[list[EventRecord]]:
    """Collect the wanted events of what happens meanwhile, in the order of their times."""
    seen: list[EventRecord] = []
    with controller.events() as events:
        yield seen
        for batch in events.drain():
            seen += filter(wanted, decode_events(batch))
        assert not events.losses.events, events.losses
    # two CPUs send theirs in any order
    seen.sort(key=lambda event: event.time)


def text(value: Any) -> str:
    """A C string of an event."""
    return bytes(value).decode()


def step(event: Any) -> Step:
    return Step(
        text(event["table"]), text(event["chain"]), Kind(int(event["kind"])), int(event["rulenum"])
    )


def steps(events: list[Any]) -> list[Step]:
    return [step(event) for event in events]


def exits(events: list[Any]) -> list[Any]:
    """The exit events among ``events``."""
    return [event for event in events if event["kind"] == Kind.EXIT]
