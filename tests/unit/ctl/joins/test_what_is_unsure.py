# SPDX-License-Identifier: GPL-2.0
"""Ends of wires that nothing can be said of: of packets that are cut, or did not wait."""

from __future__ import annotations

import time

import pytest

from ipttctl.joins.chains import StoryChain, WireState
from ipttctl.joins.joiner import HOLD, Joiner
from ipttctl.joins.marks import Mark
from tests.unit.ctl.joins.telling import DATAGRAM, MARK, A, B, R, add, story, ways

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
        add(joiner, A, story(at, 1000 * at, left=many), 0)
        for place in range(3):
            single = SINGLE._replace(id=number + at + place, hash=10 * at + place)
            came = story(10 * at + place, 90_000 + at, single, end="delivered")
            add(joiner, B, came, 0)
    lost = SINGLE._replace(id=9, destination_port=1)
    add(joiner, A, story(2, 3000, left=lost), 0)
    found = states(joiner.flush())
    assert (found.count(WireState.CUT), found.count(WireState.UNSEEN)) == (8, 1)
    assert (joiner.counts.cut, joiner.counts.unseen, joiner.counts.came) == (8, 1, 0)


def test_datagrams_that_are_merged_on_their_way_are_not_said_to_be_unseen() -> None:
    joiner = Joiner()
    for number in range(3):
        left = SINGLE._replace(id=7 + number, hash=number)
        add(joiner, A, story(number, 1000 * number, left=left), 0)
    add(joiner, B, story(9, 9000, MANY._replace(id=7), end="delivered"), 0)
    assert states(joiner.flush()) == [WireState.CUT] * 4
    assert (joiner.counts.cut, joiner.counts.unseen) == (4, 0)
    # later ones are not cut for ever
    add(joiner, A, story(4, 1 << 40, left=SINGLE._replace(id=90)), 30 * HOLD)
    assert states(joiner.flush()) == [WireState.UNSEEN]


def test_what_was_not_looked_at_is_not_taken_for_another_that_was_not() -> None:
    """Without an id or bytes of the payload all datagrams of a length look the same."""
    unread = SINGLE._replace(id=0, hashed=0, hash=None)
    joiner = Joiner()
    add(joiner, A, story(1, 1000, left=unread), 0)
    add(joiner, B, story(2, 2000, unread, end="delivered"), 0)
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
        add(joiner, B, story(20 + number, 9000, mark, end="delivered"), 0)
    for number, left in enumerate([*onward, None]):
        add(joiner, R, story(10 + number, 5000 + number, segment(number), left), 0)
    add(joiner, A, story(1, 1000, left=segment(0, 3)), 0)
    chains = joiner.flush()
    assert sorted(one for way in ways(chains) for one in way) == [
        ("a", 1), ("b", 20), ("b", 21), ("r", 10), ("r", 11), ("r", 12)
    ]  # fmt: skip  # a story each
    assert len(joiner) == 0
    assert all(len(chain.stories) <= 4 for chain in chains)


def test_an_arrival_is_not_joined_with_what_is_left_where_its_departure_did_not_wait() -> None:
    """There is room for two stories; the third one is a repetition that looks the same."""
    joiner = Joiner(most_stories=2)
    add(joiner, A, story(1, 1000, left=DATAGRAM), 0)
    add(joiner, A, story(2, 3000, left=DATAGRAM), 1)
    add(joiner, B, story(3, 2000, DATAGRAM, end="delivered"), 2)
    assert joiner.counts.given_up == 1
    assert ways(joiner.flush()) == [[("a", 1)], [("a", 2)], [("b", 3)]]
    assert joiner.counts.joined == 0


def test_a_departure_that_did_not_wait_matters_to_other_hosts_alone() -> None:
    joiner = Joiner(most_stories=3)
    add(joiner, R, story(1, 9000, left=DATAGRAM), 0)
    add(joiner, A, story(2, 1000, left=DATAGRAM), 1)
    add(joiner, R, story(3, 2000, DATAGRAM, end="delivered"), 2)
    add(joiner, R, story(4, 9100, left=MARK), 3)
    assert joiner.counts.given_up == 1
    assert [("a", 2), ("r", 3)] in ways(joiner.flush())


def test_many_that_are_alike_are_given_up_in_no_time() -> None:
    joiner = Joiner(most_stories=4000)
    for number in range(4000):
        add(joiner, A, story(number, number, left=DATAGRAM), 0)
    begin = time.process_time()
    for number in range(4000, 5000):
        add(joiner, A, story(number, number, left=DATAGRAM), 0)
    assert joiner.counts.given_up == 1000
    assert time.process_time() - begin < 1
