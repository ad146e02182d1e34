# SPDX-License-Identifier: GPL-2.0
"""Numbers of bytes on the command line."""

from __future__ import annotations

import re
from typing import Final

from ipttctl.errors import UsageError

_SIZE: Final = re.compile(r"(\d{1,15})([KMGT]?)", re.ASCII)
_FACTORS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(option: str, text: str) -> int:
    """The number of bytes of a text such as ``64M``.

    Raises:
        UsageError: it is none.
    """
    found = _SIZE.fullmatch(text.upper())
    if found is None:
        raise UsageError(f"{option}: '{text}' is no number of bytes", "such as 500000, 64M or 2G")
    return int(found[1]) * _FACTORS[found[2]]
