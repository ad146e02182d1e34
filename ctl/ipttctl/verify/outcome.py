# SPDX-License-Identifier: GPL-2.0
"""The outcome of packets under a ruleset, and differences between two such outcomes.

All that a ruleset remembers is read as the kernel reports it, byte by byte: rules with their
counters, quotas and limits, elements of sets, objects, counters of policies, connections. Only what
time or chance decides is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ipttctl.families import NFT_FAMILIES
from ipttctl.verify import netlink
from ipttctl.verify.laboratory import Arrivals, Laboratory
from ipttctl.verify.masks import masked_frame, masked_log, masked_trace
from ipttctl.verify.netlink import (
    NftCommand,
    Subsystem,
    SubsystemMessage,
    attribute,
    attributes,
    text,
)
from ipttctl.verify.rulesets import Ruleset

COMMITS_TABLE: Final = "commits"
"""The table that changes all the time in one kind of run; it is no part of an outcome."""

_SHOWN: Final = 5
_CONNTRACK_DUMP: Final = 1


@dataclass(frozen=True)
class CountedRule:
    """A rule as the kernel reports it."""

    place: str
    expressions: tuple[tuple[str, bytes], ...]

    @property
    def packets(self) -> int | None:
        """The packets that its first counter counted; None if it has none."""
        for name, data in self.expressions:
            if name == "counter":
                return counted(data)[1]
        return None


@dataclass(frozen=True)
class Outcome:
    """Everything that a run left behind."""

    facts: Mapping[str, str]
    """Sentences' objects and what is true of them."""

    lists: Mapping[str, tuple[str, ...]]
    """Packets that arrived, trace messages, log messages, connections."""

    rules: tuple[CountedRule, ...] = field(default=(), compare=False)
    commits: int = field(default=0, compare=False)
    """Changes of the ruleset that were made meanwhile."""


def collect(
    laboratory: Laboratory,
    ruleset: Ruleset,
    arrivals: Sequence[Arrivals],
    messages: Mapping[str, Sequence[SubsystemMessage]],
    *,
    connections: bool,
    commits: int = 0,
) -> Outcome:
    """The outcome of packets that have been handled; ``messages`` came meanwhile, by their kind."""
    rules = tuple(_rules(laboratory))
    facts: dict[str, str] = {}
    positions: Counter[str] = Counter()
    for rule in rules:
        index = positions[rule.place]
        positions[rule.place] += 1
        family, table, chain = rule.place.split(" ")
        words = ruleset.rule(family, table, chain, index)
        facts[f"rule {index + 1} of {rule.place} ({words})"] = _described(rule)
    facts |= _chains(laboratory) | _objects(laboratory)
    lists = {f"arrived at {a.place}": tuple(map(masked_frame, a.frames)) for a in arrivals}
    for kind, received in messages.items():
        lists[kind] = tuple(_message(m) for m in received if COMMITS_TABLE not in _tables(m))
    lists |= _elements(laboratory)
    if connections:
        lists["connections"] = tuple(sorted(_connections(laboratory)))
    return Outcome(facts, lists, rules, commits)


def differences(without: Outcome, with_links: Outcome) -> list[str]:
    """Sentences that say where two outcomes differ; none if they do not."""
    found = []
    for name in sorted(without.facts.keys() | with_links.facts.keys()):
        one, two = (o.facts.get(name, "missing") for o in (without, with_links))
        if one != two:
            found.append(f"{name}: {one} without links, {two} with links")
    for name in sorted(without.lists.keys() | with_links.lists.keys()):
        found += _unlike(name, without.lists.get(name, ()), with_links.lists.get(name, ()))
    return found


def counted(data: bytes) -> tuple[int, int]:
    """Bytes and packets of a counter."""
    values = dict(attributes(data))
    return int.from_bytes(values[1]), int.from_bytes(values[2])


