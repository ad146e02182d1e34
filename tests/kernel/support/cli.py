# SPDX-License-Identifier: GPL-2.0
"""The command line as a child process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tests.kernel.support.kernel import wait_for

IPTTCTL = (sys.executable, "-m", "ipttctl")


def ipttctl(
    *arguments: str, pass_fds: Sequence[int] = (), timeout: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*IPTTCTL, *arguments],
        capture_output=True, text=True, check=False, timeout=timeout, pass_fds=pass_fds,
    )  # fmt: skip


class Running:
    """A command that runs until it is told to stop; its output goes to files."""

    def __init__(self, arguments: Sequence[str], out: IO[str], err: IO[str], fds: Sequence[int]):
        self._out, self._err = out, err
        self._kept: tuple[str, str] | None = None
        self.process = subprocess.Popen(
            [*IPTTCTL, *arguments], stdout=out, stderr=err, pass_fds=fds
        )

    def out(self) -> str:
        """What it has printed so far."""
        return self._kept[0] if self._kept else _content(self._out)

    def err(self) -> str:
        """What it has said on standard error so far."""
        return self._kept[1] if self._kept else _content(self._err)

    def keep(self) -> None:
        """Read the output for good: the files go."""
        self._kept = self.out(), self.err()

    def wait_for_text(self, words: str, timeout: float = 240) -> None:
        """Wait until the command has printed ``words`` on either stream."""

        def printed() -> bool:
            if words in self.out() + self.err():
                return True
            assert self.process.poll() is None, f"ended {self.process.returncode}: {self.err()}"
            return False

        wait_for(printed, timeout=timeout, what=f"{words!r} in {self.out()[-500:]}{self.err()}")

    def stop(self, number: int = signal.SIGINT, timeout: float = 60) -> int:
        """Signal the command and wait for its end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def finish(self) -> list[dict[str, Any]]:
        """Interrupt a stream of JSON and return all of its objects."""
        assert self.stop() == 0, self.err()
        return [json.loads(line) for line in self.out().splitlines()]


def _content(file: IO[str]) -> str:
    return Path(file.name).read_text()


@contextmanager
def running(*arguments: str, pass_fds: Sequence[int] = ()) -> Iterator[Running]:
    """A command in the background; killed at the end if it still runs."""
    with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
        command = Running(arguments, out, err, pass_fds)
        try:
            yield command
        finally:
            if command.process.poll() is None:
                command.process.kill()
            command.process.wait()
            command.keep()


@contextmanager
def trace_command(*arguments: str) -> Iterator[Running]:
    """``ipttctl trace -o json``, once it traces."""
    with running("trace", "-o", "json", *arguments) as command:
        command.wait_for_text("tracing: link")
        yield command
