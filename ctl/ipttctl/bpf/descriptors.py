# SPDX-License-Identifier: GPL-2.0
"""Owners of file descriptors: a number is never used after it is closed.

The kernel gives the number of a closed descriptor to the next file that is opened anywhere in the
process. A write, a poll or a second close of the old number would hit that file.
"""

from __future__ import annotations

import math
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")


class Closing(ABC):
    """An object ended by ``close`` or by the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """End the object. Closing more than once does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClosedError(Exception):
    """An object was used after it had been closed."""


class Owned(Generic[T]):
    """A descriptor, or an object with one, that is closed once and never used after that.

        with owned as fd:
            ...  # it stays open until here, even if it is closed meanwhile

    Threads and signal handlers may use and close it at any time. A handler cannot wait for the code
    that it interrupts, so there is no lock: each step is one atomic operation on a list or an
    attribute. A user registers before it checks whether the object is closed, and ``close`` marks
    it closed before it looks for users: one of the two sees the other.
    """

    def __init__(self, value: T, release: Callable[[T], object]) -> None:
        """Take ownership of ``value``; ``release`` closes it."""
        self._value: Final = value
        self._release = [release]
        self._users: list[None] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Close it, or let its last user do so. Closing more than once does no harm."""
        self._closed = True
        self._settle()

    def __enter__(self) -> T:
        """Use it, and keep it open meanwhile.

        Raises:
            ClosedError: it is closed.
        """
        self._users.append(None)
        if self._closed:
            self._leave()
            raise ClosedError
        return self._value

    def __exit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._users.pop()
        self._settle()

    def _settle(self) -> None:
        if self._closed and not self._users:
            # of two threads here at the same time, one finds nothing to do
            with suppress(IndexError):
                release = self._release.pop()
                release(self._value)


def owned_descriptor(fd: int) -> Owned[int]:
    """The owner of a file descriptor."""
    return Owned(fd, os.close)


class Wakeup:
    """A one-time event that poll(2) can wait for.

    All methods may be called from signal handlers and threads, and after ``close``.
    """

    def __init__(self) -> None:
        """Begin before the event."""
        self._descriptor = owned_descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._happened = False

    @property
    def happened(self) -> bool:
        """Whether the event has happened."""
        return self._happened

    @property
    def descriptor(self) -> Owned[int]:
        """The descriptor that becomes readable when the event happens."""
        return self._descriptor

    def wait(self, seconds: float) -> bool:
        """Wait for the event, no longer than that; returns whether it has happened."""
        with suppress(ClosedError), self._descriptor as fd:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(math.ceil(seconds * 1000))
        return self._happened

    def set(self) -> None:
        """Make the event happen."""
        self._happened = True
        with suppress(ClosedError), self._descriptor as fd:
            os.eventfd_write(fd, 1)

    def close(self) -> None:
        """Close the descriptor: nobody waits for the event any more."""
        self._descriptor.close()
