# SPDX-License-Identifier: GPL-2.0
"""Queries of recordings with DuckDB, which reaches neither files nor the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ipttctl.errors import UsageError
from ipttctl.recordings.columns import TABLES
from ipttctl.recordings.extra import duckdb
from ipttctl.recordings.interruptible import interruptible

_CONFIG: Final = {
    # what does not fit would be written to the current directory, for everybody to read; this one
    # comes first, as the next refuses it
    "temp_directory": "",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "memory_limit": "2GB",
    "TimeZone": "UTC",
}
_WORD: Final = re.compile(r"\w+")


@dataclass(frozen=True)
class Answer:
    """The columns and the rows of a query's result."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def named_in(statement: str) -> frozenset[str]:
    """The tables that a statement may name, and others that it only seems to."""
    return frozenset({word.lower() for word in _WORD.findall(statement)} & TABLES.keys())


class Database:
    """Tables as views, in memory."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        """Take Arrow's tables by name.

        Raises:
            MissingExtraError: DuckDB is not installed.
        """
        self._library = duckdb()
        self._tables = dict(tables)
        self._connection = self._library.connect(":memory:", config={})
        for name, table in self._tables.items():
            self._connection.register(name, table)
        for name, value in _CONFIG.items():
            self._connection.execute(f"SET {name} = '{value}'")
        # from here on nothing of this can be changed
        self._connection.execute("SET lock_configuration = true")

    def close(self) -> None:
        """Let the tables go."""
        self._connection.close()

    def ask(self, statement: str) -> Answer:
        """The answer to a statement.

        Raises:
            UsageError: DuckDB refuses it.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        try:
            return interruptible(lambda: self._answer(statement), self._connection.interrupt)
        # Python has no interval of so many years, and text of Parquet need not be UTF-8
        except (self._library.Error, RuntimeError, OverflowError, ValueError) as error:
            first = str(error).strip().split("\n", maxsplit=1)[0]
            raise UsageError(f"the query fails: {first}") from error

    def _answer(self, statement: str) -> Answer:
        self._connection.execute(statement)
        columns = [one[0] for one in self._connection.description or ()]
        return Answer(columns, self._connection.fetchall() if columns else [])
