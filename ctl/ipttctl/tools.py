# SPDX-License-Identifier: GPL-2.0
"""Programs of the system that we start: where they are looked for, and what they are told.

The caller's PATH has no say, neither in which program that is nor in what it starts itself: one
that is empty, or has a relative directory in it, would have root run whatever lies in the current
directory.
"""

from __future__ import annotations

import os
import shutil
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
