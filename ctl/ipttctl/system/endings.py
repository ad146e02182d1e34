# SPDX-License-Identifier: GPL-2.0
"""The signals that ask a process to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""These signals."""


@contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Call ``handle`` with the number of such a signal; only for the main thread.

    Signals that were ignored when the process started stay ignored: SIGHUP under nohup, SIGINT in
    the background of a shell. Yields a function that restores the previous handlers; the end of the
    block does so too.
    """

    def called(number: int, _: FrameType | None) -> None:
        handle(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {n: h for n in ENDING if (h := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, called)
    try:
        yield restore
    finally:
        restore()


@contextmanager
def delayed() -> Iterator[None]:
    """Delay such signals until the block has ended.

    Handlers do it, as a mask is per thread: threads of libraries would take blocked signals. They
    are called in the main thread, so another one needs nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told: list[int] = []
    try:
        with handled(told.append):
            yield
    finally:
        for late in told:
            signal.raise_signal(late)
