# SPDX-License-Identifier: GPL-2.0
"""Checks of files trusted as code: only their owner, or root, can have written them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ipttctl.errors import ProgramError

#: most symbolic links that a path may lead through, as in the kernel (MAXSYMLINKS)
_MOST_LINKS: Final = 40


def make_private(directory: Path) -> None:
    """Make a directory that only its owner can enter, with its parents, and check it.

    Raises:
        ProgramError: it exists, and somebody else can write there.
        OSError: the directory cannot be made.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    check_private(directory)


def check_private(path: Path, *, follow: bool = False) -> None:
    """Check that nobody else could have written at a path, or changed the way to it.

    The way is every directory and symbolic link that opening the path leads through. With
    ``follow`` the path itself may be a symbolic link too.

    Raises:
        ProgramError: somebody could have.
        OSError: there is no such path.
    """
    for place, last in way(path):
        status = place.lstat()
        link = stat.S_ISLNK(status.st_mode)
        if status.st_uid not in {0, os.geteuid()}:
            command = "chown -h root" if link else "chown root"
            raise _others(path, place, f"belongs to uid {status.st_uid}", command)
        if link:
            if last and not follow:
                raise _others(path, place, "is a symbolic link", "rm")
            continue  # a symbolic link's mode means nothing
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and not last
        if status.st_mode & 0o022 and not sticky:
            raise _others(path, place, "can be written to by others", "chmod go-w")


def way(path: Path) -> Iterator[tuple[Path, bool]]:
    """The directories, links and files that a path leads through, each with whether it is the end.

    Raises:
        OSError: one is missing, or links form a loop.
    """
    here, links = Path("/"), 0
    ahead = [*reversed(path.absolute().parts)]
    while ahead:
        part = ahead.pop()
        if part == "..":
            here = here.parent
            continue
        place = here / part
        yield place, not ahead
        if not place.is_symlink():
            here = place
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        ahead += reversed(place.readlink().parts)


def _others(path: Path, place: Path, why: str, command: str) -> ProgramError:
    return ProgramError(f"do not trust {path}: {place} {why}", f"run: {command} {place}")
