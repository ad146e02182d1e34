# SPDX-License-Identifier: GPL-2.0
"""Names of files on command lines."""

from __future__ import annotations

from pathlib import Path

from ipttctl.errors import UsageError


def file_named(text: str) -> Path:
    """A file or directory, whatever is there: who opens it tells.

    An empty name would be the current directory.

    Raises:
        UsageError: the name is empty.
    """
    if not text:
        raise UsageError("the name of a file is empty", "a variable may not be set")
    return Path(text)
