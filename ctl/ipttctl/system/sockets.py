# SPDX-License-Identifier: GPL-2.0
"""Processes that hold a socket, by the socket's inode number.

The event that a socket takes a packet names the socket by its inode number. A process that is told
of it

- has the socket open now: /proc/PID/fd says so, read after the event for each answer;
- started before the event (``Processes.before``): a child that was forked since is not told;
- has it with the uid that the event says, if it says one.

It is not proven that the process had the socket open at the event already: another one may have
handed it over since. Nor is it proven that it reads from it, if several hold it.

The kernel numbers sockets, pipes and others with 32 bits, one after the other. So an event older
than a minute is not answered: in less, no host makes enough of them for a number to come again. On
a host that has made 2^32 of them two living sockets can share a number, which nobody can tell apart
unless their uids differ.

No process holds a connection that nobody has accepted yet, one that was closed, or a socket of the
kernel. Their number is 0 or is not found. Descriptors of a thread that has a table of its own are
not found either.

Cost: a scan of all descriptors takes some microseconds each. It ends after a second, wherever it
is. After it there is none for nine times as long, so that scans take at most a tenth of one CPU. An
answer from the last scan takes a look at the descriptor and its process, 0.2 ms; one that holds for
several events takes that once.
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.system.processes import PROC, Process, Processes

_MINUTE: Final = 60_000_000_000
#: seconds that a scan may take, the least time between two, and the share of the time that rests
_LONGEST: Final = 1.0
_LEAST_REST: Final = 0.02
_REST: Final = 9
#: seconds after which an answer is worth a new scan: who else holds the socket may have changed
_FRESH: Final = 10.0
#: holders of one socket that are looked at
_MOST_TRIED: Final = 16
_MOST_ANSWERS: Final = 4096
_LINK: Final = "socket:["


@dataclass(frozen=True, slots=True)
class SocketHolders:
    """The processes that hold a socket, at least one, by their numbers.

    ``left_out`` is how many more were seen to hold it that also started before the event, and were
    not looked at. Not all were seen if ``complete`` is false: a scan took too long, or some
    processes may not be looked at (CAP_SYS_PTRACE).
    """

    processes: tuple[Process, ...]
    left_out: int
    complete: bool


@dataclass(frozen=True, slots=True)
class _Held:
    """A descriptor of a socket, and the process that has it."""

    pid: int
    start: int
    descriptor: str


@dataclass(frozen=True, slots=True)
class _Answer:
    """SocketHolders: they started before one moment, and held the socket after another."""

    holders: SocketHolders
    asked: int
    seen: int


class Sockets:
    """The holders of sockets; not for several threads at once.

    An answer holds for all events between the one that it was for and the look at the descriptor.
    Its ``left_out`` is that of the first.
    """

    def __init__(self, processes: Processes, proc: Path = PROC) -> None:
        """Find holders among ``processes``, whose descriptors are in ``proc``."""
        self._processes = processes
        self._proc = proc
        self._held: dict[int, list[_Held]] = {}
        self._complete = True
        self._answers: OrderedDict[tuple[int, int | None], _Answer] = OrderedDict()
        self._scanned = self._next = float("-inf")

    def holders(self, inode: int, moment: int, uid: int | None = None) -> SocketHolders | None:
        """The processes that hold a socket which took a packet at a moment (CLOCK_MONOTONIC, ns).

        Args:
            inode: the socket's inode number; 0 is none.
            moment: when it took the packet.
            uid: the socket's uid, if it is known.
        """
        age = time.monotonic_ns() - moment
        if not inode or not 0 <= age <= _MINUTE or not self._processes.usable:
            return None
        known = self._answers.get((inode, uid))
        if known is not None and known.asked <= moment <= known.seen:
            return known.holders
        seen = time.monotonic_ns()
        found = self._find(inode, moment, uid)
        if found is not None:
            self._answers[inode, uid] = _Answer(found, moment, seen)
            self._answers.move_to_end((inode, uid))
            if len(self._answers) > _MOST_ANSWERS:
                self._answers.popitem(last=False)
        return found

    def _find(self, inode: int, moment: int, uid: int | None) -> SocketHolders | None:
        stale = time.monotonic() - self._scanned > _FRESH
        found = None if stale else self._look(inode, moment, uid)
        if found is None and (self._scan() or stale):
            found = self._look(inode, moment, uid)
        return found

    def _look(self, inode: int, moment: int, uid: int | None) -> SocketHolders | None:
        """The holders by the last scan that still are."""
        held = self._held.get(inode, [])
        old = [one for one in held if self._processes.before(one.start, moment)]
        found = []
        for one in old[:_MOST_TRIED]:
            if not self._holds(one, inode, uid):
                continue
            # the descriptor was this process's: it still has the number, and had it at the scan
            process = self._processes.read(one.pid)
            if process is not None and process.start == one.start:
                found.append(process)
        left_out = max(0, len(old) - _MOST_TRIED)
        return SocketHolders(tuple(found), left_out, self._complete) if found else None

    def _holds(self, held: _Held, inode: int, uid: int | None) -> bool:
        path = self._proc / str(held.pid) / "fd" / held.descriptor
        with suppress(OSError):
            # the link first: looking at a file of a server that is down would wait
            if str(path.readlink()) != f"{_LINK}{inode}]":
                return False
            status = path.stat()
            return (
                stat.S_ISSOCK(status.st_mode)
                and status.st_ino == inode
                and uid in {None, status.st_uid}
            )
        return False

    def _scan(self) -> bool:
        """Read all descriptors, if that is due; returns whether it was."""
        begin = time.monotonic()
        if begin < self._next:
            return False
        self._held, self._complete = {}, True
        try:
            pids = sorted(int(path.name) for path in self._proc.iterdir() if path.name.isdecimal())
        except OSError:
            pids = []
        for pid in pids:
            if time.monotonic() - begin > _LONGEST:
                self._complete = False
                break
            self._complete &= self._scan_process(pid, begin + _LONGEST)
        self._scanned = end = time.monotonic()
        self._next = end + max(_LEAST_REST, _REST * (end - begin))
        return True

    def _scan_process(self, pid: int, until: float) -> bool:
        """Note the sockets of a process; returns whether all of its descriptors were seen."""
        opened: list[int] = []
        path = self._proc / str(pid)
        try:
            opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            opened.append(os.open("fd", flags, dir_fd=opened[0]))
            sockets, complete = _sockets(opened[1], until)
            start = self._processes.start(opened[0]) if sockets else None
        except (FileNotFoundError, ProcessLookupError):
            return True  # it is gone
        except OSError:
            return False
        finally:
            for descriptor in opened:
                os.close(descriptor)
        if start is not None:
            for inode, name in sockets.items():
                self._held.setdefault(inode, []).append(_Held(pid, start, name))
        return complete


def _sockets(directory: int, until: float) -> tuple[dict[int, str], bool]:
    """The sockets among a process's descriptors, each with one, and whether time was enough."""
    found: dict[int, str] = {}
    for number, name in enumerate(os.listdir(directory)):
        if not number % 256 and time.monotonic() > until:
            return found, False
        with suppress(OSError):
            target = os.readlink(name, dir_fd=directory)
            if target.startswith(_LINK):
                found.setdefault(int(target[len(_LINK) : -1]), name)
    return found, True
