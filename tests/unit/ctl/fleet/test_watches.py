# SPDX-License-Identifier: GPL-2.0
"""Watches: traces that nobody asks for, with a real leaf, metrics and a collector."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest

from ipttctl.errors import IpttctlError, LinkDetachedError, ModuleError
from ipttctl.fleet import watches
from ipttctl.fleet.agent import Agent
from ipttctl.fleet.feed import Feed
from ipttctl.fleet.heartbeat import Selector, find_hosts
from ipttctl.fleet.host import TraceOrder, Untold
from ipttctl.fleet.publisher import TRACE
from ipttctl.fleet.spool import Spool
from ipttctl.fleet.watches import Watches
from ipttctl.frames.bodies import events_of, json_of
from ipttctl.frames.writer import FrameNumbers
from ipttctl.link.losses import Losses
from ipttctl.system.service_manager import ServiceManager
from ipttproto import Kind, parse_batch
from tests.unit.ctl.fleet.support import (
    FakeHost,
    FakeRunning,
    FakeSource,
    FakeTeller,
    Key,
    Server,
    agent_config,
    ask,
    client,
    kept,
    running_agent,
    told,
    until,
)
from tests.unit.ctl.fleet.test_metrics import METRICS, by_rule, fetch, samples
from tests.unit.ctl.fleet.test_metrics import told as told_story
from tests.unit.ctl.fleet.test_otlp import collector, values
from tests.unit.ctl.stories.packets import one_story
from tests.unit.ctl.support import batch_payload, event

DROPS = "watch: [{name: drops, filter: udp port 9, drops: true}]\n"
OWN = ("host", "web1")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "_LOOK", 0.02)
    monkeypatch.setattr(watches, "_FIRST_PAUSE", 0.1)


def dropping() -> FakeHost:
    """A host of which every story is of a packet that a rule dropped."""
    return FakeHost(story=lambda number: told_story(one_story(by_rule(number + 1))))


def begun(host: FakeHost, count: int = 1) -> Callable[[], bool]:
    return lambda: len(host.traces) == count


def detached(running: FakeRunning) -> bool:
    return running.detached


def test_a_watch_is_counted_logged_and_published_though_nobody_asks(
    leaf: Server, agent_key: Key, reader_key: Key
) -> None:
    host = dropping()

    async def run() -> str:
        with collector() as taking:
            more = f"metrics: {{port: 0}}\notlp: {{url: '{taking.url}'}}\n{DROPS}"
            config = agent_config(leaf, agent_key, more)
            async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
                await until(begun(host))
                host.feed.put(2, link=100)
                [(head, body)] = await kept(reader, "ipttctl-web1", 2)
                # the events are of all packets, and nobody wants them
                assert head.kind == "stories"
                assert len(json_of(head, body)) == 2
                message = await reader.jetstream().get_msg("ipttctl-web1", 1)
                assert message.headers
                assert message.headers[TRACE] == "watch/drops"
                await until(lambda: len(taking.records) == 2)
                assert values(taking.records[0])["ipttctl.watch"] == "drops"
                await until(lambda: agent.metrics and agent.metrics.address)
                assert agent.metrics
                return await asyncio.to_thread(fetch, agent.metrics.address[1])

    found = samples(asyncio.run(run()))
    watch = ("watch", "drops")
    assert found["ipttctl_stories_total", (("end", "dropped_by_rule"), OWN, watch)] == 2
    drops = {labels: n for (name, labels), n in found.items() if name == "ipttctl_drops_total"}
    assert sum(drops.values()) == 2
    assert all(watch in labels for labels in drops)
    assert found["ipttctl_watch_up", (OWN, watch)] == 1
    assert found["ipttctl_traces", (OWN,)] == 0
    assert ("trace", TraceOrder("udp port 9", False, True, "50000/s,20%")) in host.done
    assert host.traces[0].detached


def test_a_watch_needs_no_leaf(leaf: Server, agent_key: Key) -> None:
    host = dropping()
    counted = ("ipttctl_stories_total", (("end", "dropped_by_rule"), OWN, ("watch", "drops")))

    async def run() -> None:
        leaf.kill()
        async with running_agent(agent_config(leaf, agent_key, METRICS + DROPS), host) as agent:
            await until(begun(host))
            host.feed.put(3, link=100)
            await until(lambda: agent.metrics and agent.metrics.address)
            assert agent.metrics
            port = agent.metrics.address[1]
            # events are read before their stories are told
            async with asyncio.timeout(20):
                while samples(await asyncio.to_thread(fetch, port)).get(counted) != 3:
                    await asyncio.sleep(0.05)

    asyncio.run(run())


def test_watches_are_told_and_take_no_place_of_traces(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    names = ("a", "b", "c")
    listed = ", ".join(f"{{name: {name}}}" for name in names)
    more = f"traces: {{most: 1, lease: 1s, longest: 1s}}\nwatch: [{listed}]\n"

    async def run() -> None:
        config = agent_config(leaf, agent_key, more)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            await until(begun(host, 3))
            await until(lambda: agent.connection.client)
            answer = await ask(reader, verb="trace", lease=1)
            assert answer["links"] == [103]
            assert "; 1 traces; 3 of 3 watches" in agent.status
            for trace in ("watch/a", "a"):
                assert not (await ask(reader, verb="end", trace=trace))["ok"]
            await until(lambda: host.traces[3].detached)
            [found] = await find_hosts(reader, Selector(), 1)
            assert (found.traces, tuple(found.watches)) == (0, names)
            assert not any(one.detached for one in host.traces[:3])
        assert all(one.detached for one in host.traces)

    asyncio.run(run())


def test_a_watch_whose_links_went_is_begun_again_after_a_pause(
    leaf: Server, agent_key: Key
) -> None:
    host = dropping()
    said: list[str] = []

    async def run() -> None:
        config = agent_config(leaf, agent_key, METRICS + DROPS)
        agent = Agent(config, host, ServiceManager({}), said.append)
        running = asyncio.create_task(agent.run())
        await until(begun(host))
        host.traces[0].untold = Untold(5, 1)
        await until(lambda: next(iter(agent.watches)).untold.left_out)
        host.traces[0].gone = LinkDetachedError(100)
        since = time.monotonic()
        await until(lambda: host.traces[0].detached)
        assert "0 of 1 watches, drops: link 100 was detached by somebody else" in agent.status
        await until(begun(host, 2))
        assert time.monotonic() - since >= 0.1
        host.traces[1].untold = Untold(3)
        looks = host.traces[1].looks
        await until(lambda: host.traces[1].looks > looks + 1)
        host.feed.put(2, link=101)
        await until(lambda: agent.feed.read == 2)
        await until(lambda: agent.metrics and agent.metrics.address)
        assert agent.metrics
        text = await asyncio.to_thread(fetch, agent.metrics.address[1])
        agent.stop()
        await running
        found = samples(text)
        untold = {
            dict(labels)["cause"]: n
            for (name, labels), n in found.items()
            if name == "ipttctl_untold_total"
        }
        assert untold == {"left_out": 8, "unfollowed": 1}

    asyncio.run(run())
    assert [one for one in said if one.startswith("watch")] == [
        "watch drops: tracing by links 100",
        "watch drops: link 100 was detached by somebody else; begun again later",
        "watch drops: tracing by links 101",
    ]


def test_what_cannot_be_begun_is_told_once_and_tried_ever_more_seldom(
    leaf: Server, agent_key: Key, host: FakeHost
) -> None:
    said: list[str] = []
    host.no_traces = ModuleError("the module is not loaded")

    async def run() -> None:
        agent = Agent(agent_config(leaf, agent_key, DROPS), host, ServiceManager({}), said.append)
        running = asyncio.create_task(agent.run())
        await until(lambda: host.done)
        await asyncio.sleep(1)
        # at 0, 0.1, 0.3, 0.7 s and then only at 1.5 s
        assert 2 <= len(host.done) <= 4
        assert "0 of 1 watches, drops: the module is not loaded" in agent.status
        host.no_traces = None
        await until(begun(host))
        agent.stop()
        await running

    asyncio.run(run())
    assert [one for one in said if one.startswith("watch")] == [
        "watch drops: the module is not loaded; begun again later",
        "watch drops: tracing by links 100",
    ]


def test_a_pause_has_a_bound_and_is_short_again_after_a_steady_life(
    leaf: Server, agent_key: Key, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(watches, "_STEADY", 0.5)

    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key, DROPS), host) as agent:
            [watch] = agent.watches
            pauses = []
            for number, life in enumerate((0, 0, 0, 0.6)):
                await until(begun(host, number + 1))
                await asyncio.sleep(life)
                host.traces[number].gone = LinkDetachedError(100 + number)
                await until(partial(detached, host.traces[number]))
                pauses.append(watch.pause)
            assert pauses == [0.1, 0.2, 0.2, 0.1]

    asyncio.run(run())


def test_a_fault_of_the_host_ends_nothing(leaf: Server, agent_key: Key) -> None:
    class Faulty(FakeHost):
        def trace(self, order: TraceOrder) -> FakeRunning:
            self.done.append(("trace", order))
            raise ZeroDivisionError("something of ours")

    host = Faulty()

    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key, DROPS), host) as agent:
            await until(lambda: len(host.done) >= 2)
            assert "drops: the agent failed: ZeroDivisionError: something of ours" in agent.status
            await until(lambda: agent.connection.client)

    asyncio.run(run())


def test_a_watch_that_begins_while_the_agent_ends_is_ended(
    leaf: Server, agent_key: Key, host: FakeHost
) -> None:
    host.delay = 0.5

    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key, DROPS), host):
            await asyncio.sleep(0.1)
        await until(lambda: host.traces and host.traces[0].detached)

    asyncio.run(run())


def test_a_watch_that_was_begun_just_before_all_are_ended_is_ended(
    leaf: Server, agent_key: Key, host: FakeHost
) -> None:
    """The host's thread has looked whether it is the end, and its answer is on its way."""

    async def run() -> None:
        async def on_host(work: Callable[[], Any]) -> Any:
            found = work()
            if isinstance(found, FakeRunning):
                await watched.end_all()
            return found

        spool = Spool(FrameNumbers("web1", "b"), 1 << 20)
        feed = Feed(spool, events="none", stories=True, frame=1, linger=1, told=lambda *_: None)
        watched = Watches(agent_config(leaf, agent_key, DROPS), host, on_host, feed)
        task = asyncio.create_task(watched.run())
        await until(lambda: host.traces and host.traces[0].detached)
        assert not watched.names
        task.cancel()

    asyncio.run(run())


