# SPDX-License-Identifier: GPL-2.0
"""Statements of SQL, checked before recordings are read for them."""

from __future__ import annotations

import re
from typing import Final

from ipttctl.errors import UsageError
from ipttctl.recordings.columns import TABLES
from ipttctl.recordings.extra import duckdb
from ipttctl.recordings.memory_bound import ASK_LESS, bounded_memory

_MOST_CHARACTERS: Final = 1 << 20
_MOST_NESTED: Final = 200
"""Brackets that may be open at once: what DuckDB's parser takes grows with the square of that."""

_ANSWERED: Final = frozenset({"SELECT", "EXPLAIN", "MULTI"})
"""Kinds of statements that have an answer, as DuckDB calls them: SELECT stands for SHOW and others
too, and MULTI is PIVOT."""

_ASK: Final = "write one that begins with SELECT, FROM, WITH, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN"
_VIEWS: Final = f"the views are {', '.join(TABLES)}"

_WORD: Final = re.compile(r"\w+")
_OF_ALL_VIEWS: Final = re.compile(
    r"\s*(show|describe|desc)\b|\b(information_schema|duckdb_\w+|pragma_\w+|sqlite_master)\b",
    re.IGNORECASE,
)

_COMMENT: Final = r"--[^\n]*|/\*.*?\*/"
_STRING: Final = r"""'[^']*'|"[^"]*"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"""
_QUOTED: Final = re.compile(f"{_STRING}|{_COMMENT}", re.DOTALL)
_BRACKET: Final = re.compile(r"[][(){}]")


def named_in(statement: str) -> frozenset[str]:
    """The tables that a statement may name, and others that it only seems to."""
    return frozenset({word.lower() for word in _WORD.findall(statement)} & TABLES.keys())


def lists_views(statement: str) -> bool:
    """Whether a statement may ask which views there are, such as SHOW TABLES."""
    bare = _QUOTED.sub(lambda found: "" if found[0][:2] in {"--", "/*"} else found[0], statement)
    return _OF_ALL_VIEWS.search(bare) is not None


def check_statement(statement: str) -> None:
    """Check that a text is one statement, which can be asked and has an answer.

    Raises:
        UsageError: it is not.
        MissingExtraError: DuckDB is not installed.
    """
    library = duckdb()
    _check_size(statement)
    with bounded_memory():
        try:
            found = library.extract_statements(statement)
        except (library.Error, RuntimeError, ValueError) as error:
            raise refused(error) from error
    if not found:
        raise UsageError("the query is empty", _ASK)
    if len(found) > 1:
        raise UsageError(f"the query has {len(found)} statements", _ASK)
    kind = found[0].type.name
    if kind not in _ANSWERED:
        raise UsageError(f"the query is a statement of kind {kind}, which asks nothing", _ASK)


def refused(error: Exception) -> UsageError:
    """The sentence on a statement that DuckDB refuses."""
    first = str(error).strip().split("\n", maxsplit=1)[0]
    remedy = ""
    if isinstance(error, duckdb().OutOfMemoryException):
        remedy = ASK_LESS
    elif first.startswith("Catalog Error: Table with name"):
        remedy = _VIEWS
    return UsageError(f"the query fails: {first}", remedy)


def _check_size(statement: str) -> None:
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
