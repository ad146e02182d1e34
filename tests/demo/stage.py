# SPDX-License-Identifier: GPL-2.0
"""The stage of the demonstration: commands shown before they run, and two namespaces."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.kernel.support.cli import IPTTCTL, ipttctl
from tests.kernel.support.kernel import run, wait_for
from tests.kernel.support.network import Namespace, event, namespace

_WIDTH = 78
_COMPILE_SECONDS = 240


class NotShownError(Exception):
    """Something that the demonstration announces did not happen."""


def check(holds: bool, what: str) -> None:
    """Fail the demonstration unless ``holds``."""
    if not holds:
        raise NotShownError(what)


def heading(text: str) -> None:
    """Print the heading of a part."""
    print(f"\n{f'== {text} ':=<{_WIDTH}}", flush=True)


def say(text: str) -> None:
    """Print an explanation."""
    print(textwrap.fill(" ".join(text.split()), _WIDTH), flush=True)


def show(text: str, indent: str = "    ") -> None:
    """Print output that was not shown live, indented."""
    print(textwrap.indent(text.strip("\n"), indent), flush=True)


def announce(*command: str, rest: str = "") -> None:
    """Print a command line as a user would type it; ``rest`` is for the shell."""
    print(f"$ {shlex.join(command)}{rest}", flush=True)


def command_line(*arguments: str, pass_fds: Sequence[int] = (), status: int = 0) -> str:
    """Run an ``ipttctl`` command and show its output; fail if it does not end with ``status``.

    Returns:
        Its standard output.
    """
    announce("ipttctl", *arguments)
    done = ipttctl(*arguments, pass_fds=pass_fds)
    said = done.stdout + done.stderr
    if said.strip():
        show(said)
    check(done.returncode == status, f"ipttctl {arguments[0]}: exit status {done.returncode}")
    return done.stdout


class LiveCommand:
    """An ``ipttctl`` command whose lines are shown as they come, and kept."""

    def __init__(self, *arguments: str) -> None:
        announce("ipttctl", *arguments)
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*IPTTCTL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            print(line, end="", flush=True)

    def wait_for_line(self, start: str, timeout: float = _COMPILE_SECONDS) -> None:
        """Wait until a line begins with ``start``."""

        def there() -> bool:
            if any(line.startswith(start) for line in list(self.lines)):
                return True
            check(self._process.poll() is None, f"the command ended without '{start}'")
            return False

        wait_for(there, timeout=timeout, what=f"a line '{start}...'")

    def finish(self, timeout: float = 60) -> None:
        """Wait for its end, which must be successful."""
        status = self._process.wait(timeout)
        self._reader.join(timeout)
        check(status == 0, f"the command ended with status {status}")

    def stop(self, timeout: float = 60) -> None:
        """End it as Ctrl-C does; it must end successfully."""
        self._process.send_signal(signal.SIGINT)
        self.finish(timeout)

    def kill(self) -> None:
        """Kill it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@contextmanager
def live(*arguments: str) -> Iterator[LiveCommand]:
    """A live command; killed at the end if it still runs."""
    command = LiveCommand(*arguments)
    try:
        yield command
    finally:
        command.kill()


@dataclass(frozen=True)
class Pair:
    """Two namespaces with a cable between them.

        client                      server
    eth0 10.77.0.1 --- veth --- eth0 10.77.0.2
         fd77::1                     fd77::2
    """

    client: Namespace
    server: Namespace

    server_address: str = "10.77.0.2"
    server_address6: str = "fd77::2"


@contextmanager
def pair() -> Iterator[Pair]:
    """The namespaces ``client`` and ``server``; deleted at the end."""
    with namespace("client") as client, namespace("server") as server:
        ip = ("ip", "-n", client.name)
        run(*ip, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", server.name)
        for number, end in ((1, client), (2, server)):
            ip = ("ip", "-n", end.name)
            run(*ip, "address", "add", f"10.77.0.{number}/24", "dev", "eth0")
            run(*ip, "address", "add", f"fd77::{number}/64", "dev", "eth0", "nodad")
            run(*ip, "link", "set", "eth0", "up")
        yield Pair(client, server)


def stay_on_one_cpu() -> None:
    """Keep this process, and the packets that it sends, on one CPU."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def converse(client: Namespace, server: Namespace, address: str, port: int, listened: int) -> None:
    """Have a client send a word to a server, which listens on another port, and get its answer."""
    ready = event()
    serving = server.start(_serve, listened, ready)
    check(ready.wait(60), "the server does not listen")
    client.call(_connect, address, port)
    serving.join(60)
    check(serving.exitcode == 0, "the server failed")


def _serve(port: int, ready: Any) -> None:
    """Accept a connection and answer in capitals."""
    with socket.create_server(("", port)) as listener:
        ready.set()
        peer, _ = listener.accept()
        with peer:
            peer.sendall(peer.recv(100).upper())


def _connect(address: str, port: int) -> None:
    """Connect, and receive the answer."""
    with socket.create_connection((address, port), timeout=60) as connection:
        connection.sendall(b"hello")
        if connection.recv(100) != b"HELLO":
            sys.exit(1)
