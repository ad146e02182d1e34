# SPDX-License-Identifier: GPL-2.0
"""A file that is made whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from ipttctl.errors import UsageError
from ipttctl.recordings.writer import check_new

_MODE: Final = 0o600


@contextmanager
def new_file(path: Path, *, replace: bool, read: Path | None) -> Iterator[BinaryIO]:
    """A new file, for its owner only, which is removed again if the block fails.

    Raises:
        UsageError: something is to be replaced that is not a file, or is ``read`` for it.
        OSError: it cannot be made.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    if replace:
        check_new(path, replace=True)
        if read and os.path.lexists(path) and os.path.samestat(path.lstat(), read.stat()):
            raise UsageError(f"{path} is the recording itself", "choose another file")
        path.unlink(missing_ok=True)
    file = os.fdopen(os.open(path, flags, _MODE), "wb")
    try:
        with file:
            yield file
    except BaseException:
        # a part could be taken for all, and would be in the way of the next attempt
        with suppress(OSError):
            path.unlink()
        raise
