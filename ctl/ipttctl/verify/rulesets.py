# SPDX-License-Identifier: GPL-2.0
"""Random rulesets: a vocabulary, a seed and a number make the same one each time.

That is so where the kernel takes the same words (``grammar.py``). Every ruleset can be loaded:
jumps have no loops and are not too deep, and every word stands where it may. Each rule has a
counter behind its matches, so that counters show which rules packets met.

Regular chains are a ladder, each jumping to the next, up to the kernel's limit; other jumps lead to
the last few. So the kernel, which follows every way through the chains at load, has few of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ipttctl.verify import tables
from ipttctl.verify.grammar import Grammar
from ipttctl.verify.tables import Objects
from ipttctl.verify.words import ALL, Vocabulary, Word, WordKind, excluded

DEPTH: Final = 15
"""Chains below a base chain, at most."""

_LEAVES: Final = 3
_PRIORITIES: Final = (-350, -301, -150, -120, -50, -1, 0, 0, 1, 10, 90, 150, 225, 400)
_NAT_HOOKS: Final = {"prerouting": -100, "postrouting": 100, "output": -100, "input": 100}
_ENDS: Final = {
    "nothing": 30,
    "accept": 6,
    "drop": 5,
    "continue": 3,
    "return": 6,
    "jump": 8,
    "goto": 4,
    "map": 16,
    "statement": 16,
}
"""The ends of rules, and how often each is chosen."""

_FAMILIES: Final = ("ip", "ip6", "inet", "inet", "inet", "netdev", "arp")


@dataclass(frozen=True)
class RandomChain:
    """A chain with its rules, as text; ``base`` is what hooks it, empty for a regular chain."""

    family: str
    table: str
    name: str
    base: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Ruleset:
    """Tables as one batch for nft, and lines for iptables-nft-restore and its sister."""

    text: str
    chains: tuple[RandomChain, ...]
    iptables: str = ""
    ip6tables: str = ""

    @property
    def translates(self) -> bool:
        """Whether it may translate addresses."""
        return "type nat " in self.text

    def rule(self, family: str, table: str, chain: str, index: int) -> str:
        """The text of a rule by its place; empty if it is none of nft's."""
        for candidate in self.chains:
            if (candidate.family, candidate.table, candidate.name) == (family, table, chain):
                return candidate.rules[index] if index < len(candidate.rules) else ""
        return ""


@dataclass
class _Table:
    """A table while it is made."""

    family: str
    name: str
    nat: bool
    objects: Objects
    hooks: list[str]
    regular: list[str]
    chains: list[RandomChain] = field(default_factory=list)


def ruleset(chance: random.Random, grammar: Grammar) -> Ruleset:
    """A random ruleset of words that the kernel takes."""
    return _Generator(chance, grammar).ruleset()


