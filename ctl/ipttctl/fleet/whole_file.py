# SPDX-License-Identifier: GPL-2.0
"""Private files that are there whole or not at all, after a loss of power too."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(place: Path, temporary: Path, data: bytes) -> None:
    """Write a file of mode 0600, at first by a temporary name in the same directory.

    Raises:
        OSError: it cannot be written; the one of before is left as it was.
    """
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    temporary.replace(place)
