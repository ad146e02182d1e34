# SPDX-License-Identifier: GPL-2.0
"""A process that has imported the command line and forks a child for each command.

Importing takes seconds in an emulated guest, and the tests run some fifty commands. A child has
everything that a new process has: standard files of its own, the descriptors that it was given
and no others, and the way through ``main()`` to the interpreter's end.

The socket, which is the process's standard input, carries packets of JSON: ``{"run": arguments,
"fds": numbers}`` comes with the descriptors that the child gets at these numbers, standard files
among them, and is answered with its pid; ``{"poll": pid}`` is answered with the exit status, or
null while the child runs.
"""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import socket
import sys
from contextlib import redirect_stdout
from importlib import import_module
from typing import TextIO

import pyroute2  # noqa: F401  # what commands import when they need it

from ipttctl.cli import main, run
from ipttctl.cli.commands import PLACES
from ipttproto.arrays import np  # noqa: F401  # the same

_PACKET = 65536
_MOST_FDS = 64
_STANDARD_ERROR = 2
#: a child's descriptors are moved above all numbers that they may get
_ABOVE = 512


def _take_places(fds: list[int], numbers: list[int]) -> None:
    """Move descriptors to their numbers; close all others."""
    assert max(numbers, default=0) < _ABOVE
    waiting = [fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE) for fd in fds]
    os.closerange(0, _ABOVE)
    for fd, number in zip(waiting, numbers, strict=True):
        os.dup2(fd, number)
    os.closerange(_ABOVE, max(waiting, default=0) + 1)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        # as at the interpreter's start
        file = _standard_file(number, getattr(sys, name)) if number in numbers else None
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


def _standard_file(number: int, like: TextIO) -> TextIO:
    buffering = 1 if number == _STANDARD_ERROR else -1
    return open(
        number,
        "w" if number else "r",
        buffering,
        encoding=like.encoding,
        errors=like.errors,
        closefd=False,
    )


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def next_command(channel: socket.socket) -> list[str] | None:
    """Serve; return the arguments of a command in its child, and None at the end in the server."""
    while True:
        packet, fds, _, _ = socket.recv_fds(channel, _PACKET, _MOST_FDS)
        if not packet:
            return None
        request = json.loads(packet)
        if "poll" in request:
            answer = _poll(request["poll"])
        else:
            answer = os.fork()
            if answer == 0:
                # its number now belongs to the command, or is free
                channel.detach()
                _take_places(fds, request["fds"])
                return list(request["run"])
        for fd in fds:
            os.close(fd)
        channel.send(json.dumps(answer).encode())


def serve() -> list[str] | None:
    """Call ``next_command`` with standard input as its socket, once everything is imported."""
    for place, _ in PLACES.values():
        import_module(f"ipttctl.cli.{place.split('.')[0]}")
    # typer imports more when it first reads a command line
    with redirect_stdout(io.StringIO()):
        run(["--help"])
    # the garbage collectors of children need not copy these pages
    gc.freeze()
    return next_command(socket.socket(fileno=0))


if __name__ == "__main__":
    command = serve()
    if command is not None:
        sys.argv[1:] = command
        main()
