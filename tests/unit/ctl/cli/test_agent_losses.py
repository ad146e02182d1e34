# SPDX-License-Identifier: GPL-2.0
"""Events that the agent's own socket had no room for are missing from stories."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from ipttctl.cli.agent_host import LocalHost
from ipttctl.cli.agent_trace import LocalTeller
from ipttctl.cli.story_sources import StoryNames
from ipttctl.fleet.feed import Feed
from ipttctl.fleet.host import AgentHost, Told
from ipttctl.fleet.reader import Reader
from ipttctl.fleet.spool import Spool
from ipttctl.frames.bodies import json_of
from ipttctl.frames.writer import FrameNumbers
from ipttctl.link.losses import Losses
from ipttctl.link.streams import EventStream
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.who import Who
from ipttproto import Command, EventBatch, parse_batch
from tests.unit.ctl.fleet.support import FakeRunning, until
from tests.unit.ctl.stories.packets import Traveller
from tests.unit.ctl.support import FakeModule, batch_payload, event, events_message, status

pytestmark = pytest.mark.usefixtures("answering")

LINK = 12


@pytest.mark.parametrize("missed", [0, 5])
def test_a_story_whose_events_may_have_been_missed_says_so(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch, missed: int
) -> None:
    """The socket had no room for those behind the story's, and nothing came since."""
    packet = Traveller(start=time.monotonic_ns())
    packet.received("eth0")
    events = [{**one, "link": LINK} for one in packet.events]
    receive = EventStream._receive

    def overrun(stream: EventStream) -> list[EventBatch]:
        found = receive(stream)
        if found:
            stream.overruns += 1
            module.handlers[Command.STATS] = lambda *_: [status((len(events) + missed,))]
        return found

    monkeypatch.setattr(EventStream, "_receive", overrun)
    names = StoryNames(Who(), NamespaceNames([]), None)
    links = frozenset({LINK})
    spool = Spool(FrameNumbers("web1", "b"), 1 << 20)
    feed = Feed(spool, events="none", stories=True, frame=1 << 20, linger=60)
    teller = LocalTeller(links, names, drops=False)
    feed.begin("t", FakeRunning(links, teller))  # type: ignore[arg-type]  # it is a real one
    reader = Reader(cast(AgentHost, LocalHost()), feed)
    reader.start()
    try:
        asyncio.run(until(lambda: reader.reading))
        module.multicast(events_message(events))
        asyncio.run(until(lambda: feed.read == len(events)))
    finally:
        reader.stop(1)
    frame = spool.take()
    assert frame is not None
    [story] = json_of(frame.head, frame.body)
    assert story["end"]["events_lost"] == bool(missed)


@pytest.mark.parametrize("missed", [0, 5])
def test_what_others_have_read_before_is_not_missing(missed: int) -> None:
    """What is lost from a trace's beginning on is in its stories, whichever batch is its first."""
    told: list[Told] = []
    feed = Feed(
        Spool(FrameNumbers("web1", "b"), 1 << 20),
        events="none",
        stories=True,
        frame=1 << 20,
        linger=60,
        told=lambda stories, _: told.extend(stories),
    )
    feed.take([parse_batch(batch_payload([event(link=3)] * 7, sequence=0))], Losses())
    links = frozenset({LINK})
    teller = LocalTeller(links, StoryNames(Who(), NamespaceNames([]), None), drops=False)
    feed.begin("t", FakeRunning(links, teller))  # type: ignore[arg-type]  # it is a real one
    packet = Traveller(start=time.monotonic_ns())
    packet.received("eth0")
    events = [{**one, "link": LINK} for one in packet.events]
    feed.take([parse_batch(batch_payload(events, sequence=7 + missed))], Losses())
    feed.finish()
    [one] = told
    assert one.story.end.events_lost == bool(missed)
