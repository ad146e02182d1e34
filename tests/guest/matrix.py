# SPDX-License-Identifier: GPL-2.0
"""The same job on several kernels side by side."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.guest.errors import GuestError
from tests.guest.job import Job, Workspace
from tests.guest.machine import Machine
from tests.guest.runner import run


class PrefixedLines:
    """A sink that prints whole lines behind a prefix, several sinks to one stream."""

    def __init__(self, prefix: str, lock: threading.Lock) -> None:
        self._prefix = prefix.encode()
        self._lock = lock
        self._rest = b""

    def __call__(self, piece: bytes) -> None:
        """Take output; print the lines that are complete."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._print(lines)

    def flush(self) -> None:
        """Print what came after the last line end."""
        if self._rest:
            self._print([self._rest])
            self._rest = b""

    def _print(self, lines: list[bytes]) -> None:
        with self._lock:
            for line in lines:
                sys.stdout.buffer.write(self._prefix + line.rstrip(b"\r") + b"\n")
            sys.stdout.buffer.flush()


@dataclass(frozen=True)
class Outcome:
    """How a job went on one kernel; ``error`` is set when the guest itself failed."""

    machine: Machine
    seconds: float
    status: int | None
    error: GuestError | None = None

    @property
    def passed(self) -> bool:
        """Whether the guest reported success."""
        return self.status == 0

    def __str__(self) -> str:
        kernel = self.machine.kernel
        if self.error is not None:
            verdict = f"GUEST FAILED: {self.error.args[0]}"
        else:
            verdict = "passed" if self.passed else f"FAILED (exit status {self.status})"
        return f"{kernel.series:<5} {kernel.release:<24} {self.seconds:6.0f} s  {verdict}"


def run_on_all(
    machines: Sequence[Machine], job: Job, workspace: Workspace, timeout: float
) -> list[Outcome]:
    """Run a job on every machine at once, with output behind the kernel's series."""
    lock = threading.Lock()

    def on_one(machine: Machine) -> Outcome:
        sink = PrefixedLines(f"{machine.kernel.series:<5}| ", lock)
        start = time.monotonic()
        status: int | None = None
        error: GuestError | None = None
        try:
            status = run(machine, job, workspace, sink, timeout)
        except GuestError as caught:
            error = caught
        sink.flush()
        if error is not None:
            sink(f"{error}\n".encode())
        return Outcome(machine, time.monotonic() - start, status, error)

    with ThreadPoolExecutor(max_workers=len(machines)) as pool:
        return list(pool.map(on_one, machines))
