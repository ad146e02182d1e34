# SPDX-License-Identifier: GPL-2.0
"""Detectors with which a debug kernel finds faults by itself; a stock kernel has none.

Their reports come through the kernel's log, except leaks, which are asked for
(Documentation/dev-tools/kmemleak.rst, kcsan.rst, Documentation/locking/lockdep-design.rst).
"""

from __future__ import annotations

import re
import time
from pathlib import Path

_KMEMLEAK = Path("/sys/kernel/debug/kmemleak")
_LOCKDEP = Path("/proc/lockdep_stats")
_KCSAN = Path("/sys/kernel/debug/kcsan")

#: minimum age of an object that kmemleak reports (mm/kmemleak.c, MSECS_MIN_AGE)
_LEAK_AGE = 5.5


def switch_on() -> None:
    """Start the detectors that do not run from boot; clear findings from before the module came."""
    if _KMEMLEAK.exists():
        _KMEMLEAK.write_text("scan")
        _KMEMLEAK.write_text("clear")
    if _KCSAN.exists():
        _KCSAN.write_text("on")


def leaks() -> str:
    """Objects without a reference, with the stacks that allocated them; empty if there are none.

    Only findings of two scans count: a pointer that moved during one scan is not a leak.
    """
    if not _KMEMLEAK.exists():
        return ""
    # kmemleak passes over younger ones, and tells nothing when they are old enough
    time.sleep(_LEAK_AGE)
    for _ in range(2):
        _KMEMLEAK.write_text("scan")
        found = _KMEMLEAK.read_text()
        if not found:
            break
    if found:
        _KMEMLEAK.write_text("clear")
    return found


def gave_up() -> list[str]:
    """Detectors that have switched themselves off: they checked nothing since then."""
    off = []
    if _LOCKDEP.exists() and not re.search(r"debug_locks:\s+1\b", _LOCKDEP.read_text()):
        off.append("lockdep")
    if _KMEMLEAK.exists():
        try:
            _KMEMLEAK.write_text("scan=off")
        except PermissionError:
            off.append("kmemleak")
    return off
