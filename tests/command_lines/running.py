# SPDX-License-Identifier: GPL-2.0
"""Run cases, each in a process that a server forks."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from tests.command_lines import Case, Outcome, Place
from tests.kernel.support.cli import Forked, Server


def run(server: Server, case: Case, before: Sequence[str] = (), patience: float = 60) -> Outcome:
    """Run a case to its end; ``before`` precedes its arguments.

    Raises:
        subprocess.TimeoutExpired: it does not end in time; it is killed.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.NamedTemporaryFile("w+")) for _ in range(3)]
        files[0].write(case.text)
        files[0].flush()
        files[0].seek(0)
        fds = {}
        for number, place in enumerate((case.stdin, case.stdout, case.stderr)):
            if place is not Place.CLOSED:
                fds[number] = stack.enter_context(_opened(place, files[number]))
        command = Forked(server, [*before, *case.arguments], fds)
        try:
            status = command.wait(patience)
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait(patience)
            raise
        out, err = (Path(file.name).read_text(errors="replace") for file in files[1:])
        return Outcome(status, out, err)


@contextmanager
def _opened(place: Place, file: IO[str]) -> Iterator[int]:
    match place:
        case Place.FULL:
            fd = os.open("/dev/full", os.O_WRONLY)
        case Place.READ_ONLY:
            fd = os.open(os.devnull, os.O_RDONLY)
        case Place.NO_READER:
            reader, fd = os.pipe()
            os.close(reader)
        case _:
            fd = os.dup(file.fileno())
    try:
        yield fd
    finally:
        os.close(fd)
