# SPDX-License-Identifier: GPL-2.0
"""Times on the command line."""

from __future__ import annotations

from ipttctl.durations import in_words, milliseconds
from ipttctl.errors import UsageError


def seconds(option: str, text: str, maximum: float) -> float:
    """Convert ``500ms``, ``30s``, ``1.5m`` or ``1h`` to seconds, from 1 ms to ``maximum``.

    Raises:
        UsageError: the text is not of this form, or is out of range.
    """
    value = milliseconds(text)
    if value is None:
        raise UsageError(f"{option}: '{text}' is not a time", "write it as 500ms, 30s, 2m or 1h")
    if not 1 <= value <= maximum * 1000:
        raise UsageError(f"{option}: {text} is not between 1ms and {in_words(int(maximum * 1000))}")
    return value / 1000
