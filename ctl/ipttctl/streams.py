# SPDX-License-Identifier: GPL-2.0
"""What the module multicasts, as streams that can be iterated, awaited and stopped."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from ipttctl.losses import LossCounter, Losses
from ipttctl.objects import LinkChange, ModuleStatus
from ipttctl.wire import Connection, OverrunError, wait_readable
from ipttproto import Command, Message

if TYPE_CHECKING:
    from ipttctl.event_filter import EventFilter
    from ipttctl.records import EventRecord
    from ipttproto import EventBatch

T = TypeVar("T")

SETTLE: Final = 1.0
"""Seconds without a message after which what has not come is lost; the module sends after 0.01."""

_READ_AT_ONCE: Final = 64


class Stream(ABC, Generic[T]):
    """Messages of a group. Iterating waits for them and ends after ``stop``.

    ``stop`` may be called from a signal handler or another thread, and so may ``close``.
    """

    def __init__(self, connection: Connection) -> None:
        """Take over ``connection``, which has joined the group."""
        self._connection = connection
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._reading = threading.RLock()
        self._stopped = False
        self._closed = False
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
        with self._reading:
            if self._stopped:
                return []
            ready = wait_readable([self._connection.fileno(), self._stop], timeout)
            # A signal handler may have stopped or closed us meanwhile.
            return self._take() if ready and not self.stopped else []

    def wait(self, *others: int, timeout: float | None = None) -> bool:
        """Wait until the stream has something, is stopped, or one of ``others`` can be read.

        False if ``timeout`` seconds passed first.
        """
        return bool(wait_readable([self._connection.fileno(), self._stop, *others], timeout))

    def stop(self) -> None:
        """End the iteration after what has been read; the stream stays open."""
        self._stopped = True
        with suppress(OSError):
            os.eventfd_write(self._stop, 1)

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped the stream."""
        return self._stopped

    def fileno(self) -> int:
        """The descriptor that is readable when ``read`` has something."""
        return self._connection.fileno()

    def close(self) -> None:
        """Stop and unsubscribe; more than once does no harm."""
        self.stop()
        with self._reading:
            if not self._closed:
                self._closed = True
                os.close(self._stop)
                self._connection.close()

    def __iter__(self) -> Iterator[T]:
        while not self._stopped:
            yield from self.read()

    async def __aiter__(self) -> AsyncIterator[T]:
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()
        descriptors = (self._connection.fileno(), self._stop)
        for descriptor in descriptors:
            loop.add_reader(descriptor, wake.set)
        try:
            while not self._stopped:
                wake.clear()
                items = self.read(0)
                for item in items:
                    yield item
                if not items:
                    await wake.wait()
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self) -> list[T]:
        """What is there now, up to a limit that keeps the reader responsive."""
        items: list[T] = []
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


class LinkChangeStream(Stream[LinkChange]):
    """What happens to links, from the moment the stream is open."""

    def _decode(self, message: Message) -> LinkChange | None:
        return LinkChange.from_message(message.command, message.attributes())


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
        from ipttproto import parse_batch  # noqa: PLC0415  # imports numpy

        self._parse = parse_batch
        self._status = status
        self._wanted = wanted
        self._counter = LossCounter(status().cpus)
        super().__init__(connection)

    def records(self, link: int | None = None) -> Iterator[EventRecord]:
        """Event by event; with ``link``, those of this link."""
        from ipttctl.records import decode  # noqa: PLC0415  # imports numpy

        for batch in self:
            yield from decode(batch, link)

    async def async_records(self, link: int | None = None) -> AsyncIterator[EventRecord]:
        """``records`` for asyncio."""
        from ipttctl.records import decode  # noqa: PLC0415  # imports numpy

        async for batch in self:
            for record in decode(batch, link):
                yield record

    def drain(self, settle: float = SETTLE) -> Iterator[EventBatch]:
        """What the module emitted until now and has not been read; then ``losses`` is exact.

        Goes on for ``settle`` seconds after the last message if events are still missing. Exact
        means: up to the events that other links emit while this runs.
        """
        status = self._status()
        deadline = time.monotonic() + settle
        while True:
            batches = self._take()
            if batches:
                yield from batches
                deadline = time.monotonic() + settle
                continue
            if not self._counter.outstanding(self._status().cpus):
                break
            if not wait_readable([self.fileno()], max(0.0, deadline - time.monotonic())):
                break
        latest = self._status()
        quiet = [c.sequence for c in latest.cpus] == [c.sequence for c in status.cpus]
        self._counter.finish(latest.cpus if quiet else status.cpus)

    @property
    def losses(self) -> Losses:
        """What was not seen so far, by cause; exact after ``drain``."""
        return self._counter.totals()

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
