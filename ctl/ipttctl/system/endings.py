# SPDX-License-Identifier: GPL-2.0
"""The signals that ask a process to end."""

from __future__ import annotations

import signal
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
