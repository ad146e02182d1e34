# SPDX-License-Identifier: GPL-2.0
"""The module's multicast messages, as streams that can be iterated, awaited and stopped."""

from __future__ import annotations

import select
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Final, Generic, TypeVar

from ipttctl.bpf.descriptors import ClosedError, Closing, Wakeup
from ipttctl.errors import OverrunError
from ipttctl.events.filter import EventFilter
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.link.losses import LossCounter, Losses
from ipttctl.link.model import CpuStatus, LinkChange, ModuleStatus
from ipttctl.link.wire import Connection, wait_readable
from ipttctl.system.netns import Identity
from ipttproto import Command, EventBatch, Message, parse_batch

T = TypeVar("T")

SETTLE: Final = 1.0
"""Seconds of silence after which missing events count as lost; the module sends after 0.01 s."""

DRAIN_LIMIT: Final = 10.0
"""Seconds after which reading the remaining messages is given up."""

_READ_AT_ONCE: Final = 64


class Stream(Closing, Generic[T]):
    """A stream of a group's messages. Iterating waits for them, and ends after ``stop``.

    Iterating raises ModuleError, as ``read`` does, once the module is unloaded.

    ``stop`` and ``close`` may be called from signal handlers, other threads and within an
    iteration. Several threads and tasks may read: each message goes to one of them. Those that an
    iteration has not come to when it is left go to the next reader.
    """

    def __init__(self, connection: Connection) -> None:
        """Take ownership of ``connection``, which has joined the group."""
        self._connection = connection
        self._stop = Wakeup()
        self._stop_again = Wakeup()
        # a signal handler may look at ``losses``
        self._taking = threading.RLock()
        self._left: deque[T] = deque()
        """Read by an iteration, which has not come to them yet."""
        self.overruns = 0
        """How often it was found that the kernel had dropped messages: this was not read."""

    @abstractmethod
    def _decode(self, message: Message) -> T | None:
        """Decode a message; None skips it."""

    def read(self, timeout: float | None = None) -> list[T]:
        """Wait for messages, at most ``timeout`` seconds; returns none then, or once stopped.

        Raises:
            ModuleError: the module was unloaded; nothing comes any more.
            ProtocolError: a message violates the protocol.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while not self.stopped:
            # waiting costs as much as reading
            if items := self._take():
                return items
            left = None if end is None else end - time.monotonic()
            if (left is not None and left <= 0) or not self.wait(timeout=left):
                break
        return []

    def wait(self, *others: int, timeout: float | None = None) -> bool:
        """Wait until the stream has messages or is stopped, or one of ``others`` is readable.

        Returns False if ``timeout`` seconds pass first.
        """
        if not self._connection.gone and not self._left:
            with suppress(ClosedError), self._descriptors(self._stop) as own:
                return bool(wait_readable([*own, *others], timeout))
        return True

    async def async_wait(self) -> None:
        """Wait until the stream has messages or is stopped, for asyncio."""
        if self._connection.gone or self._left:
            return
        with ExitStack() as stack:
            try:
                own = stack.enter_context(self._descriptors(self._stop))
            except ClosedError:
                return
            # one for each wait: a loop allows one reader for a descriptor
            ready = stack.enter_context(select.epoll())
            for descriptor in own:
                ready.register(descriptor, select.EPOLLIN)
            await _readable(ready.fileno())

    def stop(self) -> None:
        """End the iteration after the messages already read; the stream stays open.

        A second call also ends ``drain``, where there is one.
        """
        if self._stop.happened:
            self._stop_again.set()
        self._stop.set()

    def _give_up(self) -> None:
        """End the iteration, and ``drain`` where there is one."""
        self.stop()
        self.stop()

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop.happened

    def fileno(self) -> int:
        """The descriptor that is readable when ``read`` has something; -1 once closed."""
        return self._connection.fileno()

    def close(self) -> None:
        """Stop and unsubscribe. Closing more than once does no harm.

        While somebody waits for messages, the descriptors stay open.
        """
        self._give_up()
        self._connection.close()
        self._stop.close()
        self._stop_again.close()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._next()
            if item is not None:
                yield item
            elif self.stopped:
                return
            else:
                self.wait()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            item = self._next()
            if item is not None:
                yield item
            elif self.stopped:
                return
            else:
                await self.async_wait()

    def _next(self) -> T | None:
        """The next message for an iteration; None if none is there, or the stream is stopped."""
        with self._taking:
            if not self._left and not self.stopped:
                self._left.extend(self._receive())
            return self._left.popleft() if self._left else None

    @contextmanager
    def _descriptors(self, ending: Wakeup) -> Iterator[tuple[int, int]]:
        """The descriptors of messages and of ``ending``, kept open within the block.

        Raises:
            ClosedError: the descriptors are closed.
        """
        with self._connection.held() as messages, ending.descriptor as end:
            yield messages, end

    def _take(self) -> list[T]:
        """The messages available now, up to a limit that keeps the reader responsive."""
        with self._taking:
            items = list(self._left)
            self._left.clear()
            return items + self._receive()

    def _receive(self) -> list[T]:
        """Those of them that no iteration has read. The caller holds ``_taking``."""
        items: list[T] = []
        with suppress(ClosedError):
            for _ in range(_READ_AT_ONCE):
                try:
                    messages = self._connection.receive()
                except OverrunError:
                    self.overruns += 1
                    continue
                if not messages:
                    break
                items += [item for m in messages if (item := self._decode(m)) is not None]
            else:
                self.overruns += self._connection.dropped()
        return self._chosen(items)

    def _chosen(self, items: list[T]) -> list[T]:
        """Those of the messages that were read together that the stream yields."""
        return items


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor is readable; the loop watches it only that long."""
    import asyncio  # noqa: PLC0415  # 15 ms; async iteration has it

    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


