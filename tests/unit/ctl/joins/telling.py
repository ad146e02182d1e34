# SPDX-License-Identifier: GPL-2.0
"""Stories of hosts as they tell them, and the chains that are made of them."""

from __future__ import annotations

import json
from typing import Any

from ipttctl.joins.chains import StoryChain
from ipttctl.joins.clocks import Life
from ipttctl.joins.joiner import HOLD, Joiner
from ipttctl.joins.marks import Mark, Way

A: Life = ("a", "1")
R: Life = ("r", "1")
B: Life = ("b", "1")

MILLI = 1_000_000

#: a segment of 1000 bytes
MARK = Mark(
    *(Way.DEPARTURE, 4, 6, True, 0x10, 0, 1052, 1000, 5000, 77, 11, 12, 9, 0, 0, 4000, 443, None),
    *("10.1.0.1", "10.2.0.1"),
)
DATAGRAM = MARK._replace(
    protocol=17,
    tcp_flags=0,
    sequence=0,
    acknowledged=0,
    timestamp=None,
    echoed=None,
    id=0,
    hash=5,
    hashed=64,
)


def story(
    number: int,
    at: int,
    came: Mark | None = None,
    left: Mark | None = None,
    *,
    after: int = 1000,
    end: str = "left",
) -> dict[str, Any]:
    """A story with an arrival at its beginning, and a departure."""
    marks = []
    for mark, way, later in ((came, Way.ARRIVAL, 0), (left, Way.DEPARTURE, after)):
        if mark is not None:
            values = mark._replace(way=way).values()
            marks.append({**values, "after_ns": later, "packet": number, "device": "eth0"})
    return {
        "packet": number,
        "in_device": "eth0" if came else None,
        "monotonic_ns": at,
        "end": {"kind": end},
        "join": marks,
    }


def add(joiner: Joiner, life: Life, one: dict[str, Any], now: int) -> None:
    """Have a joiner take a story."""
    joiner.add(life, json.dumps(one).encode(), now)


def joined(*told: tuple[Life, dict[str, Any]]) -> list[StoryChain]:
    """The chains of stories that come at once."""
    joiner = Joiner()
    for life, one in told:
        add(joiner, life, one, 0)
    assert joiner.due(HOLD - 1) == []
    found = joiner.due(HOLD)
    assert len(joiner) == 0
    return found


def ways(chains: list[StoryChain]) -> list[list[tuple[str, int]]]:
    """The hosts and packets of chains."""
    return [[(one.life[0], one.story["packet"]) for one in chain.stories] for chain in chains]
