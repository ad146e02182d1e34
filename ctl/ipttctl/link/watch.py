# SPDX-License-Identifier: GPL-2.0
"""All links and their changes: a list first, what changes after it, and a list after a loss.

Each notification has the number of its change, and each list the number up to which changes are in
it. So what was told before a list was made is passed over, and nothing else is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

from ipttctl.bpf.descriptors import Closing
from ipttctl.link.model import LinkChange, LinkList
from ipttctl.link.streams import LinkChangeStream


class LinkWatch(Closing):
    """A stream that begins with a list of links, goes on with changes, and lists again if need be.

    ``stop`` and ``close`` may be called from signal handlers, other threads and within an
    iteration. Several threads may read: each item goes to one of them. For asyncio, one task
    iterates.
    """

    def __init__(self, changes: LinkChangeStream, listed: Callable[[], LinkList]) -> None:
        """Take ownership of ``changes``; ``listed`` makes a list."""
        self._changes = changes
        self._listed = listed
        self._overruns = 0
        self._latest: LinkList | None = None
        self._reading = threading.Lock()
        self._unread: deque[LinkList | LinkChange] = deque()

    def read(self, timeout: float | None = None) -> list[LinkList | LinkChange]:
        """The list, or changes since; waits for these for at most ``timeout`` seconds.

        Returns none then, or once stopped. After changes were lost it returns a list again.

        Raises:
            ModuleError: the module was unloaded; nothing comes any more.
            KernelError: the links change faster than they can be listed.
            ProtocolError: a message violates the protocol.
        """
        if self._latest is not None and not self._unread:
            self._changes.wait(timeout=timeout)
        with self._reading:
            self._look()
            items = list(self._unread)
            self._unread.clear()
        return items

    def stop(self) -> None:
        """End the iteration after what was read already; the watch stays open."""
        self._changes.stop()

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._changes.stopped

    def fileno(self) -> int:
        """The descriptor that is readable when ``read`` has changes; -1 once closed."""
        return self._changes.fileno()

    def close(self) -> None:
        """Stop and unsubscribe. Closing more than once does no harm."""
        self._changes.close()

    def __iter__(self) -> Iterator[LinkList | LinkChange]:
        while not self.stopped:
            yield from self.read()

    async def __aiter__(self) -> AsyncIterator[LinkList | LinkChange]:
        from ipttctl.link.worker import Worker  # noqa: PLC0415  # asyncio: 15 ms

        with Worker() as worker:
            while not self.stopped:
                # to list links is a request
                await worker.run(self._look_alone)
                while self._unread:
                    yield self._unread.popleft()
                await self._changes.async_wait()

    def _look_alone(self) -> None:
        with self._reading:
            self._look()

    def _look(self) -> None:
        """Read what is there. The caller holds ``_reading``."""
        if self._latest is None:
            self._unread += self._list([])
            return
        changes = self._changes.read(0)
        if self._changes.overruns != self._overruns:
            self._unread += self._list(changes)
        else:
            self._unread += self._later(self._latest, changes)

    def _list(self, changes: list[LinkChange]) -> list[LinkList | LinkChange]:
        """List the links anew; ``changes`` were read already.

        The kernel drops all messages from the first that does not fit until the socket is empty:
        only from then on are the changes complete, and a list closes the gap.
        """
        while more := self._changes.read(0):
            changes += more
        self._overruns = self._changes.overruns
        again = self._latest is not None
        self._latest = replace(self._listed(), overrun=again)
        return [self._latest, *self._later(self._latest, changes)]

    @staticmethod
    def _later(listed: LinkList, changes: list[LinkChange]) -> Iterator[LinkChange]:
        return (change for change in changes if change.sequence > listed.sequence)
