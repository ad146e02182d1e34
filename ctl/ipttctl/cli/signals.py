# SPDX-License-Identifier: GPL-2.0
"""The end of a command that runs until it is told to stop."""

from __future__ import annotations

import os
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


@contextmanager
def on_ending(stop: Callable[[], None], reread: Callable[[], None] | None = None) -> Iterator[None]:
    """Call ``stop`` when the user or the system asks the process to end, instead of dying.

    The second signal does the same; the third ends the process. Ignored signals stay ignored.
    ``stop`` is called by a thread, once for each signal. With ``reread`` SIGHUP does not end the
    process, and that is called instead.
    """
    # a signal between the two is not missed: the thread has it before there is a handler
    with _told(stop, reread), interrupted_by(lambda: None, keeps_on=reread is not None):
        yield


@contextmanager
def interrupted_by(stop: Callable[[], None], *, keeps_on: bool = False) -> Iterator[None]:
    """Do as ``on_ending`` does, but call ``stop`` as a signal handler: it may raise.

    SIGHUP does nothing if the process ``keeps_on``.
    """
    told: list[int] = []

    def handle(number: int) -> None:
        if keeps_on and number == signal.SIGHUP:
            return
        told.append(number)
        if len(told) <= _PATIENT:
            stop()
        else:
            restore()
            signal.raise_signal(number)

    with handled(handle) as restore:
        yield


def interrupt() -> None:
    """Do as Ctrl-C does, to be given to ``interrupted_by``.

    Raises:
        KeyboardInterrupt: always.
    """
    raise KeyboardInterrupt


@contextmanager
def _told(stop: Callable[[], None], reread: Callable[[], None] | None) -> Iterator[None]:
    """Call ``stop`` for each signal that ends, from a thread, or ``reread`` for SIGHUP.

    Python calls handlers between two steps of its interpreter. If a signal comes right before the
    step is a system call that waits, or to another thread, that would be after the wait.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)

    def watch() -> None:
        # they are for the thread that waits
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while number := os.read(reader, 1)[0]:
            if number == signal.SIGHUP and reread:
                reread()
            elif number in ENDING:
                stop()

    watching = threading.Thread(target=watch, name="signals", daemon=True)
    watching.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        # no signal has this number
        os.write(writer, bytes(1))
        watching.join()
        os.close(writer)
        os.close(reader)


def wait_ending(seconds: float) -> None:
    """Wait for ``seconds``, or until the process is asked to end."""
    wake = Wakeup()
    try:
        with on_ending(wake.set), wake.descriptor as fd:
            wait_readable([fd], seconds)
    finally:
        wake.close()
