# SPDX-License-Identifier: GPL-2.0
"""The storm's check of followed packets: each fault is found, and what may be is none."""

from __future__ import annotations

from typing import Any

import pytest

from ipttproto import EventBatch, Kind, Verdict, parse_batch
from tests.storm.journeys import Numbers
from tests.unit.ctl.support import batch_payload, event

NUMBER = 1000
FIRST = 2_000


def step(kind: Kind, after: int, packet: int = NUMBER, **members: Any) -> dict[str, Any]:
    """An event of a packet, some time after the first."""
    made = {"kind": kind, "time": FIRST + after, "packet": packet, "skb": 0xFF00, "link": 1}
    return event(**{**made, "rule_handle": 0, "verdict": Verdict.ACCEPT, **members})


#: sent and used up, as two journeys hear it; then another packet in its place, which a hook drops
RIGHT = (
    step(Kind.JOURNEY_SENT, 0),
    step(Kind.JOURNEY_FREED, 1),
    step(Kind.JOURNEY_FREED, 1, link=2),
    step(Kind.JOURNEY_RECEIVED, 2, NUMBER + 1),
    step(Kind.JOURNEY_COPY, 3, NUMBER + 2, skb=0xEE00, rule_handle=NUMBER + 1),
    step(Kind.JOURNEY_DROPPED, 4, NUMBER + 1),
    step(Kind.SPINE_EXIT, 5, NUMBER + 1, verdict=Verdict.DROP),
)


def check(*events: dict[str, Any], earlier: int = 0) -> dict[str, int]:
    numbers = Numbers(earlier)
    batch = parse_batch(batch_payload(events))
    assert isinstance(batch, EventBatch)
    # in any order, as from several CPUs
    numbers.add([batch])
    return numbers.check()[0]


def test_what_may_be() -> None:
    kinds = check(*RIGHT[::-1], earlier=NUMBER - 1)
    assert {name: n for name, n in kinds.items() if n} == {
        "followed": 3, "copied": 1, "dropped": 1, "used-up": 1, **_crossing(kinds),
    }  # fmt: skip  # pairs together
    assert check() == {}


def _crossing(kinds: dict[str, int]) -> dict[str, int]:
    return {"crossing": kinds["crossing"]} if kinds["crossing"] else {}


def test_namespaces_are_counted() -> None:
    there = [step(Kind.JOURNEY_SENT, 0, netns_cookie=7), step(Kind.JOURNEY_RECEIVED, 1)]
    assert check(*there)["crossing"] == 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (step(Kind.JOURNEY_DROPPED, 6, NUMBER + 1), "ends more than once"),
        (step(Kind.JOURNEY_FREED, 6, NUMBER + 1, link=2), "ends differ"),
        (step(Kind.JOURNEY_LOST, 1, link=3), "ends differ"),
        (step(Kind.JOURNEY_SENT, 2), "after its end"),
        (step(Kind.SPINE_EXIT, 5, NUMBER + 1), "after its end"),
        (step(Kind.JOURNEY_SENT, 3, NUMBER + 1, skb=0xFF01), "of several addresses"),
        (step(Kind.JOURNEY_SENT, 6, NUMBER - 1), "after"),
        (step(Kind.JOURNEY_COPY, 6, NUMBER + 2, skb=0xEE00, rule_handle=1), "is a copy more than"),
        (step(Kind.JOURNEY_COPY, 6, NUMBER + 3, rule_handle=NUMBER + 3), "copies of later packets"),
        (step(Kind.JOURNEY_SENT, 6, FIRST + 7, skb=0xDD00), "number is of the future"),
    ],
)
def test_a_fault(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check(*RIGHT, wrong)


def test_numbers_of_an_earlier_module() -> None:
    with pytest.raises(AssertionError, match="of an earlier module"):
        check(*RIGHT, earlier=NUMBER)
