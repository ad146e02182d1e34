# SPDX-License-Identifier: GPL-2.0
"""nftables' chains: entry of a base chain, each matching rule, and its exit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import ipttproto
from ipttctl.errors import UsageError
from ipttctl.escape import name_bytes, part, part_name, word
from ipttctl.events import describe
from ipttctl.events.filter import HookPattern
from ipttctl.events.records import EventRecord
from ipttctl.families import FAMILY_NAMES, NfFamily, nft_family_name
from ipttctl.hooks.hook import HookChoice, HookIdentity, NamespaceOptions
from ipttctl.hooks.passages import passage_values
from ipttctl.hooks.walks import WalkHook
from ipttctl.numbers import known_member
from ipttctl.system.netns import Identity as NamespaceIdentity
from ipttctl.system.netns import Namespace
from ipttproto import TABLE_SLOTS, EventFlag, Gone, Kind, Slot
from ipttproto.family import limit

_NAME: Final = "chain"
CHAIN_SYNTAX: Final = f"{_NAME}[:FAMILY[/TABLE[/CHAIN]]]"
r"""The syntax of nftables' chains; ``ChainHook.parse`` reads it and ``str`` writes it.

In names, which can hold any byte, ``\x2f`` is a slash, ``\x20`` a space and ``\\`` a backslash.
"""

_HOOK: Final = re.compile(r"chain(:(?P<family>[^/]+)(/(?P<table>[^/]+)(/(?P<chain>[^/]+))?)?)?")


@dataclass(frozen=True, kw_only=True)
class ChainOptions(NamespaceOptions):
    """The options that go with chains."""


@dataclass(frozen=True)
class ChainHook(WalkHook):
    """Base chains of nftables: all, those of a family or table, or a single one.

    ``family`` is the table's, ``NfFamily.INET`` for one of both IP versions. A base chain is one
    with a hook; packets are followed from there into the chains that its rules jump to. ``netns``
    is a network namespace, as for ``NfHook``, but None means all.

    As reported by the module, ``armed`` says whether nf_tables is loaded and watched, and ``gone``
    why no packet can come any more.
    """

    family: NfFamily | int | None = None
    table: str | None = None
    chain: str | None = None
    netns: Namespace | NamespaceIdentity | int | str | Path | None = None
    armed: bool = False
    gone: Gone | int | None = None

    KIND: ClassVar[int] = ipttproto.Hook.CHAIN
    SLOTS: ClassVar[tuple[Slot, ...]] = TABLE_SLOTS
    EVENTS: ClassVar[frozenset[Kind]] = frozenset(
        {
            Kind.CHAIN_RULE,
            Kind.CHAIN_END,
            Kind.CHAIN_POLICY,
            Kind.CHAIN_EXIT,
            Kind.CHAIN_KNOWN,
        }
    )
    ARMED: ClassVar[tuple[int, str]] = (8, "chains")
    TITLE: ClassVar[str] = "chains"
    SYNTAX: ClassVar[str] = CHAIN_SYNTAX
    PATTERNS: ClassVar[tuple[str, ...]] = (CHAIN_SYNTAX,)
    OPTIONS: ClassVar[type[HookChoice]] = ChainOptions

    def __str__(self) -> str:
        if self.family is None:
            return _NAME
        names = (part(name) for name in (self.table, self.chain) if name is not None)
        return "/".join([f"{_NAME}:{nft_family_name(self.family)}", *names])

    @classmethod
    def means(cls, text: str) -> bool:
        """Whether the text is ``chain``, alone or with a place behind a colon."""
        return text.partition(":")[0] == _NAME

    @classmethod
    def parse(cls, text: str, **options: Any) -> Self:
        """Parse ``chain[:FAMILY[/TABLE[/CHAIN]]]``; ``options`` are further members.

        Raises:
            UsageError: the text has another form, there is no such family, or no table or chain can
                have such a name.
        """
        match = _HOOK.fullmatch(text)
        if match is None:
            raise UsageError(f"'{text}' does not name chains", f"write {CHAIN_SYNTAX}")
        family = None
        if match["family"] is not None:
            family = FAMILY_NAMES.get(match["family"])
            if family is None:
                raise UsageError(
                    f"there is no family '{match['family']}'",
                    f"use one of {', '.join(map(nft_family_name, NfFamily))}",
                )
        return cls(family, _named(match["table"]), _named(match["chain"]), **options)

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The hook's part of an attach request."""
        attributes: dict[str, Any] = {"hook": self.KIND}
        if self.family is not None:
            attributes["family"] = int(self.family)
        if self.table is not None:
            attributes["table"] = self.table
        if self.chain is not None:
            attributes["chain"] = self.chain
        return attributes | self.request_netns(opened)

    def identity(self) -> HookIdentity:
        """The hook's numbers: the namespace's cookie, and the bytes of the names."""
        names = (name_bytes(name or "") for name in (self.table, self.chain))
        return self.KIND, int(self.family or 0), self.cookie(), *map(_number, names)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Make the hook that a message describes."""
        family = attributes.get("family", 0)
        return cls(
            known_member(NfFamily, family) if family else None,
            attributes.get("table"),
            attributes.get("chain"),
            *cls.reported(attributes),
        )

    def idle(self) -> str:
        """The reason why no packet comes: nf_tables is not loaded."""
        return "no chains of nftables: nf_tables is not loaded; waiting for it"

    def short_idle(self) -> str:
        """The same in a table."""
        return "nf_tables is not loaded"

    @classmethod
    def pattern(cls, text: str) -> HookPattern | None:
        """The pattern of events at chains; those of a family, table or chain only if it is named.

        A chain is the one that the rule is in, not the base chain by which the packet came there.
        """
        if not cls.means(text):
            return None
        hook = cls.parse(text)
        return HookPattern(
            cls.EVENTS,
            table_family=hook.family,
            table=hook.table,
            chain=hook.chain,
        )

    @classmethod
    def event_values(cls, record: EventRecord) -> dict[str, Any]:
        """The passage, the table and chain, the rule and what it decided."""
        is_rule = record.kind == Kind.CHAIN_RULE
        left, known = record.kind == Kind.CHAIN_EXIT, record.kind == Kind.CHAIN_KNOWN
        decides = not left and not known
        return {
            **passage_values(record, left=left, decided=left or is_rule, known=known),
            "table_family": nft_family_name(record.family),
            "table_handle": record.table_handle,
            "chain_handle": record.chain_handle,
            "rulenum": record.rulenum if is_rule else None,
            "rule_handle": record.rule_handle if is_rule else None,
            "depth": record.depth if decides else None,
            "decision": describe.decision_name(record.verdict) if decides else None,
            "target": describe.text(record.target) or None if is_rule else None,
        }

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """``nftables=[...]`` for a verdict, ``ipttrace=[...]`` for anything else."""
        place = (
            f"family={nft_family_name(record.family)} table={word(record.table)} "
            f"chain={word(record.chain)} hook={describe.hook(record)}"
        )
        uncertain = " uncertain" if record.flags & EventFlag.UNCERTAIN else ""
        if record.kind == Kind.CHAIN_EXIT:
            return (
                f"nftables=[{place}{crossed} verdict={describe.verdict(record)} "
                f"{' '.join(_effort(record, describe.COST))}{uncertain}]"
            )
        devices = f"in={word(record.in_name)} out={word(record.out_name)}{crossed}"
        if record.kind == Kind.CHAIN_RULE:
            rule = f"handle={record.rule_handle} rulenum={record.rulenum}"
        else:
            rule = f"kind={describe.kind(record)}"
        if record.kind == Kind.CHAIN_KNOWN:
            verdict = describe.NOT_CONSULTED
        else:
            verdict = f"verdict={describe.chain_decision(record).replace(' ', ':', 1)}"
        return f"ipttrace=[{place} {devices} {rule} {verdict}{uncertain}]"

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """The netfilter hook that the base chain is at."""
        return describe.hook(record)

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """A rule and what it decided, the verdict of a base chain, or that NAT did not ask it."""
        place = f"{nft_family_name(record.family)}/{part(record.table)}/{part(record.chain)}"
        if record.kind == Kind.CHAIN_EXIT:
            yield from (
                place,
                describe.verdict(record),
                *_effort(record, describe.cost(record.cost)),
            )
        elif record.kind == Kind.CHAIN_RULE:
            yield from (f"{place}/{record.rulenum}", describe.chain_decision(record))
        elif record.kind == Kind.CHAIN_KNOWN:
            yield from (place, describe.NOT_CONSULTED)
        else:
            yield from (place, describe.kind(record), describe.chain_decision(record))
        if record.flags & EventFlag.UNCERTAIN:
            yield "uncertain"


def _effort(record: EventRecord, cost: str) -> Iterator[str]:
    yield f"cost={cost}"
    yield f"rules={record.rules}"


def _named(text: str | None) -> str | None:
    """The name of a table or chain that stands in a hook's text.

    Raises:
        UsageError: none can have it.
    """
    if text is None:
        return None
    name = part_name(text)
    if name is None:
        raise UsageError(
            f"'{text}' is not a name of nftables",
            r"write a backslash as \\, a slash as \x2f, another byte by its number",
        )
    if len(name_bytes(name)) > limit("NFT_NAME"):
        raise UsageError(
            f"'{text[:16]}...' is longer than a name of nftables can be",
            f"give at most {limit('NFT_NAME')} bytes",
        )
    return name


def _number(name: bytes) -> int:
    """A name as a number that no other name has."""
    return int.from_bytes(b"\1" + name, "big")
