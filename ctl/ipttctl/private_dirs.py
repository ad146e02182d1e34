# SPDX-License-Identifier: GPL-2.0
"""Directories whose content is trusted as code: only their owner, or root, may write there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ipttctl.errors import ProgramError


def make_private(directory: Path) -> None:
    """Make a directory that only its owner can enter, with its parents, and check it.

    Raises:
        ProgramError: it exists and somebody else may write there.
        OSError: it cannot be made.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    check_private(directory)


def check_private(path: Path) -> None:
    """Check that nobody else could have put content at a path, itself or through a parent.

    Raises:
        ProgramError: somebody could have.
    """
    for place in (path, *path.absolute().parents):
        status = place.lstat() if place == path else place.stat()
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and place != path
        if status.st_uid not in {0, os.geteuid()}:
            raise _others(path, place, f"belongs to uid {status.st_uid}", "chown root")
        # its mode is no mode: everybody may write, and chmod goes elsewhere
        if stat.S_ISLNK(status.st_mode):
            raise _others(path, place, "is a symbolic link", "rm")
        if status.st_mode & 0o022 and not sticky:
            raise _others(path, place, "can be written to by others", "chmod go-w")


def _others(path: Path, place: Path, why: str, command: str) -> ProgramError:
    return ProgramError(f"do not trust {path}: {place} {why}", f"run: {command} {place}")
