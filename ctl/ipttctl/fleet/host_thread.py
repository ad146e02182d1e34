# SPDX-License-Identifier: GPL-2.0
"""The thread that does what the host is asked for, which may take minutes.

An executor's threads are waited for when the process ends, and so would be what nobody wants any
more. Nothing is left half done by that: links of traces end with the process, and an applied state
has its journal.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias

_Call: TypeAlias = tuple[Future[Any], Callable[[], Any]]


class HostThread:
    """Makes calls one after the other; does not keep the process from ending."""

    def __init__(self) -> None:
        """Begin the thread, which waits."""
        self._calls: Final[SimpleQueue[_Call | None]] = SimpleQueue()
        threading.Thread(target=self._run, name="host", daemon=True).start()

    async def run(self, work: Callable[[], Any]) -> Any:
        """The result of a call. If this is cancelled, one that has begun goes on all the same."""
        result: Future[Any] = Future()
        self._calls.put((result, work))
        return await asyncio.wrap_future(result)

    def end(self) -> None:
        """Make none of the calls that wait, and end after the one that is being made."""
        with suppress(Empty):
            while call := self._calls.get_nowait():
                call[0].cancel()
        self._calls.put(None)

    def _run(self) -> None:
        while call := self._calls.get():
            _make(*call)
            # a result may be a trace, and has descriptors then
            del call


def _make(result: Future[Any], work: Callable[[], Any]) -> None:
    """Make a call, unless nobody wants its result any more."""
    if not result.set_running_or_notify_cancel():
        return
    try:
        made = work()
    # whoever awaits it is told, whatever it is
    except BaseException as error:
        result.set_exception(error)
    else:
        result.set_result(made)
