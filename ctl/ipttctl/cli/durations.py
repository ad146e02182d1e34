# SPDX-License-Identifier: GPL-2.0
"""Times on the command line."""

from __future__ import annotations

import re
from typing import Final

from ipttctl.errors import UsageError

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS)})")


def seconds(option: str, text: str, maximum: float) -> float:
    """Convert ``500ms``, ``30s``, ``1.5m`` or ``1h`` to seconds, from 1 ms to ``maximum``.

    Raises:
        UsageError: the text is not of this form, or is out of range.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{option}: '{text}' is not a time", "write it as 500ms, 30s, 2m or 1h")
    value = float(match[1]) * _UNITS[match[2]]
    if not _UNITS["ms"] <= value <= maximum:
        raise UsageError(f"{option}: {text} is not between 1ms and {maximum:g}s")
    return value
