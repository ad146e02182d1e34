# SPDX-License-Identifier: GPL-2.0
"""Texts for the rules of a chain, all at once: the programs list chains, not rules."""

from __future__ import annotations

from collections.abc import Sequence

from ipttctl.escape import Escaped
from ipttctl.rules import listing
from ipttctl.rules.confine import ListingError
from ipttctl.rules.expressions import raw_text
from ipttctl.rules.follower import Chain, Follower, Table
from ipttctl.rules.history import Text, Version
from ipttctl.rules.listing import Run
from ipttctl.rules.messages import RawRule
from ipttctl.rules.netlink import ChangedError
from ipttctl.rules.origin import Syntax, of_iptables, syntaxes

_ATTEMPTS = 3


def raw(version: Version, why: str = "") -> Text:
    """The text of a rule without a program: its expressions."""
    return Text(raw_text(version.rule.expressions, version.rule.userdata), Syntax.RAW, why)


def write(follower: Follower, run: Run, table: int, chain: str) -> None:
    """Give texts to the rules that a chain has now, and that have none.

    They count only if the chain was the same before and after the programs read it.

    Raises:
        ChangedError: it changed during every attempt.
        TooLargeError: the ruleset is too large to be kept.
        KernelError: the kernel refuses, or does not answer.
    """
    for _ in range(_ATTEMPTS):
        if not follower.reach(follower.asking.generation()):
            continue
        before = follower.history.known or 0
        found = follower.tables.get(table)
        place = found.chains.get(chain) if found else None
        if found is None or place is None:
            return
        rules = _in_order(follower, found, place)
        if rules is None:
            continue
        texts = _listed(run, found, place, rules)
        follower.reach(follower.asking.generation())
        if _untouched(follower, found, place, before):
            for version, text in texts:
                version.text = text
            return
    raise ChangedError


def give_up(follower: Follower, table: int, chain: str, why: str) -> None:
    """Give the rules of a chain that have no text their expressions."""
    found = follower.tables.get(table)
    place = found.chains.get(chain) if found else None
    for handle in place.rules if place else ():
        version = follower.history.current((table, handle))
        if version is not None and version.text is None:
            version.text = raw(version, why)


def _untouched(follower: Follower, table: Table, chain: Chain, since: int) -> bool:
    """Whether a chain is the one that it was in a generation."""
    now = follower.tables.get(table.raw.handle)
    return now is table and now.chains.get(chain.raw.name) is chain and chain.changed <= since


def _in_order(follower: Follower, table: Table, chain: Chain) -> list[Version] | None:
    """The rules of a chain in their order; None if they have changed meanwhile."""
    if chain.order is None:
        raw_table = table.raw
        generation, rules = follower.asking.rules(raw_table.family, raw_table.name, chain.raw.name)
        handles = [rule.handle for rule in rules]
        if generation != follower.history.known or set(handles) != chain.rules:
            return None
        chain.order = tuple(handles)
    current = [follower.history.current((table.raw.handle, handle)) for handle in chain.order]
    versions = [version for version in current if version is not None]
    return versions if len(versions) == len(current) else None


def _listed(
    run: Run, table: Table, chain: Chain, rules: Sequence[Version]
) -> list[tuple[Version, Text]]:
    """Texts for those rules that have none."""
    iptables = of_iptables(table.raw.family, table.raw.name, (c.raw for c in table.chains.values()))
    wanted = [
        (
            index,
            version,
            syntaxes(version.rule.family, version.rule.expressions, of_iptables=iptables),
        )
        for index, version in enumerate(rules)
        if version.text is None
    ]
    programs = _Programs(run, table, chain, [version.rule for version in rules])
    return [(version, programs.text(index, version, order)) for index, version, order in wanted]


class _Programs:
    """What the programs list of a chain; each is asked once, and only if it is needed."""

    def __init__(self, run: Run, table: Table, chain: Chain, rules: Sequence[RawRule]) -> None:
        self._run = run
        self._table = table
        self._chain = chain
        self._rules = rules
        self._failures: dict[Syntax, str] = {}
        self._found: dict[Syntax, Sequence[Escaped]] = {}

    def text(self, index: int, version: Version, order: Sequence[Syntax]) -> Text:
        """The text of a rule in the first syntax of an order that can be had."""
        why = ""
        for syntax in order:
            if syntax is Syntax.RAW:
                break
            if syntax not in self._found and syntax not in self._failures:
                self._ask(syntax)
            if syntax in self._found:
                return Text(self._found[syntax][index], syntax, why)
            why = why or self._failures[syntax]
        return raw(version, why or "no program says all of it")

    def _ask(self, syntax: Syntax) -> None:
        family, table, chain = self._table.raw.family, self._table.raw.name, self._chain.raw.name
        try:
            if syntax is Syntax.NFT:
                texts = listing.by_nft(self._run, family, table, chain, self._rules)
                self._found[syntax] = [texts[rule.handle] for rule in self._rules]
            else:
                total = sum(len(c.rules) for c in self._table.chains.values())
                self._found[syntax] = listing.by_iptables(
                    self._run,
                    family,
                    table,
                    chain,
                    in_chain=len(self._rules),
                    in_table=total,
                )
        except ListingError as error:
            self._failures[syntax] = str(error)
