# SPDX-License-Identifier: GPL-2.0
"""Queries of recordings with DuckDB, which reaches neither files nor the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from ipttctl.recordings.extra import duckdb
from ipttctl.recordings.interruptible import interruptible
from ipttctl.recordings.statements import refused

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
_T = TypeVar("_T")


_AT_ONCE: Final = 10_000
"""Rows that are fetched at once."""

Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Answer:
    """The columns of a query's result, and its rows in blocks, which are read as it goes on.

    The first block may be empty. Reading raises what ``Database.ask`` raises.
    """

    columns: list[str]
    blocks: Iterator[list[Row]]


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
        """The answer to a statement, as far as its first rows, or all that had to be read for them.

        ``check_statement`` has passed it.

        Raises:
            UsageError: DuckDB refuses it.
            KeyboardInterrupt: Ctrl-C came meanwhile.
        """
        columns, first = self._call(lambda: self._begin(statement))
        return Answer(columns, self._blocks(first))

    def _begin(self, statement: str) -> tuple[list[str], list[Row]]:
        self._connection.execute(statement)
        columns = [one[0] for one in self._connection.description or ()]
        return columns, self._next() if columns else []

    def _blocks(self, first: list[Row]) -> Iterator[list[Row]]:
        yield first
        while first and (block := self._call(self._next)):
            yield block

    def _next(self) -> list[Row]:
        found: list[Row] = self._connection.fetchmany(_AT_ONCE)
        return found

    def _call(self, call: Callable[[], _T]) -> _T:
        try:
            return interruptible(call, self._connection.interrupt)
        # Python has no interval of so many years, and text of Parquet need not be UTF-8
        except (self._library.Error, RuntimeError, OverflowError, ValueError) as error:
            raise refused(error) from error
