# SPDX-License-Identifier: GPL-2.0
"""The command line as a child process.

Most commands are forked by a server that has imported everything (``cli_server``). With ``fresh`` a
command starts from nothing, as from a shell.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, Protocol

from tests.kernel.support.kernel import wait_for

IPTTCTL = (sys.executable, "-m", "ipttctl")


class Process(Protocol):
    """The part of ``subprocess.Popen`` that commands of both kinds have."""

    pid: int

    def poll(self) -> int | None:
        """The exit status, or None while it runs; a signal's number is negative."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal if it runs."""

    def kill(self) -> None:
        """Kill it."""


class Server:
    """The process that forks commands, a module like ``cli_server``; it ends with this one."""

    def __init__(self, module: str = f"{__package__}.cli_server") -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-m", module], stdin=theirs.fileno())

    def ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> Any:
        """Send one request, with its descriptors, and return the answer."""
        with self._lock:
            socket.send_fds(self._channel, [json.dumps(request).encode()], fds)
            answer = self._channel.recv(4096)
        assert answer, f"the server of commands has ended: {self._process.poll()}"
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self._channel.close()
        self._process.wait(60)


@cache
def _server() -> Server:
    return Server()


class Forked:
    """A command that a server has forked."""

    def __init__(self, server: Server, arguments: Sequence[str], fds: Mapping[int, int]) -> None:
        """``fds`` are all its descriptors, by the numbers that they get."""
        self.pid: int = server.ask({"run": list(arguments), "fds": list(fds)}, list(fds.values()))
        self._server = server
        self._arguments = arguments
        self._fd = os.pidfd_open(self.pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        if self._status is None:
            self._status = self._server.ask({"poll": self.pid})
            if self._status is not None:
                os.close(self._fd)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status."""
        while (status := self.poll()) is None:
            if not select.select([self._fd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self._arguments), timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        """Send a signal if it runs."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._fd, sig)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def _start(
    arguments: Sequence[str],
    out: IO[str],
    err: IO[str],
    fds: Sequence[int],
    *,
    fresh: bool,
    under: Sequence[str],
) -> Process:
    if fresh or under:
        command = [*under, *IPTTCTL, *arguments]
        return subprocess.Popen(command, stdout=out, stderr=err, pass_fds=fds)
    with Path(os.devnull).open("rb") as nothing:
        standard = {0: nothing.fileno(), 1: out.fileno(), 2: err.fileno()}
        return Forked(_server(), arguments, {**standard, **{fd: fd for fd in fds}})


def ipttctl(
    *arguments: str,
    pass_fds: Sequence[int] = (),
    timeout: float = 180,
    fresh: bool = False,
    under: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    with running(*arguments, pass_fds=pass_fds, fresh=fresh, under=under) as command:
        status = command.process.wait(timeout)
    return subprocess.CompletedProcess(arguments, status, command.out(), command.err())


class Running:
    """A command that runs until it is stopped; its output goes to files."""

    def __init__(self, process: Process, out: IO[str], err: IO[str]) -> None:
        self._out, self._err = out, err
        self._kept: tuple[str, str] | None = None
        self.process = process

    def out(self) -> str:
        """Its standard output so far."""
        return self._kept[0] if self._kept else _content(self._out)

    def err(self) -> str:
        """Its standard error so far."""
        return self._kept[1] if self._kept else _content(self._err)

    def keep(self) -> None:
        """Read the whole output, and remove the files."""
        self._kept = self.out(), self.err()

    def wait_for_text(self, words: str, timeout: float = 240) -> None:
        """Wait until the command has printed ``words`` on either stream."""

        def printed() -> bool:
            if words in self.out() + self.err():
                return True
            status = self.process.poll()
            assert status is None, f"ended {status}: {self.err()}"
            return False

        wait_for(printed, timeout=timeout, what=f"{words!r} in {self.out()[-500:]}{self.err()}")

    def stop(self, number: int = signal.SIGINT, timeout: float = 60) -> int:
        """Signal the command, wait for its end, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout)

    def finish(self) -> list[dict[str, Any]]:
        """Interrupt a stream of JSON and return its objects, without its head."""
        assert self.stop() == 0, self.err()
        return self.records()

    def records(self) -> list[dict[str, Any]]:
        """The objects of a stream of JSON so far, without its head."""
        lines = self.out().splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in whole if record.get("type") != "stream"]


def _content(file: IO[str]) -> str:
    return Path(file.name).read_text()


@contextmanager
def running(
    *arguments: str,
    pass_fds: Sequence[int] = (),
    fresh: bool = False,
    under: Sequence[str] = (),
) -> Iterator[Running]:
    """A command in the background; killed at the end if it still runs.

    ``under`` is a command line that executes another one; then it starts from nothing as well.
    """
    with tempfile.NamedTemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w+") as err:
        command = Running(_start(arguments, out, err, pass_fds, fresh=fresh, under=under), out, err)
        try:
            yield command
        finally:
            if command.process.poll() is None:
                command.process.kill()
            command.process.wait()
            command.keep()


@contextmanager
def trace_command(*arguments: str) -> Iterator[Running]:
    """``ipttctl trace -o json``, from when it traces."""
    with running("trace", "--lines", "-o", "json", *arguments) as command:
        command.wait_for_text("tracing: link")
        yield command
