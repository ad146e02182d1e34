# SPDX-License-Identifier: GPL-2.0
"""Numbers: parsed, and in words."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, TypeVar

from ipttctl.errors import UsageError

_E = TypeVar("_E", bound=enum.IntEnum)

U32_MAX: Final = (1 << 32) - 1
U64_MAX: Final = (1 << 64) - 1
S64_MAX: Final = (1 << 63) - 1


def decimal(text: str, maximum: int) -> int | None:
    """The number from 0 to ``maximum`` in decimal digits; None if the text is something else."""
    # int() limits the number of digits; leading zeros are allowed without limit
    digits = text.lstrip("0") or text[:1]
    if not digits.isdecimal() or len(digits) > len(str(maximum)):
        return None
    value = int(digits)
    return value if value <= maximum else None


def number(called: str, text: str, maximum: int, minimum: int = 0) -> int:
    """A number in decimal, or in hex after 0x; ``called`` names it in error messages.

    Raises:
        UsageError: the text is not a number, or is out of range.
    """
    try:
        value = int(text, 0)
    except ValueError:
        raise UsageError(f"{called}: '{text}' is not a number") from None
    if not minimum <= value <= maximum:
        raise UsageError(f"{called}: {text} is not between {minimum} and {maximum}")
    return value


def known_member(names: type[_E], value: int) -> _E | int:
    """The member of an enumeration with this value; the number itself if there is none."""
    try:
        return names(value)
    except ValueError:
        return value


def counted(number: int, one: str, several: str = "") -> str:
    """A number of things in words; ``several`` is their plural, where that is not ``one`` and s."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def shortened(names: Sequence[str], most: int) -> str:
    """Names behind each other, ``most`` at most, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
