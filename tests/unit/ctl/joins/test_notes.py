# SPDX-License-Identifier: GPL-2.0
"""Marks that events bring, by the story that they belong to."""

from __future__ import annotations

from typing import Any

from ipttctl.joins.notes import JoinNotes
from ipttctl.stories.assemble import SETTLE, StoryAssembler
from ipttctl.stories.model import Story
from ipttproto import InetHook, JoinedBatches, Kind, NfFamily, parse_batch
from tests.unit.ctl.joins.test_marks import BYTES
from tests.unit.ctl.support import batch_payload, event

LEFT = BYTES
CAME = BYTES[:1] + b"\1" + BYTES[2:]
NOTHING = bytes(len(BYTES))


def happened(kind: Kind, time: int, **more: Any) -> dict[str, Any]:
    return event(kind=kind, time=time, packet=5, **more)


def at_hook(time: int, hook: InetHook, kind: Kind = Kind.SPINE_FUNCTION) -> dict[str, Any]:
    return happened(kind, time, pf=NfFamily.IPV4, hook=hook, verdict=1, in_name=b"eth0")


def told(*events: tuple[dict[str, Any], bytes]) -> tuple[JoinNotes, Story]:
    """The story of some events, each with its payload."""
    payloads = {place: data for place, (_, data) in enumerate(events) if data}
    batch = parse_batch(batch_payload([one for one, _ in events], payloads=payloads))
    notes, assembler = JoinNotes(), StoryAssembler()
    joined = JoinedBatches.of([batch])
    notes.take(joined)
    assembler.add_events(joined)
    [story] = assembler.due(max(one["time"] for one, _ in events) + SETTLE)
    return notes, story


def test_a_story_has_the_arrival_of_its_first_hook_and_each_departure() -> None:
    notes, story = told(
        # a rule of the first function comes before what is told of it
        (at_hook(900, InetHook.PREROUTING, Kind.RULE), b""),
        (at_hook(1000, InetHook.PREROUTING), CAME),
        (at_hook(1100, InetHook.PREROUTING), NOTHING),
        (at_hook(1200, InetHook.PREROUTING, Kind.SPINE_EXIT), b""),
        # where it is no longer as it came
        (at_hook(1300, InetHook.FORWARD), CAME),
        (at_hook(1400, InetHook.FORWARD, Kind.SPINE_EXIT), b""),
        (happened(Kind.JOURNEY_SENT, 1500, out_name=b"eth1"), LEFT),
        (happened(Kind.JOURNEY_FREED, 1600), NOTHING),
    )
    found = notes.told(story)
    assert [(one["way"], one["after_ns"], one["device"], one["packet"]) for one in found] == [
        ("arrival", 100, "eth0", 5),
        ("departure", 600, "eth1", 5),
    ]
    assert found[0]["sequence"] == 4_294_967_000
    # they are not kept any longer
    assert notes.told(story) == []


def test_marks_of_packets_without_number_and_what_is_no_mark_are_passed_over() -> None:
    notes = JoinNotes()
    events = [event(kind=Kind.SPINE_FUNCTION, packet=number) for number in (0, 5)]
    batch = parse_batch(batch_payload(events, payloads={0: CAME, 1: b"other"}))
    notes.take(JoinedBatches.of([batch]))
    _, story = told((happened(Kind.JOURNEY_FREED, 1000), b""))
    assert notes.told(story) == []
