# SPDX-License-Identifier: GPL-2.0
"""What the module multicasts, as streams that can be iterated, awaited and stopped."""

from __future__ import annotations

import select
import threading
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from ipttctl.link.losses import LossCounter, Losses
from ipttctl.link.model import CpuStatus, LinkChange, ModuleStatus
from ipttctl.link.wire import Connection, OverrunError, wait_readable
from ipttctl.system.descriptors import ClosedError, Closing, Wakeup
from ipttctl.system.netns import Identity
from ipttproto import Command, Message

if TYPE_CHECKING:
    from ipttctl.events.filter import EventFilter
    from ipttctl.events.records import EventRecord
    from ipttproto import EventBatch

T = TypeVar("T")

SETTLE: Final = 1.0
"""Seconds without a message after which what has not come is lost; the module sends after 0.01."""

DRAIN_LIMIT: Final = 10.0
"""Seconds after which what waits to be read is given up."""

_READ_AT_ONCE: Final = 64


class Stream(Closing, Generic[T]):
    """Messages of a group. Iterating waits for them and ends after ``stop``.

    ``stop`` and ``close`` may be called from signal handlers, other threads and inside an
    iteration. Several threads and tasks may read: each message goes to one of them.
    """

    def __init__(self, connection: Connection) -> None:
        """Take over ``connection``, which has joined the group."""
        self._connection = connection
        self._stop = Wakeup()
        self._stop_again = Wakeup()
        self._taking = threading.Lock()
        self.overruns = 0
        """How often the kernel had to drop messages because this stream was not read."""

    @abstractmethod
    def _decode(self, message: Message) -> T | None:
        """What a message says; None to pass it over."""

    def read(self, timeout: float | None = None) -> list[T]:
        """Wait for messages, at most ``timeout`` seconds; none after that or once stopped.

        Raises:
            ProtocolError: what arrived is not of the protocol.
        """
        end = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while self.wait(timeout=left) and not self.stopped:
            items = self._take()
            left = None if end is None else max(0.0, end - time.monotonic())
            if items or left == 0:
                return items
        return []

    def wait(self, *others: int, timeout: float | None = None) -> bool:
        """Wait until the stream has something, is stopped, or one of ``others`` can be read.

        False if ``timeout`` seconds passed first.
        """
        with suppress(ClosedError), self._descriptors(self._stop) as own:
            return bool(wait_readable([*own, *others], timeout))
        return True

    def stop(self) -> None:
        """End the iteration after what has been read; the stream stays open.

        A second call ends ``drain`` too, where there is that.
        """
        if self._stop.happened:
            self._stop_again.set()
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped the stream."""
        return self._stop.happened

    def fileno(self) -> int:
        """The descriptor that is readable when ``read`` has something; -1 once closed."""
        return self._connection.fileno()

    def close(self) -> None:
        """Stop and unsubscribe; more than once does no harm.

        Where somebody waits for messages the descriptors stay open until that has ended.
        """
        self.stop()
        self.stop()
        self._connection.close()
        self._stop.close()
        self._stop_again.close()

    def __iter__(self) -> Iterator[T]:
        while not self.stopped:
            yield from self.read()

    async def __aiter__(self) -> AsyncIterator[T]:
        with ExitStack() as stack:
            try:
                own = stack.enter_context(self._descriptors(self._stop))
            except ClosedError:
                return
            # one of this iteration's own: a loop has one reader for a descriptor
            ready = stack.enter_context(select.epoll())
            for descriptor in own:
                ready.register(descriptor, select.EPOLLIN)
            while not self.stopped:
                items = self._take()
                for item in items:
                    yield item
                if not items:
                    await _readable(ready.fileno())

    @contextmanager
    def _descriptors(self, ending: Wakeup) -> Iterator[tuple[int, int]]:
        """The descriptors of messages and of ``ending``; they stay open meanwhile.

        Raises:
            ClosedError: they are closed.
        """
        with self._connection.held() as messages, ending.descriptor as end:
            yield messages, end

    def _take(self) -> list[T]:
        """What is there now, up to a limit that keeps the reader responsive."""
        items: list[T] = []
        with self._taking, suppress(ClosedError):
            for _ in range(_READ_AT_ONCE):
                try:
                    messages = self._connection.receive()
                except OverrunError:
                    self.overruns += 1
                    continue
                if not messages:
                    break
                items += [item for m in messages if (item := self._decode(m)) is not None]
        return items


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor can be read; the loop looks at it no longer than that."""
    import asyncio  # noqa: PLC0415  # 15 ms; whoever iterates so has it

    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