def test_events_of_a_watch_are_published_where_all_are(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        more = f"publish: {{events: all, linger: 10ms}}\n{DROPS}"
        config = agent_config(leaf, agent_key, more)
        async with running_agent(config, host), client(leaf, reader_key) as reader:
            await until(begun(host))
            host.feed.put(2, link=100)
            frames = await kept(reader, "ipttctl-web1", 4)
        assert {head.kind: head.count for head, _ in frames} == {"events": 2, "stories": 2}

    asyncio.run(run())


@pytest.mark.parametrize("published", ["traces", "all"])
def test_of_other_namespaces_no_events_are_published(published: Literal["traces", "all"]) -> None:
    """A packet that comes into another one has left, which events say as stories do."""
    own, other, link, other_link = 7, 8, 3, 4
    spool = Spool(FrameNumbers("web1", "b"), 1 << 20)
    feed = Feed(spool, events=published, stories=False, frame=1 << 20, linger=60)
    links = frozenset({link})
    feed.begin("t", FakeRunning(links, FakeTeller(links, told), within=own))
    events = [
        event(link=link, kind=kind, netns_cookie=cookie, packet=5, saddr=bytes([10]) * 16)
        for kind, cookie in (
            (Kind.JOURNEY_SENT, own),
            (Kind.JOURNEY_RECEIVED, other),
            (Kind.SPINE_FUNCTION, other),
            (Kind.LEFT_OUT, 0),
        )
    ]
    # of somebody else's trace, of which only arrivals are not here
    events.append(event(link=other_link, kind=Kind.JOURNEY_RECEIVED, netns_cookie=other))
    feed.take([parse_batch(batch_payload(events, payloads={1: b"there"}))], Losses())
    feed.flush()
    frame = spool.take()
    assert frame is not None
    found = [one for batch in events_of(frame.head, frame.body) for one in batch.events]
    kinds = [Kind.JOURNEY_SENT, Kind.JOURNEY_FREED, Kind.LEFT_OUT]
    assert [one["kind"] for one in found] == kinds
    assert [one["netns_cookie"] for one in found] == [own, own, 0]
    assert not bytes(found[1]["saddr"]).strip(b"\0")
    assert b"there" not in frame.body


def test_while_its_namespace_is_not_there_an_agent_publishes_no_events() -> None:
    spool = Spool(FrameNumbers("web1", "b"), 1 << 20)
    feed = Feed(spool, events="all", stories=False, frame=1 << 20, linger=60)
    feed.within = 0
    feed.take([parse_batch(batch_payload([event(netns_cookie=8)]))], Losses())
    feed.flush()
    assert not len(spool)


def test_one_that_begins_again_at_once_tells_its_stories_beside_the_rest_of_before() -> None:
    heard: list[tuple[int, str]] = []
    source = FakeSource()
    feed = Feed(
        Spool(FrameNumbers("web1", "b"), 1 << 20),
        events="none",
        stories=True,
        frame=1000,
        linger=1,
        told=lambda found, watch: heard.append((len(found), watch)),
    )
    for link in (1, 2):
        links = frozenset({link})
        feed.begin("watch/a", FakeRunning(links, FakeTeller(links, told)), "a")
        if link == 1:
            feed.end("watch/a")
    source.put(1, link=1)
    source.put(3, link=2)
    feed.take(source.read(), Losses())
    assert heard == [(1, "a"), (3, "a")]


@pytest.mark.parametrize("error", [None, IpttctlError("the module went")])
def test_the_end_of_a_watch_is_the_end_whatever_becomes_of_its_links(
    leaf: Server, agent_key: Key, host: FakeHost, error: IpttctlError | None
) -> None:
    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key, DROPS), host) as agent:
            await until(begun(host))
            if error:

                def fail() -> Untold:
                    raise error

                host.traces[0].detach = fail  # type: ignore[method-assign]  # as the module would
        assert not agent.watches.names
        assert agent.drained

    asyncio.run(run())
