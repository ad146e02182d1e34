# SPDX-License-Identifier: GPL-2.0
"""Descriptors that a caller left open for us.

The number of one that is closed is free for the next file that we open ourselves. So what is open
is noted before anything is opened, and a number counts only if it is among these.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from ipttctl.errors import ProgramError

_OWN: Final = Path("/proc/self/fd")
#: the limit may be millions; it takes 0.1 s to try so many
_MOST: Final = 1 << 16
_PATH: Final = re.compile(
    r"(?:/dev|/proc/(?P<process>self|thread-self|[0-9]+))/fd/(?P<number>[0-9]{1,10})"
)
_REMEDY: Final = (
    "leave it open for this command, as in: ipttctl ... 7</path or pass_fds=(7,); descriptors of "
    "libbpf and of Python are close-on-exec, and those of dup2() are not"
)


@dataclass(frozen=True)
class Inherited:
    """The descriptors that were open at some moment."""

    numbers: frozenset[int]

    @classmethod
    def now(cls) -> Self:
        """The descriptors that this process has open."""
        # the listing has a descriptor of its own
        return cls(frozenset(number for number in _listed() if _is_open(number)))

    def check(self, number: int) -> None:
        """Check that a descriptor was left open.

        Raises:
            ProgramError: it was not.
        """
        if number not in self.numbers:
            raise ProgramError(f"fd {number} is not open in this process", _REMEDY)

    def check_path(self, path: str) -> None:
        """Check that a path names no descriptor of this process but those that were left open.

        Raises:
            ProgramError: it does.
        """
        number = _own_number(path)
        if number is not None:
            self.check(number)

    def check_process(self, pid: int, number: int) -> None:
        """Check as ``check`` a descriptor of a process, if that is this one."""
        if pid == os.getpid():
            self.check(number)


def _listed() -> list[int]:
    """The numbers that may be open: where /proc cannot be read, all that are possible."""
    try:
        return [int(path.name) for path in _OWN.iterdir()]
    except OSError:
        return list(range(min(os.sysconf("SC_OPEN_MAX"), _MOST)))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _own_number(path: str) -> int | None:
    """The number in a path of a descriptor of this process; None for any other path."""
    found = _PATH.fullmatch(path)
    if found is None or found["process"] not in {None, "self", "thread-self", str(os.getpid())}:
        return None
    return int(found["number"])
