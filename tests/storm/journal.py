# SPDX-License-Identifier: GPL-2.0
"""The journal: every actor writes lines into one pipe, the supervisor reads them.

A line is ``seconds actor action details``. Lines are shorter than PIPE_BUF, and so always whole,
even those of a process that is killed.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from pathlib import Path

FAILED = "FAILED"
"""The action that reports an error; it ends the storm."""

_LONGEST = select.PIPE_BUF - 1


class Journal:
    """The writing end of one actor."""

    def __init__(self, pipe: int, actor: str, start: float) -> None:
        self._pipe = pipe
        self._start = start
        self._last = time.monotonic()
        self.actor = actor

    def of(self, actor: str) -> Journal:
        """The journal of another actor."""
        return Journal(self._pipe, actor, self._start)

    def silent(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._last

    def write(self, action: str, details: object = "") -> None:
        """Record an action that has succeeded, or FAILED for an error."""
        self._last = time.monotonic()
        line = f"{self._last - self._start:9.3f} {self.actor} {action} {details}".rstrip()
        line = line.replace("\n", "\n" + 10 * " " + "| ")
        os.write(self._pipe, line.encode()[-_LONGEST:] + b"\n")


class Record:
    """The supervisor's record of the lines: a file, sums, and the last line of each actor."""

    def __init__(self, path: Path) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._file = path.open("a", buffering=1)
        self._rest = b""
        self.start = time.monotonic()
        self.journal = Journal(writer, "storm", self.start)
        self._writer = writer
        self.sums: Counter[str] = Counter()
        self.failures: list[str] = []
        self.last: dict[str, tuple[float, str]] = {}

    def fileno(self) -> int:
        """The descriptor that is readable when ``read`` has something."""
        return self._reader

    def read(self) -> None:
        """Read the new lines."""
        while True:
            try:
                data = os.read(self._reader, 1 << 16)
            except BlockingIOError:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(line.decode(errors="replace"))

    def _take(self, line: str) -> None:
        self._file.write(line + "\n")
        if line.startswith(10 * " " + "| "):
            if self.failures:
                self.failures[-1] += "\n" + line
            return
        _, actor, action, *_ = line.split(maxsplit=3)
        self.last[actor.partition("/")[0]] = (time.monotonic(), line.strip())
        if action == FAILED:
            self.failures.append(line.strip())
        else:
            self.sums[action] += 1

    def close(self) -> None:
        """Read the remaining lines, and close the journal."""
        self.read()
        os.close(self._reader)
        os.close(self._writer)
        self._file.close()
