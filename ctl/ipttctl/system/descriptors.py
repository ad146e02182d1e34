# SPDX-License-Identifier: GPL-2.0
"""Owners of file descriptors: a number is never used once it was given back to the kernel.

The kernel gives the number of a closed descriptor to the next file that is opened, whoever opens
it. A write, a poll or a second close of the old number would hit that file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")


class Closing(ABC):
    """A thing that ``close`` ends, and so does the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """End it; more than once does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ClosedError(Exception):
    """Something was to be used after it had been closed."""


class Owned(Generic[T]):
    """A descriptor, or what holds one, that is closed once and never used after that.

        with owned as fd:
            ...  # it stays open until here, whoever closes it meanwhile

    Threads and signal handlers may use and close it at any time. A handler cannot wait for the code
    that it interrupts, so there is no lock: each step is one atomic operation on a list or an
    attribute. A user signs in before it looks whether the thing is closed, and ``close`` says so
    before it looks for users: one of the two sees the other.
    """

    def __init__(self, value: T, release: Callable[[T], object]) -> None:
        """Take over ``value``; ``release`` closes it."""
        self._value: Final = value
        self._release = [release]
        self._users: list[None] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Close it, or have the last of its users do so; more than once does no harm."""
        self._closed = True
        self._settle()

    def __enter__(self) -> T:
        """Keep it open, and use it.

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
            # of two that come here at a time one finds nothing to do
            with suppress(IndexError):
                release = self._release.pop()
                release(self._value)


def owned_descriptor(fd: int) -> Owned[int]:
    """The owner of a file descriptor."""
    return Owned(fd, os.close)


class Wakeup:
    """A thing that happens once, for poll(2) to wait for.

    All may be called from signal handlers and threads, and after ``close``.
    """

    def __init__(self) -> None:
        """It has not happened yet."""
        self._descriptor = owned_descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self._happened = False

    @property
    def happened(self) -> bool:
        """Whether it did."""
        return self._happened

    @property
    def descriptor(self) -> Owned[int]:
        """The descriptor that can be read once it happened."""
        return self._descriptor

    def set(self) -> None:
        """Have it happen."""
        self._happened = True
        with suppress(ClosedError), self._descriptor as fd:
            os.eventfd_write(fd, 1)

    def close(self) -> None:
        """Give the descriptor back: nobody waits for it any more."""
        self._descriptor.close()
