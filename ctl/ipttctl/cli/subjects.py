# SPDX-License-Identifier: GPL-2.0
"""Namespaces and processes that a command is limited to, and their end.

Both are opened when the command line is read: until the kernel reports that one is going, its name
or number cannot come to mean another.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ipttctl.cli.printing import note
from ipttctl.errors import PrivilegeError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.streams import NamespaceStream
from ipttctl.system import netns
from ipttctl.system.namespace_names import FollowedName, NamespaceNames


@dataclass
class _Chosen:
    """A namespace that an option names; ``cookie`` is that of the current one."""

    text: str
    cookie: int
    held: netns.Namespace
    """The first one; closed once the namespaces are watched."""
    followed: FollowedName | None = None
    gone: bool = False


class ChosenNamespaces:
    """The network namespaces that options name.

    A namespace given by its name is followed by name: when it goes, the next one with that name
    takes its place. A namespace given by number or path has no successor.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Find the namespaces, and hold them until ``watched``.

        Raises:
            UsageError: there is no namespace with a name, with a number or at a path.
            PrivilegeError: the caller may not open or enter a namespace.
        """
        found = [(text, netns.find(text)) for text in texts]
        self._chosen = [_Chosen(text, one.identity.cookie, one) for text, one in found]
        self._going: NamespaceStream | None = None
        self._names: NamespaceNames | None = None
        self.cookies = {one.cookie for one in self._chosen}
        """The cookies of all namespaces so far; grows as names are given to new ones."""

    @contextmanager
    def watched(self, controller: Controller, names: NamespaceNames) -> Iterator[None]:
        """Follow the namespaces, with ``names`` that are being watched, and hold them no longer."""
        if not self._chosen:
            yield
            return
        with controller.namespaces_going() as self._going:
            self._names = names
            for one in self._chosen:
                if one.held.name == one.text:
                    one.followed = names.follow(one.held.path, self.cookies, one.cookie)
                one.held.close()
            yield

    def descriptors(self) -> list[int]:
        """Descriptors that become readable when ``look`` has something to report."""
        if self._going is None or self._names is None:
            return []
        return [self._going.fileno(), self._names.fileno()]

    def look(self, follow: Callable[[int], None] = lambda _: None) -> None:
        """Report those that went, and those that are back once ``follow`` has their cookie."""
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
        """The cookie of the current namespace, if there is one option; else None."""
        return self._chosen[0].cookie if self._chosen else None

    @property
    def held(self) -> netns.Namespace | None:
        """The namespace itself, if there is one option; until the namespaces are watched."""
        return self._chosen[0].held if self._chosen else None

    @property
    def ended(self) -> bool:
        """Whether there were namespaces, and none exists or can come again."""
        return bool(self._chosen) and all(one.gone and one.followed is None for one in self._chosen)


class ChosenProcess:
    """A process by its number, which no other process gets while this one is held."""

    def __init__(self, pid: int) -> None:
        """Find the process.

        Raises:
            UsageError: there is no such process.
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
        """The descriptor that becomes readable once the process has ended."""
        return self._fd

    def look(self) -> bool:
        """Whether the process has ended; reports it."""
        if not select.select([self._fd], [], [], 0)[0]:
            return False
        note(f"process {self.pid} has ended")
        return True

    def close(self) -> None:
        """Release the process."""
        os.close(self._fd)


@dataclass(frozen=True)
class Subjects:
    """All limits of a command; ``follow`` is called with the cookie of a namespace to follow."""

    namespaces: ChosenNamespaces
    process: ChosenProcess | None = None
    follow: Callable[[int], None] = lambda _: None

    def descriptors(self) -> list[int]:
        """Descriptors that become readable when ``ended`` should be called."""
        process = [] if self.process is None else [self.process.fileno()]
        return [*self.namespaces.descriptors(), *process]

    def ended(self) -> bool:
        """Report what became of them; returns whether nothing can come any more."""
        self.namespaces.look(self.follow)
        return self.namespaces.ended or (self.process is not None and self.process.look())


def _is_there(one: _Chosen) -> bool:
    """Whether a namespace can still be found; asked only if the kernel's message was lost."""
    if one.followed is not None:
        # the directory of names reports its end
        return True
    try:
        netns.resolve(str(netns.Identity(one.held.inode, one.cookie)))
    except UsageError:
        return False
    except PrivilegeError:
        return True
    return True
