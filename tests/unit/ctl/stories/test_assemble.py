# SPDX-License-Identifier: GPL-2.0
"""Events of several CPUs become stories, each told once."""

from __future__ import annotations

import gc
import json
import random

import pytest

from ipttctl.show.story_json import StoryJson
from ipttctl.stories import assemble
from ipttctl.stories.assemble import PATIENCE, SETTLE, StoryAssembler
from ipttctl.stories.model import EndKind, Story, is_drop
from ipttctl.stories.plots import Entries
from ipttproto import EventFlag, Kind
from tests.unit.ctl.stories.packets import (
    FORWARD,
    MS,
    OUTPUT,
    START,
    US,
    Traveller,
    flood,
    ip4,
    joined,
    one_story,
    records,
    to_docker,
    told,
)


def outline(story: Story) -> tuple[object, ...]:
    """All that a story says."""
    branches = tuple(map(outline, story.branches))
    kinds = tuple(one.record.kind for one in story.plot.occurrences)
    return (
        *(story.number, story.times, story.headers, kinds, story.steps, story.end),
        *(story.copy_of, branches),
    )


def test_the_order_of_batches_does_not_matter() -> None:
    travellers = [to_docker(), *flood(3, first=2)]
    events = [event for one in travellers for event in one.events]
    expected = {s.number: outline(s) for s in told(*travellers)}
    for seed in range(5):
        shuffled = random.Random(seed).sample(events, len(events))
        assembler = StoryAssembler()
        stories = assembler.add(records(shuffled))
        stories += assembler.flush()
        assert {s.number: outline(s) for s in stories} == expected


def test_events_read_together_tell_the_same_as_records() -> None:
    events = [event for one in [to_docker(), *flood(40, first=2)] for event in one.events]
    fast, slow = StoryAssembler(), StoryAssembler()
    by_events, by_records = fast.add_events(joined(events)), slow.add(records(events))
    by_events += fast.flush()
    by_records += slow.flush()
    assert len(by_events) == 41
    assert list(map(outline, by_events)) == list(map(outline, by_records))
    assert [s.record(3) for s in by_events] == [s.record(3) for s in by_records]
    socket = next(s for s in by_events if s.end.socket is not None)
    assert socket.end.socket is not None
    assert socket.record(socket.end.socket).rule_handle == 4711


def test_a_record_of_a_story_is_the_event() -> None:
    packet = to_docker()
    story = one_story(packet)
    for at, record in enumerate(records(packet.events)):
        same = record._replace(skb=0, traversal=0, cpu=0, sequence=0, cost=0)
        assert story.record(at) == same


def test_packets_of_no_number_are_ignored() -> None:
    packet = to_docker()
    for event in packet.events:
        event["packet"] = 0
    assert told(packet) == []
    assembler = StoryAssembler()
    assert assembler.add_events(joined(packet.events)) == []
    assert assembler.open_stories == 0


def test_packets_of_the_same_way_share_a_plot() -> None:
    first, second, third = told(*flood(3))
    assert first.plot is second.plot is third.plot
    assert first.headers != second.headers


def test_an_ended_story_settles_on_the_clock_of_events() -> None:
    packet = to_docker()
    assembler = StoryAssembler()
    assert assembler.add(records(packet.events[:-2])) == []
    assert assembler.add(records(packet.events[-1:])) == []
    # another CPU is late
    assert assembler.add(records(packet.events[-2:-1])) == []
    assert assembler.due(packet.time + SETTLE - 1) == []
    [story] = assembler.due(packet.time + SETTLE)
    assert len(story.times) == len(packet.events)
    assert assembler.open_stories == 0


def test_events_after_the_end_begin_no_story() -> None:
    [packet] = flood(1)
    assembler = StoryAssembler()
    assembler.add(records(packet.events[:-1]))
    [story] = assembler.due(packet.time + SETTLE)
    assert story.end.kind is EndKind.DELIVERED
    assert assembler.add(records(packet.events[-1:])) == []
    assert (assembler.late, assembler.open_stories) == (1, 0)


