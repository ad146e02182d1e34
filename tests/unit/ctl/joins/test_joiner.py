# SPDX-License-Identifier: GPL-2.0
"""Joining of stories: nothing is joined wrongly, and what cannot be known is said to be unknown."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipttctl.joins.chains import WireState
from ipttctl.joins.clocks import Clocks
from ipttctl.joins.joiner import HOLD, Joiner
from ipttctl.joins.marks import Mark, Way
from tests.unit.ctl.joins.simulation import (
    Outcome,
    Simulation,
    Terms,
    replace_mark,
    simulated,
)
from tests.unit.ctl.joins.telling import DATAGRAM, MARK, MILLI, A, B, R, add, joined, story, ways

#: packets of the long simulation, of which `make test-joins` makes one; here there are short ones
LONG = os.environ.get("IPTT_JOINS")
PACKETS = int(LONG or "4000")
SEEDS = (int(os.environ.get("IPTT_SEED", "1")),) if LONG else range(1, 6)


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
    add(joiner, A, left, 0)
    add(joiner, B, came, 0)
    [chain] = joiner.flush()
    assert ways([chain]) == [[("a", 1), ("b", 2)]]
    assert all(one.is_known for told in chain.stories for one in told.sightings)
    assert (joiner.counts.joined, joiner.counts.unseen, joiner.counts.came) == (1, 0, 0)


def test_a_packet_that_is_lost_in_a_tunnel_is_lost_once() -> None:
    joiner = Joiner()
    add(joiner, A, in_tunnel(story(1, 0, left=MARK), OUTSIDE, 2000), 0)
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
    add(joiner, A, first, 0)
    add(joiner, B, second, 0)
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
    add(joiner, A, story(1, 50 * MILLI, left=DATAGRAM), 0)
    add(joiner, B, story(2, 20 * MILLI, DATAGRAM), 0)
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
        add(joiner, life, one, 0)
    chains = joiner.due(0)
    assert [len(chain.stories[0].sightings) for chain in chains] == [0, 0, 0]


def test_as_many_stories_wait_as_there_is_room_for() -> None:
    joiner = Joiner(most_stories=10)
    for number in range(25):
        mark = replace_mark(MARK, sequence=number * 1000)
        add(joiner, A, story(number, number, left=mark), 0)
        assert len(joiner) <= 10
    assert joiner.counts.given_up == 15
    assert len(joiner.flush()) == 25


def test_many_that_are_alike_are_not_compared_for_ever() -> None:
    joiner = Joiner()
    for number in range(600):
        add(joiner, A, story(number, number, left=DATAGRAM), 0)
        add(joiner, B, story(number, number, DATAGRAM), 0)
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
    add(joiner, A, story(1, 2000 * MILLI, left=MARK), 0)
    add(joiner, B, story(2, 2001 * MILLI, MARK), 0)
    assert len(joiner.due(HOLD)) == 1
    # b stood still for 100 s
    now = 200_000 * MILLI
    for life, late in ((A, 0), (B, 100_000 * MILLI)):
        joiner.clocks.asked(life, now, now + 500 - late, now + 1000)
    assert joiner.clocks.jumps == 1
    other = replace_mark(MARK, sequence=90_000)
    add(joiner, A, story(3, now, left=other), now)
    add(joiner, B, story(4, now - 99_999 * MILLI, other), now)
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
