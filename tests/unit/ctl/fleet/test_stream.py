# SPDX-License-Identifier: GPL-2.0
"""The ledger of what the stream holds: how much of it is thrown away, however many messages."""

from __future__ import annotations

from time import monotonic

from ipttctl.fleet.ledger import StreamLedger
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
