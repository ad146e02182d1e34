# SPDX-License-Identifier: GPL-2.0
"""Names of users by number, from /etc/passwd.

Other sources of names are left out: they may be servers that do not answer.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

_FILE: Final = Path("/etc/passwd")
_LONGEST: Final = 1 << 22


class Users:
    """The host's users."""

    def __init__(self, file: Path = _FILE) -> None:
        """Take names from ``file``; it is read again when it changes."""
        self._file = file
        self._version: tuple[int, int] | None = None
        self._names: dict[int, str] = {}

    def name(self, uid: int) -> str | None:
        """The name of a user; None without one. It may hold any bytes."""
        with suppress(OSError):
            status = self._file.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._version:
                self._names = self._read()
                self._version = version
        return self._names.get(uid)

    def _read(self) -> dict[int, str]:
        with self._file.open("rb") as opened:
            text = opened.read(_LONGEST).decode(errors="surrogateescape")
        names: dict[int, str] = {}
        for line in text.split("\n"):
            name, _, number, *_ = [*line.split(":"), "", "", ""]
            # lines with + or - are not users
            if name and number.isdecimal() and number.isascii():
                names.setdefault(int(number), name)
        return names
