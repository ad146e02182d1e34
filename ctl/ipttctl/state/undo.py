# SPDX-License-Identifier: GPL-2.0
"""Undo the steps that apply has taken when it fails or is interrupted.

Signals interrupt nothing while the machine is being changed: they are noted, and checked between
two changes. So no change is ever made without its undo step being known.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ipttctl.errors import IpttctlError
from ipttctl.system.endings import handled

_PATIENCE: Final = 2


class NotUndoneError(IpttctlError):
    """Some step could not be undone, or undoing it was abandoned."""


class _InterruptedError(Exception):
    """A signal was noted."""


class Signals:
    """Signals that arrived while they were held back."""

    def __init__(self) -> None:
        """Begin without any."""
        self.told: list[int] = []

    def check(self) -> None:
        """Stop between two changes if a signal has come.

        Raises:
            _InterruptedError: a signal has come.
        """
        if self.told:
            raise _InterruptedError


@contextmanager
def held_back() -> Iterator[Signals]:
    """Hold back signals that end the process, and deliver them at the end.

    Handlers do it, as a mask is per thread: threads of libraries would take blocked signals.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    try:
        with handled(signals.told.append):
            yield signals
    except NotUndoneError:
        # the signals would end the process before its message is printed
        signals.told.clear()
        raise
    except _InterruptedError:
        raise KeyboardInterrupt from None
    finally:
        for late in signals.told:
            signal.raise_signal(late)


class Undo:
    """Steps that undo what was done, the last one first."""

    def __init__(self, signals: Signals) -> None:
        """Begin with no steps; two further ``signals`` abandon undoing."""
        self._signals = signals
        self._steps: list[Callable[[Callable[[], bool]], str]] = []

    def add(self, step: Callable[[Callable[[], bool]], str]) -> None:
        """Add a step, before the change that it undoes is made.

        It is called with a function that says whether undoing is abandoned. It returns words for
        the part that stays done, empty if there is none.
        """
        self._steps.append(step)

    def run(self, error: BaseException) -> None:
        """Undo everything, because of ``error``.

        Raises:
            NotUndoneError: something stays done; the message says what and why.
        """
        enough = len(self._signals.told) + _PATIENCE

        def abandoned() -> bool:
            return len(self._signals.told) >= enough

        left = [what for step in reversed(self._steps) if (what := step(abandoned))]
        if left:
            why = error.problem if isinstance(error, IpttctlError) else "interrupted"
            raise NotUndoneError(
                f"{why}; not undone: {', '.join(left)}", "apply again to complete it"
            ) from error
