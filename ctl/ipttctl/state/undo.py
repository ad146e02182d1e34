# SPDX-License-Identifier: GPL-2.0
"""Taking back what apply has done by the time that something fails, or somebody interrupts it.

Signals interrupt nothing while the machine is changed: they are noted, and looked at between two
changes. So there is no moment in which a change is made and not known to be undone.
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
    """Something of what was done could not be undone, or was not to be waited for."""


class _InterruptedError(Exception):
    """A signal was noted."""


class Signals:
    """The signals that came while they were held back."""

    def __init__(self) -> None:
        """None yet."""
        self.told: list[int] = []

    def check(self) -> None:
        """Between two changes: go no further if a signal came.

        Raises:
            _InterruptedError: it did.
        """
        if self.told:
            raise _InterruptedError


@contextmanager
def held_back() -> Iterator[Signals]:
    """Signals that end a process wait, and come through at the end.

    Handlers, not a mask: that is for one thread, and a library's threads take what it keeps out.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    try:
        with handled(signals.told.append):
            yield signals
    except NotUndoneError:
        # it has to be read; nobody waits for the end any more
        signals.told.clear()
        raise
    except _InterruptedError:
        raise KeyboardInterrupt from None
    finally:
        for late in signals.told:
            signal.raise_signal(late)


class Undo:
    """Steps that take back what was done, the last first."""

    def __init__(self, signals: Signals) -> None:
        """Nothing was done yet; two more ``signals`` than there were end taking it back."""
        self._signals = signals
        self._steps: list[Callable[[Callable[[], bool]], str]] = []

    def add(self, step: Callable[[Callable[[], bool]], str]) -> None:
        """Add a step before what it takes back is done.

        It is called with a function that tells whether to go no further, and says what stays done,
        if anything.
        """
        self._steps.append(step)

    def run(self, error: BaseException) -> None:
        """Take everything back, because of ``error``.

        Raises:
            NotUndoneError: what stays done, and why.
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
