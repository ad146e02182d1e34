# SPDX-License-Identifier: GPL-2.0
"""Observers that appear, read, stall until they overrun, continue, and disappear."""

from __future__ import annotations

import random
import signal
import traceback

from ipttctl.errors import IpttctlError
from ipttctl.link.controller import Controller
from ipttctl.link.streams import EventStream
from ipttctl.link.wire import Connection
from ipttproto import EventBatch, Group
from tests.storm.actor import Actor, Child
from tests.storm.journal import FAILED
from tests.storm.shared import Phase

#: with the least, two batches overrun it, however slow the machine
_BUFFERS = (1 << 12, 1 << 15, 1 << 18, 1 << 22)


def observe(controller: Controller, buffer: int) -> EventStream:
    """Subscribe to all events with a receive buffer of ``buffer`` bytes."""
    connection = Connection.open()
    try:
        connection.join(Group.EVENTS, buffer)
        return EventStream(connection, controller.status)
    except BaseException:
        connection.close()
        raise


class Order:
    """Checks the order of a stream's events: none comes twice, or late."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}

    def check(self, batch: EventBatch) -> None:
        """Check a batch; AssertionError if it is out of its CPU's order."""
        expected = self._next.get(batch.cpu, 0)
        assert batch.sequence >= expected, (
            f"CPU {batch.cpu} sends event {batch.sequence} behind event {expected - 1}"
        )
        self._next[batch.cpu] = batch.sequence + len(batch.events)


class ObserverActor(Actor):
    """Starts one observer after the other; half of them are killed."""

    _number = 0

    def act(self) -> None:
        """Run one observer."""
        if self.shared.phase is not Phase.ROUND:
            self.pause(0.02, 0.2)
            return
        self._number += 1
        killed, seconds = self.random.random() < 0.5, self.random.uniform(0.2, 4)
        name = f"{self.name}/observer-{self._number}"
        observer = Child(self._observe, name, seconds)
        if killed:
            self.pause(0.1, seconds)
            observer.kill()
            if observer.process.exitcode == -signal.SIGKILL:
                self.journal.write("observer-killed", name)
        else:
            observer.wait()
        self.pause(0, 0.3)

    def _observe(self, name: str, seconds: float) -> None:
        decide = random.Random(f"{self.seed}/{name}")
        journal = self.journal.of(name)
        phase, reloads = self.shared.phase, self.shared.reloads
        try:
            with Controller() as controller:
                stream = observe(controller, decide.choice(_BUFFERS))
                journal.write("observer-comes")
                with stream:
                    self._read(stream, decide, seconds)
                if stream.overruns:
                    journal.write("overrun", f"{stream.overruns} times, {stream.losses}")
                journal.write("observer-goes")
        except Exception as error:
            after = self.shared.phase, self.shared.reloads
            if not isinstance(error, IpttctlError) or after == (phase, reloads):
                journal.write(FAILED, traceback.format_exc())

    def _read(self, stream: EventStream, decide: random.Random, seconds: float) -> None:
        order = Order()
        while seconds > 0 and self.shared.phase is Phase.ROUND:
            reads, stalls = decide.uniform(0.05, 0.5), decide.choice((0, 0.1, 1))
            for batch in stream.read(reads):
                order.check(batch)
            # a slow reader: the pause is the point
            self.pause(stalls, stalls)
            seconds -= reads + stalls
