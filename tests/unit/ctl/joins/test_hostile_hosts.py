# SPDX-License-Identifier: GPL-2.0
"""Hosts that were taken over: whatever they tell costs no more than there is room for."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipttctl.joins.chains import WireState
from ipttctl.joins.clocks import Life
from ipttctl.joins.joiner import HOLD, MOST_IN_CHAIN, Joiner
from ipttctl.joins.marks import Mark
from tests.unit.ctl.joins.simulation import (
    replace_mark,
)
from tests.unit.ctl.joins.telling import DATAGRAM, MARK, MILLI, A, B, R, add, story, ways


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": 2**40},
        {"payload": 2**20},
        {"length": 2**32},
        {"sequence": 2**32},
        {"acknowledged": 2**32},
        {"timestamp": 2**32},
        {"id": 2**32},
        {"segment": 2**16},
        {"source_port": 2**16},
        {"tcp_flags": 256},
        {"family": 7},
        {"hashed": 65},
    ],
)
def test_numbers_that_no_packet_has_are_no_mark(changes: dict[str, Any]) -> None:
    """A payload of 2^40 bytes would have taken as many places as there is memory for."""
    joiner = Joiner()
    add(joiner, A, story(1, 1000, left=replace_mark(MARK, **changes)), 0)
    [chain] = joiner.due(0)
    assert chain.stories[0].sightings == []


@pytest.mark.parametrize("time", [10**400, 2**62, -1, 1.5, "now", None])
def test_times_that_no_clock_shows_join_nothing(time: object) -> None:
    joiner = Joiner()
    add(joiner, A, {**story(1, 1000, left=MARK), "monotonic_ns": time}, 0)
    add(joiner, B, story(2, 2000, MARK), 0)
    assert sorted(map(len, ways(joiner.due(HOLD)))) == [1, 1]


def test_a_flow_whose_segments_are_merged_all_the_time_is_told_in_parts() -> None:
    """No end of a packet is one of a merged one, so that all of them hang together."""
    joiner = Joiner()
    flow = MARK._replace(timestamp=None, echoed=None, id=0)
    told, number, waited = [], 0, 0
    for step in range(1500):
        now = step * 10 * MILLI
        for life, first in ((A, step * 1000), (B, step * 1000 + 500)):
            number += 1
            mark = replace_mark(flow, sequence=first, payload=1000)
            way = {"left": mark} if life == A else {"came": mark, "end": "delivered"}
            add(joiner, life, story(number, now + (life == B) * MILLI, **way), now)
        told += joiner.due(now)
        waited = max(waited, len(joiner))
    # those of the hold, and a chain that is not whole yet
    assert waited < 2000
    told += joiner.flush()
    assert sum(len(chain.stories) for chain in told) == number
    assert max(len(chain.stories) for chain in told) <= MOST_IN_CHAIN
    assert len(joiner) == 0


def test_what_a_story_is_joined_with_goes_with_it_for_lack_of_room() -> None:
    joiner = Joiner(most_stories=3)
    big = replace_mark(MARK, payload=3000)
    add(joiner, A, story(1, 1000, left=big), 0)
    add(joiner, B, story(2, 2000, replace_mark(MARK, payload=1000), end="delivered"), 0)
    # the rest of the packet is awaited
    other = replace_mark(MARK, sequence=6000, id=10)
    add(joiner, B, story(3, 2000, other, end="delivered"), 2 * HOLD - 1)
    assert joiner.due(2 * HOLD - 1) == []
    for number in range(4, 7):
        mark = replace_mark(MARK, sequence=100_000 * number)
        add(joiner, A, story(number, 1000, left=mark), 2 * HOLD)
    assert len(joiner) <= 3
    first = joiner.due(2 * HOLD)[0]
    assert ways([first]) == [[("a", 1), ("b", 2)]]
    assert first.stories[0].sightings[0].state is WireState.JOINED


def test_a_host_that_tells_much_has_its_own_told_early() -> None:
    joiner = Joiner(most_bytes=1_000_000)
    add(joiner, A, story(1, 1000, left=MARK), 0)
    for number in range(200):
        mark = replace_mark(DATAGRAM, hash=number)
        add(joiner, B, {**story(number, 1000, left=mark), "filler": "x" * 100_000}, 0)
        assert joiner._bytes <= 1_000_000
    add(joiner, R, story(1, 2000, MARK, end="delivered"), 0)
    assert joiner.counts.given_up > 150
    assert [("a", 1), ("r", 1)] in ways(joiner.due(HOLD))


def test_what_is_not_taken_makes_it_full() -> None:
    joiner = Joiner(most_stories=10, most_bytes=100_000)
    for number in range(10):
        assert not joiner.full
        add(joiner, A, {"packet": number}, 0)
    assert joiner.full
    # they had nothing to wait for
    assert joiner.counts.given_up == 0
    assert len(joiner.due(0)) == 10
    assert not joiner.full


def test_stories_that_are_of_each_other_many_times_take_no_time() -> None:
    """Each arrives in two parts from the one before it: 2^120 ways back to the first."""
    joiner = Joiner()
    for life in (A, B):
        joiner.clocks.asked(life, 0, 500, 1000)
    half = replace_mark(MARK, payload=500)
    for number in range(120):
        at = 1000 * MILLI + number * 2 * MILLI
        one = story(number, at, half if number else None, MARK, after=MILLI)
        if number:
            part = {**one["join"][0], "sequence": 5500}
            one["join"].insert(1, part)
        add(joiner, (A, B)[number % 2], one, 0)
    assert sum(len(chain.stories) for chain in joiner.due(HOLD)) == 120


def crowd(host: Life, marks: list[Mark]) -> tuple[Joiner, float]:
    """A packet of a byte from A to B beside marks of a host, and the time for all of them."""
    joiner = Joiner()
    one = replace_mark(MARK, sequence=SMALL - 1, payload=1)
    add(joiner, A, story(1, 1000, left=one), 0)
    add(joiner, B, story(2, 2000, one, end="delivered"), 0)
    for number, mark in enumerate(marks):
        add(joiner, host, story(number, 1000, left=mark), 0)
    begin = time.process_time()
    found = joiner.due(HOLD)
    passed = time.process_time() - begin
    assert len(joiner) == 0
    assert sum(len(chain.stories) for chain in found) == 2 + len(marks)
    # with the right one, or with none
    assert {tuple(way) for way in ways(found) if len(way) > 1} <= {(("a", 1), ("b", 2))}
    return joiner, passed


#: a byte in the middle of those that an index does not tell apart
SMALL = 4096 + 2048


def test_many_segments_of_a_few_bytes_take_no_time() -> None:
    """Each look at one of them looked at all the others of the same 4096 bytes: 6 s for 4000."""
    byte = replace_mark(MARK, payload=1)
    marks = [replace_mark(byte, sequence=4096 + place) for place in range(4096)]
    others = [mark for mark in marks if mark.sequence != SMALL - 1]
    joiner, passed = crowd(R, others)
    assert passed < 1
    assert joiner.counts.joined == 1
    # all are of other places, so that twice as many take twice the time
    far = [replace_mark(mark, sequence=mark.sequence + 4096) for mark in marks]
    assert crowd(R, others + far)[1] < 4 * passed


def test_many_segments_beside_large_ones_take_no_time_and_join_nothing_wrongly() -> None:
    """None of the large ones has a byte of the small ones, which are all of the same places."""
    large = [replace_mark(MARK, sequence=SMALL - 2050, payload=2048)] * 10_000
    small = [replace_mark(MARK, sequence=SMALL + place, payload=1) for place in range(2000)]
    _, passed = crowd(R, small + large)
    assert passed < 3


def test_many_segments_of_a_few_bytes_of_a_flow_are_joined() -> None:
    joiner = Joiner()
    # with a router between, 4000 of the same 4096 bytes
    marks = [replace_mark(MARK, sequence=4096 + 4 * place, payload=4) for place in range(1000)]
    for number, mark in enumerate(marks):
        at = 1000 + 10 * number
        add(joiner, A, story(number, at, left=mark), 0)
        add(joiner, R, story(number, at + 3, mark, mark, after=1), 0)
        add(joiner, B, story(number, at + 6, mark, end="delivered"), 0)
    begin = time.process_time()
    found = ways(joiner.due(HOLD))
    assert time.process_time() - begin < 3
    assert sorted(found) == [[("a", n), ("r", n), ("b", n)] for n in range(1000)]


SPARSE = {**story(1, 1000, left=MARK), "more": [{}] * 2000}
WIDE = story(1, 1000, left=replace_mark(MARK, payload=2**19))
MARKED = {**WIDE, "join": [{**SPARSE["join"][0], "source_port": n} for n in range(256)]}


@pytest.mark.parametrize("told", [story(1, 1000, MARK, DATAGRAM), SPARSE, WIDE, MARKED])
def test_what_waits_takes_no_more_memory_than_is_counted(told: dict[str, Any]) -> None:
    """As objects, a list of empty ones took 25 times its text."""
    lines = [json.dumps({**told, "packet": number}).encode() for number in range(50)]
    texts = sum(map(sys.getsizeof, lines))
    tracemalloc.start()
    try:
        joiner = Joiner()
        for line in lines:
            joiner.add(A, line, 0)
        used = tracemalloc.get_traced_memory()[0] + texts
    finally:
        tracemalloc.stop()
    # an empty joiner has something, too
    assert used < joiner._bytes + 50_000


NUMBERS = st.one_of(st.integers(0, 3), st.integers(-(2**70), 2**70), st.just(10**400))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    st.none(), st.booleans(), NUMBERS, FLOATS, st.text(max_size=5), st.lists(st.none())
)
MARKS = st.sampled_from([MARK, DATAGRAM]).flatmap(
    lambda mark: st.fixed_dictionaries(
        {},
        optional={
            "way": st.sampled_from(["arrival", "departure", "across"]),
            "sequence": st.sampled_from([5000, 5500, 6000, 2**32 - 1]),
            "payload": st.sampled_from([0, 1, 1000, 65_000, 2**19]),
            "packet": st.integers(0, 2),
            "after_ns": NUMBERS,
            **dict.fromkeys(("hash", "timestamp", "destination", "device", "id"), VALUES),
        },
    ).map(lambda changes: {**mark.values(), "packet": 1, "after_ns": 0, "device": "e", **changes})
)
STORIES = st.fixed_dictionaries(
    {},
    optional={
        "monotonic_ns": st.one_of(st.integers(0, 2**31), VALUES),
        "in_device": VALUES,
        "end": VALUES,
        "join": st.one_of(st.lists(st.one_of(MARKS, VALUES), max_size=6), VALUES),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([A, R, B, ("b", "2")]), STORIES, st.integers(0, 2 * HOLD)),
        max_size=24,
    ),
    st.integers(1, 30),
)
def test_whatever_hosts_tell_each_story_is_told_once(
    told: list[tuple[Life, dict[str, Any], int]], room: int
) -> None:
    joiner = Joiner(most_stories=room, most_bytes=200_000)
    now, found = 0, []
    for life, one, later in told:
        now += later
        add(joiner, life, one, now)
        assert len(joiner) <= room
        assert joiner._bytes <= 200_000
        found += joiner.due(now)
    found += joiner.flush()
    numbers = [one.number for chain in found for one in chain.stories]
    assert sorted(numbers) == list(range(len(told)))
    for chain in found:
        assert all(wire.left.told is chain.stories[wire.begin] for wire in chain.wires)
        assert all(wire.came.told is chain.stories[wire.end] for wire in chain.wires)
        assert all(wire.left.key == wire.came.key for wire in chain.wires)
        assert all(wire.left.told.life[0] != wire.came.told.life[0] for wire in chain.wires)
    assert not any((joiner._index, joiner._waiting, joiner._again, joiner._looked, joiner._hosts))
    assert joiner._bytes == 0
