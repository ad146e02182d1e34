# SPDX-License-Identifier: GPL-2.0
"""Statements of SQL, checked before DuckDB reads them."""

from __future__ import annotations

import re
from typing import Final

from ipttctl.errors import UsageError

_MOST_CHARACTERS: Final = 1 << 20
_MOST_NESTED: Final = 200
"""Brackets that may be open at once: what DuckDB's parser takes grows with the square of that."""

_QUOTED: Final = re.compile(r"""'[^']*'|"[^"]*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)
_BRACKET: Final = re.compile(r"[][(){}]")


def check_statement(statement: str) -> None:
    """Check that a statement can be asked.

    Raises:
        UsageError: it is too long, or too deep.
    """
    if len(statement) > _MOST_CHARACTERS:
        raise UsageError(
            f"the query has {len(statement)} characters, of at most {_MOST_CHARACTERS}",
            "ask for parts one by one",
        )
    depth = 0
    for bracket in _BRACKET.findall(_QUOTED.sub("", statement)):
        depth = depth + 1 if bracket in "([{" else max(0, depth - 1)
        if depth > _MOST_NESTED:
            raise UsageError(
                f"the query has more than {_MOST_NESTED} brackets within each other",
                "name parts of it by WITH",
            )
