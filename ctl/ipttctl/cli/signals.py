# SPDX-License-Identifier: GPL-2.0
"""The end of a command that runs until it is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ipttctl.bpf.descriptors import Wakeup
from ipttctl.link.wire import wait_readable
from ipttctl.system.endings import handled

#: signals that call ``stop``; after so many, the next one ends the process by default action
_PATIENT: Final = 2


@contextmanager
def on_ending(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` when the user or the system asks the process to end, instead of dying.

    The second signal does the same; the third ends the process. Ignored signals stay ignored.
    """
    told: list[int] = []

    def handle(number: int) -> None:
        told.append(number)
        if len(told) <= _PATIENT:
            stop()
        else:
            restore()
            signal.raise_signal(number)

    with handled(handle) as restore:
        yield


def wait_ending(seconds: float) -> None:
    """Wait for ``seconds``, or until the process is asked to end."""
    wake = Wakeup()
    try:
        with on_ending(wake.set), wake.descriptor as fd:
            wait_readable([fd], seconds)
    finally:
        wake.close()