def _unlike(name: str, one: Sequence[str], two: Sequence[str]) -> Iterator[str]:
    if one == two:
        return
    missing, more = Counter(one) - Counter(two), Counter(two) - Counter(one)
    if not missing and not more:
        index = next(i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        yield f"{name}: the order differs from number {index + 1} on"
    for counter, where in ((missing, "without"), (more, "with")):
        for item, count in list(counter.items())[:_SHOWN]:
            yield f"{name}: {item} came {count} times more {where} links"
        if len(counter) > _SHOWN:
            yield f"{name}: so did {len(counter) - _SHOWN} others"


def _dump(
    laboratory: Laboratory, command: NftCommand, payload: bytes = b""
) -> list[SubsystemMessage]:
    messages = laboratory.netlink.dump(Subsystem.NFTABLES, command, 0, payload)
    return [m for m in messages if text(m.attributes.get(1, b"")) != COMMITS_TABLE]


def _rules(laboratory: Laboratory) -> Iterator[CountedRule]:
    for message in _dump(laboratory, NftCommand.GETRULE):
        values = message.attributes
        place = f"{NFT_FAMILIES[message.family]} {text(values[1])} {text(values[2])}"
        yield CountedRule(place, tuple(_expressions(values.get(4, b""))))


def _expressions(data: bytes) -> Iterator[tuple[str, bytes]]:
    for _, expression in attributes(data):
        values = dict(attributes(expression))
        name = text(values[1])
        contents = values.get(2, b"")
        if name == "last":
            # how long ago
            contents = b"".join(attribute(k, v) for k, v in attributes(contents) if k == 1)
        yield name, contents


def _described(rule: CountedRule) -> str:
    parts = []
    for name, data in rule.expressions:
        if name == "counter":
            octets, packets = counted(data)
            parts.append(f"{packets} packets, {octets} bytes")
        elif name in {"quota", "limit", "connlimit", "last"}:
            parts.append(f"{name} {data.hex()}")
        else:
            parts.append(name)
    # what else the expressions hold is the same as long as nobody changes the rule
    digest = "".join(data.hex() for name, data in rule.expressions if name != "counter")
    return f"{' '.join(parts)} [{digest}]"


def _chains(laboratory: Laboratory) -> dict[str, str]:
    facts = {}
    for message in _dump(laboratory, NftCommand.GETCHAIN):
        values = message.attributes
        place = f"chain {NFT_FAMILIES[message.family]} {text(values[1])} {text(values[3])}"
        policy = int.from_bytes(values.get(5, b""))
        # chains of iptables-nft count what their policy decides
        counters = counted(values[8]) if 8 in values else "no counters"
        facts[place] = f"policy {policy}, {counters}, used {int.from_bytes(values.get(6, b''))}"
    return facts


def _objects(laboratory: Laboratory) -> dict[str, str]:
    facts = {}
    for message in _dump(laboratory, NftCommand.GETOBJ):
        values = message.attributes
        kind = int.from_bytes(values[3])
        place = f"object {kind} {NFT_FAMILIES[message.family]} {text(values[1])} {text(values[2])}"
        facts[place] = values.get(4, b"").hex()
    return facts


def _elements(laboratory: Laboratory) -> dict[str, tuple[str, ...]]:
    lists = {}
    for message in _dump(laboratory, NftCommand.GETSET):
        values = message.attributes
        table, name = text(values[1]), text(values[2])
        payload = netlink.string(1, table) + netlink.string(2, name)
        dumped = laboratory.netlink.dump(
            Subsystem.NFTABLES, NftCommand.GETSETELEM, message.family, payload
        )
        found = set()
        for part in dumped:
            for _, element in attributes(part.attributes.get(3, b"")):
                found.add(" ".join(_element(element)))
        lists[f"set {NFT_FAMILIES[message.family]} {table} {name}"] = tuple(sorted(found))
    return lists


def _element(data: bytes) -> Iterator[str]:
    """An element's attributes but the time when it ends."""
    for kind, value in attributes(data):
        if kind != 5:
            yield f"{kind}:{value.hex()}"


def _connections(laboratory: Laboratory) -> Iterator[str]:
    """Connections: everything but timeouts, users, identifiers and times."""
    for message in laboratory.netlink.dump(Subsystem.CONNTRACK, _CONNTRACK_DUMP):
        parts = []
        for kind, value in attributes(message.payload):
            if kind not in {7, 11, 12, 20}:
                parts.append(f"{kind}:{value.hex()}")
        yield " ".join(parts)


def _tables(message: SubsystemMessage) -> str:
    return text(message.attributes.get(1, b"")) if message.subsystem == Subsystem.NFTABLES else ""


def _message(message: SubsystemMessage) -> str:
    masked = masked_trace if message.subsystem == Subsystem.NFTABLES else masked_log
    return " ".join(masked(message))
