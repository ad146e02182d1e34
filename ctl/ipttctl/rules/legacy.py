# SPDX-License-Identifier: GPL-2.0
"""The rules of legacy tables, by the generation that the kernel module gives them.

A legacy table is replaced as a whole, and nothing in it says how often that was. The module gives
the rules another number each time. Without that no text is certain: a table that is the same before
and after may have been another one meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from ipttctl.errors import IpttctlError
from ipttctl.escape import Escaped
from ipttctl.families import NfFamily
from ipttctl.rules.backends import LegacyTable, legacy_tables
from ipttctl.rules.confine import ListingError
from ipttctl.rules.listing import Run, by_save


class Count(NamedTuple):
    """The generation of a table's rules; ``replacing``: they may be of the next one already."""

    generation: int
    replacing: bool


Counter = Callable[[int, int, str], Count]
"""Asks for the generation of a table: namespace's descriptor, family, name.

Raises:
    IpttctlError: there is no such table, or nobody counts.
"""

Rules = Mapping[str, tuple[Escaped, ...]]
"""The rules of a table in their order, by chain."""

Place = tuple[int, str]
"""The family and the name of a table."""


class Failure(NamedTuple):
    """A reason why a table could not be read, up to a generation; None: up to any."""

    why: str
    generation: int | None = None


MOST_BYTES: Final = 32 << 20
"""Most bytes of rules that are kept of a namespace, roughly; the last ones of a table stay."""

_MOST_SNAPSHOTS: Final = 4096
_PER_RULE: Final = 64
SAVE: Final = {
    NfFamily.IPV4: "iptables-legacy-save",
    NfFamily.IPV6: "ip6tables-legacy-save",
}
"""The programs that list legacy tables, by family."""

_ATTEMPTS: Final = 3


class LegacyRules:
    """The legacy tables of a namespace, each as it was in some generations.

    One thread reads while others look up: each step is one assignment.
    """

    def __init__(self, counter: Counter | None, most_bytes: int = MOST_BYTES) -> None:
        """Begin without tables; ``counter`` tells their generations."""
        self._counter = counter
        self._most_bytes = most_bytes
        self._tables: dict[Place, dict[int, Rules]] = {}
        self._first: dict[Place, int] = {}
        self._kept: deque[tuple[Place, int, int]] = deque()
        self.failures: dict[Place, Failure] = {}
        """The reason why a table could not be read."""
        self.size = 0
        """The bytes that all rules take, roughly."""

    @property
    def certain(self) -> bool:
        """Whether generations are known at all."""
        return self._counter is not None

    def find(self, place: Place, generation: int) -> Rules | None:
        """The rules of a table in a generation; None if they are not known."""
        return self._tables.get(place, {}).get(generation)

    def early(self, place: Place, generation: int) -> bool:
        """Whether the table was read in later generations only."""
        first = self._first.get(place)
        return first is not None and generation < first

    def missed(self, place: Place, generation: int) -> bool:
        """Whether the table has been replaced since, before it was read."""
        return any(known > generation for known in self._tables.get(place, {}))

    def failure(self, place: Place, generation: int) -> str:
        """The reason why the table cannot be read in a generation; empty if that was not tried."""
        found = self.failures.get(place)
        if found is None or (found.generation is not None and generation > found.generation):
            return ""
        return found.why

    # --- the thread that reads --------------------------------------------------------------------

    def read(self, namespace: int, run: Run, only: Place | None = None) -> None:
        """Read the tables that exist in the namespace behind a descriptor, or one of them.

        Raises:
            OSError: the caller may not enter the namespace.
        """
        tables = [t for t in legacy_tables(namespace) if only in {None, (t.family, t.name)}]
        for table in tables:
            if table.family in SAVE:
                self._read(namespace, run, table)
        if only is not None and not tables:
            self.failures[only] = Failure("there is no such table any more")

    def _read(self, namespace: int, run: Run, table: LegacyTable) -> None:
        place = table.family, table.name
        try:
            self._try(namespace, run, place)
        except (IpttctlError, ListingError) as error:
            self.failures[place] = Failure(str(error))

    def _try(self, namespace: int, run: Run, place: Place) -> None:
        """Read a table between two questions for its generation, until both have one answer.

        Raises:
            ListingError: it cannot be listed.
            IpttctlError: its generation is not known.
        """
        if self._counter is None:
            return
        before = self._counter(namespace, *place)
        for _ in range(_ATTEMPTS):
            if before.generation in self._tables.get(place, {}) and not before.replacing:
                return
            # its size, now that the generation is known
            now = [t for t in legacy_tables(namespace) if (t.family, t.name) == place]
            if not now:
                raise ListingError("there is no such table any more")
            try:
                rules = _saved(run, now[0])
            except ListingError:
                # it may have changed between its size and its listing
                after = self._counter(namespace, *place)
                if after == before and not after.replacing:
                    raise
            else:
                after = self._counter(namespace, *place)
                if after.generation == before.generation and not after.replacing:
                    self._keep(place, after.generation, rules)
                    return
            before = after
        why = "the table is replaced faster than it can be read"
        self.failures[place] = Failure(why, before.generation)

    def _keep(self, place: Place, generation: int, rules: Rules) -> None:
        known = self._tables.get(place, {})
        # chains that did not change take their room once
        last = known[max(known)] if known else {}
        shared = {
            chain: last[chain] if last.get(chain) == texts else texts
            for chain, texts in rules.items()
        }
        size = sum(len(text) + _PER_RULE for texts in shared.values() for text in texts)
        self._first.setdefault(place, generation)
        self._tables[place] = {**known, generation: shared}
        self._kept.append((place, generation, size))
        self.size += size
        self.failures.pop(place, None)
        self._make_room()

    def _make_room(self) -> None:
        """Forget the oldest rules, but not the last ones of a table."""
        last = {place: max(known) for place, known in self._tables.items()}
        stay: list[tuple[Place, int, int]] = []
        while self._kept and (
            self.size > self._most_bytes or len(self._kept) + len(stay) > _MOST_SNAPSHOTS
        ):
            place, generation, size = self._kept.popleft()
            if generation == last[place]:
                stay.append((place, generation, size))
                continue
            self.size -= size
            known = self._tables[place]
            self._tables[place] = {g: r for g, r in known.items() if g != generation}
        self._kept.extendleft(reversed(stay))


def _saved(run: Run, table: LegacyTable) -> Rules:
    output = run(SAVE[NfFamily(table.family)], ["-t", table.name])
    chains = by_save(output, table.name, table.entries, table.hooks)
    return {chain: tuple(texts) for chain, texts in chains.items()}
