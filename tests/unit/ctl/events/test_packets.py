# SPDX-License-Identifier: GPL-2.0
"""Counting packets by the address of their skb."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ipttctl.events.packets import PacketCounter
from ipttproto import EventFlag, Kind
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import joined

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
A, B = 1, 2


def step(hook: int, netns: int = A, table: bytes = b"filter", **changes: Any) -> dict[str, Any]:
    where = {"hook": hook, "netns_cookie": netns, "table": table}
    return {**where, "kind": Kind.EXIT, "verdict": 1, **changes}


def nf(hook: int, link: int = 1, priority: int = 0, **changes: Any) -> dict[str, Any]:
    place = {"hook": hook, "link": link, "priority": priority, "traversal": 0, "table": b""}
    return step(hook, kind=Kind.PACKET) | place | changes


def chain(hook: int, handle: int = 1, netns: int = A, **changes: Any) -> dict[str, Any]:
    """The verdict of a base chain of one table."""
    of = {"kind": Kind.CHAIN_EXIT, "family": 1, "table_handle": 3, "chain_handle": handle}
    return step(hook, netns, **of | changes)


def spine(hook: int, number: int, **changes: Any) -> dict[str, Any]:
    """A function of a hook, or with number 0 the verdict of the hook; of the first passage."""
    kind = Kind.SPINE_FUNCTION if number else Kind.SPINE_EXIT
    of: dict[str, Any] = {"kind": kind, "rulenum": number, "traversal": 50 + hook, "table": b""}
    return step(hook, **of | changes)


#: of devices
INGRESS: dict[str, Any] = {"hook": 0, "pf": 5}
EGRESS: dict[str, Any] = {"hook": 1, "pf": 5}
INET_INGRESS = 5


def count(steps: Iterable[dict[str, Any]]) -> int:
    """The packets of some events, however these are read."""
    events = [
        record(**{"traversal": traversal, **changes}) for traversal, changes in enumerate(steps)
    ]
    one_by_one, together = PacketCounter(), PacketCounter()
    for one in events:
        one_by_one.add(joined(one))
    together.add(joined(*events))
    assert together.count == one_by_one.count
    return together.count


@pytest.mark.parametrize(
    ("packets", "steps"),
    [
        (1, [step(OUTPUT, table=b"raw"), step(OUTPUT), step(POSTROUTING, table=b"nat")]),
        (1, [step(PREROUTING, table=b"raw"), step(FORWARD), step(POSTROUTING, table=b"nat")]),
        (1, [step(OUTPUT), step(PREROUTING, in_name=b"lo"), step(INPUT, in_name=b"lo")]),
        (1, [step(OUTPUT), step(PREROUTING, B), step(INPUT, B)]),
        (2, [step(OUTPUT), step(OUTPUT)]),
        (2, [step(INPUT), step(OUTPUT)]),
        (2, [step(OUTPUT), step(PREROUTING, B), step(INPUT, B), step(OUTPUT, A)]),
        (2, [step(INPUT), step(PREROUTING)]),
        (2, [step(INPUT, A), step(PREROUTING, B)]),
        (2, [step(OUTPUT, verdict=0), step(POSTROUTING)]),
        (2, [step(OUTPUT), step(POSTROUTING, pf=10)]),
        (3, [step(INPUT, in_name=b"lo")] * 3),
        (2, [step(OUTPUT, skb=1), step(OUTPUT, skb=2)]),
        # functions of a hook, with what goes on in them
        (1, [spine(OUTPUT, 1), spine(OUTPUT, 2), spine(OUTPUT, 0), spine(POSTROUTING, 1)]),
        (1, [spine(OUTPUT, 1), chain(OUTPUT), spine(OUTPUT, 2), step(OUTPUT), spine(OUTPUT, 3)]),
        (1, [chain(OUTPUT, verdict=0), spine(OUTPUT, 1, verdict=0), spine(OUTPUT, 0, verdict=0)]),
        (2, [spine(OUTPUT, 0), spine(OUTPUT, 1, traversal=60)]),
        (2, [spine(OUTPUT, 0, verdict=0), spine(POSTROUTING, 1)]),
        (1, [spine(OUTPUT, 1, verdict=3), spine(OUTPUT, 2), spine(OUTPUT, 0)]),
        (1, [spine(OUTPUT, 1, verdict=3, flags=EventFlag.QUEUE_BYPASS), spine(POSTROUTING, 1)]),
        (2, [spine(OUTPUT, 1, verdict=3), spine(POSTROUTING, 1)]),
        # a link sees a packet once; links at one hook see it in their order
        (3, [nf(OUTPUT)] * 3),
        (1, [nf(OUTPUT, 1), nf(OUTPUT, 2), nf(OUTPUT, 3, 5)]),
        (2, [nf(OUTPUT, 1, 5), nf(OUTPUT, 2)]),
        (2, [nf(OUTPUT, 1, verdict=0), nf(OUTPUT, 2)]),
        (1, [nf(OUTPUT), nf(POSTROUTING)]),
        (1, [nf(OUTPUT, 1, -300), step(OUTPUT), nf(POSTROUTING, 2)]),
        (1, [nf(PREROUTING, pf=5), nf(INPUT)]),
        (1, [nf(PREROUTING, pf=7), nf(PREROUTING)]),
        (2, [nf(PREROUTING, pf=5), nf(PREROUTING, pf=5)]),
        (2, [nf(INPUT), nf(PREROUTING, pf=5)]),
        # a packet meets each base chain of a table once, and several at a hook
        (1, [chain(OUTPUT, 1), chain(OUTPUT, 2), chain(POSTROUTING, 3)]),
        (2, [chain(OUTPUT, 1), chain(OUTPUT, 1)]),
        (1, [chain(OUTPUT, 1), chain(OUTPUT, 1, table_handle=4)]),
        (1, [step(OUTPUT), chain(OUTPUT), step(POSTROUTING), chain(POSTROUTING, 2)]),
        (2, [chain(OUTPUT, verdict=0), chain(POSTROUTING, 2)]),
        (2, [chain(INPUT), chain(PREROUTING, 2)]),
        (1, [chain(OUTPUT), nf(POSTROUTING)]),
        # devices: of inet tables, ingress is a hook of IP
        (1, [chain(handle=1, **INGRESS), chain(INET_INGRESS, 2), chain(PREROUTING, 3)]),
        (1, [chain(INET_INGRESS, 2), chain(handle=1, **INGRESS), chain(PREROUTING, 3)]),
        (2, [chain(handle=1, **INGRESS), chain(handle=1, **INGRESS)]),
        (1, [chain(POSTROUTING, 1), chain(handle=2, **EGRESS)]),
        (1, [chain(POSTROUTING, 1, pf=7), chain(handle=2, **EGRESS)]),
        (1, [chain(handle=2, **EGRESS), chain(PREROUTING, 3, B)]),
        (1, [chain(handle=2, **EGRESS), chain(handle=3, netns=B, **INGRESS)]),
        (2, [chain(INPUT, 1), chain(handle=2, **EGRESS)]),
        (2, [chain(handle=2, **EGRESS), chain(handle=2, **EGRESS)]),
    ],
)
def test_packets(packets: int, steps: list[dict[str, Any]]) -> None:
    assert count(steps) == packets


def test_followed_packets_are_counted_by_their_numbers() -> None:
    way = [spine(OUTPUT, 1), spine(OUTPUT, 0), spine(POSTROUTING, 1)]
    freed: dict[str, Any] = {"kind": Kind.JOURNEY_FREED, "traversal": 0, "pf": 0}
    packets = [{**one, "packet": number} for number in (7, 8) for one in [*way, freed]]
    assert count(packets) == 2
    # in any order, and among others
    assert count([*packets[::2], *way, *packets[1::2]]) == 3
    # the number says that it is the same, whatever it comes to
    assert count([{**step(INPUT), "packet": 7}, {**step(OUTPUT), "packet": 7}]) == 1


def test_rules_of_one_passage_are_one_packet() -> None:
    rule = step(OUTPUT, kind=Kind.RULE, traversal=5)
    assert count([rule, rule, step(OUTPUT, verdict=0, traversal=5)]) == 1
    rule = chain(OUTPUT, kind=Kind.CHAIN_RULE, traversal=5)
    inner = rule | {"chain_handle": 2}
    assert count([rule, inner, inner, rule, chain(OUTPUT, verdict=0, traversal=5)]) == 1


def test_packets_that_nat_knows() -> None:
    """A table that is not consulted is on a packet's way as any other."""

    def known(hook: int) -> dict[str, Any]:
        return step(hook, table=b"nat", kind=Kind.KNOWN, verdict=0)

    def chain_known(hook: int, handle: int) -> dict[str, Any]:
        return chain(hook, handle, kind=Kind.CHAIN_KNOWN, verdict=0)

    way = [known(PREROUTING), chain_known(PREROUTING, 1), chain_known(PREROUTING, 2)]
    way += [step(FORWARD), known(POSTROUTING), chain_known(POSTROUTING, 3)]
    assert count(way) == 1
    assert count(way * 3) == 3
    assert count([known(INPUT), known(INPUT)]) == 2


def test_tables_and_chains_have_numbers_of_their_own() -> None:
    assert count([step(INPUT, traversal=5), chain(PREROUTING, traversal=5)]) == 2
