# SPDX-License-Identifier: GPL-2.0
"""Events as tuples."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

from ipttctl.families import HOOK_NUMBERS
from ipttctl.numbers import known_member
from ipttproto import (
    ArpOperation,
    Conntrack,
    EventBatch,
    EventFlag,
    HookNumber,
    JoinedBatches,
    Kind,
    NfFamily,
    TcpFlag,
    Verdict,
)


class EventRecord(NamedTuple):
    """An event: the members of the protocol's record, under the same names, then its place.

    Times are in ns. ``time`` is CLOCK_MONOTONIC; adding ``clock_offset`` gives CLOCK_REALTIME.
    Names and addresses are raw bytes. ``sequence`` is the event's number on its ``cpu``.
    ``payload`` holds the bytes that the program added, if any.

    Numbers with names are members of enumerations; one that we do not know stays a number. ``hook``
    is a hook of the family ``pf``; ``family`` is that of the table of a chain, else 0. ``verdict``
    is 0, which is DROP, also for kinds of events that have none: rules of legacy tables.
    """

    time: int
    skb: int
    cost: int
    netns_cookie: int
    table_handle: int
    chain_handle: int
    rule_handle: int
    packet: int
    pid_start: int
    cgroup: int
    link: int
    generation: int
    traversal: int
    netns: int
    pid: int
    uid: int
    in_ifindex: int
    out_ifindex: int
    physin_ifindex: int
    physout_ifindex: int
    mark: int
    length: int
    ruleset: int
    rulenum: int
    rules: int
    verdict: Verdict | int
    verdict_data: int
    priority: int
    skb_priority: int
    ct_mark: int
    ct_id: int
    sport: int
    dport: int
    icmp_id: int
    ethertype: int
    arp_operation: ArpOperation | int
    flags: EventFlag
    depth: int
    ct_zone: int
    ct_state: Conntrack | int
    ttl: int
    tos: int
    kind: Kind | int
    pf: NfFamily | int
    hook: HookNumber | int
    family: NfFamily | int
    protocol: int
    tcp_flags: TcpFlag
    icmp_type: int
    icmp_code: int
    dmac: bytes
    saddr: bytes
    daddr: bytes
    comm: bytes
    in_name: bytes
    out_name: bytes
    physin_name: bytes
    physout_name: bytes
    table: bytes
    chain: bytes
    target: bytes
    cpu: int
    sequence: int
    clock_offset: int
    payload: bytes = b""


_OF_MOMENT: Final = {
    *("time", "skb", "packet", "cost", "traversal", "cpu", "sequence", "clock_offset"),
}
_OF_PACKET: Final = {"length", "ethertype", "dmac", "payload", "arp_operation"} | {
    *("pid", "pid_start", "cgroup", "uid", "comm", "ct_id"),
    *("saddr", "daddr", "protocol", "sport", "dport", "tcp_flags"),
    *("icmp_type", "icmp_code", "icmp_id"),
}
DECISIVE: Final = tuple(
    member for member in EventRecord._fields if member not in _OF_MOMENT | _OF_PACKET
)
"""Members that say where a packet is and what is decided there, not which packet it is or when."""


def _members(kind: type[enum.IntEnum]) -> Callable[[int], int]:
    """A function that finds the member with a value, or returns the value."""
    return lru_cache(maxsize=256)(partial(known_member, kind))


#: the member of a record -> what makes it one of an enumeration, which is done once for each value
_NAMED: Final[tuple[tuple[int, Callable[[int], int]], ...]] = tuple(
    (EventRecord._fields.index(member), named)
    for member, named in (
        ("kind", _members(Kind)),
        ("verdict", _members(Verdict)),
        ("arp_operation", _members(ArpOperation)),
        ("pf", _members(NfFamily)),
        ("family", _members(NfFamily)),
        ("ct_state", _members(Conntrack)),
        ("flags", lru_cache(maxsize=1024)(EventFlag)),
        ("tcp_flags", lru_cache(maxsize=256)(TcpFlag)),
    )
)
_PF: Final = EventRecord._fields.index("pf")
_HOOK: Final = EventRecord._fields.index("hook")


def _named(values: list[Any]) -> list[Any]:
    """The values of a record, with those of enumerations as their members."""
    for place, member in _NAMED:
        values[place] = member(values[place])
    values[_HOOK] = HOOK_NUMBERS.get((values[_PF], values[_HOOK]), values[_HOOK])
    return values


def decode_events(batch: EventBatch, links: Collection[int] | None = None) -> list[EventRecord]:
    """The events of a batch, in order; with ``links``, only those of these links."""
    records = [
        EventRecord._make(_named([*row, batch.cpu, sequence, batch.clock_offset, b""]))
        for sequence, row in zip(batch.sequences(), batch.rows(), strict=True)
    ]
    for place, payload in batch.payloads.items():
        records[place] = records[place]._replace(payload=payload)
    return records if links is None else [r for r in records if r.link in links]


def decode_event(events: JoinedBatches, place: int) -> EventRecord:
    """One of the events of some batches."""
    where = events.cpus[place], events.sequences[place], events.clock_offsets[place]
    payload = events.payloads.get(place, b"")
    return EventRecord._make(_named([*events.row(place), *where, payload]))
