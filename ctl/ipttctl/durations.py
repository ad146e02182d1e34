# SPDX-License-Identifier: GPL-2.0
"""Times as people write them: ``500ms``, ``30s``, ``1.5m``, ``1h``."""

from __future__ import annotations

import re
from typing import Final

#: from the smallest to the largest
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}

_DAY: Final = 86_400_000
_YEAR: Final = 365 * _DAY

UNIT: Final = "|".join(_UNITS)
"""A regular expression for the unit of a time."""

DURATION: Final = rf"\d+(?:\.\d+)?(?:{UNIT})"
"""A regular expression for a time."""

_PARTS: Final = re.compile(rf"(\d+)(?:\.(\d+))?({UNIT})", re.ASCII)


def milliseconds(text: str) -> int | None:
    """The time that ``text`` means, in ms, rounded; None if it is no time."""
    match = _PARTS.fullmatch(text)
    if match is None or len(text) > 20:
        return None
    whole, fraction, unit = match.groups()
    # exact, whatever the number of digits
    digits = int(whole + (fraction or "")) * _UNITS[unit]
    scale = int("1" + "0" * len(fraction or ""))
    return (2 * digits + scale) // (2 * scale)


def spelled(time: int) -> str:
    """A time in ms as ``milliseconds`` reads it, in the largest unit that it is a multiple of."""
    unit = next(name for name in reversed(_UNITS) if time % _UNITS[name] == 0)
    return f"{time // _UNITS[unit]}{unit}"


def in_words(time: int) -> str:
    """A time in ms as a sentence has it: years or days if it is several, else as ``spelled``."""
    for unit, name in ((_YEAR, "years"), (_DAY, "days")):
        if time > unit and time % unit == 0:
            return f"{time // unit} {name}"
    return spelled(time) if time else "0s"
