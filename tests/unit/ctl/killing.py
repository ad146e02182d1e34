# SPDX-License-Identifier: GPL-2.0
"""Processes that are killed before or after one of their changes, in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class KilledError(BaseException):
    """The end of a process that is killed: no handler of errors takes it."""


class Killer:
    """Kills a process before or after one of its changes, numbered from 1 on: two for each."""

    def __init__(self, step: int) -> None:
        """Kill at a number."""
        self._step = step
        self.count = 0
        """Numbers so far."""

    def wrap(
        self, work: Callable[..., Any], changes: Callable[..., bool] = lambda *_: True
    ) -> Callable[..., Any]:
        """A function that the process may not come past, where its arguments make a change."""

        def killed(*args: Any, **more: Any) -> Any:
            if not changes(*args):
                return work(*args, **more)
            self._pass()
            found = work(*args, **more)
            self._pass()
            return found

        return killed

    def _pass(self) -> None:
        self.count += 1
        if self.count == self._step:
            raise KilledError