@pytest.mark.parametrize("end", ["FREED", "DROPPED", "SOCKET", "LOST"])
def test_a_late_end_of_a_packet_that_was_forgotten_begins_no_story(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "_MOST_CLOSED", 2)
    assembler = StoryAssembler()
    for packet in flood(4):
        assembler.add(records(packet.events))
    assert len(assembler.due(START + PATIENCE)) == 4
    late = Traveller(1, START + 2 * PATIENCE)
    late.add(Kind[f"JOURNEY_{end}"])
    assert assembler.add(records(late.events)) == []
    assert (assembler.late, assembler.open_stories) == (1, 0)
    # a copy of it is a story, of which the original was told
    copy = Traveller(9, late.time)
    copy.copied(1)
    assembler.add(records(copy.events))
    assert assembler.open_stories == 1
    copy.sent("eth0")
    copy.freed()
    assembler.add(records(copy.events[1:]))
    assert [story.number for story in assembler.due(copy.time + SETTLE)] == [9]
    # one that has just come begins with its end if that is read first
    [new] = flood(1, first=10)
    stories = assembler.add(records(new.events[-1:]))
    assert [story.number for story in stories] == [10]
    assert assembler.late == 1


def test_patience_ends() -> None:
    packet = to_docker()
    assembler = StoryAssembler()
    assembler.add(records(packet.events[:5]))
    last = packet.events[4]["time"]
    assert assembler.due(last + PATIENCE - 1) == []
    [story] = assembler.due(last + PATIENCE)
    assert story.end.kind is EndKind.OPEN
    # each event renews it
    assembler = StoryAssembler()
    assembler.add(records(packet.events[:5]))
    packet.events[5]["time"] = last + PATIENCE - 1
    assembler.add(records(packet.events[5:6]))
    assert assembler.due(last + PATIENCE) == []


def test_patience_for_drops_does_not_end() -> None:
    packet = to_docker()
    assembler = StoryAssembler(await_drops=True)
    assembler.add(records(packet.events[:5]))
    for _ in range(9):
        assert assembler.due(packet.events[4]["time"] + 60 * PATIENCE) == []
    later = packet.events[5:]
    for event in later:
        event["time"] += 90 * PATIENCE
    assembler.add(records(later))
    [story] = assembler.due(later[-1]["time"] + SETTLE)
    assert is_drop(story)
    assert len(story.times) == len(packet.events)
    assert (assembler.late, assembler.open_stories) == (0, 0)


@pytest.mark.parametrize(
    ("function", "told"), [("__dev_queue_xmit", True), ("packet_rcv", False), ("icmpv6_rcv", False)]
)
def test_a_copy_that_was_dropped_is_told_although_others_are_quiet(
    function: str, told: bool
) -> None:
    packet = Traveller(1)
    packet.received("eth0")
    copy = Traveller(2, packet.time)
    copy.copied(1)
    copy.dropped(1, function, flags=EventFlag.UNSAID)
    assembler = StoryAssembler(await_drops=True)
    assembler.add(records([*packet.events, *copy.events]))
    assert assembler.due(copy.time + PATIENCE - US) == []
    assert bool(assembler.due(copy.time + PATIENCE)) == told


def entries() -> int:
    """Number of packets whose events are kept anywhere."""
    return sum(isinstance(one, Entries) for one in gc.get_objects())


def test_nothing_is_kept_of_packets_that_were_told() -> None:
    """However long the patience is."""
    gc.collect()
    before = entries()
    assembler = StoryAssembler(patience=1 << 60)
    for packet in flood(30):
        assembler.add(records(packet.events))
    assembler.add(records([event for packet in copies(100) for event in packet.events]))
    assert entries() > before
    assembler.due(START + PATIENCE)
    assert assembler.open_stories == 0
    assert entries() == before


def test_a_passing_socket_is_no_end() -> None:
    packet = Traveller()
    packet.received("eth0")
    packet.socket()
    packet.now(pf=2, hook=FORWARD, out_name=b"eth1")
    packet.function("f", 1)
    assembler = StoryAssembler()
    assembler.add(records(packet.events))
    assert assembler.due(packet.time + SETTLE) == []
    packet.leave()
    packet.socket()
    assembler.add(records(packet.events[-2:]))
    [story] = assembler.due(packet.time + SETTLE)
    assert story.end.kind is EndKind.DELIVERED


