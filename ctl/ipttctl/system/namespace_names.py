# SPDX-License-Identifier: GPL-2.0
"""Names of network namespaces, learnt while these exist and remembered afterwards.

A name is a file in a directory: a mount of the namespace, or a link to a process's namespace. Names
belong to the namespace's cookie, which no other namespace gets: output may lack a name, but never
shows another's. A namespace that is gone keeps its name for events still to come, until another one
gets that name.

The kernel reports changes of mounts (poll(2) on mountinfo). Then, and once a second for links, the
directories are read again. Unlike events of an inotify queue, which may overflow, such a report
cannot get lost. A name made and removed between two reads stays unknown.
"""

from __future__ import annotations

import math
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ipttctl.errors import PrivilegeError, UsageError
from ipttctl.system import netns
from ipttctl.system.netns import NAMED, OWN

_MOUNTS: Final = Path("/proc/self/mountinfo")
_INTERVAL: Final = 1.0
_KEPT: Final = 65536


class NameAt(Protocol):
    """Knows the names of network namespaces by cookie."""

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """The name of a namespace at a moment (CLOCK_MONOTONIC, ns), or None if it has none."""


@dataclass
class _Known:
    """A namespace's name; ``until`` is when another got it (CLOCK_MONOTONIC, ns), or None."""

    path: Path
    until: int | None = None


@dataclass
class _Place:
    """The file of a name: the namespace that was there last, and the file's identity.

    ``file`` is inode number and change time, None once the name is gone. Both stay the same
    as long as the namespace is mounted there.
    """

    cookie: int
    file: tuple[int, int] | None


@dataclass
class FollowedName:
    """A followed name, and the namespaces that have had it since.

    ``cookies`` collects theirs. ``latest`` is the cookie of the one that has it, or had it last.
    """

    cookies: set[int]
    latest: int


class _Mounts:
    """A watch for changes of mounts since the last call."""

    def __init__(self) -> None:
        self._poll = select.poll()
        # without /proc only the interval remains
        with suppress(OSError):
            fd = os.open(_MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, fd)
            self._poll.register(fd, select.POLLPRI)

    def changed(self, timeout: float, other: int | None = None) -> bool:
        """Wait for a change, at most ``timeout`` seconds, or until ``other`` is readable."""
        if other is not None:
            self._poll.register(other, select.POLLIN)
        return bool(self._poll.poll(math.ceil(timeout * 1000)))


