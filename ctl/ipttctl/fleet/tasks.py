# SPDX-License-Identifier: GPL-2.0
"""Tasks that have ended when whoever began them goes on.

``asyncio.wait_for()`` of Python 3.11, by which nats-py waits for answers, forgets that it was
cancelled if the answer comes at the same moment (https://github.com/python/cpython/issues/86296).
A task that is cancelled once, as ``asyncio.TaskGroup`` does it, may so go on for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, Final

_AGAIN: Final = 0.2
"""Seconds after which a task that goes on is cancelled again."""


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until each has ended, in whatever way.

    Raises:
        CancelledError: this was cancelled meanwhile; they have ended all the same.
    """
    cancelled = False
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left, timeout=_AGAIN)
        except asyncio.CancelledError:
            cancelled = True
    # a failure that nobody asks for would be logged
    await asyncio.gather(*tasks, return_exceptions=True)
    if cancelled:
        raise asyncio.CancelledError


async def run_together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run parts at a time, until all have ended, this is cancelled, or one of them fails.

    Raises:
        Exception: the failure.
    """
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await end_tasks(tasks)
    for task in done:
        task.result()
