# SPDX-License-Identifier: GPL-2.0
"""Counting packets by the address of their skb."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ipttctl.events.packets import PacketCounter
from ipttproto import Kind
from tests.unit.ctl.show.test_event_text import record

PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
A, B = 1, 2


def step(hook: int, netns: int = A, table: bytes = b"filter", **changes: Any) -> dict[str, Any]:
    where = {"hook": hook, "netns_cookie": netns, "table": table}
    return {**where, "kind": Kind.EXIT, "verdict": 1, **changes}


def nf(hook: int, link: int = 1, priority: int = 0, **changes: Any) -> dict[str, Any]:
    place = {"hook": hook, "link": link, "priority": priority, "traversal": 0, "table": b""}
    return step(hook, kind=Kind.PACKET) | place | changes


def count(steps: Iterable[dict[str, Any]]) -> int:
    counter = PacketCounter()
    for traversal, changes in enumerate(steps):
        counter.add(record(**{"traversal": traversal, **changes}))
    return counter.count


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
    ],
)
def test_packets(packets: int, steps: list[dict[str, Any]]) -> None:
    assert count(steps) == packets


def test_rules_of_one_passage_are_one_packet() -> None:
    rule = step(OUTPUT, kind=Kind.RULE, traversal=5)
    assert count([rule, rule, step(OUTPUT, verdict=0, traversal=5)]) == 1
