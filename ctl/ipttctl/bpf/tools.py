# SPDX-License-Identifier: GPL-2.0
"""Programs of the system that we start: their search path and their environment.

The caller's PATH is ignored, both for the program and for those that it starts. An empty PATH, or
one with a relative directory, would make root run programs from the current directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

DIRECTORIES: Final = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")
"""Directories of programs, relative to the root directory."""

_ROOT: Final = Path("/")
#: from linux/prctl.h
_PR_SET_PDEATHSIG: Final = 1
_END: Final = int(signal.SIGTERM)


def search_path(root: Path = _ROOT) -> str:
    """The PATH of a system below a root directory."""
    return ":".join(str(root / directory) for directory in DIRECTORIES)


def find(name: str, root: Path = _ROOT) -> str | None:
    """The file of a program by its name, or None."""
    return shutil.which(name, path=search_path(root))


def environment() -> dict[str, str]:
    """Our environment, changed for programs: the system's PATH, and messages in English."""
    return {**os.environ, "PATH": search_path(), "LC_ALL": "C"}


def run(
    command: Sequence[str], *, text: str | None = None, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with ``text`` as its input, and capture its output.

    If the thread that waits for it ends before it, in whatever way, it is asked to end (SIGTERM).
    """
    import ctypes  # noqa: PLC0415  # 10 ms, which most commands do without

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
            # all that it needs is there before the fork: it waits for no lock of another thread
            preexec_fn=partial(_end_with, os.getpid(), ctypes.CDLL(None).prctl),
        )


def _end_with(parent: int, prctl: Callable[[int, int], int]) -> None:
    """Have this process told to end with its parent, which may be gone already.

    SIGTERM and not SIGKILL: make then ends those that it has started, and removes what they have
    half made.
    """
    prctl(_PR_SET_PDEATHSIG, _END)
    if os.getppid() != parent:
        os._exit(128 + _END)


@contextmanager
def exit_statuses() -> Iterator[None]:
    """Let children have exit statuses, even if we were started with SIGCHLD ignored.

    In that case the kernel keeps none, and Python reports 0.
    """
    ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    # only the main thread may change the handler
    if not ignored or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
