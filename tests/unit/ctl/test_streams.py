# SPDX-License-Identifier: GPL-2.0
"""Streams: reading, stopping, closing, asyncio, overruns and what was lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from ipttctl.controller import Controller
from ipttctl.losses import Losses
from ipttctl.objects import Change, LinkChange
from ipttctl.streams import EventStream
from ipttctl.wire import Connection, OverrunError
from ipttproto import Command, DetachReason, Message
from tests.unit.ctl.support import FakeModule, event, events_message, link, notification, status


@pytest.fixture
def controller(module: FakeModule) -> Iterator[Controller]:
    with Controller(module.connect) as controller:
        yield controller


def test_events_arrive_in_batches_and_as_records(
    module: FakeModule, controller: Controller
) -> None:
    with controller.events() as events:
        module.multicast(events_message([event(rulenum=1), event(rulenum=2)], cpu=1, sequence=40))
        [batch] = events.read(5)
        assert (batch.cpu, batch.sequence, len(batch.events)) == (1, 40, 2)
        module.multicast(events_message([event(link=3), event(link=4)], sequence=0))
        record = next(events.records(link=4))
        assert (record.link, record.sequence, record.cpu) == (4, 1, 0)


def test_read_gives_up_after_its_timeout(controller: Controller) -> None:
    with controller.events() as events:
        assert events.read(0.01) == []
        assert not events.wait(timeout=0.01)


def test_stop_from_another_thread_ends_the_iteration(controller: Controller) -> None:
    with controller.events() as events:
        timer = threading.Timer(0.05, events.stop)
        timer.start()
        assert list(events) == []
        assert events.stopped
        timer.join()


def test_stop_from_a_signal_handler_ends_the_iteration(controller: Controller) -> None:
    with controller.events() as events:
        previous = signal.signal(signal.SIGUSR1, lambda *_: events.stop())
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        try:
            timer.start()
            assert list(events) == []
        finally:
            signal.signal(signal.SIGUSR1, previous)
            timer.join()


def test_close_from_another_thread_ends_the_iteration(controller: Controller) -> None:
    events = controller.events()
    timer = threading.Timer(0.05, events.close)
    timer.start()
    assert list(events) == []
    timer.join()
    events.close()
    assert events.fileno() == -1


def test_async_iteration(module: FakeModule, controller: Controller) -> None:
    async def follow() -> list[int]:
        with controller.events() as events:
            asyncio.get_running_loop().call_later(0.1, events.stop)
            module.multicast(events_message([event(rulenum=7)]))
            asyncio.get_running_loop().call_later(
                0.03, module.multicast, events_message([event(rulenum=8)], sequence=1)
            )
            return [record.rulenum async for record in events.async_records()]

    assert asyncio.run(follow()) == [7, 8]


def test_events_from_before_the_subscription_are_cut_off(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status([10])]
    with Controller(module.connect) as controller, controller.events() as events:
        module.multicast(events_message([event()] * 4, sequence=2))
        module.multicast(events_message([event(rulenum=n) for n in range(8, 13)], sequence=8))
        [batch] = events.read(5)
        assert batch.sequence == 10
        assert batch.events["rulenum"].tolist() == [10, 11, 12]


def test_drain_takes_what_waits_and_counts_the_rest_as_lost(module: FakeModule) -> None:
    with Controller(module.connect) as controller, controller.events() as events:
        module.multicast(events_message([event()] * 3, sequence=0))
        module.multicast(events_message([event()] * 2, sequence=5, lost=(2, 0, 0)))
        module.handlers[Command.STATS] = lambda *_: [status([9], [(2, 1, 4)])]
        events.stop()
        assert events.read() == []
        assert sum(len(batch.events) for batch in events.drain(settle=0.05)) == 5
        assert events.losses == Losses(observer=1, ring=2, memory=1, nested=4)


def test_drain_does_not_wait_when_nothing_is_missing(module: FakeModule) -> None:
    with Controller(module.connect) as controller, controller.events() as events:
        module.multicast(events_message([event()] * 3, sequence=0))
        module.handlers[Command.STATS] = lambda *_: [status([3])]
        begin = time.monotonic()
        assert len(list(events.drain(settle=60))) == 1
        assert time.monotonic() - begin < 30


def test_drain_waits_for_what_is_on_its_way(module: FakeModule) -> None:
    with Controller(module.connect) as controller, controller.events() as events:
        module.handlers[Command.STATS] = lambda *_: [status([3])]
        late = threading.Timer(0.1, module.multicast, [events_message([event()] * 3, sequence=0)])
        late.start()
        assert len(list(events.drain(settle=60))) == 1
        assert events.losses == Losses()
        late.join()


def test_overrun_is_counted_and_reading_goes_on(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Connection.receive
    failures = iter([True])

    def overrun_once(connection: Connection) -> list[Message]:
        if next(failures, False):
            raise OverrunError
        return receive(connection)

    with controller.events() as events:
        monkeypatch.setattr(Connection, "receive", overrun_once)
        module.multicast(events_message([event()], sequence=4))
        assert len(events.read(5)) == 1
        assert events.overruns == 1
        assert events.losses == Losses(observer=4)


def test_link_changes(module: FakeModule, controller: Controller) -> None:
    with controller.link_changes() as changes:
        module.multicast(notification(Command.LINK_SWAPPED, link(generation=5)))
        module.multicast(notification(Command.LINK_DETACHED, link(reason=2)))
        found: list[LinkChange] = []
        while len(found) < 2:
            found += changes.read(5)
        assert [change.change for change in found] == [Change.SWAPPED, Change.DETACHED]
        assert found[0].link.generation == 5
        assert [change.reason for change in found] == [None, DetachReason.OWNER]


def test_stream_is_closed_if_the_module_does_not_answer(module: FakeModule) -> None:
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths
    connection = module.connect()

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        EventStream(connection, fail)  # type: ignore[arg-type]  # only raises
    connection.close()
    module.close()
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208 - numbers, not paths
