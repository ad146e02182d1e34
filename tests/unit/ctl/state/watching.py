# SPDX-License-Identifier: GPL-2.0
"""A watch that runs in a thread, beside a module in user space."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipttctl.errors import (
    IpttctlError,
)
from ipttctl.state import Step, Terms
from ipttctl.state.watch import Callbacks, StateWatch
from ipttproto import Command
from tests.unit.ctl.state.support import Machine
from tests.unit.ctl.support import FakeModule, notification

WEB = "links: {web: {hook: table, fd: {exit: 7}}}"
TWO = "links: {web: {hook: table, fd: {exit: 7}}, second: {hook: table, fd: {entry: 7}}}"
PATIENCE = 20.0


class Kept:
    """A watch that runs in a thread, and what it says."""

    def __init__(self, file: str, module: FakeModule, **options: Any) -> None:
        self.told: list[str] = []
        self.steps: list[Step] = []
        self.connected = self.prepared = 0
        self.prepare: Callable[..., None] = lambda *_: None
        self.error: list[IpttctlError] = []
        self._module = module
        terms = options.pop("terms", Terms())
        self.watch = StateWatch(
            file,
            terms,
            Callbacks(
                self.told.append, self._done, connected=self._connected, prepare=self._prepare
            ),
            **{"every": 60.0, **options},
        )
        self.looks = 0
        look = self.watch._look

        def counted(controller: Any) -> float:
            again = look(controller)
            self.looks += 1
            return again

        self.watch._look = counted  # type: ignore[method-assign]  # what it did is told by then
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _done(self, steps: Sequence[Step]) -> None:
        self.steps += steps

    def _connected(self, _: Any) -> None:
        self.connected += 1

    def _prepare(self, *given: Any) -> None:
        self.prepared += 1
        self.prepare(*given)

    def _run(self) -> None:
        try:
            self.watch.run()
        except IpttctlError as error:
            self.error.append(error)

    def wait(self, condition: Callable[[], Any]) -> None:
        """Wait until something is so; AssertionError if it does not come or the watch ends."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, (self.told, self.steps)
            assert self.thread.is_alive(), self.error
            time.sleep(0.005)

    def actions(self) -> list[str]:
        """The actions of the steps taken."""
        return [step.action.value for step in self.steps]


@contextmanager
def kept(file: str, module: FakeModule, **options: Any) -> Iterator[Kept]:
    """A watch, from when the host is as declared."""
    watch = Kept(file, module, **options)
    watch.thread.start()
    try:
        watch.wait(lambda: watch.watch._ready and watch.looks)
        yield watch
    finally:
        watch.watch.stop()
        watch.thread.join(PATIENCE)
    assert not watch.thread.is_alive()
    assert watch.error == []


def swapped(machine: Machine, link: int, program: int) -> bytes:
    """Swap a link as somebody else would; returns the notification."""
    found = machine.links[link]
    found["programs"] = {"program": [{"slot": 3, "id": program, "tag": bytes(8), "name": "y"}]}
    found["generation"] += 1
    return notification(Command.LINK_SWAPPED, found)


class Holder:
    """Another process that has the lock of whoever applies, as far as flock(2) sees it."""

    def __init__(self, record: Path) -> None:
        record.parent.mkdir(mode=0o700, exist_ok=True)
        self._fd = os.open(record.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.pwrite(self._fd, b"4711\n".ljust(16), 0)

    def release(self) -> None:
        """Give the lock up."""
        os.close(self._fd)
