# SPDX-License-Identifier: GPL-2.0
"""Processes by number, and the proof that one had its number at a moment.

A number (pid) is given to another process after its owner ended. With the start it is of one
process only. One that is found later under a number had it at an earlier moment (CLOCK_MONOTONIC)
if it had started before that.

/proc gives the start in CLOCK_BOOTTIME, rounded down to a tick (1/100 s), so that one within a tick
of the moment proves nothing. Between the two clocks lies the time that the host was suspended,
which only grows. What it was at an earlier moment is known from readings before that moment.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
"""Where processes are looked for."""

#: namespaces in which the kernel's numbers and clocks are ours, by their fixed inode numbers
#: (include/uapi/linux/nsfs.h)
_INITIAL: Final = {"pid": 0xEFFFFFFC, "time": 0xEFFFFFFA}
_NS: Final = 1_000_000_000
#: a suspension is longer; readings of two clocks one after the other differ by less
_NOISE: Final = 1_000_000
#: bytes read of a file: the lines of `status` that we need are at its beginning
_LONGEST: Final = 4096
_LONGEST_CGROUP: Final = 1 << 16
#: fields of `stat` after the command, counted from the state
_START: Final = 19
_DELETED: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its number and start, and what it was when it was looked at.

    ``start`` is CLOCK_BOOTTIME in ns, up to a tick too early. ``comm`` changes when the process
    executes another program. ``uid`` is the effective one. ``cgroup`` is a path in the unified
    hierarchy, or in systemd's if it is the root of that; empty if it could not be seen. ``comm``
    and ``cgroup`` may hold any bytes: escape them where they are shown.
    """

    pid: int
    start: int
    comm: str
    uid: int
    cgroup: str


class Processes:
    """The processes of the host; none are found from inside another pid or time namespace."""

    def __init__(self, proc: Path = PROC) -> None:
        """Find processes in ``proc``; the present clocks are noted for events from now on."""
        self._proc = proc
        self._tick = _NS // os.sysconf("SC_CLK_TCK")
        #: (moment, time suspended until then, at least), both ascending
        self._suspended: list[tuple[int, int]] = []
        self.usable = _is_initial(proc)
        self._note_suspension()

    def at(self, pid: int, moment: int) -> Process | None:
        """The process that had a number at a moment (CLOCK_MONOTONIC, ns).

        None if it is gone, or if nothing proves that it is the same.
        """
        now = time.monotonic_ns()
        found = self.read(pid)
        if found is None or moment > now or not self.before(found.start, moment):
            return None
        return found

    def read(self, pid: int) -> Process | None:
        """The process that has a number now; None if there is none.

        The directory that is opened belongs to one process: if that ends and another one gets its
        number, the files in it cannot be opened any more.
        """
        if not self.usable or pid <= 0:
            return None
        try:
            directory = os.open(self._proc / str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            comm, start = self._stat(directory)
            uid = _uid(_read(directory, "status", _LONGEST), pid)
            cgroup = _cgroup(_read(directory, "cgroup", _LONGEST_CGROUP))
        except (OSError, ValueError):
            return None
        finally:
            os.close(directory)
        return Process(pid, start, comm, uid, cgroup)

    def network(self, pid: int) -> int | None:
        """The inode number of a process's network namespace; None if it cannot be seen."""
        with suppress(OSError):
            return (self._proc / str(pid) / "ns" / "net").stat().st_ino
        return None

    def is_first(self, pid: int) -> bool:
        """Whether a process is process 1 of a pid namespace that was made in ours."""
        with suppress(OSError, ValueError):
            directory = os.open(self._proc / str(pid), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                lines = _lines(_read(directory, "status", _LONGEST))
            finally:
                os.close(directory)
            return lines.get("NSpid", "").split("\t") == [str(pid), "1"]
        return False

    def start(self, directory: int) -> int | None:
        """The start of the process whose directory in /proc is open; None if it is gone."""
        with suppress(OSError, ValueError):
            return self._stat(directory)[1]
        return None

    def before(self, start: int, moment: int) -> bool:
        """Whether it is certain that a start was before a moment (CLOCK_MONOTONIC, ns)."""
        self._note_suspension()
        known = (least for since, least in reversed(self._suspended) if since <= moment)
        return start + self._tick <= moment + next(known, 0)

    def same(self, listed: int, start: int) -> bool:
        """Whether a start that /proc shows may be an exact one: nobody else has the number then."""
        return start // self._tick * self._tick == listed

    def _stat(self, directory: int) -> tuple[str, int]:
        """The command and the start of a process; a command may have parentheses in it."""
        text = _read(directory, "stat", _LONGEST)
        begin, end = text.index("("), text.rindex(")")
        return text[begin + 1 : end], int(text[end + 1 :].split()[_START]) * self._tick

    def _note_suspension(self) -> None:
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        # read after the other clock: the difference is never more than the time suspended
        now = time.monotonic_ns()
        least = max(boot - now, 0)
        if not self._suspended or least > self._suspended[-1][1] + _NOISE:
            self._suspended.append((now, least))


def _is_initial(proc: Path) -> bool:
    """Whether the numbers and starts that /proc shows us are the kernel's own."""
    for name, number in _INITIAL.items():
        try:
            if (proc / "self" / "ns" / name).stat().st_ino != number:
                return False
        except FileNotFoundError:
            if name == "pid":
                return False  # no /proc, or of other processes; without time namespaces all is well
        except OSError:
            return False
    return True


def _read(directory: int, name: str, most: int) -> str:
    file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        content = b""
        while len(content) < most and (more := os.read(file, most - len(content))):
            content += more
    finally:
        os.close(file)
    return content.decode(errors="surrogateescape")


def _lines(status: str) -> dict[str, str]:
    """The lines of `status`, split at line feeds only: a command may hold other ends of lines."""
    return dict(line.split(":\t", 1) for line in status.split("\n") if ":\t" in line)


def _uid(status: str, pid: int) -> int:
    """The effective uid of a process.

    Raises:
        ValueError: the number is a thread's, or there is no uid.
    """
    lines = _lines(status)
    if lines.get("Tgid") != str(pid):
        raise ValueError(f"{pid} is no process")
    _, uid, *_ = lines.get("Uid", "").split("\t")
    return int(uid)


def _cgroup(text: str) -> str:
    """The path of a process's cgroup that says most."""
    paths = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path:
            paths["" if number == "0" else controllers] = path
    unified = paths.get("", "").removesuffix(_DELETED)
    if unified in {"", "/"}:
        return paths.get("name=systemd") or unified
    return unified
