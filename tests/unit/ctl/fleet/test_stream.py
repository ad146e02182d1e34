# SPDX-License-Identifier: GPL-2.0
"""The ledger of what the stream holds: how much of it is thrown away, however many messages."""

from __future__ import annotations

from time import monotonic

from ipttctl.fleet.ledger import MOST_NUMBER, RECENT, StreamLedger
from ipttctl.frames.head import EVENTS, STORIES, FrameHead


def head(count: int, kind: str = EVENTS) -> FrameHead:
    return FrameHead(
        kind=kind, host="web1", boot="b", run="r", sequence=0, count=count, time=0, monotonic=0
    )


def test_more_messages_than_are_remembered_one_by_one_are_counted_all_the_same() -> None:
    ledger = StreamLedger(3600, most=64)
    items = {EVENTS: 0, STORIES: 0}
    for number in range(1, 5001):
        kind = STORIES if number % 3 == 0 else EVENTS
        items[kind] += number
        ledger.stored(number, head(number, kind), monotonic())
        assert len(ledger._kept) <= 64
    # all but the last hundred are gone: what is counted is never more than that
    gone = sum(range(1, 4901))
    lost = ledger.take(4901, 5000, 5000)
    assert 0.8 * gone < sum(lost.values()) <= gone
    # and in the end it is all of it
    ledger.take(5001, 5000, 5000)
    assert dict(ledger.lost) == items


def test_what_expired_is_not_counted_although_it_was_acknowledged_late() -> None:
    ledger = StreamLedger(60)
    # an acknowledgement came half a second after the message: the stream had it before
    ledger.stored(1, head(5), monotonic() - 60)
    ledger.stored(2, head(7), monotonic())
    assert not ledger.take(2, 2, 2)
    assert dict(ledger.take(3, 2, 2)) == {EVENTS: 7}


def test_a_number_that_comes_late_has_those_in_between_known_all_the_same() -> None:
    """A frame whose acknowledgement was lost is sent again, and 200 were stored meanwhile."""
    ledger = StreamLedger(3600)
    for number in [*range(1, 40), *range(41, 241), 40]:
        ledger.stored(number, head(1), monotonic())
    assert ledger.recent == list(range(241 - RECENT, 241))
    assert len(ledger.kept()) == 240


def test_neighbours_that_came_in_another_order_are_known() -> None:
    ledger = StreamLedger(3600)
    for number in range(8, 8 * 101, 8):
        # the last one of eight comes first
        for one in (number, *range(number - 7, number)):
            ledger.stored(one, head(1), monotonic())
    assert ledger.recent == list(range(801 - RECENT, 801))


def test_numbers_that_the_stream_has_not_reached_are_not_remembered() -> None:
    """Neither those of frames without items."""
    ledger = StreamLedger(3600)
    for number in range(1, 11):
        ledger.stored(number, head(1), monotonic())
    for number in range(MOST_NUMBER - RECENT, MOST_NUMBER):
        ledger.stored(number, head(0), monotonic())
    assert not ledger.take(1, 10, ledger.newest)
    assert ledger.recent == [10]
    assert ledger.newest == 10
    ledger.stored(11, head(1), monotonic())
    assert not ledger.take(1, 11, 10)
    assert not ledger.take(1, 11, ledger.newest)
    assert ledger.recent == [10, 11]
