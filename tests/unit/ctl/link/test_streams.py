# SPDX-License-Identifier: GPL-2.0
"""Streams: reading, stopping, closing, asyncio, overruns and losses."""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest

from ipttctl.errors import KernelError, ModuleError, OverrunError
from ipttctl.link.controller import Controller
from ipttctl.link.losses import Losses
from ipttctl.link.model import Change, LinkChange
from ipttctl.link.streams import EventStream
from ipttctl.link.wire import Connection
from ipttproto import Command, DetachReason, EventBatch, Message
from tests.unit.ctl.support import (
    FakeModule,
    event,
    events_message,
    in_traffic,
    link,
    notification,
    status,
)


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


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_next_reader_gets_what_a_left_iteration_has_not_come_to(
    asynchronous: bool, module: FakeModule, controller: Controller
) -> None:
    async def first(stream: EventStream) -> int:
        async for batch in stream:
            return batch.sequence
        return -1

    with controller.events() as events:
        for number in range(3):
            module.multicast(events_message([event()], sequence=number))
        # it has read all three by then
        seen = asyncio.run(first(events)) if asynchronous else next(iter(events)).sequence
        assert seen == 0
        assert events.wait(timeout=0)
        assert [batch.sequence for batch in events.read(0)] == [1, 2]
        assert not events.wait(timeout=0)


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


@contextmanager
def taken(numbers: Iterable[int]) -> Iterator[None]:
    """Open another file with these numbers, and check that nobody uses it."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(8))
        file.flush()
        file.seek(0)
        for number in numbers:
            os.dup2(file.fileno(), number)
        try:
            yield
            assert os.fstat(file.fileno()).st_size == 8
            assert file.tell() == 0
            for number in numbers:
                assert os.fstat(number).st_ino == os.fstat(file.fileno()).st_ino
        finally:
            for number in numbers:
                os.close(number)


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - numbers, not paths


def test_a_closed_stream_touches_no_descriptor(controller: Controller) -> None:
    before = open_descriptors()
    events = controller.events()
    # including the module's end of its socket
    ours = open_descriptors() - before
    events.close()
    gone = ours - open_descriptors()
    assert len(gone) >= 3
    with taken(gone):
        events.stop()
        events.close()
        events.stop()
        assert events.wait()
        assert events.read() == []
        assert list(events) == []
        assert list(events.drain()) == []
        assert events.fileno() == -1
    events.close()


def test_a_closed_controller_touches_no_descriptor(module: FakeModule) -> None:
    before = open_descriptors()
    controller = Controller(module.connect)
    ours = open_descriptors() - before
    controller.close()
    with taken(ours - open_descriptors()):
        controller.close()
        with pytest.raises(KernelError, match="asking for statistics: the connection is closed"):
            controller.status()
        with pytest.raises(KernelError, match="the connection is closed"):
            controller.links()


def test_close_in_a_signal_handler_while_messages_are_taken(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = Connection.receive
    events = controller.events()

    def interrupted(connection: Connection) -> list[Message]:
        signal.raise_signal(signal.SIGUSR1)
        return receive(connection)

    previous = signal.signal(signal.SIGUSR1, lambda *_: events.close())
    try:
        monkeypatch.setattr(Connection, "receive", interrupted)
        module.multicast(events_message([event()]))
        assert list(events) == []
        assert events.fileno() == -1
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_only_one_thread_at_a_time_takes_messages(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses are counted by one thread at a time."""
    decode = EventStream._decode
    inside = threading.Event()
    met: list[int] = []
    second = threading.Event()

    def count(stream: EventStream, message: Message) -> EventBatch | None:
        met.append(threading.get_ident())
        inside.set()
        second.wait(0.3)
        return decode(stream, message)

    monkeypatch.setattr(EventStream, "_decode", count)
    with controller.events() as events:
        module.multicast(events_message([event()], sequence=0))
        first = threading.Thread(target=events.read, args=(5,))
        first.start()
        assert inside.wait(5)
        module.multicast(events_message([event()], sequence=1))
        other = threading.Thread(target=events.read, args=(5,))
        other.start()
        other.join(0.1)
        assert set(met) == {first.ident}
        second.set()
        first.join()
        events.stop()
        other.join()


def test_async_close_inside_the_loop_ends_it(module: FakeModule, controller: Controller) -> None:
    async def follow() -> list[int]:
        events = controller.events()
        asyncio.get_running_loop().call_later(0.05, events.close)
        seen = [batch.sequence async for batch in events]
        # and a stream that its own consumer closes
        events = controller.events()
        module.multicast(events_message([event()], sequence=4))
        async for batch in events:
            seen.append(batch.sequence)
            events.close()
        assert [batch async for batch in events] == []
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 30)) == [4]