class LinkChangeStream(Stream[LinkChange]):
    """A stream of changes of links, from the moment it is open."""

    def _decode(self, message: Message) -> LinkChange | None:
        return LinkChange.from_message(message.command, message.attributes())


class NamespaceStream(Stream[Identity]):
    """A stream of all network namespaces that go, from the moment it is open."""

    def _decode(self, message: Message) -> Identity | None:
        if message.command != Command.NAMESPACE_GONE:
            return None
        attributes = message.attributes()
        return Identity(attributes.get("netns", 0), attributes.get("netns-cookie", 0))


class EventStream(Stream[EventBatch]):
    """A stream of events in batches, from the moment it is open, with exact loss totals.

    With a filter it yields the events that pass. Losses count all events, as nobody can know
    whether a lost one would have passed.
    """

    def __init__(
        self,
        connection: Connection,
        status: Callable[[], ModuleStatus],
        wanted: EventFilter | None = None,
    ) -> None:
        """Take ownership of ``connection``, which has joined; ``status`` asks the module."""
        self._status = status
        self._wanted = wanted
        self.began = time.monotonic_ns()
        """The time (CLOCK_MONOTONIC, ns) of ``first``."""
        self.first = status().cpus
        """How far the CPUs' events had come when it began."""
        self.last = self.first
        """How far those have come that it yields; exact after ``drain``."""
        self._counter = LossCounter(self.first)
        self._told_overruns = 0
        super().__init__(connection)

    def records(self, link: int | None = None) -> Iterator[EventRecord]:
        """Iterate over single events; with ``link``, only those of that link.

        If the iteration is left, the rest of the batch that it is in goes with it.
        """
        for batch in self:
            yield from decode_events(batch, None if link is None else (link,))

    async def async_records(self, link: int | None = None) -> AsyncIterator[EventRecord]:
        """Iterate as ``records``, for asyncio."""
        async for batch in self:
            for record in decode_events(batch, None if link is None else (link,)):
                yield record

    async def async_drain(
        self, settle: float = SETTLE, limit: float = DRAIN_LIMIT
    ) -> AsyncIterator[EventBatch]:
        """Read as ``drain``, for asyncio. Cancelled, it stops the stream."""
        from ipttctl.link.worker import Worker  # noqa: PLC0415  # asyncio: 15 ms

        batches = self.drain(settle, limit)
        with Worker() as worker:
            while batch := await worker.run(partial(next, batches, None), self._give_up):
                yield batch

    def drain(self, settle: float = SETTLE, limit: float = DRAIN_LIMIT) -> Iterator[EventBatch]:
        """Read the events emitted until now; afterwards ``losses`` is exact.

        Events emitted while this runs are not waited for. If events are missing it goes on for
        ``settle`` seconds after the last message, at most for ``limit`` seconds. ``stop`` ends it;
        on a stream that is stopped already, a second ``stop`` does. Events still unread then count
        as lost by this observer.
        """
        ending = self._stop_again if self.stopped else self._stop
        target = self._status().cpus
        end = time.monotonic() + limit
        deadline = time.monotonic() + settle
        while not ending.happened and time.monotonic() < end:
            batches = self._take()
            if batches:
                yield from batches
                deadline = time.monotonic() + settle
            elif not self._awaits(target):
                break
            else:
                target = _with_late_losses(target, self._status().cpus)
                if not self._awaits(target):
                    break
                if not self._wait_for_more(ending, min(deadline, end) - time.monotonic()):
                    break
        target = _with_late_losses(target, self._status().cpus)
        with self._taking:
            self._counter.finish(target)
        self.last = target

    def missing(self) -> Sequence[CpuStatus]:
        """How far the CPUs' events have come by now, if some were missed lately; else none.

        Called after each reading. Those are told of that this observer was found to have missed
        since the call before.
        """
        if self._told_overruns == self.overruns:
            return ()
        # before the status: it counts all that was dropped until now
        self._told_overruns = self.overruns
        return self._status().cpus

    @property
    def losses(self) -> Losses:
        """The losses so far, by cause; exact after ``drain``."""
        with self._taking:
            return self._counter.totals()

    def _awaits(self, target: Sequence[CpuStatus]) -> bool:
        with self._taking:
            return self._counter.awaits(target)

    def _wait_for_more(self, ending: Wakeup, seconds: float) -> bool:
        """Wait for messages or for the end of draining; False if nothing came in time."""
        with suppress(ClosedError), self._descriptors(ending) as own:
            return bool(wait_readable(list(own), max(0.0, seconds)))
        return False

    def _decode(self, message: Message) -> EventBatch | None:
        if message.command != Command.EVENTS:
            return None
        batch = parse_batch(message.payload)
        early = self._counter.add(batch)
        if early:
            batch = batch.without_first(early)
        return batch if len(batch) else None

    def _chosen(self, items: list[EventBatch]) -> list[EventBatch]:
        return items if self._wanted is None or not items else self._wanted.choose(items)


def _with_late_losses(
    target: Sequence[CpuStatus], now: Sequence[CpuStatus]
) -> tuple[CpuStatus, ...]:
    """A status with those losses of its events that the module has counted since.

    On a CPU that has emitted more, the losses may be those of later events: its next batch says.
    """
    latest = {cpu.cpu: cpu for cpu in now}
    return tuple(
        found if (found := latest.get(cpu.cpu, cpu)).sequence == cpu.sequence else cpu
        for cpu in target
    )
