# SPDX-License-Identifier: GPL-2.0
"""The words and hooks that a kernel takes, found by trying each in a throw-away namespace."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ipttctl.verify.full_words import FULL
from ipttctl.verify.laboratory import Laboratory, LaboratoryError
from ipttctl.verify.nftables import Nftables
from ipttctl.verify.words import BUILTIN, Vocabulary, Word, WordKind, supported

_ROUTED: Final = ("prerouting", "input", "forward", "output", "postrouting")
HOOKS: Final = {
    "ip": _ROUTED,
    "ip6": _ROUTED,
    "inet": (*_ROUTED, "ingress"),
    "netdev": ("ingress", "egress"),
    "arp": ("input", "output"),
    "bridge": _ROUTED,
}
"""Hooks by family of tables."""

_DEVICE: Final = ' device "r1"'


@dataclass(frozen=True)
class Grammar:
    """The words that rulesets on a kernel can be made of."""

    vocabulary: Vocabulary
    places: frozenset[tuple[str, str]]
    """Families and hooks where chains can be."""

    known: tuple[tuple[Word, frozenset[str]], ...]
    """Words with the families where the kernel takes them."""

    iptables: tuple[str, ...] = ()
    """Rules that iptables-nft takes."""

    lacking: tuple[str, ...] = ()
    """Words, hooks and rules that the kernel or the programs do not take."""

    def hooks(self, family: str) -> tuple[str, ...]:
        """The hooks of a family."""
        return tuple(hook for hook in HOOKS[family] if (family, hook) in self.places)

    def words(
        self, family: str, hooks: frozenset[str], chain_type: str, kind: WordKind
    ) -> list[Word]:
        """The words that may stand in a chain that packets reach from these hooks."""
        taken = [word for word, families in self.known if family in families]
        return supported(taken, family, hooks, chain_type, kind)


def grammar(
    laboratory: Laboratory, vocabulary: Vocabulary, iptables: Sequence[str] = ()
) -> Grammar:
    """Try all words of a vocabulary; of the rules of iptables-nft those that are given.

    The built-in vocabulary loads no kernel module in that either.
    """
    nftables = laboratory.nftables
    families = [f for f in HOOKS if f != "bridge" or laboratory.bridges]
    places = frozenset(
        (family, hook)
        for family in families
        for hook in HOOKS[family]
        if nftables.takes(_chain(family, hook, "filter", []))
    )
    words = BUILTIN if vocabulary is Vocabulary.BUILTIN else BUILTIN + FULL
    taken: dict[Word, set[str]] = {word: set() for word in words}
    for family in families:
        mine = [word for word in words if family in word.families]
        for word in _taken(nftables, family, mine, places):
            taken[word].add(family)
    rules = _iptables(laboratory, iptables)
    lacking = [
        f"{family}: {word.template}"
        for word in words
        for family in sorted(word.families & set(families) - taken[word])
    ]
    lacking += [f"{f}: hook {h}" for f in families for h in HOOKS[f] if (f, h) not in places]
    lacking += [f"iptables: {rule}" for rule in iptables if rule not in rules]
    known = tuple((word, frozenset(found)) for word, found in taken.items())
    return Grammar(vocabulary, places, known, rules, tuple(lacking))


def _taken(
    nftables: Nftables,
    family: str,
    words: Sequence[Word],
    places: frozenset[tuple[str, str]],
) -> Iterator[Word]:
    """The words that a family takes: tried together, and in halves where that fails."""
    groups: dict[tuple[str, str], list[Word]] = {}
    for word in words:
        hooks = [h for h in HOOKS[family] if h in word.hooks and (family, h) in places]
        if hooks:
            groups.setdefault((hooks[0], word.chain_type or "filter"), []).append(word)
    for (hook, chain_type), group in groups.items():
        waiting = [group]
        while waiting:
            some = waiting.pop()
            if nftables.takes(_chain(family, hook, chain_type, some)):
                yield from some
            elif len(some) > 1:
                middle = len(some) // 2
                waiting += [some[:middle], some[middle:]]


def _chain(family: str, hook: str, chain_type: str, words: Sequence[Word]) -> str:
    device = _DEVICE if hook in {"ingress", "egress"} else ""
    chance = random.Random(0)
    rules = "\n".join(word.chosen(chance).template for word in words)
    return (
        f"table {family} t {{\nchain c {{\ntype {chain_type} hook {hook}{device} priority 0;\n"
        f"{rules}\n}}\n}}\n"
    )


def _iptables(laboratory: Laboratory, rules: Sequence[str]) -> tuple[str, ...]:
    """The rules that both programs take: tried together, and one by one if that fails."""

    def takes(some: Sequence[str]) -> bool:
        lines = ["*filter", ":one -", ":two -", *(f"-A FORWARD {rule}" for rule in some)]
        text = "\n".join((*lines, "COMMIT", ""))
        try:
            for program in ("iptables-nft-restore", "ip6tables-nft-restore"):
                laboratory.run(program, text=text)
        except LaboratoryError:
            return False
        finally:
            laboratory.nftables.load("flush ruleset")
        return True

    if not rules:
        return ()
    return tuple(rules) if takes(rules) else tuple(rule for rule in rules if takes([rule]))
