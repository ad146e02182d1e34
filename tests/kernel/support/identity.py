# SPDX-License-Identifier: GPL-2.0
"""Actions with another identity, in a forked process that has this one's descriptors."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import CLONE_NEWNET

_CLONE_NEWUSER: Final = 0x10000000
_NOBODY: Final = 65534
_fork = multiprocessing.get_context("fork")

Become = Callable[[], None]


def nobody() -> None:
    """Become an ordinary user without a capability."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _container(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER | flags):
        raise OSError(ctypes.get_errno(), "unshare")
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text("0 0 1")
    (own / "gid_map").write_text("0 0 1")


#: root of a user namespace, with every capability there, in the network namespace of its creator
container_with_host_network = partial(_container, 0)

#: the same, with a network namespace of its own
container = partial(_container, CLONE_NEWNET)


class Other:
    """A process with another identity that performs one action."""

    def __init__(self, become: Become, act: Callable[..., Any], *arguments: Any) -> None:
        self._channel, theirs = _fork.Pipe()
        self.process = _fork.Process(
            target=self._live, args=(theirs, become, act, arguments), daemon=True
        )
        self.process.start()
        theirs.close()

    def _live(self, channel: Pipe, become: Become, act: Callable[..., Any], arguments: Any) -> None:
        self._channel.close()
        become()
        channel.send(act(*arguments))
        # until told, or until the other end is closed: the descriptors stay open
        channel.poll(None)

    def outcome(self) -> Any:
        """The result of its action."""
        assert self._channel.poll(COMMAND_TIMEOUT), "the other process does not answer"
        return self._channel.recv()

    def end(self) -> None:
        """Let it end, which closes its descriptors."""
        self._channel.close()
        self.process.join(COMMAND_TIMEOUT)
        assert not self.process.is_alive(), "the other process does not end"


@contextmanager
def other(become: Become, act: Callable[..., Any], *arguments: Any) -> Iterator[Other]:
    """A process with another identity that has performed an action and keeps its descriptors."""
    made = Other(become, act, *arguments)
    try:
        yield made
    finally:
        if made.process.is_alive():
            made.process.kill()
        made.process.join()


def as_other(become: Become, act: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``act`` in a process with another identity, which has ended by then."""
    with other(become, act, *arguments) as process:
        outcome = process.outcome()
        process.end()
    return outcome
