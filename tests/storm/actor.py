# SPDX-License-Identifier: GPL-2.0
"""The common part of all actors: a process, a seed, a journal, an end."""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import multiprocessing
import os
import random
import signal
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from ipttctl.errors import IpttctlError
from tests.storm.journal import FAILED, Journal
from tests.storm.shared import Phase, Shared

_fork = multiprocessing.get_context("fork")
_PR_SET_PDEATHSIG = 1
_NR_DELETE_MODULE = 176  # x86-64
#: seconds; an emulated kernel with debugging is slow
_PATIENCE = 600.0
_HEARTBEAT = 10.0


class Actor(ABC):
    """An actor that does one kind of thing until the storm ends.

    All its decisions come from ``random``, whose seed is the storm's seed and the actor's name.
    """

    def __init__(self, name: str, seed: str, journal: Journal, shared: Shared) -> None:
        self.name = name
        self.seed = seed
        self.journal = journal.of(name)
        self.shared = shared
        self.random = random.Random(f"{seed}/{name}")

    @abstractmethod
    def act(self) -> None:
        """Do one thing; called again and again."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Prepare for the first ``act``, in the actor's process."""

    def leave(self) -> None:  # noqa: B027 - most have nothing to do
        """Clean up after the last ``act``, even if one failed."""

    def run(self) -> None:
        """Run the actor in its process; a failure goes to the journal."""
        # prints the stack of an actor that is silent for too long
        faulthandler.register(signal.SIGUSR1)
        try:
            self.prepare()
            try:
                while not self.shared.ended:
                    self.act()
                    if self.journal.silent() > _HEARTBEAT:
                        self.journal.write("alive")
            finally:
                self.leave()
        except Exception:
            self.journal.write(FAILED, traceback.format_exc())
            raise SystemExit(1) from None
        self.journal.write("ended")

    def pause(self, shortest: float, longest: float) -> None:
        """Let some time pass, as the rhythm of the storm: there is no condition to wait for."""
        end = time.monotonic() + self.random.uniform(shortest, longest)
        while (left := end - time.monotonic()) > 0 and not self.shared.ended:
            time.sleep(min(left, 0.2))

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll for a condition for as long as a slow machine may need; then fail."""
        end = time.monotonic() + _PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {_PATIENCE:g} s: {what}")
            time.sleep(0.02)

    @contextmanager
    def unless_reloading(self) -> Iterator[None]:
        """Pass over errors of the controller if the module may have been reloaded meanwhile."""
        before = self.shared.phase, self.shared.reloads
        try:
            yield
        except IpttctlError as error:
            after = self.shared.phase, self.shared.reloads
            if before == after and before[0] is not Phase.RELOADS:
                raise
            self.journal.write("met-a-reload", error)
            # the module comes back soon; constant attempts would only delay that
            self.pause(0.02, 0.2)


class Child:
    """A child process, killed by its own id. It dies with its parent."""

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        def begin() -> None:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            target(*arguments)

        self.process: BaseProcess = _fork.Process(target=begin)
        self.process.start()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """Send SIGKILL, and wait until the process is gone; may be repeated."""
        self.process.kill()
        self.process.join()

    def wait(self, patience: float = _PATIENCE) -> int:
        """Wait for its own end, and return the exit status. If it does not end, it is killed."""
        self.process.join(patience)
        if self.process.exitcode is None:
            where = waiting_where(self.pid)
            self.kill()
            raise AssertionError(f"process {self.pid} did not end within {patience:g} s: {where}")
        return self.process.exitcode


def waiting_where(pid: int) -> str:
    """The place in the kernel at which a process is, as far as the kernel tells."""
    try:
        with open(f"/proc/{pid}/stack", encoding="ascii") as stack:  # noqa: PTH123 - may vanish
            return stack.read().strip() or "not in the kernel"
    except OSError as error:
        return str(error)


def delete_module(name: str) -> bool:
    """Unload a module if nobody uses it, as rmmod(8) does after a check of its own.

    False if it is in use; OSError for any other error.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_NR_DELETE_MODULE, name.encode(), os.O_NONBLOCK) == 0:
        return True
    error = ctypes.get_errno()
    # EBUSY: it is being loaded or unloaded
    if error in {errno.EWOULDBLOCK, errno.EBUSY}:
        return False
    raise OSError(error, f"delete_module {name}")
