# SPDX-License-Identifier: GPL-2.0
"""Programs of the system that we start: where they are looked for, and what they are told.

The caller's PATH has no say, neither in which program that is nor in what it starts itself: one
that is empty, or has a relative directory in it, would have root run whatever lies in the current
directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DIRECTORIES: Final = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
"""Directories of programs, from the root directory on."""

_ROOT: Final = Path("/")


def search_path(root: Path = _ROOT) -> str:
    """The PATH of a system that lies below a root directory."""
    return ":".join(str(root / directory) for directory in DIRECTORIES)


def find(name: str, root: Path = _ROOT) -> str | None:
    """The file of a program, or None if there is none of this name."""
    return shutil.which(name, path=search_path(root))


def environment() -> dict[str, str]:
    """Our environment as programs get it: with the system's PATH, and in English."""
    return {**os.environ, "PATH": search_path(), "LC_ALL": "C"}


def run(
    command: Sequence[str], *, text: str | None = None, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with ``text`` as its input, and keep what it prints."""
    with exit_statuses():
        return subprocess.run(
            command,
            input=text or "",
            cwd=directory,
            env=environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Children have exit statuses meanwhile, also if we were started with SIGCHLD ignored.

    The kernel then keeps none, and Python takes 0 for it.
    """
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    # only the main thread may change that
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
