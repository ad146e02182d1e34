# SPDX-License-Identifier: GPL-2.0
"""A thread that makes blocking calls for coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Self, TypeVar

from ipttctl.bpf.descriptors import Closing

T = TypeVar("T")


class Worker:
    """A thread that makes calls one after the other, while the loop goes on.

    The thread begins with the first call, and ends with ``end`` or the ``with`` block.
    """

    def __init__(self) -> None:
        self._thread: Final = ThreadPoolExecutor(1, "ipttctl")

    async def run(self, call: Callable[[], T], interrupt: Callable[[], None] | None = None) -> T:
        """The result of a call. ``interrupt`` has one that waits for something return soon.

        When this is cancelled, the call was never made, or has returned before CancelledError is
        raised: it may use descriptors that the caller closes then, and their numbers would be those
        of other files. What it returned is closed, if it can be.
        """
        work = self._thread.submit(call)
        ended = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            if not work.cancel():
                if interrupt is not None:
                    interrupt()
                _drop(await _outcome(ended))
            raise

    async def finish(self, call: Callable[[], object]) -> None:
        """Make the last call, after those before it, even if this is cancelled; then end."""
        work = asyncio.wrap_future(self._thread.submit(call))
        self.end()
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await _outcome(work)
            raise

    def end(self) -> None:
        """Take no more calls."""
        self._thread.shutdown(wait=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


async def _outcome(work: asyncio.Future[T]) -> asyncio.Future[T]:
    """Wait until a thread has done something, however often this is cancelled."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])
    return work


def _drop(work: asyncio.Future[T]) -> None:
    """Close the result of what nobody waits for any more."""
    if not work.cancelled() and work.exception() is None:
        result = work.result()
        if isinstance(result, Closing):
            result.close()
