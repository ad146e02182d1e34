# SPDX-License-Identifier: GPL-2.0
"""The end of a trace: after some time, or with a command that runs meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ipttctl.bpf import tools
from ipttctl.cli.printing import note
from ipttctl.link.wire import wait_readable

_SHELL: Final = "/bin/sh"
_STANDARD_ERROR: Final = 2

_LEAST_GRACE: Final = 0.1
"""Seconds that events of the command's last packets take to come, generously."""

_LAST_CHANCE: Final = 1.0
"""Seconds that a command has to end after it was asked to."""


class TracedCommand:
    """A command line that a shell runs while packets are traced.

    Its standard output is our standard error: what we print ourselves is for programs too. It is a
    process group of its own, so that all of it can be ended, and has no input: only the group in
    the foreground of a terminal may read from that.
    """

    def __init__(self, text: str) -> None:
        """Start the command."""
        sys.stderr.flush()
        self._child = subprocess.Popen(
            [_SHELL, "-c", text],
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
            process_group=0,
        )
        self._fd = os.pidfd_open(self._child.pid)
        self.ended = False

    def descriptors(self) -> list[int]:
        """The descriptor that becomes readable once the command has ended; none afterwards."""
        return [] if self.ended else [self._fd]

    def look(self) -> bool:
        """Whether the command has ended; reports its exit status, once."""
        if self.ended:
            return True
        if not wait_readable([self._fd], 0):
            return False
        self.ended = True
        note(f"the command has ended: {_outcome(self._child.wait())}")
        return True

    def close(self) -> None:
        """End the command if it still runs."""
        if not self.look():
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(_LAST_CHANCE)
            if not self.look():
                note(f"the command goes on as process {self._child.pid}")
        os.close(self._fd)


class TraceEnd:
    """The moment at which a trace ends by itself."""

    def __init__(
        self, command: TracedCommand | None, stop_after: float | None, patience: float
    ) -> None:
        """End after ``stop_after`` seconds from now, or with the command.

        After the command, packets of which more may come are waited for, up to ``patience``
        seconds.
        """
        self._command = command
        now = time.monotonic()
        self._end = None if stop_after is None else now + stop_after
        self._patience = max(patience, _LEAST_GRACE)
        self._ended: float | None = None

    @property
    def timeout(self) -> float | None:
        """Seconds until ``reached`` may have another answer; None for never."""
        now = time.monotonic()
        moments = [] if self._end is None else [self._end]
        if self._ended is not None:
            graces = (self._ended + _LEAST_GRACE, self._ended + self._patience)
            moments.append(graces[now >= graces[0]])
        return max(0.0, min(moments) - now) if moments else None

    def descriptors(self) -> list[int]:
        """Descriptors that become readable when ``reached`` should be called."""
        return self._command.descriptors() if self._command else []

    def reached(self, waiting: int) -> bool:
        """Whether the trace ends now, with ``waiting`` packets of which more may come."""
        now = time.monotonic()
        if self._end is not None and now >= self._end:
            return True
        if self._command is None:
            return False
        if self._ended is None:
            if not self._command.look():
                return False
            self._ended = now
        grace = _LEAST_GRACE if not waiting else self._patience
        return now >= self._ended + grace


@contextmanager
def trace_end(text: str | None, stop_after: float | None, patience: float) -> Iterator[TraceEnd]:
    """Start a command, if there is one, and have it ended at the end of the block."""
    if text is None:
        yield TraceEnd(None, stop_after, patience)
        return
    with tools.exit_statuses():
        command = TracedCommand(text)
        try:
            yield TraceEnd(command, stop_after, patience)
        finally:
            command.close()


def _outcome(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
