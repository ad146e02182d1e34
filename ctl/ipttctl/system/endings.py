# SPDX-License-Identifier: GPL-2.0
"""The signals by which a process is asked to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def handled(handle: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Call ``handle`` with the number of such a signal; only the main thread may say so.

    Signals that the process was started without stay ignored: SIGHUP below nohup, SIGINT in the
    background of a shell. Yields what puts the handlers back that were there before, which
    happens at the end in any case.
    """

    def called(number: int, _: FrameType | None) -> None:
        handle(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {n: h for n in _ENDING if (h := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, called)
    try:
        yield restore
    finally:
        restore()
