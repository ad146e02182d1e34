# SPDX-License-Identifier: GPL-2.0
"""Ending a command that runs until it is told to stop."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_ending(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` when the user or the system asks the process to end, instead of dying."""
    previous = {number: signal.signal(number, lambda *_: stop()) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def wait_ending(seconds: float) -> None:
    """Wait for so long, or until the process is asked to end."""
    wake = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        with on_ending(lambda: os.eventfd_write(wake, 1)):
            select.select([wake], [], [], seconds)
    finally:
        os.close(wake)
