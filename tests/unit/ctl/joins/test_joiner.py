# SPDX-License-Identifier: GPL-2.0
"""Joining of stories: nothing is joined wrongly, and what cannot be known is said to be unknown."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipttctl.joins.chains import StoryChain, WireState
from ipttctl.joins.clocks import Clocks, Life
from ipttctl.joins.joiner import HOLD, MOST_IN_CHAIN, Joiner
from ipttctl.joins.marks import Mark, Way
from tests.unit.ctl.joins.simulation import (
    Outcome,
    Simulation,
    Terms,
    replace_mark,
    simulated,
)

A: Life = ("a", "1")
R: Life = ("r", "1")
B: Life = ("b", "1")

MILLI = 1_000_000

#: packets of the long simulation, of which `make test-joins` makes one; here there are short ones
LONG = os.environ.get("IPTT_JOINS")
PACKETS = int(LONG or "4000")
SEEDS = (int(os.environ.get("IPTT_SEED", "1")),) if LONG else range(1, 6)

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


def joined(*told: tuple[Life, dict[str, Any]]) -> list[StoryChain]:
    """The chains of stories that come at once."""
    joiner = Joiner()
    for life, one in told:
        joiner.add(life, one, 0)
    assert joiner.due(HOLD - 1) == []
    found = joiner.due(HOLD)
    assert len(joiner) == 0
    return found


def ways(chains: list[StoryChain]) -> list[list[tuple[str, int]]]:
    """The hosts and packets of chains."""
    return [[(one.life[0], one.story["packet"]) for one in chain.stories] for chain in chains]


def test_what_left_one_host_and_came_to_the_next_is_one_chain_behind_nat_too() -> None:
    behind = replace_mark(MARK, source="192.0.2.1", source_port=61_000)
    chains = joined(
        (B, story(3, 9000, behind, end="delivered")),
        (R, story(2, 500, MARK, behind)),
        (A, story(1, 70_000, left=MARK)),
    )
    assert ways(chains) == [[("a", 1), ("r", 2), ("b", 3)]]
    [chain] = chains
    assert [(wire.begin, wire.end) for wire in chain.wires] == [(0, 1), (1, 2)]
    # nothing is known of the clocks but by this one packet
    assert chain.wires[0].least is None


def in_tunnel(one: dict[str, Any], mark: Mark, after: int) -> dict[str, Any]:
    """A story with a mark of the packet around its own."""
    values = {**mark.values(), "after_ns": after, "packet": one["packet"], "device": "eth0"}
    return {**one, "join": sorted([*one["join"], values], key=lambda mark: mark["after_ns"])}


OUTSIDE = DATAGRAM._replace(destination_port=4789)


@pytest.mark.parametrize("seen_outside", [False, True])
def test_a_tunnel_is_crossed_by_the_packet_inside(*, seen_outside: bool) -> None:
    """The host at the far end may see the outside too, which NAT has changed on the way."""
    left = in_tunnel(story(1, 0, left=MARK), OUTSIDE, 2000)
    came = story(2, 50_000, MARK, end="delivered")
    if seen_outside:
        other = replace_mark(OUTSIDE, source="192.0.2.1")._replace(way=Way.ARRIVAL)
        came = in_tunnel(came, other, -1000)
    joiner = Joiner()
    joiner.add(A, left, 0)
    joiner.add(B, came, 0)
    [chain] = joiner.flush()
    assert ways([chain]) == [[("a", 1), ("b", 2)]]
    assert all(one.is_known for told in chain.stories for one in told.sightings)
    assert (joiner.counts.joined, joiner.counts.unseen, joiner.counts.came) == (1, 0, 0)


def test_a_packet_that_is_lost_in_a_tunnel_is_lost_once() -> None:
    joiner = Joiner()
    joiner.add(A, in_tunnel(story(1, 0, left=MARK), OUTSIDE, 2000), 0)
    [chain] = joiner.due(4 * HOLD)
    states = [(one.mark.destination_port, one.state) for one in chain.stories[0].sightings]
    assert states == [(443, WireState.WRAPPED), (4789, WireState.UNSEEN)]
    assert joiner.counts.unseen == 1


def test_a_router_without_nat_is_between_those_that_it_is_between() -> None:
    """All five marks are alike; the packet began on a."""
    chains = joined(
        (R, story(2, 500, MARK, MARK)),
        (A, story(1, 70_000, left=MARK)),
        (B, story(3, 9000, MARK, end="delivered")),
    )
    assert ways(chains) == [[("a", 1), ("r", 2), ("b", 3)]]


def test_two_routers_without_nat_may_be_in_either_order_unless_clocks_tell() -> None:
    first = story(1, 10_000_000, MARK, MARK)
    second = story(2, 20_000_000, MARK, MARK)
    chains = joined((A, first), (B, second))
    assert ways(chains) == [[("a", 1)], [("b", 2)]]
    states = {one.state for chain in chains for told in chain.stories for one in told.sightings}
    assert WireState.AMBIGUOUS in states
    assert WireState.JOINED not in states
    joiner = Joiner()
    # the clocks are the same within 1 us, by what they answered
    for life in (A, B):
        joiner.clocks.asked(life, 0, 500, 1000)
    joiner.add(A, first, 0)
    joiner.add(B, second, 0)
    assert ways(joiner.due(HOLD)) == [[("a", 1), ("b", 2)]]


def test_parts_of_a_packet_are_joined_with_it_and_packets_with_what_they_became() -> None:
    big = replace_mark(MARK, payload=3000)
    parts = [replace_mark(MARK, sequence=5000 + 1000 * n, id=9 + n) for n in range(3)]
    cut = joined(
        (A, story(1, 1000, left=big)),
        *[(B, story(2 + n, 2000 + n, part, end="delivered")) for n, part in enumerate(parts)],
    )
    assert ways(cut) == [[("a", 1), ("b", 2), ("b", 3), ("b", 4)]]
    merged = joined(
        *[(A, story(1 + n, 1000 + n, left=part)) for n, part in enumerate(parts)],
        (B, story(9, 5000, big, end="delivered")),
    )
    assert ways(merged) == [[("a", 1), ("a", 2), ("a", 3), ("b", 9)]]


def test_bytes_are_counted_beyond_the_last_number() -> None:
    big = replace_mark(MARK, sequence=2**32 - 1500, payload=3000)
    end = replace_mark(MARK, sequence=500, payload=1000, id=11)
    assert ways(joined((A, story(1, 1, left=big)), (B, story(2, 5, end)))) == [[("a", 1), ("b", 2)]]


@pytest.mark.parametrize("mark", [DATAGRAM, replace_mark(MARK, timestamp=None, echoed=None, id=0)])
def test_two_that_could_be_it_are_ambiguous(mark: Mark) -> None:
    chains = joined(
        (A, story(1, 1000, left=mark)),
        (A, story(2, 200 * MILLI, left=mark)),
        (B, story(3, 201 * MILLI, mark, end="delivered")),
    )
    assert ways(chains) == [[("a", 1)], [("a", 2)], [("b", 3)]]
    sightings = [one for chain in chains for told in chain.stories for one in told.sightings]
    assert [(one.state, one.rivals) for one in sightings] == [
        (WireState.AMBIGUOUS, 1),
        (WireState.AMBIGUOUS, 1),
        (WireState.AMBIGUOUS, 2),
    ]


def test_a_repetition_with_another_id_is_told_apart() -> None:
    again = replace_mark(MARK, id=50)
    chains = joined(
        (A, story(1, 1000, left=MARK)),
        (A, story(2, 200 * MILLI, left=again)),
        (B, story(3, 201 * MILLI, again, end="delivered")),
    )
    assert ways(chains) == [[("a", 1)], [("a", 2), ("b", 3)]]
    assert chains[0].stories[0].sightings[0].state is WireState.UNSEEN


def test_a_packet_that_came_twice_is_not_joined() -> None:
    chains = joined(
        (A, story(1, 1000, left=DATAGRAM)),
        (B, story(2, 2000, DATAGRAM)),
        (B, story(3, 2500, DATAGRAM)),
    )
    assert ways(chains) == [[("a", 1)], [("b", 2)], [("b", 3)]]


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 6000},
        {"acknowledged": 78},
        {"timestamp": 12},
        {"source_port": 4001},
        {"destination": "10.2.0.2"},
    ],
)
def test_another_packet_is_not_the_one(changes: dict[str, Any]) -> None:
    other = replace_mark(MARK, **changes)
    assert len(joined((A, story(1, 1000, left=MARK)), (B, story(2, 2000, other)))) == 2


def test_a_hop_within_a_host_is_no_wire() -> None:
    """The packet of a container is handed to the host, which sends it on."""
    marks = story(1, 1000, left=MARK)
    [left] = marks["join"]
    marks["join"] = [
        left,
        {**left, "way": "arrival", "after_ns": 2000},
        {**left, "after_ns": 3000, "device": "eth1"},
    ]
    chains = joined((A, marks), (B, story(2, 4000, MARK)))
    assert ways(chains) == [[("a", 1), ("b", 2)]]
    [wire] = chains[0].wires
    assert (wire.left.device, wire.left.time) == ("eth1", 4000)


def test_an_arrival_before_the_departure_is_another_packets() -> None:
    joiner = Joiner()
    for life in (A, B):
        joiner.clocks.asked(life, 0, 500, 1000)
    joiner.add(A, story(1, 50 * MILLI, left=DATAGRAM), 0)
    joiner.add(B, story(2, 20 * MILLI, DATAGRAM), 0)
    assert len(joiner.due(HOLD)) == 2


def test_what_is_no_mark_is_not_joined() -> None:
    broken = story(1, 1000, left=MARK)
    good = broken["join"][0]
    broken["join"] = [
        {**good, "hash": "none"},
        {**good, "way": "across"},
        {**good, "sequence": -1},
        {**good, "source": 5},
        {**good, "after_ns": "soon"},
        "a text",
        {},
    ]
    joiner = Joiner()
    for life, one in ((A, broken), (B, {"monotonic_ns": 5, "join": 7}), (B, {"join": []})):
        joiner.add(life, one, 0)
    chains = joiner.due(0)
    assert [len(chain.stories[0].sightings) for chain in chains] == [0, 0, 0]


def test_as_many_stories_wait_as_there_is_room_for() -> None:
    joiner = Joiner(most_stories=10)
    for number in range(25):
        mark = replace_mark(MARK, sequence=number * 1000)
        joiner.add(A, story(number, number, left=mark), 0)
        assert len(joiner) <= 10
    assert joiner.counts.given_up == 15
    assert len(joiner.flush()) == 25


def test_many_that_are_alike_are_not_compared_for_ever() -> None:
    joiner = Joiner()
    for number in range(600):
        joiner.add(A, story(number, number, left=DATAGRAM), 0)
        joiner.add(B, story(number, number, DATAGRAM), 0)
    assert len(joiner.due(HOLD)) == 1200
    assert joiner.counts.ambiguous == 1200


def test_clocks_are_bounded_from_both_sides_and_drift() -> None:
    clocks = Clocks()
    apart = 5_000 * MILLI
    clocks.matched(A, B, 1_000_000, 1_000_000 + apart + 300_000)
    assert clocks.wire(A, B, 1_000_000, 1_000_000 + apart + 400_000)[0] == pytest.approx(100_000)
    clocks.matched(B, A, 2_000_000 + apart, 2_000_000 + 200_000)
    low, high = clocks.difference(A, B, 2_000_000)
    assert low <= apart <= high
    assert high - low < 600_000
    later_low, later_high = clocks.difference(A, B, 2_000_000 + 10_000 * MILLI)
    assert later_low < low
    assert later_high > high
    assert clocks.jumps == 0
    # b was suspended
    clocks.matched(A, B, 3_000_000, 3_000_000 + apart - 900 * MILLI)
    assert clocks.jumps == 1


def test_a_clock_that_jumped_is_learnt_anew() -> None:
    """As when a host was suspended: packets of before would contradict all that come."""
    joiner = Joiner()
    for life in (A, B):
        joiner.clocks.asked(life, 1000 * MILLI, 1000 * MILLI + 500, 1000 * MILLI + 1000)
    joiner.add(A, story(1, 2000 * MILLI, left=MARK), 0)
    joiner.add(B, story(2, 2001 * MILLI, MARK), 0)
    assert len(joiner.due(HOLD)) == 1
    # b stood still for 100 s
    now = 200_000 * MILLI
    for life, late in ((A, 0), (B, 100_000 * MILLI)):
        joiner.clocks.asked(life, now, now + 500 - late, now + 1000)
    assert joiner.clocks.jumps == 1
    other = replace_mark(MARK, sequence=90_000)
    joiner.add(A, story(3, now, left=other), now)
    joiner.add(B, story(4, now - 99_999 * MILLI, other), now)
    assert ways(joiner.due(now + HOLD)) == [[("a", 3), ("b", 4)]]


@pytest.mark.parametrize(
    "destination", ["224.0.0.251", "255.255.255.255", "ff02::fb", "10.2.0.1", "fd00::1"]
)
def test_what_is_for_many_hosts_may_come_to_each_once(destination: str) -> None:
    family = 6 if ":" in destination else 4
    mark = DATAGRAM._replace(destination=destination, family=family)
    found = joined(
        (A, story(1, 1000, left=mark)),
        (R, story(2, 2000, mark, end="delivered")),
        (B, story(3, 2500, mark, end="delivered")),
    )
    if destination in {"10.2.0.1", "fd00::1"}:
        assert ways(found) == [[("a", 1)], [("r", 2)], [("b", 3)]]
        return
    assert [sorted(one) for one in ways(found)] == [[("a", 1), ("b", 3), ("r", 2)]]
    again = joined(
        (A, story(1, 1000, left=mark)),
        (R, story(2, 2000, mark, end="delivered")),
        (R, story(3, 2500, mark, end="delivered")),
    )
    assert ways(again) == [[("a", 1)], [("r", 2)], [("r", 3)]]


# --- what hosts that were taken over tell ---------------------------------------------------------


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
    joiner.add(A, story(1, 1000, left=replace_mark(MARK, **changes)), 0)
    [chain] = joiner.due(0)
    assert chain.stories[0].sightings == []


@pytest.mark.parametrize("time", [10**400, 2**62, -1, 1.5, "now", None])
def test_times_that_no_clock_shows_join_nothing(time: object) -> None:
    joiner = Joiner()
    joiner.add(A, {**story(1, 1000, left=MARK), "monotonic_ns": time}, 0)
    joiner.add(B, story(2, 2000, MARK), 0)
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
            joiner.add(life, story(number, now + (life == B) * MILLI, **way), now)
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
    joiner.add(A, story(1, 1000, left=big), 0)
    joiner.add(B, story(2, 2000, replace_mark(MARK, payload=1000), end="delivered"), 0)
    # the rest of the packet is awaited
    other = replace_mark(MARK, sequence=6000, id=10)
    joiner.add(B, story(3, 2000, other, end="delivered"), 2 * HOLD - 1)
    assert joiner.due(2 * HOLD - 1) == []
    for number in range(4, 7):
        mark = replace_mark(MARK, sequence=100_000 * number)
        joiner.add(A, story(number, 1000, left=mark), 2 * HOLD)
    assert len(joiner) <= 3
    first = joiner.due(2 * HOLD)[0]
    assert ways([first]) == [[("a", 1), ("b", 2)]]
    assert first.stories[0].sightings[0].state is WireState.JOINED


def test_a_host_that_tells_much_has_its_own_told_early() -> None:
    joiner = Joiner(most_bytes=1_000_000)
    joiner.add(A, story(1, 1000, left=MARK), 0)
    for number in range(200):
        mark = replace_mark(DATAGRAM, hash=number)
        joiner.add(B, story(number, 1000, left=mark), 0, 100_000)
        assert joiner._bytes <= 1_000_000
    joiner.add(R, story(1, 2000, MARK, end="delivered"), 0)
    assert joiner.counts.given_up > 150
    assert [("a", 1), ("r", 1)] in ways(joiner.due(HOLD))


def test_what_is_not_taken_makes_it_full() -> None:
    joiner = Joiner(most_stories=10, most_bytes=100_000)
    for number in range(10):
        assert not joiner.full
        joiner.add(A, {"packet": number}, 0)
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
        joiner.add((A, B)[number % 2], one, 0)
    assert sum(len(chain.stories) for chain in joiner.due(HOLD)) == 120


NUMBERS = st.one_of(st.integers(0, 3), st.integers(-(2**70), 2**70), st.just(10**400))
VALUES = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=5), st.lists(st.none())
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
        joiner.add(life, one, now)
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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.floats(0, 0.3))
def test_in_whatever_order_stories_come_nothing_is_joined_wrongly(
    seed: int, order: int, repeated: float
) -> None:
    simulation = Simulation(Terms(packets=60, flows=5, untold=0.0, repeated=repeated), seed)
    told = [(life, one) for _, life, one in simulation.stories()]
    random.Random(order).shuffle(told)
    chains = joined(*told)
    assert sorted(one for way in ways(chains) for one in way) == sorted(simulation.transits)
    wires = [wire for chain in chains for wire in chain.wires]
    assert all(simulation.is_right(wire.left, wire.came) for wire in wires)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.builds(
        Terms,
        packets=st.just(300),
        flows=st.integers(1, 30),
        lost=st.floats(0, 0.3),
        doubled=st.floats(0, 0.1),
        # a repetition that looks the same cannot be told apart where one of both was not told
        untold=st.just(0.0),
        repeated=st.floats(0, 0.2),
        apart=st.integers(0, 10_000 * MILLI),
        drift=st.floats(-200e-6, 200e-6),
        rate=st.integers(50, 2000),
        rebooted=st.booleans(),
    ),
)
# its departure does not wait any more when an arrival does, for another one
@example(1, Terms(packets=300, flows=2, lost=0.25, untold=0, repeated=0.125, apart=0, rate=50))
def test_nothing_is_joined_wrongly(seed: int, terms: Terms) -> None:
    outcome, joiner = simulated(terms, seed)
    assert outcome.wrong == []
    assert len(joiner) == 0
    assert WireState.OPEN not in outcome.states
    assert outcome.stories == outcome.made


def summary(outcome: Outcome) -> str:
    """The numbers of arrivals that were told at both ends, and of all ends of wires, by outcome."""
    ends = sum(outcome.states.values())
    unseen, ambiguous = (outcome.states[one] for one in (WireState.UNSEEN, WireState.AMBIGUOUS))
    return (
        f"{outcome.right:,} of {outcome.told:,} arrivals that were told at both ends joined "
        f"({outcome.right / outcome.told:.1%}), {len(outcome.wrong):,} wrongly; of {ends:,} ends "
        f"{unseen:,} not seen elsewhere ({unseen / ends:.1%}), {ambiguous:,} ambiguous "
        f"({ambiguous / ends:.1%})"
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_of_many_packets_none_is_joined_wrongly_and_nearly_all_are_joined(seed: int) -> None:
    """Losses of packets on each wire (2%) and of stories (0.5%), repetitions, duplicates, NAT."""
    terms = Terms(packets=PACKETS, flows=1000, rebooted=True)
    outcome, joiner = simulated(terms, seed)
    # seen with pytest's -s
    print(f"\nseed {seed}, {PACKETS} packets: {summary(outcome)}")
    assert outcome.wrong == []
    assert outcome.right == joiner.counts.joined
    assert outcome.right > 0.97 * outcome.told
    sightings = sum(outcome.states.values())
    assert outcome.states[WireState.AMBIGUOUS] < 0.03 * sightings
    # what is lost, and what comes from or goes to the host that is not traced
    assert 0.02 * sightings < outcome.states[WireState.UNSEEN] < 0.12 * sightings
    assert outcome.stories == outcome.made
    assert joiner.counts.given_up == 0
    assert joiner.clocks.jumps == 0


SINGLE = DATAGRAM._replace(segment=0, payload=400, length=428)
MANY = DATAGRAM._replace(segment=400, payload=1200, length=1228, hashed=0, hash=None)


def states(chains: list[StoryChain]) -> list[WireState]:
    """Those of the sightings of chains without wires."""
    assert [chain.wires for chain in chains] == [[]] * len(chains)
    return [one.state for chain in chains for told in chain.stories for one in told.sightings]


@pytest.mark.parametrize("number", [7, 0])
def test_datagrams_that_are_cut_on_their_way_are_not_said_to_be_unseen(number: int) -> None:
    """Those of two packets have ids in common, since the sender takes one for each packet."""
    joiner = Joiner()
    for at in (0, 1):
        many = MANY._replace(id=number and number + at)
        joiner.add(A, story(at, 1000 * at, left=many), 0)
        for place in range(3):
            single = SINGLE._replace(id=number + at + place, hash=10 * at + place)
            came = story(10 * at + place, 90_000 + at, single, end="delivered")
            joiner.add(B, came, 0)
    lost = SINGLE._replace(id=9, destination_port=1)
    joiner.add(A, story(2, 3000, left=lost), 0)
    found = states(joiner.flush())
    assert (found.count(WireState.CUT), found.count(WireState.UNSEEN)) == (8, 1)
    assert (joiner.counts.cut, joiner.counts.unseen, joiner.counts.came) == (8, 1, 0)


def test_datagrams_that_are_merged_on_their_way_are_not_said_to_be_unseen() -> None:
    joiner = Joiner()
    for number in range(3):
        left = SINGLE._replace(id=7 + number, hash=number)
        joiner.add(A, story(number, 1000 * number, left=left), 0)
    joiner.add(B, story(9, 9000, MANY._replace(id=7), end="delivered"), 0)
    assert states(joiner.flush()) == [WireState.CUT] * 4
    assert (joiner.counts.cut, joiner.counts.unseen) == (4, 0)
    # later ones are not cut for ever
    joiner.add(A, story(4, 1 << 40, left=SINGLE._replace(id=90)), 30 * HOLD)
    assert states(joiner.flush()) == [WireState.UNSEEN]


def test_what_was_not_looked_at_is_not_taken_for_another_that_was_not() -> None:
    """Without an id or bytes of the payload all datagrams of a length look the same."""
    unread = SINGLE._replace(id=0, hashed=0, hash=None)
    joiner = Joiner()
    joiner.add(A, story(1, 1000, left=unread), 0)
    joiner.add(B, story(2, 2000, unread, end="delivered"), 0)
    assert states(joiner.flush()) == []


def segment(first: int, count: int = 1) -> Mark:
    """Bytes of TCP, as many thousands."""
    return MARK._replace(sequence=1000 * first, payload=1000 * count, id=0)


def test_what_is_joined_already_stays_so_where_a_chain_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A departure of three segments, of which the second one's chain would be too long."""
    monkeypatch.setattr("ipttctl.joins.joiner.MOST_IN_CHAIN", 4)
    joiner = Joiner()
    onward = [MARK._replace(source_port=number) for number in range(2)]
    for number, mark in enumerate(onward):
        joiner.add(B, story(20 + number, 9000, mark, end="delivered"), 0)
    for number, left in enumerate([*onward, None]):
        joiner.add(R, story(10 + number, 5000 + number, segment(number), left), 0)
    joiner.add(A, story(1, 1000, left=segment(0, 3)), 0)
    chains = joiner.flush()
    assert sorted(one for way in ways(chains) for one in way) == [
        ("a", 1), ("b", 20), ("b", 21), ("r", 10), ("r", 11), ("r", 12)
    ]  # fmt: skip  # a story each
    assert len(joiner) == 0
    assert all(len(chain.stories) <= 4 for chain in chains)