def test_async_iterations_do_not_take_each_others_place(
    module: FakeModule, controller: Controller
) -> None:
    async def follow() -> list[int]:
        seen: list[int] = []

        async def one() -> None:
            seen.extend([batch.sequence async for batch in events])

        with controller.events() as events:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(one())
                await asyncio.sleep(0.05)
                second = group.create_task(one())
                await asyncio.sleep(0.05)
                second.cancel()
                await asyncio.sleep(0.05)
                module.multicast(events_message([event()], sequence=4))
                await asyncio.sleep(0.05)
                events.stop()
                await first
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 30)) == [4]


def test_async_reader_rests_while_its_consumer_does_something_else(
    module: FakeModule, controller: Controller
) -> None:
    class Selector(selectors.DefaultSelector):
        """Counts the iterations of the loop."""

        rounds = 0

        def select(self, timeout: float | None = None) -> Any:
            self.rounds += 1
            return super().select(timeout)

    selector = Selector()

    async def follow() -> int:
        with controller.events() as events:
            module.multicast(events_message([event()], sequence=0))
            async for _ in events:
                module.multicast(events_message([event()], sequence=1))
                before = selector.rounds
                await asyncio.sleep(0.2)
                return selector.rounds - before
        return 0

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert 0 < runner.run(follow()) < 10


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


def test_drain_does_not_chase_live_traffic(module: FakeModule) -> None:
    with Controller(module.connect) as controller, controller.events() as events:
        statuses = in_traffic(module)
        events.stop()
        batches = list(islice(events.drain(), 1000))
        assert batches[0].sequence == 0
        assert next(statuses) < 10
        assert events.losses == Losses()


def test_drain_ends_at_its_limit_and_counts_what_is_unread(module: FakeModule) -> None:
    with Controller(module.connect) as controller, controller.events() as events:
        module.multicast(events_message([event()] * 3, sequence=0))
        module.handlers[Command.STATS] = lambda *_: [status([9])]
        begin = time.monotonic()
        assert len(list(events.drain(settle=60, limit=0.1))) == 1
        assert 0.1 <= time.monotonic() - begin < 30
        assert events.losses == Losses(observer=6)


def test_drain_ends_at_once_when_stopped_again(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [status([0])]
    with Controller(module.connect) as controller:
        for stops in (0, 1):
            with controller.events() as events:
                module.handlers[Command.STATS] = lambda *_: [status([9])]
                for _ in range(stops):
                    events.stop()
                timer = threading.Timer(0.1, events.stop)
                timer.start()
                begin = time.monotonic()
                assert list(events.drain(settle=60, limit=60)) == []
                assert 0.09 <= time.monotonic() - begin < 30
                timer.join()
                assert events.losses == Losses(observer=9)
            module.handlers[Command.STATS] = lambda *_: [status([0])]


def test_drain_of_a_stream_that_was_stopped_twice_reads_nothing(module: FakeModule) -> None:
    with Controller(module.connect) as controller, controller.events() as events:
        module.multicast(events_message([event()] * 3, sequence=0))
        module.handlers[Command.STATS] = lambda *_: [status([3])]
        events.stop()
        events.stop()
        assert list(events.drain()) == []
        assert events.losses == Losses(observer=3)


def test_a_stream_says_that_the_module_was_unloaded(
    module: FakeModule, controller: Controller
) -> None:
    with controller.events() as events, controller.link_changes() as changes:
        module.multicast(events_message([event()]))
        module.multicast(notification(Command.LINK_DETACHED, link()))
        module.reload(0)
        assert len(events.read(5)) == 1
        assert len(changes.read(5)) == 1
        for stream in (events, changes):
            for _ in range(2):
                with pytest.raises(ModuleError, match="was unloaded"):
                    stream.read()
            assert stream.wait(timeout=0)
            with pytest.raises(ModuleError, match="was unloaded"):
                next(iter(stream))

        async def first() -> object:
            return await anext(aiter(changes))

        with pytest.raises(ModuleError, match="was unloaded"):
            asyncio.run(first())


def test_what_is_there_is_read_without_waiting(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To wait costs about as much as to read a batch."""
    with controller.events() as events:
        module.multicast(events_message([event()]))
        assert events.wait(timeout=5)
        with monkeypatch.context() as patch:
            patch.setattr(EventStream, "wait", None)
            assert len(events.read(5)) == 1
            assert events.read(0) == []
        assert events.read(0.01) == []


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


def test_what_is_missing_is_told_once_for_each_overrun(
    module: FakeModule, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while messages of before are unread."""
    drops = [0]
    monkeypatch.setattr(Connection, "_count_drops", lambda _: drops[0])
    with controller.events() as events:
        for _ in range(100):
            module.multicast(events_message([event()]))
        assert len(events.read(5)) > 0
        assert events.missing() == ()
        for number in (7, 9):
            drops[0] += 3
            module.handlers[Command.STATS] = lambda *_, n=number: [status((n,))]
            module.multicast(events_message([event()]))
            assert len(events.read(5)) > 0
            assert [cpu.sequence for cpu in events.missing()] == [number]
            assert events.missing() == ()
        assert events.overruns == 2


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