def test_no_more_stories_are_open_than_allowed() -> None:
    packets = list(flood(4))
    assembler = StoryAssembler(most_open=2)
    stories = [s for one in packets for s in assembler.add(records(one.events[:3]))]
    assert [(s.number, s.end.kind, s.end.why) for s in stories] == [
        (number, EndKind.UNFINISHED, "too many open stories") for number in (1, 2)
    ]
    assert (assembler.unfinished, assembler.open_stories) == (2, 2)
    assert [s.end.why for s in assembler.flush()] == ["the stream ended"] * 2


def test_a_packet_that_goes_in_circles_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "_MOST_EVENTS", 100)
    packet = Traveller()
    for _ in range(120):
        packet.received("br0")
    assembler = StoryAssembler()
    [story] = assembler.add(records(packet.events))
    assert (len(story.times), story.end.kind) == (120, EndKind.UNFINISHED)
    packet.received("br0")
    assert assembler.add(records(packet.events[-1:])) == []
    assert (assembler.late, assembler.open_stories) == (1, 0)


def test_an_ended_story_that_makes_room_is_not_unfinished() -> None:
    packets = list(flood(2))
    assembler = StoryAssembler(most_open=1)
    assembler.add(records(packets[0].events))
    [story] = assembler.add(records(packets[1].events[:1]))
    assert story.end.kind is EndKind.DELIVERED
    assert assembler.unfinished == 0


def copies(first: int = 1) -> tuple[Traveller, Traveller, Traveller]:
    """A packet, a copy that leaves by another device, and a clone that nobody wanted."""
    original = Traveller(first, out_name=b"eth0", pf=2, hook=OUTPUT)
    original.function("f", 1)
    original.leave()
    copy = Traveller(first + 1, original.time, daddr=ip4("10.0.0.9"))
    copy.copied(first)
    copy.sent("eth1")
    copy.time += 30 * MS
    copy.freed()
    clone = Traveller(first + 2, original.time + 2 * US)
    clone.copied(first)
    clone.freed()
    original.time += 10 * US
    original.sent("eth0")
    original.freed()
    return original, copy, clone


def test_copies_are_branches() -> None:
    story = one_story(*copies())
    assert [branch.number for branch in story.branches] == [2, 3]
    assert [branch.number for branch in story.shown_branches()] == [2]
    assert [branch.copy_of for branch in story.branches] == [1, 1]
    assert story.end.kind is story.branches[0].end.kind is EndKind.LEFT


def test_a_story_waits_for_its_branches() -> None:
    original, copy, clone = copies()
    assembler = StoryAssembler()
    assembler.add(records([*original.events, *copy.events[:-1], *clone.events]))
    assert assembler.due(original.time + 2 * SETTLE) == []
    [story] = assembler.add(records(copy.events[-1:]))
    assert len(story.branches) == 2


def test_a_copy_joins_whatever_comes_first() -> None:
    original, copy, clone = copies()
    expected = outline(one_story(original, copy, clone))
    events = [*original.events, *copy.events, *clone.events]
    for seed in range(10):
        assembler = StoryAssembler()
        stories = assembler.add(records(random.Random(seed).sample(events, len(events))))
        [story] = [*stories, *assembler.flush()]
        assert outline(story) == expected


def test_fragments_name_their_whole() -> None:
    """Each is a story of its own; the whole is a copy of the first one."""
    first, last, alone = (Traveller(number) for number in (1, 2, 4))
    for packet in (first, last, alone):
        packet.received("eth0")
        packet.waits(99 if packet is not alone else 98)
        packet.freed()
    whole = Traveller(3, first.time)
    whole.copied(1)
    whole.whole(99)
    whole.sent("eth1")
    whole.freed()
    events = [event for packet in (first, last, whole, alone) for event in packet.events]
    for seed in range(10):
        assembler = StoryAssembler()
        assembler.add(records(random.Random(seed).sample(events, len(events))))
        stories = {story.number: story for story in assembler.flush()}
        assert set(stories) == {1, 2, 4}
        assert stories[1].branches[0].number == 3
        named = {number: story.named[1].number for number, story in stories.items()}
        assert named == {1: 3, 2: 3, 4: 0}
        assert [stories[number].end.kind for number in (1, 2, 4)] == [EndKind.JOINED] * 3


