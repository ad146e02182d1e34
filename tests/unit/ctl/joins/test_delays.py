# SPDX-License-Identifier: GPL-2.0
"""Stories that come late: others wait for them longer, as long as some do."""

from __future__ import annotations

import pytest

from ipttctl.joins.joiner import HOLD, MOST_HOLD, Joiner
from tests.unit.ctl.joins.telling import DATAGRAM, A, B, add, story, ways

SECOND = 1_000_000_000


def joiner_with_clocks() -> Joiner:
    """One for hosts whose clocks are the asker's."""
    joiner = Joiner()
    for life in (A, B):
        joiner.clocks.asked(life, 0, 0, 0)
    return joiner


def told(joiner: Joiner, number: int, at: int, delay: int) -> list[list[tuple[str, int]]]:
    """Chains of a packet that B tells late: those by then, and those of a while later."""
    mark = DATAGRAM._replace(id=number)
    add(joiner, A, story(number, at, left=mark), at)
    before = joiner.due(at + delay - 1)
    add(joiner, B, story(number, at + 2000, mark, end="delivered"), at + delay)
    return ways(before) + ways(joiner.due(at + delay + MOST_HOLD))


def test_others_wait_for_a_host_that_is_late_once_that_is_known() -> None:
    joiner = joiner_with_clocks()
    assert told(joiner, 1, 0, 5 * SECOND) == [[("a", 1)], [("b", 1)]]
    assert joiner.counts.unseen == joiner.counts.came == 1
    assert told(joiner, 2, 36 * SECOND, 5 * SECOND) == [[("a", 2), ("b", 2)]]
    assert joiner.counts.joined == 1


@pytest.mark.parametrize(
    ("delay", "hold"),
    [(SECOND, HOLD), (5 * SECOND, 10 * SECOND), (100 * SECOND, MOST_HOLD)],
    ids=["in time", "late", "later than is waited for"],
)
def test_how_long_they_wait(delay: int, hold: int) -> None:
    joiner = joiner_with_clocks()
    assert joiner.hold == HOLD
    add(joiner, A, story(1, 0, left=DATAGRAM), delay)
    assert round(joiner.hold / SECOND) == hold // SECOND
    joiner.due(delay + 20 * SECOND)
    assert round(joiner.hold / SECOND) == hold // SECOND
    joiner.due(delay + 90 * SECOND)
    assert joiner.hold == HOLD


def test_a_host_whose_clock_is_not_known_is_not_late() -> None:
    joiner = Joiner()
    add(joiner, A, story(1, 0, left=DATAGRAM), 20 * SECOND)
    assert joiner.hold == HOLD


def test_a_story_waits_as_long_as_is_known_when_it_would_be_told() -> None:
    """It came when nobody was late yet."""
    joiner = joiner_with_clocks()
    add(joiner, A, story(1, 10 * SECOND, left=DATAGRAM._replace(id=1)), 10 * SECOND)
    # of another packet
    add(joiner, B, story(7, 5 * SECOND, left=DATAGRAM._replace(id=7)), 12 * SECOND)
    assert joiner.due(16 * SECOND) == []
    came = story(2, 10 * SECOND + 2000, DATAGRAM._replace(id=1), end="delivered")
    add(joiner, B, came, 17 * SECOND)
    assert [("a", 1), ("b", 2)] in ways(joiner.due(60 * SECOND))