class NamespaceNames:
    """The names of network namespaces by cookie. Threads may share it."""

    def __init__(self, directories: Iterable[Path] = NAMED) -> None:
        """Learn names from files in ``directories``, at the first query and after changes."""
        self._directories = tuple(directories)
        self._known: dict[int, _Known] = {}
        self._places: dict[Path, _Place] = {}
        self._followed: dict[Path, FollowedName] = {}
        self._tell_lost: Callable[[int], None] | None = None
        self._lock = threading.RLock()
        self._scanned = float("-inf")
        self._mounts = _Mounts()
        self._changed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self._changed)

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """The name of a namespace at a moment (CLOCK_MONOTONIC, ns), or None if it has none.

        The default moment is now.
        """
        with self._lock:
            if cookie not in self._known and (
                self._mounts.changed(0) or time.monotonic() - self._scanned >= _INTERVAL
            ):
                self.scan()
            known = self._known.get(cookie)
        if known is None:
            return None
        if known.until is not None and (moment is None or moment > known.until):
            return None
        return known.path.name

    def follow(self, path: Path, cookies: set[int], latest: int) -> FollowedName:
        """Follow the namespaces that get a name, after ``latest``, which had it; see ``fileno``.

        The cookies of those that get it are added to ``cookies``.
        """
        with self._lock:
            followed = self._followed[path] = FollowedName(cookies, latest)
            place = self._places.get(path)
            if place is not None and place.file is not None:
                self._pass_on(followed, place.cookie)
            return followed

    def tell_lost(self, tell: Callable[[int], None]) -> None:
        """Have ``tell`` called with the cookie of each namespace that loses its last name.

        It is called by the thread that reads the directories.
        """
        self._tell_lost = tell

    def fileno(self) -> int:
        """The descriptor that is readable when another namespace gets a followed name."""
        return self._changed

    def settle(self) -> None:
        """Make ``fileno`` unreadable until the next change."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._changed)

    @contextmanager
    def watching(self) -> Iterator[NamespaceNames]:
        """Learn names the moment they are made, in a thread, until the end of the block."""
        stop = os.eventfd(0, os.EFD_CLOEXEC)
        # before the first scan: no change is missed between the two
        thread = threading.Thread(target=self._watch, args=(_Mounts(), stop), daemon=True)
        try:
            self.scan()
            thread.start()
            try:
                yield self
            finally:
                os.eventfd_write(stop, 1)
                thread.join()
        finally:
            os.close(stop)

    def scan(self) -> None:
        """Read the directories, and get the cookies of new namespaces."""
        with self._lock:
            files = dict(self._files())
            for path, place in self._places.items():
                if path not in files and place.file is not None:
                    place.file = None
                    self._rename(place.cookie)
            self._learn(
                {
                    path: file
                    for path, file in files.items()
                    if path not in self._places or self._places[path].file != file
                }
            )
            self._forget()
            self._scanned = time.monotonic()

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        device = OWN.stat().st_dev
        seen = set()
        for directory in self._directories:
            # /var/run is usually the same as /run
            with suppress(OSError):
                real = directory.resolve()
                if real in seen:
                    continue
                seen.add(real)
                for path in sorted(directory.iterdir()):
                    with suppress(OSError):
                        status = path.stat()
                        # skip a file on which a namespace is not mounted yet
                        if status.st_dev == device:
                            yield path, (status.st_ino, status.st_ctime_ns)

    def _learn(self, files: dict[Path, tuple[int, int]]) -> None:
        opened = []
        for path, file in files.items():
            with suppress(OSError, UsageError, PrivilegeError):
                opened.append((path, file, netns.Namespace(path)))
        if not opened:
            return
        found = netns.cookies([namespace.fileno() for *_, namespace in opened])
        now = time.monotonic_ns()
        for (path, file, namespace), cookie in zip(opened, found, strict=True):
            namespace.close()
            if isinstance(cookie, OSError):
                continue
            # the opened namespace counts: by now it may differ from the one seen in the directory
            self._take(path, cookie, file if file[0] == namespace.inode else None, now)

    def _take(self, path: Path, cookie: int, file: tuple[int, int] | None, now: int) -> None:
        """Note that a namespace has a name."""
        before = self._places.get(path)
        if before is not None and before.cookie != cookie:
            loser = self._known.get(before.cookie)
            if loser is not None and loser.path == path and loser.until is None:
                loser.until = now
        self._places[path] = _Place(cookie, file)
        known = self._known.get(cookie)
        # of two names the first, unless that is gone
        if known is None or not self._is_there(known):
            self._known[cookie] = _Known(path)
        followed = self._followed.get(path)
        if followed is not None:
            self._pass_on(followed, cookie)

    def _rename(self, cookie: int) -> None:
        """Show another name of a namespace after it lost one, or tell that it has none."""
        others = (p for p, place in self._places.items() if place.cookie == cookie and place.file)
        if (other := min(others, default=None)) is not None:
            self._known[cookie] = _Known(other)
        elif self._tell_lost is not None:
            self._tell_lost(cookie)

    def _pass_on(self, followed: FollowedName, cookie: int) -> None:
        if followed.latest != cookie:
            followed.latest = cookie
            followed.cookies.add(cookie)
            os.eventfd_write(self._changed, 1)

    def _is_there(self, known: _Known) -> bool:
        place = self._places.get(known.path)
        return place is not None and place.file is not None and known.until is None

    def _forget(self) -> None:
        """Limit the number of remembered names that are gone; the oldest are dropped first."""
        if len(self._known) > _KEPT:
            gone = [cookie for cookie, known in self._known.items() if not self._is_there(known)]
            for cookie in gone[: len(self._known) - _KEPT]:
                del self._known[cookie]
        if len(self._places) > _KEPT:
            left = [path for path, place in self._places.items() if place.file is None]
            for path in left[: len(self._places) - _KEPT]:
                del self._places[path]

    def _watch(self, mounts: _Mounts, stop: int) -> None:
        # signals are left to the thread that waits for them
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ending = select.poll()
        ending.register(stop, select.POLLIN)
        while not ending.poll(0):
            mounts.changed(_INTERVAL, stop)
            begin = time.monotonic()
            with suppress(OSError):
                self.scan()
            # if mounts never rest this takes at most half of a processor
            ending.poll(math.ceil((time.monotonic() - begin) * 1000))
