# SPDX-License-Identifier: GPL-2.0
"""Shared memory of the storm's processes.

It consists of plain words without a lock: a process that SIGKILL ends would hold it for ever.
"""

from __future__ import annotations

import ctypes
import enum
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path


class Phase(enum.IntEnum):
    """The phase of a round."""

    CALM = 0
    """No links except the accountant's, which checks the accounts."""
    ROUND = 1
    """Everything happens. The accountant's link is there, so that the module has to stay."""
    RELOADS = 2
    """The module is unloaded and loaded; links are short-lived."""
    END = 3
    """Everybody stops."""


FAMILIES = (4, 6)


class Shared:
    """The words, and a lock that the kernel releases when a process dies. For forked processes."""

    def __init__(self) -> None:
        self._phase = RawValue(ctypes.c_int, Phase.CALM)
        self._reloads = RawValue(ctypes.c_int, 0)
        self._finish = RawValue(ctypes.c_int, 0)
        self._accounted = RawValue(ctypes.c_int, 0)
        self._closed = RawArray(ctypes.c_int, 7)
        self._table_unloads = RawArray(ctypes.c_int, 7)
        descriptor, path = tempfile.mkstemp(prefix="storm-gate.")
        os.close(descriptor)
        self._gate = Path(path)

    @property
    def phase(self) -> Phase:
        """The phase of the round. Changed by the accountant only."""
        return Phase(self._phase.value)

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase.value = phase

    @property
    def ended(self) -> bool:
        """Whether everybody must stop."""
        return self.phase is Phase.END

    @property
    def reloads(self) -> int:
        """The number of unloads of the module. Written by the accountant only."""
        return int(self._reloads.value)

    def count_reload(self) -> None:
        """Count an unload of the module."""
        self._reloads.value += 1

    @property
    def finish(self) -> bool:
        """Whether the current round is the last."""
        return bool(self._finish.value)

    @finish.setter
    def finish(self, value: bool) -> None:
        self._finish.value = value

    @property
    def accounted(self) -> int:
        """The IP version whose tables the accountant needs; 0 for none."""
        return int(self._accounted.value)

    @accounted.setter
    def accounted(self, family: int) -> None:
        self._accounted.value = family

    def closed(self, family: int) -> bool:
        """Whether an IP version's tables are to be unloaded: then nobody may add rules there."""
        return bool(self._closed[family])

    def close(self, family: int, value: bool) -> None:
        """Forbid new rules in the tables of an IP version, or allow them again."""
        self._closed[family] = value

    def table_unloads(self, family: int) -> int:
        """The number of unloads of an IP version's tables. Written by one actor only."""
        return int(self._table_unloads[family])

    def count_table_unload(self, family: int) -> None:
        """Count an unload of an IP version's tables."""
        self._table_unloads[family] += 1

    @contextmanager
    def gate(self, *, exclusive: bool = False) -> Iterator[None]:
        """Hold the phase: it does not leave ROUND while a process is inside."""
        with self._gate.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def remove(self) -> None:
        """Remove the lock's file."""
        self._gate.unlink(missing_ok=True)
