# SPDX-License-Identifier: GPL-2.0
"""The filter of an observer's events, applied to a batch at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any, Final, Self

from ipttctl.errors import UsageError
from ipttctl.escape import name_bytes, part_name
from ipttctl.families import IP, NfFamily, hook_number
from ipttctl.numbers import U32_MAX, decimal
from ipttproto import EventBatch, Kind
from ipttproto.batches import as_array, joined_wire, select

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Events = npt.NDArray[np.void]
    Choice = npt.NDArray[np.bool_]

WITH_VERDICT: Final = (
    Kind.EXIT,
    Kind.PACKET,
    Kind.CHAIN_EXIT,
    Kind.DISAGREE,
    Kind.SPINE_FUNCTION,
    Kind.SPINE_EXIT,
)
_OF_RULES: Final = (
    Kind.RULE,
    Kind.RETURN,
    Kind.POLICY,
    Kind.CHAIN_RULE,
    Kind.CHAIN_END,
    Kind.CHAIN_POLICY,
)
_OF_TABLES: Final = (*_OF_RULES, Kind.EXIT, Kind.CHAIN_EXIT, Kind.KNOWN, Kind.CHAIN_KNOWN)
_LEFT_OUT: Final = bytes([Kind.LEFT_OUT])
_ANY: Final = "*"
_RULE_PARTS: Final = 3
#: so many values are compared one by one in less time than it takes to sort them
_FEW: Final = 8


@dataclass(frozen=True)
class HookPattern:
    """A pattern of events at a hook: each member that is not None has to match.

    ``kinds`` distinguishes tables, netfilter hooks and chains. ``places`` are pairs of family and
    hook as in events (``pf``, ``hook``). ``priority`` is that of links at netfilter hooks. A table
    of nftables has a family of its own, ``table_family``. ``table`` and ``chain`` are names.
    """

    kinds: Collection[Kind] | None = None
    places: Collection[tuple[int, int]] | None = None
    priority: int | None = None
    table_family: int | None = None
    table: str | None = None
    chain: str | None = None

    def wanted(self, events: Events) -> Choice:
        """Whether each of ``events`` fits."""
        passing = _all(events)
        if self.table_family is not None:
            passing &= events["family"] == self.table_family
        passing &= _named(events, self.table, self.chain)
        if self.kinds is not None:
            passing &= _one_of(events, "kind", self.kinds)
        if self.places is not None:
            there = _none(events)
            for family, hook in self.places:
                there |= (events["pf"] == family) & (events["hook"] == hook)
            passing &= there
        if self.priority is not None:
            passing &= events["priority"] == self.priority
        return passing


@dataclass(frozen=True)
class RulePattern:
    """A pattern of events of a table, chain or rule: each member that is not None has to match.

    Without a ``number`` it matches the table's verdicts in that chain too, and packets that NAT
    does not ask it about.
    """

    table: str | None = None
    chain: str | None = None
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Parse ``TABLE[/CHAIN[/NUMBER]]``; ``*`` is any, and ``\x2f`` a slash in a name.

        Raises:
            UsageError: the text is not of this form.
        """
        parts = text.split("/")
        if len(parts) > _RULE_PARTS or not all(map(part_name, parts)):
            raise UsageError(f"'{text}' is not a rule", "write TABLE, TABLE/CHAIN or .../NUMBER")
        table, chain, number = parts + [_ANY] * (_RULE_PARTS - len(parts))
        value = None if number == _ANY else decimal(number, U32_MAX)
        if number != _ANY and not value:
            raise UsageError(f"'{number}' is not the number of a rule", "rules count from 1")
        return cls(
            None if table == _ANY else part_name(table),
            None if chain == _ANY else part_name(chain),
            value,
        )

    def wanted(self, events: Events) -> Choice:
        """Whether each of ``events`` fits."""
        passing = _one_of(events, "kind", _OF_TABLES)
        passing &= _named(events, self.table, self.chain)
        if self.number is not None:
            passing &= events["rulenum"] == self.number
            passing &= _one_of(events, "kind", _OF_RULES)
        return passing


