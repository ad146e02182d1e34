# SPDX-License-Identifier: GPL-2.0
"""Long calls of libraries, in a thread: while the main thread is in one it handles no signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

_T = TypeVar("_T")

_AGAIN: Final = 0.05
"""Seconds after which a call that goes on is interrupted again: it may only have begun then."""


def interruptible(call: Callable[[], _T], interrupt: Callable[[], None]) -> _T:
    """Make a call in a thread; returns what it returns, or raises what it raises.

    Once Ctrl-C comes the call is interrupted, and waited for, as its objects are in use until then.
    Meanwhile the next Ctrl-C ends the process.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
    """
    found: list[_T] = []
    failed: list[BaseException] = []
    # not join(): a thread of which that was interrupted counts as ended
    done = threading.Event()

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="call", daemon=True).start()
    try:
        done.wait()
    except KeyboardInterrupt:
        with _ending_at_once():
            while not done.is_set():
                interrupt()
                done.wait(_AGAIN)
        raise
    if failed:
        # its traceback keeps this frame, which must not keep it in turn
        raise failed.pop()
    return found.pop()


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process: not all calls can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
