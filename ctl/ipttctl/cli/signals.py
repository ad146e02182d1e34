# SPDX-License-Identifier: GPL-2.0
"""The end of a command that runs until it is told to stop."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ipttctl.bpf.descriptors import Wakeup
from ipttctl.link.wire import wait_readable
from ipttctl.system.endings import ENDING, handled

#: signals that call ``stop``; after so many, the next one ends the process by default action
_PATIENT: Final = 2
#: a signal that is ignored by default, and that nobody sends us
_MEANINGLESS: Final = signal.SIGURG
#: how often it interrupts waits after one that asks for the end, and every so many milliseconds
_INTERRUPTIONS: Final = 50
_INTERVAL: Final = 20


@contextmanager
def on_ending(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` when the user or the system asks the process to end, instead of dying.

    The second signal does the same; the third ends the process. Ignored signals stay ignored.
    """
    with interrupted_by(stop), _waits_interrupted():
        yield


@contextmanager
def interrupted_by(stop: Callable[[], None]) -> Iterator[None]:
    """Do as ``on_ending`` does, where nothing waits: ``stop`` may raise."""
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


@contextmanager
def _waits_interrupted() -> Iterator[None]:
    """Have a wait end for a signal that comes right before it, or to another thread.

    Python calls handlers between two steps of its interpreter. Where the next step is a system call
    that waits, it would call them after the wait only. So a thread that learns of the signal
    interrupts such calls for a while, with a signal that means nothing.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    waiting = threading.get_ident()

    def watch() -> None:
        # they are for the thread that waits
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        left = 0
        while True:
            if not poll.poll(_INTERVAL if left else None):
                left -= 1
                signal.pthread_kill(waiting, _MEANINGLESS)
                continue
            numbers = os.read(reader, select.PIPE_BUF)
            if not numbers:
                return
            if not {*numbers}.isdisjoint(ENDING):
                left = _INTERRUPTIONS

    meaning = signal.signal(_MEANINGLESS, lambda *_: None)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watching = threading.Thread(target=watch, name="signals", daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watching.join()
        os.close(reader)
        signal.signal(_MEANINGLESS, meaning)


def wait_ending(seconds: float) -> None:
    """Wait for ``seconds``, or until the process is asked to end."""
    wake = Wakeup()
    try:
        with on_ending(wake.set), wake.descriptor as fd:
            wait_readable([fd], seconds)
    finally:
        wake.close()