@dataclass(frozen=True)
class EventFilter:
    """A filter: an event passes if it matches one element of each member that is not None.

    An event of kind LEFT_OUT, which is of no packet, passes if its link does.

    ``links`` are ids. ``verdicts`` are NF_* numbers: of exits of tables and base chains, and of
    packets at netfilter hooks. ``namespaces`` are cookies; the collection is read again for each
    batch. ``devices`` are names of the interface in or out.
    """

    links: Collection[int] | None = None
    kinds: Collection[Kind] | None = None
    hooks: Collection[HookPattern] | None = None
    verdicts: Collection[int] | None = None
    rules: Collection[RulePattern] | None = None
    namespaces: Collection[int] | None = None
    devices: Collection[str] | None = None

    def wanted(self, events: Events) -> Choice:
        """Whether each of ``events``, of the protocol's dtype, passes."""
        choices = [
            _one_of(events, member, values)
            for member, values in (
                ("link", self.links),
                ("kind", self.kinds),
                ("netns_cookie", self.namespaces),
            )
            if values is not None
        ]
        for patterns in (self.hooks, self.rules):
            if patterns is not None:
                fitting = _none(events)
                for pattern in patterns:
                    fitting |= pattern.wanted(events)
                choices.append(fitting)
        if self.verdicts is not None:
            choices.append(_one_of(events, "verdict", self.verdicts))
            choices.append(_one_of(events, "kind", WITH_VERDICT))
        if self.devices is not None:
            names = [os.fsencode(name) for name in self.devices]
            choices.append(_one_of(events, "in_name", names) | _one_of(events, "out_name", names))
        if not choices:
            return _all(events)
        passing = reduce(and_, choices)
        if _LEFT_OUT in events["kind"].tobytes():
            told = _one_of(events, "kind", _LEFT_OUT)
            passing |= told if self.links is None else told & _one_of(events, "link", self.links)
        return passing

    def choose(self, batches: Sequence[EventBatch]) -> list[EventBatch]:
        """Batches of the events that pass, but for empty ones. Many batches are chosen at once."""
        wire = joined_wire(batches)
        chosen = select(batches, self.wanted(as_array(wire)), wire)
        return [batch for batch in chosen if len(batch)]


def ip_hook_pattern(name: str) -> HookPattern | None:
    """The pattern of events at a hook of IPv4 and IPv6, from any kind of hook."""
    number = hook_number(NfFamily.IPV4, name.lower())
    if number is None:
        return None
    return HookPattern(places=[(family, number) for family in IP.values()])


def _named(events: Events, table: str | None, chain: str | None) -> Choice:
    """Whether each of ``events`` has these names, cut as the module cuts them."""
    passing = _all(events)
    for member, name in (("table", table), ("chain", chain)):
        if name is not None:
            passing &= events[member] == name_bytes(name)[: events.dtype[member].itemsize - 1]
    return passing


def _one_of(events: Events, member: str, values: Iterable[Any]) -> Choice:
    column = events[member]
    # another thread may change a collection of namespaces: list() takes it in one step; and numpy
    # asks a member of an enumeration whether it is an array
    wanted = [int(value) if isinstance(value, int) else value for value in list(values)]
    if not wanted:
        return _none(events)
    if column.dtype.itemsize == 1 and len(wanted) > 1:
        chosen: Choice = _bytes(tuple(wanted))[column]
        return chosen
    if len(wanted) > _FEW:
        from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

        return np.isin(column, np.array(wanted, column.dtype))
    return reduce(or_, [column == value for value in wanted])


@cache
def _bytes(values: tuple[int, ...]) -> Choice:
    """Whether each value of a byte is one of these."""
    from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

    return np.isin(np.arange(1 << 8), values)


def _all(events: Events) -> Choice:
    from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

    return np.ones(len(events), np.bool_)


def _none(events: Events) -> Choice:
    return ~_all(events)
