# SPDX-License-Identifier: GPL-2.0
"""iptables' tables: their entry, each matching rule, and their exit."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self

import ipttproto
from ipttctl.escape import word
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.families import IP, ip_version
from ipttctl.hooks.hook import Hook, HookChoice, HookIdentity
from ipttctl.hooks.passages import passage_values
from ipttctl.options import Option
from ipttctl.system.namespace_names import NameAt
from ipttproto import TABLE_SLOTS, EventFlag, Kind, LinkFlag, Slot

_NAME: Final = "table"
_ARMED_BITS: Final = {4: 1, 6: 2}
_CODE: Final = {4: "ip_tables", 6: "ip6_tables"}


class IpVersion(enum.StrEnum):
    """IP versions, as options name them."""

    V4 = "4"
    V6 = "6"


_OF_OPTION: Final[Mapping[IpVersion, Literal[4, 6]]] = {IpVersion.V4: 4, IpVersion.V6: 6}


@dataclass(frozen=True, kw_only=True)
class TableOptions(HookChoice):
    """The options that go with tables."""

    family: Annotated[IpVersion | None, Option("--family", "tables: this IP version only")] = None
    count_rules: Annotated[
        bool,
        Option("--count-rules", "tables: exit events count rules even without a rule program"),
    ] = False


@dataclass(frozen=True)
class TableHook(Hook):
    """All tables, or those of one IP version.

    With ``count_rules`` exit events count the rules that matched; with a rule program they always
    do. ``armed`` holds the IP versions whose table code is loaded and watched, as reported by the
    module.
    """

    family: Literal[4, 6] | None = None
    count_rules: bool = False
    armed: frozenset[int] = frozenset()

    KIND: ClassVar[int] = ipttproto.Hook.TABLE
    SLOTS: ClassVar[tuple[Slot, ...]] = TABLE_SLOTS
    EVENTS: ClassVar[frozenset[Kind]] = frozenset(
        {Kind.RULE, Kind.RETURN, Kind.POLICY, Kind.EXIT, Kind.KNOWN}
    )
    TITLE: ClassVar[str] = "tables"
    SYNTAX: ClassVar[str] = _NAME
    PATTERNS: ClassVar[tuple[str, ...]] = (_NAME,)
    OPTIONS: ClassVar[type[HookChoice]] = TableOptions

    def __str__(self) -> str:
        return _NAME

    @property
    def waiting(self) -> frozenset[int]:
        """The IP versions of the hook whose table code is not loaded."""
        wanted = frozenset(IP) if self.family is None else frozenset({self.family})
        return wanted - self.armed

    @classmethod
    def means(cls, text: str) -> bool:
        """Whether the text is the word ``table``."""
        return text == _NAME

    @classmethod
    def chosen(cls, options: TableOptions) -> Self:
        """Make the hook from options."""
        family = None if options.family is None else _OF_OPTION[options.family]
        return cls(family, options.count_rules)

    def given(self) -> dict[str, Any]:
        """The options for a file."""
        return {"hook": _NAME, "family": self.family, "count-rules": self.count_rules or None}

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The hook's part of an attach request."""
        del opened  # the request holds no descriptor
        attributes: dict[str, Any] = {"hook": self.KIND}
        if self.family is not None:
            attributes["family"] = int(IP[self.family])
        if self.count_rules:
            attributes["flags"] = int(LinkFlag.COUNT_RULES)
        return attributes

    def identity(self) -> HookIdentity:
        """The hook's numbers: all links of an IP version are at the same place."""
        return self.KIND, self.family or 0, self.count_rules

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Make the hook that a message describes."""
        armed = attributes.get("armed", 0)
        return cls(
            ip_version(attributes.get("family", 0)),
            bool(attributes.get("flags", 0) & LinkFlag.COUNT_RULES),
            frozenset(version for version, bit in _ARMED_BITS.items() if armed & bit),
        )

    def misses(self, link: int) -> Iterator[str]:
        """The tables whose code is not loaded."""
        del link  # the link is there
        for version in sorted(self.waiting):
            yield f"no IPv{version} tables: {_CODE[version]} is not loaded; waiting for it"

    def fields(self, names: NameAt | None) -> Iterator[str]:
        """The IP version."""
        del names  # a table hook covers all namespaces
        yield f"family={self.family or 'any'}"

    def state_fields(self) -> Iterator[str]:
        """The IP versions whose tables are watched, and whether rules are counted."""
        yield f"armed={','.join(map(str, sorted(self.armed))) or 'none'}"
        if self.count_rules:
            yield "count-rules"

    def values(self, names: NameAt | None) -> dict[str, Any]:
        """The keys of JSON for tables."""
        del names
        return {
            "family": self.family,
            "count_rules": self.count_rules,
            "armed": sorted(self.armed),
        }

    def rows(self, names: NameAt) -> Iterator[str]:
        """The IP version, and the tables that are missing."""
        del names
        if self.family:
            yield f"IPv{self.family} only"
        if self.waiting:
            yield f"no IPv{' and IPv'.join(map(str, sorted(self.waiting)))} tables"

    @classmethod
    def event_values(cls, record: EventRecord) -> dict[str, Any]:
        """The passage, and the rule's number."""
        left = record.kind == Kind.EXIT
        values = passage_values(record, left=left, decided=left, known=record.kind == Kind.KNOWN)
        numbered = record.kind in {Kind.RULE, Kind.RETURN, Kind.POLICY}
        return {**values, "rulenum": record.rulenum if numbered else None}

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """``iptables=[...]`` for a verdict, ``ipttrace=[...]`` for anything else."""
        family = describe.protocol_family(record.pf)
        table = word(record.table)
        kind = describe.kind(record)
        uncertain = " uncertain" if record.flags & EventFlag.UNCERTAIN else ""
        if record.kind == Kind.EXIT:
            return (
                f"iptables=[pf={family} table={table} hook={describe.hook(record)}{crossed} "
                f"verdict={describe.verdict(record)} {' '.join(_effort(record, describe.COST))}"
                f"{uncertain}]"
            )
        if record.kind == Kind.KNOWN:
            rule = f"kind={kind} {describe.NOT_CONSULTED}"
        else:
            suffix = ("" if record.kind == Kind.RULE else f" kind={kind}") + uncertain
            rule = f"rulenum={record.rulenum}{suffix}"
        return (
            f"ipttrace=[pf={family} in={word(record.in_name)} out={word(record.out_name)}{crossed} "
            f"table={table} chain={word(record.chain)} hook={record.hook} {rule}]"
        )

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """The netfilter hook that the table is at."""
        return describe.hook(record)

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """A rule, the verdict of a table, or that NAT did not ask it."""
        if record.kind == Kind.EXIT:
            yield from (
                word(record.table),
                describe.verdict(record),
                *_effort(record, describe.cost(record.cost)),
            )
            return
        if record.kind == Kind.KNOWN:
            yield from (f"{word(record.table)}/{word(record.chain)}", describe.NOT_CONSULTED)
            return
        yield f"{word(record.table)}/{word(record.chain)}/{record.rulenum}"
        if record.kind != Kind.RULE:
            yield describe.kind(record)
        if record.flags & EventFlag.UNCERTAIN:
            yield "uncertain"


def _effort(record: EventRecord, cost: str) -> Iterator[str]:
    yield f"cost={cost}"
    if record.flags & EventFlag.COUNTED:
        yield f"rules={record.rules}"