class LinkChangeStream(Stream[LinkChange]):
    """What happens to links, from the moment the stream is open."""

    def _decode(self, message: Message) -> LinkChange | None:
        return LinkChange.from_message(message.command, message.attributes())


class NamespaceStream(Stream[Identity]):
    """Network namespaces that go, of all there are, from the moment the stream is open."""

    def _decode(self, message: Message) -> Identity | None:
        if message.command != Command.NAMESPACE_GONE:
            return None
        attributes = message.attributes()
        return Identity(attributes.get("netns", 0), attributes.get("netns-cookie", 0))


class EventStream(Stream["EventBatch"]):
    """Events in batches, from the moment the stream is open, with exact loss totals.

    With a filter, the events that pass it; losses are those of all events, as nobody can know what
    a lost one would have been.
    """

    def __init__(
        self,
        connection: Connection,
        status: Callable[[], ModuleStatus],
        wanted: EventFilter | None = None,
    ) -> None:
        """Take over ``connection``, which has joined the group; ``status`` asks the module."""
        from ipttproto import parse_batch  # noqa: PLC0415  # numpy: 60 ms

        self._parse = parse_batch
        self._status = status
        self._wanted = wanted
        self._counter = LossCounter(status().cpus)
        super().__init__(connection)

    def records(self, link: int | None = None) -> Iterator[EventRecord]:
        """Event by event; with ``link``, those of this link."""
        from ipttctl.events.records import decode  # noqa: PLC0415  # numpy: 60 ms

        for batch in self:
            yield from decode(batch, link)

    async def async_records(self, link: int | None = None) -> AsyncIterator[EventRecord]:
        """``records`` for asyncio."""
        from ipttctl.events.records import decode  # noqa: PLC0415  # numpy: 60 ms

        async for batch in self:
            for record in decode(batch, link):
                yield record

    def drain(self, settle: float = SETTLE, limit: float = DRAIN_LIMIT) -> Iterator[EventBatch]:
        """What the module emitted until now and has not been read; then ``losses`` is exact.

        It does not chase what is emitted while this runs. Goes on for ``settle`` seconds after the
        last message if events are still missing, for ``limit`` seconds at most, and until somebody
        calls ``stop``, for the second time if the stream is stopped already. What is left unread
        then counts as lost by this observer.
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
            elif not self._counter.awaits(target):
                break
            else:
                target = _with_late_losses(target, self._status().cpus)
                if not self._counter.awaits(target):
                    break
                if not self._wait_for_more(ending, min(deadline, end) - time.monotonic()):
                    break
        self._counter.finish(_with_late_losses(target, self._status().cpus))

    @property
    def losses(self) -> Losses:
        """What was not seen so far, by cause; exact after ``drain``."""
        return self._counter.totals()

    def _wait_for_more(self, ending: Wakeup, seconds: float) -> bool:
        """Wait for messages, or the end of draining; False if nothing came in time."""
        with suppress(ClosedError), self._descriptors(ending) as own:
            return bool(wait_readable(list(own), max(0.0, seconds)))
        return False

    def _decode(self, message: Message) -> EventBatch | None:
        if message.command != Command.EVENTS:
            return None
        batch = self._parse(message.payload)
        early = self._counter.add(batch)
        if early:
            batch = batch.without_first(early)
        if self._wanted is not None:
            batch = batch.select(self._wanted.wanted(batch.events))
        return batch if len(batch.events) else None


def _with_late_losses(
    target: Sequence[CpuStatus], now: Sequence[CpuStatus]
) -> tuple[CpuStatus, ...]:
    """A status, with the losses of events in it that the module has counted since.

    On a CPU that has emitted more, losses can be those of later events: its next batch tells.
    """
    latest = {cpu.cpu: cpu for cpu in now}
    return tuple(
        found if (found := latest.get(cpu.cpu, cpu)).sequence == cpu.sequence else cpu
        for cpu in target
    )
