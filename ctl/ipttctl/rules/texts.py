# SPDX-License-Identifier: GPL-2.0
"""Texts for the rules of a chain, all at once: the programs list chains, not rules."""

from __future__ import annotations

from collections.abc import Sequence

from ipttctl.escape import Escaped
from ipttctl.rules import listing
from ipttctl.rules.confine import ListingError
from ipttctl.rules.expressions import raw_text
from ipttctl.rules.follower import Chain, Follower, Table
from ipttctl.rules.history import Listed, Text, Version
from ipttctl.rules.interfaces import by_index
from ipttctl.rules.listing import Run
from ipttctl.rules.messages import RawRule
from ipttctl.rules.netlink import ChangedError
from ipttctl.rules.origin import Syntax, of_iptables, syntaxes

_ATTEMPTS = 3


def raw(version: Version, why: str = "") -> Text:
    """The text of a rule without a program: its expressions."""
    return Text(raw_text(version.rule.expressions, version.rule.userdata), Syntax.RAW, why)


def resolve(version: Version) -> Text | None:
    """The text of a rule that programs listed; None if nft has to be asked too."""
    listed = version.listed
    if listed is None:
        return None
    rule = version.rule
    texts = dict(listed.texts)
    why = listed.why
    for syntax in syntaxes(rule.family, rule.expressions, of_iptables=listed.iptables):
        if syntax is Syntax.NFT and syntax in texts:
            # names of interfaces are those of the moment of listing
            text = by_index(texts[syntax], rule.expressions)
            if text is not None:
                return Text(text, syntax, listed.why)
            why = why or "nft shows names of interfaces, which can change"
        elif syntax in texts:
            return Text(texts[syntax], syntax, listed.why)
        elif syntax is not Syntax.RAW and syntax not in listed.asked:
            return None
    return raw(version, why or "no program says all of it")


def write(follower: Follower, run: Run, table: int, chain: str, *, also_nft: bool) -> None:
    """List the rules that a chain has now; ``also_nft`` by nft too, in a table of iptables.

    Listings count only if the chain was the same before and after the programs read it.

    Raises:
        ChangedError: it changed during every attempt.
        TooLargeError: the ruleset is too large to be kept.
        KernelError: the kernel refuses, or does not answer.
    """
    for _ in range(_ATTEMPTS):
        follower.reach(follower.asking.generation())
        before = follower.history.known or 0
        found = follower.tables.get(table)
        place = found.chains.get(chain) if found else None
        if found is None or place is None:
            return
        rules = _in_order(follower, found, place)
        if rules is None:
            continue
        if not also_nft and all(version.text or version.listed for version in rules):
            return
        listed = _listed(run, found, place, [version.rule for version in rules], also_nft=also_nft)
        after = follower.asking.generation()
        follower.reach(after)
        if (follower.history.known or 0) >= after and _untouched(follower, found, place, before):
            for version, one in zip(rules, listed, strict=True):
                if version.text is None:
                    version.listed = one
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
    run: Run, table: Table, chain: Chain, rules: Sequence[RawRule], *, also_nft: bool
) -> list[Listed]:
    """The lines that the programs list for each rule of a chain."""
    family, name = table.raw.family, table.raw.name
    iptables = of_iptables(family, name, (c.raw for c in table.chains.values()))
    found: dict[Syntax, Sequence[Escaped]] = {}
    asked = set()
    why = ""
    if iptables:
        asked.add(Syntax.IPTABLES)
        total = sum(len(c.rules) for c in table.chains.values())
        try:
            found[Syntax.IPTABLES] = listing.by_iptables(
                run, family, name, chain.raw.name, in_chain=len(rules), in_table=total
            )
        except ListingError as error:
            why = str(error)
    if not found or also_nft:
        asked.add(Syntax.NFT)
        try:
            found[Syntax.NFT] = listing.by_nft(run, family, name, chain.raw.name, rules)
        except ListingError as error:
            why = why or str(error)
    asked_for = frozenset(asked)
    syntaxes_found = tuple(found)
    return [
        Listed(tuple(zip(syntaxes_found, texts, strict=True)), asked_for, iptables, why)
        for texts in zip(*found.values(), strict=True)
    ] or [Listed((), asked_for, iptables, why)] * len(rules)
