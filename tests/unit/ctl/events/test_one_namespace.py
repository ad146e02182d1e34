# SPDX-License-Identifier: GPL-2.0
"""A namespace that plays a host: of others it is seen only that packets went there."""

from __future__ import annotations

from typing import Any

from ipttctl.events.one_namespace import within
from ipttctl.stories.assemble import SETTLE, StoryAssembler
from ipttctl.stories.model import EndKind
from ipttproto import EventBatch, JoinedBatches, Kind, parse_batch
from tests.unit.ctl.support import batch_payload, event

OWN, OTHER = 7, 8


def batch(*events: dict[str, Any], payloads: dict[int, bytes] | None = None) -> EventBatch:
    return parse_batch(batch_payload(events, payloads=payloads))


def step(kind: Kind, cookie: int, **more: Any) -> dict[str, Any]:
    return event(**{"kind": kind, "netns_cookie": cookie, "packet": 5, **more})


def test_a_packet_that_comes_into_another_namespace_has_left() -> None:
    happened = batch(
        step(Kind.SPINE_FUNCTION, OWN, time=1000),
        step(Kind.JOURNEY_SENT, OWN, time=1100, out_name=b"eth0"),
        step(Kind.JOURNEY_RECEIVED, OTHER, time=1200, in_name=b"eth0", in_ifindex=3),
        step(Kind.SPINE_FUNCTION, OTHER, time=1300),
        step(Kind.JOURNEY_DROPPED, OTHER, time=1400),
        payloads={0: b"first", 2: b"there", 3: b"more"},
    )
    seen = within(JoinedBatches.of([happened]), OWN)
    assert seen.values("kind") == [Kind.SPINE_FUNCTION, Kind.JOURNEY_SENT, Kind.JOURNEY_FREED]
    assert seen.values("netns_cookie") == [OWN] * 3
    assert seen.values("in_ifindex")[2] == 0
    assert seen.payloads == {0: b"first"}
    assembler = StoryAssembler()
    assembler.add_events(seen)
    [story] = assembler.due(1200 + SETTLE)
    assert story.end.kind is EndKind.LEFT
    assert story.record(story.end.device or 0).out_name.rstrip(b"\0") == b"eth0"
    assert story.ended == 1200


def test_events_of_the_namespace_alone_are_the_same_object() -> None:
    happened = JoinedBatches.of([batch(step(Kind.SPINE_FUNCTION, OWN))])
    assert within(happened, OWN) is happened


def test_what_happens_elsewhere_is_not_there() -> None:
    happened = JoinedBatches.of(
        [batch(*[step(Kind.SPINE_FUNCTION, OTHER, time=n) for n in range(20)])]
    )
    assert len(within(happened, OWN)) == 0