class _Generator:
    def __init__(self, chance: random.Random, grammar: Grammar) -> None:
        self._chance = chance
        self._grammar = grammar
        self._traced = chance.random() < 0.5
        self._known: dict[tuple[str, frozenset[str], str, WordKind], list[Word]] = {}

    def ruleset(self) -> Ruleset:
        made = [self._table(number) for number in range(self._chance.choice((1, 2, 2, 3, 3, 4)))]
        text = "".join(map(_table_text, made))
        chains = tuple(chain for table in made for chain in table.chains)
        lines, lines6 = tables.iptables_lines(self._chance, self._grammar)
        return Ruleset(text, chains, lines, lines6)

    def _table(self, number: int) -> _Table:
        families = [f for f in _FAMILIES if self._grammar.hooks(f)]
        full = self._grammar.vocabulary is Vocabulary.FULL
        if self._grammar.hooks("bridge"):
            families.append("bridge")
        # the first is one that all packets meet
        family = self._chance.choice(families if number else ["inet", "inet", "ip", "ip6"])
        nat = full and family in {"ip", "ip6", "inet"} and self._chance.random() < 0.25
        version = {"ip": 4, "ip6": 6}.get(family) or self._chance.choice((4, 4, 6))
        hooks = sorted(_NAT_HOOKS) if nat else list(self._grammar.hooks(family))
        hooks = [self._chance.choice(hooks) for _ in range(self._chance.randint(2, 5))]
        depth = self._chance.choice((0, 1, 2, 3, 4, 6, DEPTH))
        regular = [f"c{index}" for index in range(1, depth + 1)]
        objects = tables.objects(self._chance, self._grammar, family, version, regular)
        table = _Table(family, f"t{number}", nat, objects, hooks, regular)
        for index, hook in enumerate(hooks):
            table.chains.append(self._base_chain(table, index, hook))
        for index, name in enumerate(regular):
            table.chains.append(self._regular_chain(table, index, name))
        return table

    def _base_chain(self, table: _Table, index: int, hook: str) -> RandomChain:
        chain_type, priority = "filter", self._chance.choice(_PRIORITIES)
        if table.nat:
            chain_type, priority = "nat", _NAT_HOOKS[hook] + index
        elif hook == "output" and table.family in {"ip", "ip6"} and self._chance.random() < 0.3:
            chain_type = "route"
        device = ""
        if hook in {"ingress", "egress"}:
            device = f' device "{self._chance.choice(("r1", "r1", "r2"))}"'
        policy = "drop" if self._chance.random() < 0.1 and not table.nat else "accept"
        base = f"type {chain_type} hook {hook}{device} priority {priority}; policy {policy};"
        rules = self._rules(table, frozenset({hook}), chain_type, -1, self._chance.randint(2, 8))
        if self._traced and self._chance.random() < 0.35:
            rules.insert(0, "counter meta nftrace set 1")
        return RandomChain(table.family, table.name, f"b{index}", base, tuple(rules))

    def _regular_chain(self, table: _Table, index: int, name: str) -> RandomChain:
        chain_type = "nat" if table.nat else "regular"
        count = self._chance.randint(0, 5)
        rules = self._rules(table, frozenset(table.hooks), chain_type, index, count)
        return RandomChain(table.family, table.name, name, "", tuple(rules))

    def _rules(
        self, table: _Table, hooks: frozenset[str], chain_type: str, index: int, count: int
    ) -> list[str]:
        """The rules of a chain: the ``index``-th of its table's regular chains, or a base chain."""
        rules = [self._rule(table, hooks, chain_type, index) for _ in range(count)]
        if index + 1 < len(table.regular):
            few = self._matches(table, hooks, chain_type, int(self._chance.random() < 0.3))
            verdict = self._chance.choice(("jump", "jump", "jump", "goto"))
            ladder = [*few, Word(f"counter {verdict} {table.regular[index + 1]}", ALL)]
            rules.insert(self._chance.randint(0, len(rules)), _text(ladder))
        return rules

    def _rule(self, table: _Table, hooks: frozenset[str], chain_type: str, index: int) -> str:
        matches = self._matches(table, hooks, chain_type, self._chance.choice((0, 1, 1, 1, 2, 3)))
        rule = [*matches, Word("counter", ALL)]
        for _ in range(self._chance.choice((0, 0, 1, 1, 2))):
            words = self._words(table.family, hooks, chain_type, WordKind.STATEMENT)
            rule += self._fitting([*words, *table.objects.statements * 3], rule)
        rule += self._end(table, hooks, chain_type, index, rule)
        return _text(rule)

    def _matches(
        self, table: _Table, hooks: frozenset[str], chain_type: str, count: int
    ) -> list[Word]:
        words = self._words(table.family, hooks, chain_type, WordKind.MATCH)
        found: list[Word] = []
        for _ in range(count):
            found += self._fitting([*words, *table.objects.matches * 2], found)
        return found

    def _words(
        self, family: str, hooks: frozenset[str], chain_type: str, kind: WordKind
    ) -> list[Word]:
        key = family, hooks, chain_type, kind
        if key not in self._known:
            self._known[key] = self._grammar.words(*key)
        return self._known[key]

    def _fitting(self, words: Sequence[Word], rule: Sequence[Word]) -> list[Word]:
        """One of the words, with its values, if one fits into the rule."""
        never = excluded(frozenset[str]().union(*(word.layers for word in rule)))
        fitting = [word for word in words if never.isdisjoint(word.layers)]
        return [self._chance.choice(fitting).chosen(self._chance)] if fitting else []

    def _end(
        self,
        table: _Table,
        hooks: frozenset[str],
        chain_type: str,
        index: int,
        rule: Sequence[Word],
    ) -> list[Word]:
        """The end of a rule: a verdict, a map of verdicts, a statement, or nothing."""
        later = [name for name in table.regular[-_LEAVES:] if _position(name) > index + 1]
        # without a match it would end the chain for all packets
        narrow = len(rule) > 1 and rule[0].template != "counter"
        kind = self._chance.choices(list(_ENDS), list(_ENDS.values()))[0]
        if kind in {"accept", "drop", "return"}:
            return [Word(kind, ALL)] if narrow else []
        if kind in {"jump", "goto"} and later:
            return [Word(f"{kind} {self._chance.choice(later)}", ALL)]
        if kind == "map":
            maps = tables.verdict_maps(self._chance, table.family, table.objects.version, later)
            # a chain must not jump to itself through a map
            if index + 1 < len(table.regular):
                maps += table.objects.verdicts
            return self._fitting(maps, rule)
        if kind == "statement":
            words = self._words(table.family, hooks, chain_type, WordKind.FINAL)
            return self._fitting(words, rule)
        return [Word("continue", ALL)] if kind == "continue" else []


def _text(rule: Sequence[Word]) -> str:
    return " ".join(word.template for word in rule)


def _position(name: str) -> int:
    """The number of a regular chain, from 1."""
    return int(name[1:])


def _table_text(table: _Table) -> str:
    lines = [f"table {table.family} {table.name} {{", *table.objects.lines]
    for chain in table.chains:
        lines += [f"chain {chain.name} {{", chain.base, *chain.rules, "}"]
    return "\n".join((*lines, "}", ""))