def test_an_arrival_is_not_joined_with_what_is_left_where_its_departure_did_not_wait() -> None:
    """There is room for two stories; the third one is a repetition that looks the same."""
    joiner = Joiner(most_stories=2)
    joiner.add(A, story(1, 1000, left=DATAGRAM), 0)
    joiner.add(A, story(2, 3000, left=DATAGRAM), 1)
    joiner.add(B, story(3, 2000, DATAGRAM, end="delivered"), 2)
    assert joiner.counts.given_up == 1
    assert ways(joiner.flush()) == [[("a", 1)], [("a", 2)], [("b", 3)]]
    assert joiner.counts.joined == 0


def test_a_departure_that_did_not_wait_matters_to_other_hosts_alone() -> None:
    joiner = Joiner(most_stories=3)
    joiner.add(R, story(1, 9000, left=DATAGRAM), 0)
    joiner.add(A, story(2, 1000, left=DATAGRAM), 1)
    joiner.add(R, story(3, 2000, DATAGRAM, end="delivered"), 2)
    joiner.add(R, story(4, 9100, left=MARK), 3)
    assert joiner.counts.given_up == 1
    assert [("a", 2), ("r", 3)] in ways(joiner.flush())


def test_many_that_are_alike_are_given_up_in_no_time() -> None:
    joiner = Joiner(most_stories=4000)
    for number in range(4000):
        joiner.add(A, story(number, number, left=DATAGRAM), 0)
    begin = time.process_time()
    for number in range(4000, 5000):
        joiner.add(A, story(number, number, left=DATAGRAM), 0)
    assert joiner.counts.given_up == 1000
    assert time.process_time() - begin < 1
