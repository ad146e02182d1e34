# SPDX-License-Identifier: GPL-2.0
"""The rules of legacy tables, by the counter of their replacements.

A legacy table is replaced as a whole, and nothing in it says how often that was. The kernel module
counts, odd while it happens. Without that counter no text is certain: a table that is the same
before and after may have been another one meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ipttctl.escape import Escaped
from ipttctl.families import NfFamily
from ipttctl.rules.backends import LegacyTable, legacy_tables
from ipttctl.rules.confine import ListingError
from ipttctl.rules.listing import Run, by_save

Counter = Callable[[int, str], int | None]
"""The counter of replacements of a table, by family and name; None if there is none."""

Rules = Mapping[str, Sequence[Escaped]]
"""The rules of a table in their order, by chain."""

_SAVE: Final = {
    NfFamily.IPV4: "iptables-legacy-save",
    NfFamily.IPV6: "ip6tables-legacy-save",
}
_KEPT: Final = 32
_ATTEMPTS: Final = 3


class LegacyRules:
    """The legacy tables of a namespace, each as it was at some counts of replacements."""

    def __init__(self, counter: Counter | None) -> None:
        """Begin without tables; ``counter`` says how often they were replaced."""
        self._counter = counter
        self._tables: dict[tuple[int, str], dict[int, Rules]] = {}
        self.failures: dict[tuple[int, str], str] = {}
        """Why a table could not be read."""

    @property
    def certain(self) -> bool:
        """Whether replacements are counted at all."""
        return self._counter is not None

    def find(self, family: int, table: str, count: int) -> Rules | None:
        """The rules of a table at a count of replacements; None if they are not known."""
        return self._tables.get((family, table), {}).get(count)

    def missed(self, family: int, table: str, count: int) -> bool:
        """Whether the table has been replaced since, before it was read."""
        return any(known > count for known in self._tables.get((family, table), {}))

    def read(self, namespace: int, run: Run, only: tuple[int, str] | None = None) -> None:
        """Read the tables that exist in the namespace behind a descriptor, or one of them.

        Raises:
            OSError: the caller may not enter the namespace.
        """
        tables = [t for t in legacy_tables(namespace) if only in {None, (t.family, t.name)}]
        for table in tables:
            if table.family in _SAVE:
                self._read(namespace, run, table)
        if only is not None and not tables:
            self.failures[only] = "there is no such table"

    def _read(self, namespace: int, run: Run, table: LegacyTable) -> None:
        key = table.family, table.name
        counter = self._counter
        for _ in range(_ATTEMPTS if counter else 0):
            before = counter(*key) if counter else None
            if before is None or before & 1:
                continue
            # its size again, now that the count is known
            now = [t for t in legacy_tables(namespace) if (t.family, t.name) == key]
            if not now:
                return
            try:
                rules = _saved(run, now[0])
            except ListingError as error:
                self.failures[key] = str(error)
                return
            if counter and counter(*key) == before:
                kept = {**self._tables.get(key, {}), before: rules}
                self._tables[key] = dict(list(kept.items())[-_KEPT:])
                self.failures.pop(key, None)
                return
        self.failures[key] = "the table is replaced faster than it can be read"


def _saved(run: Run, table: LegacyTable) -> Rules:
    output = run(_SAVE[NfFamily(table.family)], ["-t", table.name])
    return by_save(output, table.name, table.entries, table.hooks)
