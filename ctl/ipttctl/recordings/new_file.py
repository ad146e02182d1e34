# SPDX-License-Identifier: GPL-2.0
"""Files that are made whole or not at all, and get their names once they are whole."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from ipttctl.errors import UsageError
from ipttctl.recordings.writer import check_new
from ipttctl.system.endings import delayed

_MODE: Final = 0o600
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
"""Errors of file systems without hard links, such as those of memory sticks."""


def check_target(path: Path, *, replace: bool, read: Path | None) -> None:
    """Check that a file may be made, or may take the place of the one that is there.

    Raises:
        UsageError: it may not, or what is there is ``read`` for it.
        OSError: nothing can have this name.
    """
    with suppress(FileNotFoundError):
        there = path.lstat()
        check_new(path, replace=replace)
        if read and os.path.samestat(there, read.stat()):
            raise UsageError(f"{path} is the recording itself", "choose another file")


@contextmanager
def new_file(path: Path, *, replace: bool, read: Path | None) -> Iterator[BinaryIO]:
    """A new file, as one of ``new_files``."""
    with new_files([path], replace=replace, read=read) as [file]:
        yield file


@contextmanager
def new_files(
    paths: Sequence[Path], *, replace: bool, read: Path | None
) -> Iterator[list[BinaryIO]]:
    """New files, for their owner only, that get their names if the block ends well.

    Until then they have other names in the same directories, and what they replace stays. If the
    block fails nothing is left of them.

    Raises:
        UsageError: something is there that is not to be replaced, or is ``read`` for them.
        OSError: they cannot be made.
    """
    for path in paths:
        check_target(path, replace=replace, read=read)
    # what a process that was killed left behind has another name
    made = [path.parent / f".ipttctl-{secrets.token_hex(8)}" for path in paths]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(_opened(one)) for one in made]
            yield files
            for file in files:
                file.flush()
                # the old file is needed until the new one is on the disk
                os.fsync(file.fileno())
        # some of the new files among the old ones would belong to nothing
        with delayed():
            _name(made, paths, replace=replace)
    finally:
        for one in made:
            with suppress(OSError):
                one.unlink()


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, _FLAGS, _MODE), "wb")


def _name(made: Sequence[Path], paths: Sequence[Path], *, replace: bool) -> None:
    """Give files their names.

    Raises:
        UsageError: somebody made a file with one of them meanwhile; it stays.
        OSError: one of them cannot have its name.
    """
    named: list[Path] = []
    try:
        for one, path in zip(made, paths, strict=True):
            if replace:
                one.replace(path)
            else:
                _name_new(one, path)
                named.append(path)
    except BaseException as error:
        for path in named:
            with suppress(OSError):
                path.unlink()
        if isinstance(error, FileExistsError):
            check_new(paths[len(named)], replace=replace)
        raise


def _name_new(made: Path, path: Path) -> None:
    """Give a file a name that no other one has."""
    try:
        path.hardlink_to(made)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # the name is ours first
        os.close(os.open(path, _FLAGS, _MODE))
        try:
            made.replace(path)
        except BaseException:
            path.unlink()
            raise
