# SPDX-License-Identifier: GPL-2.0
"""The end of a trace while the reader lags: what was emitted before is told all the same."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from ipttctl.fleet import feed as feed_module
from ipttctl.fleet.feed import Feed
from ipttctl.fleet.host import Told
from ipttctl.fleet.spool import Spool
from ipttctl.frames.head import EVENTS, STORIES
from ipttctl.frames.writer import FrameNumbers
from ipttctl.link.losses import Losses
from ipttproto import EventBatch, parse_batch
from tests.unit.ctl.fleet.support import FakeRunning, FakeTeller, told
from tests.unit.ctl.support import batch_payload, event

LINK, OTHER = 3, 4


class Ending(FakeTeller):
    """A teller that knows whether it was to tell the rest."""

    ended = False

    def end(self) -> list[Told]:
        """Tell nothing."""
        self.ended = True
        return []


class Lagging:
    """A feed of which a trace has ended, and what is read only then."""

    def __init__(self) -> None:
        self.numbers = FrameNumbers("web1", "b")
        spool = Spool(self.numbers, 1 << 20)
        self.feed = Feed(spool, events="traces", stories=True, frame=1000, linger=0)
        self.teller = Ending(frozenset({LINK}), told)
        self.feed.begin("t", FakeRunning(frozenset({LINK}), self.teller))
        self.before = time.monotonic()
        self.feed.end("t")

    def read(self, *batches: Sequence[float], link: int = LINK) -> None:
        """Read batches of events, of some times."""
        self.feed.take([_batch(times, link) for times in batches], Losses())


def _batch(times: Sequence[float], link: int) -> EventBatch:
    return parse_batch(batch_payload([event(link=link, time=int(one * 1e9)) for one in times]))


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> Lagging:
    monkeypatch.setattr(feed_module, "_LATE", 0.0)
    return Lagging()


def test_events_from_before_the_end_are_told_however_late_they_are_read(lagging: Lagging) -> None:
    for ago in (2.0, 1.5, 1.0):
        lagging.read([lagging.before - ago])
        assert not lagging.teller.ended
    assert lagging.numbers.next(STORIES) == lagging.numbers.next(EVENTS) == 3
    # CPUs send in turn, and one has come further
    now = time.monotonic()
    lagging.read([lagging.before - 1, now], [lagging.before - 0.5])
    assert lagging.teller.ended
    assert lagging.numbers.next(STORIES) == 6
    lagging.read([now])
    assert lagging.numbers.next(STORIES) == 6


def test_events_of_others_tell_that_none_can_come_any_more(lagging: Lagging) -> None:
    lagging.read([lagging.before - 1], link=OTHER)
    assert not lagging.teller.ended
    lagging.read([time.monotonic()], link=OTHER)
    assert lagging.teller.ended


def test_a_reading_without_events_tells_that_none_can_come_any_more(lagging: Lagging) -> None:
    lagging.read()
    assert lagging.teller.ended


def test_what_the_module_may_still_send_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "_LATE", 60)
    lagging = Lagging()
    lagging.read()
    lagging.read([time.monotonic()])
    assert not lagging.teller.ended
    lagging.read([time.monotonic() + 60])
    assert lagging.teller.ended


def test_the_end_has_a_bound(lagging: Lagging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever times events have."""
    monkeypatch.setattr(feed_module, "_LONGEST", 0.05)
    time.sleep(0.05)
    lagging.read([0])
    assert lagging.teller.ended
    assert lagging.numbers.next(STORIES) == 1
