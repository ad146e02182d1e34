# SPDX-License-Identifier: GPL-2.0
"""The rules of a namespace over its generations: what each said in which of them.

A rule's handle is no identity: replacing a rule keeps it. A ``Version`` is what a rule said, valid
in spans of generations. Nothing that is not certain is in a span.

One thread changes a history while others look up: each step is one assignment, and a generation
counts as known only when all of its changes are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from ipttctl.escape import Escaped
from ipttctl.rules import expressions
from ipttctl.rules.messages import RawRule
from ipttctl.rules.origin import Syntax

MOST_RETIRED: Final = 100_000
"""Most versions that are kept after they have gone."""

MOST_RETIRED_BYTES: Final = 32 << 20
"""Most bytes of them."""

_MOST_SPANS: Final = 16


class Text(NamedTuple):
    """A rule as text; ``why`` says why there is none in a better syntax."""

    text: Escaped
    syntax: Syntax
    why: str = ""


class Listed(NamedTuple):
    """The lines that programs listed for a rule: they list chains, and few rules are asked for.

    ``asked`` are the syntaxes that programs were asked for, ``iptables`` whether the table is of
    iptables, ``why`` the first failure.
    """

    texts: tuple[tuple[Syntax, Escaped], ...]
    asked: frozenset[Syntax]
    iptables: bool
    why: str


class Span(NamedTuple):
    """Generations from ``first`` to ``last``; None is the last known one, whichever it is."""

    first: int
    last: int | None


class Version:
    """The content of a rule in spans of generations."""

    __slots__ = ("listed", "rule", "spans", "table", "text")

    def __init__(self, table: int, rule: RawRule, first: int) -> None:
        """Begin with generation ``first``, in the table with a handle."""
        self.table = table
        self.rule = rule
        self.spans: tuple[Span, ...] = (Span(first, None),)
        self.listed: Listed | None = None
        self.text: Text | None = None

    @property
    def valid(self) -> bool:
        """Whether the rule is still there in the last known generation."""
        return bool(self.spans) and self.spans[-1].last is None

    def covers(self, generation: int) -> bool:
        """Whether the rule said this in a known generation."""
        for first, last in self.spans:
            if first <= generation and (last is None or generation <= last):
                return True
        return False

    def end(self, last: int) -> None:
        """End the version with a generation: a later one changed it, or is not known."""
        *before, span = self.spans
        self.spans = (*before, Span(span.first, last)) if span.first <= last else (*before,)

    def go_on(self, first: int) -> None:
        """Let the version be valid again from a generation on."""
        self.spans = (*self.spans[1 - _MOST_SPANS :], Span(first, None))


Key = tuple[int, int]
"""The handles of a table and of a rule."""


class History:
    """The versions of all rules of a namespace."""

    def __init__(self, most: int = MOST_RETIRED, most_bytes: int = MOST_RETIRED_BYTES) -> None:
        """Begin with no rules in no generation, and limits for versions that have gone."""
        self._versions: dict[Key, tuple[Version, ...]] = {}
        self._current: dict[Key, Version] = {}
        self._retired: deque[Version] = deque()
        self._retired_bytes = 0
        self.size = 0
        """The bytes that all versions take, roughly."""
        self._most = most
        self._most_bytes = most_bytes
        self.known: int | None = None
        """The last generation that is known completely."""
        self.first: int | None = None
        """The first generation of which anything is known."""

    def find(self, key: Key, generation: int) -> Version | None:
        """The version of a rule in a generation, which must be known already."""
        for version in reversed(self._versions.get(key, ())):
            if version.covers(generation):
                return version
        return None

    def current(self, key: Key) -> Version | None:
        """The version of a rule in the last known generation."""
        return self._current.get(key)

    # --- changes ----------------------------------------------------------------------------------

    def add(self, table: int, rule: RawRule, generation: int) -> None:
        """Add a rule that a generation brings."""
        key = table, rule.handle
        self.remove(key, generation)
        self._insert(key, Version(table, rule, generation))

    def remove(self, key: Key, generation: int) -> None:
        """End a rule that a generation does not have any more."""
        version = self._current.pop(key, None)
        if version is not None:
            version.end(generation - 1)
            self._retire(version)

    def advance(self, generation: int) -> None:
        """Make a generation known: all of its changes are there."""
        if self.first is None:
            self.first = generation
        self.known = generation

    def replace(self, rules: Iterable[tuple[int, RawRule]], generation: int) -> None:
        """Take a snapshot: the rules of a generation, each with the handle of its table.

        Between the last known generation and this one nothing is certain.
        """
        known = self.known
        last = min(known or 0, generation - 1)
        before, self._current = self._current, {}
        for table, rule in rules:
            key = table, rule.handle
            version = before.pop(key, None)
            if version is None:
                self._insert(key, Version(table, rule, generation))
            elif known == generation and _says_the_same(version.rule, rule):
                self._current[key] = version
            elif _unchanged(version.rule, rule):
                version.end(last)
                version.go_on(generation)
                self._current[key] = version
            else:
                version.end(last)
                self._retire(version)
                self._insert(key, Version(table, rule, generation))
        for version in before.values():
            version.end(last)
            self._retire(version)
        self.advance(generation)

    def _insert(self, key: Key, version: Version) -> None:
        self.size += version.rule.size
        self._current[key] = version
        self._versions[key] = (*self._versions.get(key, ()), version)

    def _retire(self, version: Version) -> None:
        """Keep a version that has gone, as long as there is room."""
        self._retired.append(version)
        self._retired_bytes += version.rule.size
        while len(self._retired) > self._most or self._retired_bytes > self._most_bytes:
            old = self._retired.popleft()
            self._retired_bytes -= old.rule.size
            self.size -= old.rule.size
            key = old.table, old.rule.handle
            left = tuple(v for v in self._versions.get(key, ()) if v is not old)
            if left:
                self._versions[key] = left
            else:
                self._versions.pop(key, None)


def _says_the_same(one: RawRule, other: RawRule) -> bool:
    """Whether two rules differ at most in what they counted."""
    return (
        one.chain == other.chain
        and one.userdata == other.userdata
        and expressions.same(one.expressions, other.expressions)
    )


def _unchanged(one: RawRule, other: RawRule) -> bool:
    """Whether a rule says the same after generations that nobody saw, and so has the same text.

    A set of the same name may have been another one meanwhile.
    """
    return _says_the_same(one, other) and not expressions.uses_sets(one.expressions)
