# SPDX-License-Identifier: GPL-2.0
"""Events as tuples."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ipttproto import EventBatch


class EventRecord(NamedTuple):
    """An event: the members of the protocol's record, under the same names, then its place.

    Times are in ns. ``time`` is CLOCK_MONOTONIC; adding ``clock_offset`` gives CLOCK_REALTIME.
    Names and addresses are raw bytes. ``sequence`` is the event's number on its ``cpu``.
    ``payload`` holds the bytes that the program added, if any.
    """

    time: int
    skb: int
    cost: int
    netns_cookie: int
    table_handle: int
    chain_handle: int
    rule_handle: int
    link: int
    generation: int
    traversal: int
    netns: int
    pid: int
    in_ifindex: int
    out_ifindex: int
    physin_ifindex: int
    physout_ifindex: int
    mark: int
    length: int
    ruleset: int
    rulenum: int
    rules: int
    verdict: int
    verdict_data: int
    priority: int
    sport: int
    dport: int
    icmp_id: int
    ethertype: int
    arp_operation: int
    flags: int
    depth: int
    kind: int
    pf: int
    hook: int
    family: int
    protocol: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    dmac: bytes
    saddr: bytes
    daddr: bytes
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


def decode(batch: EventBatch, links: Collection[int] | None = None) -> list[EventRecord]:
    """The events of a batch, in order; with ``links``, only those of these links."""
    records = [
        EventRecord._make((*row, batch.cpu, sequence, batch.clock_offset, b""))
        for sequence, row in zip(batch.sequences(), batch.rows(), strict=True)
    ]
    for place, payload in batch.payloads.items():
        records[place] = records[place]._replace(payload=payload)
    return records if links is None else [r for r in records if r.link in links]
