# SPDX-License-Identifier: GPL-2.0
"""Which events pass a filter."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.event_filter import EventFilter
from ipttctl.records import decode
from ipttproto import Kind, parse_batch
from tests.unit.ctl.support import batch_payload, event

EVENTS: list[dict[str, Any]] = [
    event(link=3, kind=Kind.RULE, rulenum=1, table=b"raw"),
    event(link=3, kind=Kind.EXIT, rulenum=0, verdict=0, hook=1),
    event(link=4, kind=Kind.EXIT, rulenum=0, verdict=1, pf=10, netns=7),
    event(link=5, kind=Kind.PACKET, rulenum=0, verdict=0, in_name=b"eth0", table=b"", chain=b""),
    event(link=4, kind=Kind.POLICY, rulenum=2, chain=b"INPUT"),
]


@pytest.mark.parametrize(
    ("wanted", "passing"),
    [
        (EventFilter(), [0, 1, 2, 3, 4]),
        (EventFilter(links=[4, 5]), [2, 3, 4]),
        (EventFilter(links=[]), []),
        (EventFilter(kinds={Kind.EXIT}), [1, 2]),
        (EventFilter(families={10}), [2]),
        (EventFilter(hooks={1}), [1]),
        # NF_DROP is 0, which is what events without a verdict hold too
        (EventFilter(verdicts={0}), [1, 3]),
        (EventFilter(rules={1, 0}), [0]),
        (EventFilter(rules={2}, chains={"INPUT"}), [4]),
        (EventFilter(tables={"raw", "a name that is longer than any name of the kernel"}), [0]),
        (EventFilter(namespaces={7}), [2]),
        (EventFilter(devices={"eth0"}), [3]),
        (EventFilter(devices={"enp0s8"}, links={4}), [2, 4]),
    ],
)
def test_what_passes(wanted: EventFilter, passing: list[int]) -> None:
    batch = parse_batch(batch_payload(EVENTS, sequence=100))
    found = decode(batch.select(wanted.wanted(batch.events)))
    assert [record.sequence - 100 for record in found] == passing