def test_a_copy_of_a_told_packet_has_its_own_story() -> None:
    original, copy, _ = copies()
    assembler = StoryAssembler()
    assembler.add(records(original.events))
    assert len(assembler.due(original.time + SETTLE)) == 1
    assembler.add(records(copy.events))
    [story] = assembler.flush()
    assert (story.number, story.copy_of) == (2, 1)


def test_a_copy_of_an_unseen_packet_has_its_own_story() -> None:
    _, copy, _ = copies()
    [story] = told(copy)
    assert (story.number, story.copy_of, story.end.kind) == (2, 1, EndKind.LEFT)


def test_a_copy_of_an_idle_copy_is_one_of_the_original() -> None:
    """Fragments are made so: each is copied from the one before, and then sent."""
    original = Traveller(1)
    original.received("eth0")
    parts = []
    for number in range(2, 6):
        part = Traveller(number, original.time + number * 100 * US)
        part.copied(number - 1)
        # after the next one was made
        part.time += 150 * US
        part.sent("eth1")
        part.freed()
        parts.append(part)
    original.time += 1000 * US
    original.freed()
    story = one_story(original, *parts)
    assert [branch.number for branch in story.branches] == [2, 3, 4, 5]
    assert [branch.copy_of for branch in story.branches] == [1, 2, 3, 4]
    assert not any(branch.branches for branch in story.branches)


def test_copies_of_copies_are_branches_within_each_other_up_to_a_bound() -> None:
    """Branches without a bound could not be told: telling goes down into each."""
    chain = [Traveller(1, out_name=b"eth0", pf=2, hook=OUTPUT)]
    chain[0].function("f", 1)
    for number in range(2, 402):
        copy = Traveller(number, chain[-1].time)
        copy.copied(number - 1)
        copy.sent("eth1")
        chain.append(copy)
    for one in chain:
        one.time += 10 * MS
        one.freed()
    story = one_story(*chain)
    assert not is_drop(story)
    [line] = StoryJson().lines([story])
    found = json.loads(line)
    numbers = []
    for _ in range(32):
        numbers.append(found["packet"])
        branches = [one["story"] for one in found["steps"] if one["step"] == "branch"]
        found = branches[0]
    assert numbers == list(range(1, 33))
    # none is missing, and each says what it is a copy of
    assert [one["packet"] for one in branches] == list(range(33, 402))
    assert [one["copy_of"] for one in branches] == list(range(32, 401))
    assert not any(step["step"] == "branch" for one in branches for step in one["steps"])


def test_a_copy_that_shows_no_headers_has_those_of_its_original() -> None:
    original = Traveller(1)
    original.received("eth0", sport=4000)
    original.now(sport=5000)
    original.received("eth1")
    copy = Traveller(2, original.time)
    copy.copied(1, saddr=bytes(16), daddr=bytes(16), ethertype=0, sport=0, dport=0)
    original.time = copy.time
    original.now(sport=6000)
    original.sent("eth2")
    original.freed()
    story = one_story(original, copy)
    [branch] = story.branches
    assert [headers.sport for headers in branch.headers] == [5000]


def test_a_packet_that_shows_late_that_it_is_a_fragment() -> None:
    original = Traveller(1)
    original.received("eth0")
    original.freed()
    part = Traveller(2, original.time - 1500)
    part.copied(1, saddr=bytes(16), daddr=bytes(16), ethertype=0, sport=0, dport=0)
    part.sent("eth1", flags=EventFlag.FRAGMENT, pf=2)
    part.freed(saddr=bytes(16), daddr=bytes(16), ethertype=0)
    plot = one_story(original, part).branches[0].plot
    assert [plot.cut(at) for at in range(3)] == [int(EventFlag.FRAGMENT)] * 3


def test_packets_are_not_joined_by_anything_else() -> None:
    first, second = to_docker(), to_docker()
    for event in second.events:
        event["packet"] = 77
    stories = told(first, second)
    assert sorted(s.number for s in stories) == [1, 77]
    assert all(len(s.times) == len(first.events) for s in stories)
