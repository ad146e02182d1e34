# SPDX-License-Identifier: GPL-2.0
"""Namespaces and processes that a command is limited to: that they exist, and when they go.

Both are opened when the command line is read, so that neither can become another one before the
kernel tells us that it goes.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ipttctl.cli.output import note
from ipttctl.errors import PrivilegeError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.streams import NamespaceStream
from ipttctl.system import netns
from ipttctl.system.namespace_names import FollowedName, NamespaceNames


@dataclass
class _Chosen:
    """A namespace that an option names; ``cookie`` is of the one that is meant now."""

    text: str
    cookie: int
    held: netns.Namespace
    """The one that was meant at first."""
    followed: FollowedName | None = None
    gone: bool = False


class ChosenNamespaces:
    """The network namespaces that options name.

    A namespace that is given by its name is whichever has that name: when it goes, the next one of
    the name is meant. One that is given by a number or a path is meant alone.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Find them, and hold them until ``watched``.

        Raises:
            UsageError: there is none of a name, a number or at a path.
            PrivilegeError: the caller may not open or enter one.
        """
        found = [(text, netns.find(text)) for text in texts]
        self._chosen = [_Chosen(text, one.identity.cookie, one) for text, one in found]
        self._going: NamespaceStream | None = None
        self._names: NamespaceNames | None = None
        self.cookies = {one.cookie for one in self._chosen}
        """Of all that were meant so far; grows as names are given anew."""

    @contextmanager
    def watched(self, controller: Controller, names: NamespaceNames) -> Iterator[None]:
        """Keep up with them, with ``names`` that are being watched, and hold them no longer."""
        if not self._chosen:
            yield
            return
        with controller.namespaces_going() as self._going:
            self._names = names
            for one in self._chosen:
                if netns.is_name(one.text):
                    one.followed = names.follow(one.held.path, self.cookies, one.cookie)
                one.held.close()
            yield

    def descriptors(self) -> list[int]:
        """Descriptors that can be read when ``look`` has something to tell."""
        if self._going is None or self._names is None:
            return []
        return [self._going.fileno(), self._names.fileno()]

    def look(self, follow: Callable[[int], None] = lambda _: None) -> None:
        """Tell which went, and which are there again once ``follow`` has turned to their cookie."""
        if self._going is None or self._names is None:
            return
        overruns = self._going.overruns
        gone = {identity.cookie for identity in self._going.read(0)}
        if self._going.overruns != overruns:
            gone |= {one.cookie for one in self._chosen if not _is_there(one)}
        self._names.settle()
        for one in self._chosen:
            moved = one.followed is not None and one.followed.latest != one.cookie
            if one.cookie in gone and not one.gone:
                one.gone = True
                wait = (
                    "" if one.followed is None or moved else "; waiting for the next of this name"
                )
                note(f"network namespace {one.text} is gone{wait}")
            if one.followed is not None and moved:
                one.cookie = one.followed.latest
                follow(one.cookie)
                how = "is there again" if one.gone else "is another one now"
                note(f"network namespace {one.text} {how}: followed from here on")
                one.gone = False

    @property
    def latest(self) -> int | None:
        """The cookie of the one that is meant now, where there is one option."""
        return self._chosen[0].cookie if self._chosen else None

    @property
    def ended(self) -> bool:
        """Whether there were some, and none is there or can come again."""
        return bool(self._chosen) and all(one.gone and one.followed is None for one in self._chosen)


class ChosenProcess:
    """A process by its number, which no other process has while this one is held."""

    def __init__(self, pid: int) -> None:
        """Find it.

        Raises:
            UsageError: there is none.
        """
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except (ProcessLookupError, OverflowError):
            raise UsageError(f"there is no process {pid}", "see `ps -e`") from None
        except OSError:
            raise UsageError(
                f"{pid} is a thread of a process", "packets are traced by process: see `ps -eL`"
            ) from None

    def fileno(self) -> int:
        """The descriptor that can be read once it has ended."""
        return self._fd

    def look(self) -> bool:
        """Whether it has ended; tells so."""
        if not select.select([self._fd], [], [], 0)[0]:
            return False
        note(f"process {self.pid} has ended")
        return True

    def close(self) -> None:
        """Forget it."""
        os.close(self._fd)


@dataclass(frozen=True)
class Subjects:
    """All that a command is limited to; ``follow`` is called with a namespace to turn to."""

    namespaces: ChosenNamespaces
    process: ChosenProcess | None = None
    follow: Callable[[int], None] = lambda _: None

    def descriptors(self) -> list[int]:
        """Descriptors that can be read when ``ended`` is to be asked."""
        process = [] if self.process is None else [self.process.fileno()]
        return [*self.namespaces.descriptors(), *process]

    def ended(self) -> bool:
        """Tell what became of them; whether nothing can come any more."""
        self.namespaces.look(self.follow)
        return self.namespaces.ended or (self.process is not None and self.process.look())


def _is_there(one: _Chosen) -> bool:
    """Whether a namespace can still be found; asked only if the kernel had no room to tell us."""
    if one.followed is not None:
        # the directory of names tells of it
        return True
    try:
        netns.resolve(str(netns.Identity(one.held.inode, one.cookie)))
    except UsageError:
        return False
    except PrivilegeError:
        return True
    return True
