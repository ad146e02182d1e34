# SPDX-License-Identifier: GPL-2.0
"""Jobs on several machines, as many at a time as the host has processors."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from guest.errors import GuestError
from guest.job import Job, Workspace, shared_directory
from guest.machine import Machine
from guest.runner import run

CLOSED = "closed"
"""The file in a shared directory from which on guests begin no further file of tests."""

NOT_BEGUN = "not-begun"
"""The file in a shared directory where guests list the files that they therefore did not begin."""

LATE_COMERS = 480.0
"""Seconds that the first guest of a machine has in any case, however late its turn came."""

#: how the lines of pytest's summary begin that name tests
_FAILURES = ("FAILED tests/", "ERROR tests/")


class PrefixedLines:
    """A sink that prints whole lines with a prefix; several sinks can share one stream."""

    def __init__(self, prefix: str, lock: threading.Lock) -> None:
        self._prefix = prefix.encode()
        self._lock = lock
        self._rest = b""
        self.last = ""
        """The last line that was not empty."""
        self.failures: list[str] = []
        """The lines by which pytest names tests that failed."""

    def __call__(self, piece: bytes) -> None:
        """Take output; print the lines that are complete."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._print(lines)

    def flush(self) -> None:
        """Print the rest after the last line end."""
        if self._rest:
            self._print([self._rest])
            self._rest = b""

    def _print(self, lines: list[bytes]) -> None:
        with self._lock:
            for line in lines:
                text = line.decode(errors="replace").strip()
                self.last = text or self.last
                if text.startswith(_FAILURES):
                    self.failures.append(text)
                sys.stdout.buffer.write(self._prefix + line.rstrip(b"\r") + b"\n")
            sys.stdout.buffer.flush()


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job on one machine; ``error`` is set if the guest itself failed."""

    machine: Machine
    seconds: float
    status: int | None
    last_line: str
    error: GuestError | None = None
    counts: bool = True
    """Whether its failure fails the whole run."""
    failures: tuple[str, ...] = ()
    """A line for each test that failed."""

    @property
    def passed(self) -> bool:
        """Whether the guest reported success."""
        return self.status == 0

    def row(self) -> tuple[str, ...]:
        """The outcome as a row of the table."""
        if self.error is not None:
            verdict = f"GUEST FAILED: {self.error.args[0]}"
        else:
            verdict = "passed" if self.passed else f"FAILED (exit status {self.status})"
        if not self.passed and not self.counts:
            verdict += "; newer than the last that passed: does not count here"
        kernel = self.machine.kernel
        cpus, seconds = str(self.machine.cpus), f"{self.seconds:.0f}"
        return kernel.name, cpus, kernel.release, seconds, verdict, self.last_line.strip("= ")


_HEADING = ("kernel", "CPUs", "release", "seconds", "verdict", "the job's last line")


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table of text."""
    rows = [_HEADING, *(outcome.row() for outcome in outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each test that failed, with its machine."""
    return [f"{outcome.machine}: {line}" for outcome in outcomes for line in outcome.failures]


def numbered(names: Sequence[str]) -> list[str]:
    """The names, with a number after each that occurs more than once."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name}#{seen[name]}" if names.count(name) > 1 else name)
    return unique


@dataclass(frozen=True)
class Assignment:
    """A job for a machine, which several guests may share: each takes tests that none has taken."""

    machine: Machine
    job: Job
    share: Path | None = None
    """The directory by which they know what is taken."""


def shared_out(
    machines: Sequence[Machine], job: Job, workspace: Workspace, guests: int
) -> list[Assignment]:
    """As many assignments for each machine as it has guests.

    Every machine has its first guest before one has its second: late ones are for processors that
    would be idle.
    """
    if guests == 1:
        return [Assignment(machine, job) for machine in machines]
    shares = [shared_directory(workspace) for _ in machines]
    first = [
        Assignment(machine, _sharing(job, share, guests), share)
        for machine, share in zip(machines, shares, strict=True)
    ]
    return first * guests


def _sharing(job: Job, share: Path, guests: int) -> Job:
    variables = {"IPTT_SHARED": str(share), "IPTT_SHARERS": str(guests)}
    return replace(job, environment={**job.environment, **variables}, shared=(*job.shared, share))


@contextmanager
def _closing(share: Path | None, until: float | None) -> Iterator[None]:
    """Have the guests of ``share`` begin no further file after ``until``, as ``time.time()``."""
    if share is None or until is None:
        yield
        return
    timer = threading.Timer(max(until - time.time(), LATE_COMERS), (share / CLOSED).touch)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def not_begun(assignments: Sequence[Assignment]) -> list[str]:
    """A line for each machine whose guests had no time to begin all of their test files."""
    lines = []
    for machine, share in dict.fromkeys((one.machine, one.share) for one in assignments):
        if share is not None and (share / NOT_BEGUN).exists():
            files = " ".join((share / NOT_BEGUN).read_text().split())
            lines.append(f"NOT RUN, as the time was up: {machine}: {files}")
    return lines


def run_on_all(
    assignments: Sequence[Assignment],
    workspace: Workspace,
    timeout: float,
    until: float | None = None,
) -> list[Outcome]:
    """Run each job on its machine, with its name before the output; ``timeout`` is for each.

    Guests that share a job begin no further file of tests once the time is ``until`` (seconds since
    the epoch), but for the first ``LATE_COMERS`` seconds of a machine.

    A guest keeps one processor busy, however many CPUs it has. More guests than processors would
    only slow each other down, and tests have deadlines. There is no outcome of a guest that shares
    a job of which another one has seen the end, or whose time was up before its turn.
    """
    lock = threading.Lock()
    cancelled = threading.Event()
    names = numbered([str(assigned.machine) for assigned in assignments])
    width = max(map(len, names))
    ended: set[Path] = set()

    def on_one(assigned: Assignment, name: str) -> Outcome | None:
        share = assigned.share
        if share is not None and (share in ended or (share / CLOSED).exists()):
            return None
        sink = PrefixedLines(f"{name:<{width}} | ", lock)
        start = time.monotonic()
        status: int | None = None
        error: GuestError | None = None
        try:
            with _closing(share, until):
                status = run(
                    assigned.machine, assigned.job, workspace, sink, timeout, cancelled=cancelled
                )
        except GuestError as caught:
            error = caught
        else:
            if share is not None:
                ended.add(share)
        sink.flush()
        last = sink.last
        if error is not None:
            sink(f"{error}\n".encode())
        seconds = time.monotonic() - start
        failed = tuple(sink.failures)
        return Outcome(assigned.machine, seconds, status, last, error, failures=failed)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            outcomes = list(pool.map(on_one, assignments, names))
        except BaseException:
            # interrupted: end the running guests and start no others
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcome for outcome in outcomes if outcome is not None]
