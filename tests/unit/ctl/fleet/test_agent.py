# SPDX-License-Identifier: GPL-2.0
"""The agent with a real leaf: what it publishes, how it ends, what it loses and says of it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest
from nats.aio.msg import Msg

from ipttctl.fleet.agent import Agent
from ipttctl.fleet.heartbeat import Selector, find_hosts
from ipttctl.fleet.host import Told
from ipttctl.frames.bodies import events_of, json_of
from ipttctl.frames.codec import MOST_BODY, decode
from ipttctl.frames.seen import Seen
from tests.unit.ctl.fleet.support import (
    FakeHost,
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


def read(agent: Agent, events: int) -> bool:
    return agent.feed.read == events


def untold(agent: Agent, times: int) -> bool:
    return agent.feed.untold == times


def published(agent: Agent, items: int) -> bool:
    return agent.publisher.items == items


ALL = "publish: {events: all, linger: 10ms}\n"


def test_events_come_into_the_stream_with_their_losses(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, ALL)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            host.feed.put(3)
            await until(lambda: agent.publisher.items == 3)
            host.feed.put(2, lost=7)
            await until(lambda: agent.publisher.items == 5)
            frames = await kept(reader, "ipttctl-web1", 5)
        assert [(head.sequence, head.count) for head, _ in frames] == [(0, 3), (3, 2)]
        assert [head.lost for head, _ in frames] == [{}, {"ring": 7}]
        assert {head.host for head, _ in frames} == {"web1"}
        assert {head.boot for head, _ in frames} == {host.boot}
        [batch] = events_of(*frames[1])
        assert batch.events["rulenum"].tolist() == [0, 1]
        assert agent.drained

    asyncio.run(run())


def test_only_events_of_traces_are_published_unless_said(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            host.feed.put(3, link=3)
            await until(lambda: agent.feed.read == 3)
            await until(lambda: agent.connection.client)
            answer = await ask(reader, verb="trace", lease=30, filter="tcp port 443")
            assert answer["ok"], answer
            assert answer["links"] == [100]
            host.feed.put(2, link=100)
            host.feed.put(4, link=3)
            frames = await kept(reader, "ipttctl-web1", 4)
        kinds = {head.kind: (head, body) for head, body in frames}
        assert kinds["events"][0].count == 2
        assert [one["packet"] for one in json_of(*kinds["stories"])] == [0, 1]

    asyncio.run(run())


def test_stories_say_which_trace_they_are_of(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, "publish: {events: none}\n")
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            await until(lambda: agent.connection.client)
            first = await ask(reader, verb="trace", lease=30)
            second = await ask(reader, verb="trace", lease=30)
            host.feed.put(1, link=100)
            await until(lambda: agent.publisher.items == 1)
            host.feed.put(2, link=101)
            await kept(reader, "ipttctl-web1", 3)
            js = reader.jetstream()
            traces = [(await js.get_msg("ipttctl-web1", n)).headers for n in (1, 2)]
        assert [one and one["Ipttctl-Trace"] for one in traces] == [first["trace"], second["trace"]]

    asyncio.run(run())


def test_without_a_leaf_it_runs_and_keeps_what_fits(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    """Items that the bound throws away are counted by the next frame, and keep their numbers."""

    async def run() -> None:
        leaf.kill()
        config = agent_config(leaf, agent_key, f"{ALL}spool: {{bytes: 1048576}}\n")
        async with running_agent(config, host) as agent:
            for n in range(100):
                host.feed.put(64)
                await until(partial(read, agent, 64 * (n + 1)))
                await asyncio.sleep(0.012)
            await until(lambda: agent.spool.lost["events"])
            assert agent.spool.bytes <= 1 << 20
            assert agent.connection.failures
            leaf.start()
            await until(lambda: agent.publisher.idle)
            async with client(leaf, reader_key) as reader:
                frames = await kept(reader, "ipttctl-web1", 1)
        frames.sort(key=lambda frame: frame[0].sequence)
        stored = sum(head.count for head, _ in frames)
        lost = Counter[str]()
        for head, _ in frames:
            lost.update(head.lost)
        assert lost["spool"] > 0
        assert stored + lost["spool"] == 6400
        # up to 8 frames were taken out of the queue before it overflowed
        gaps = 0
        expected = 0
        for head, _ in frames:
            gaps += head.sequence - expected
            assert head.sequence - expected == head.lost.get("spool", 0)
            expected = head.sequence + head.count
        assert gaps == lost["spool"]

    asyncio.run(run())


def test_a_leaf_that_is_killed_loses_nothing(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, ALL)
        async with running_agent(config, host) as agent:
            for round_ in range(3):
                for _ in range(20):
                    host.feed.put(10)
                    await asyncio.sleep(0.005)
                leaf.kill()
                for _ in range(20):
                    host.feed.put(10)
                    await asyncio.sleep(0.005)
                leaf.start()
                await until(partial(published, agent, 400 * (round_ + 1)), 30)
            async with client(leaf, reader_key) as reader:
                frames = await kept(reader, "ipttctl-web1", 1200)
            assert agent.connection.failures >= 3
        seen = Seen()
        new = [head for head, _ in frames if seen.first(head)]
        assert sum(head.count for head in new) == 1200
        assert seen.missing() == 0
        assert not any(head.lost for head in new)

    asyncio.run(run())


def test_an_agent_that_is_started_again_has_another_run(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, ALL)
        for count in (3, 4):
            host.feed.put(count)
            async with running_agent(config, host) as agent:
                await until(partial(published, agent, count))
        async with client(leaf, reader_key) as reader:
            frames = await kept(reader, "ipttctl-web1", 7)
        assert [head.sequence for head, _ in frames] == [0, 0]
        assert len({head.run for head, _ in frames}) == 2
        seen = Seen()
        assert [seen.first(head) for head, _ in (*frames, *frames)] == [True, True, False, False]

    asyncio.run(run())


def test_what_the_bound_of_the_stream_throws_away_is_counted(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, f"{ALL}stream: {{bytes: 4194304}}\n")
        async with running_agent(config, host) as agent:
            js = None
            async with client(leaf, reader_key) as reader:
                await until(lambda: agent.publisher.ready)
                js = reader.jetstream()
                # records are compressed, and these are alike: fill the stream with something else
                host.feed.put(50)
                await until(lambda: agent.publisher.items == 50)
                for _ in range(6):
                    await js.publish("ipttctl.ev.web1", bytes(900_000))
                await until(lambda: agent.ledger.lost["events"] == 50)
                # it is noted before the next frame says it
                await until(lambda: agent.spool.unsaid("events"))
                host.feed.put(5)
                await until(lambda: agent.publisher.items == 55)
                last = await js.get_last_msg("ipttctl-web1", "ipttctl.ev.web1")
        head, _ = decode(last.data or b"")
        assert head.lost == {"stream": 50}

    asyncio.run(run())


def test_losses_are_told_with_stories_where_no_events_are_published(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, "publish: {events: none}\n")
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            await until(lambda: agent.connection.client)
            await ask(reader, verb="trace", lease=30)
            host.feed.put(1, link=100)
            await until(partial(published, agent, 1))
            host.feed.put(2, link=100, lost=7)
            frames = await kept(reader, "ipttctl-web1", 3)
        assert [(head.kind, head.count, head.lost) for head, _ in frames] == [
            ("stories", 1, {}),
            ("stories", 2, {"ring": 7}),
        ]

    asyncio.run(run())


def test_losses_are_told_with_events_and_with_stories(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    """Readers of one kind alone learn of them."""

    async def run() -> None:
        async with (
            running_agent(agent_config(leaf, agent_key), host) as agent,
            client(leaf, reader_key) as reader,
        ):
            await until(lambda: agent.connection.client)
            await ask(reader, verb="trace", lease=30)
            host.feed.put(1, link=100)
            await until(partial(published, agent, 2))
            host.feed.put(2, link=100, lost=7)
            await until(partial(published, agent, 6))
            host.feed.put(1, link=100)
            frames = await kept(reader, "ipttctl-web1", 8)
        for kind in ("events", "stories"):
            told = [(head.count, head.lost) for head, _ in frames if head.kind == kind]
            assert told == [(1, {}), (2, {"ring": 7}), (1, {})]

    asyncio.run(run())


def test_losses_behind_the_last_frame_are_told_at_the_end(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        # of events that are not published, some are lost: no frame comes that could say it
        config = agent_config(leaf, agent_key)
        async with running_agent(config, host) as agent:
            host.feed.put(1, link=3)
            await until(partial(read, agent, 1))
            host.feed.put(2, link=3, lost=7)
            await until(partial(read, agent, 3))
            await until(lambda: agent.connection.client)
        assert agent.drained
        async with client(leaf, reader_key) as reader:
            frames = await kept(reader, "ipttctl-web1", 0)
        assert sorted((head.kind, head.count, head.lost) for head, _ in frames) == [
            ("events", 0, {"ring": 7}),
            ("stories", 0, {"ring": 7}),
        ]
        bodies = {head.kind: (head, body) for head, body in frames}
        assert events_of(*bodies["events"]) == []
        assert json_of(*bodies["stories"]) == []

    asyncio.run(run())


def test_hosts_are_found_by_their_labels(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            await until(lambda: agent.connection.client)
            # somebody says that it is another host
            await reader.publish("ipttctl.hb.web2", json.dumps({"host": "web3"}).encode())
            [found] = await find_hosts(reader, Selector.parse("role=node,zone!=b"), 1.5)
            assert (found.host, found.kernel, found.boot) == ("web1", "6.12.0", host.boot)
            assert (found.run, found.allow) == (agent.numbers.run, ["trace", "links"])
            assert not await find_hosts(reader, Selector.parse("zone=b"), 0.5)
            assert [one.host for one in await find_hosts(reader, Selector.parse("host=web1"))]

    asyncio.run(run())


def test_the_end_detaches_traces_and_tells_the_rest(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key)
        async with client(leaf, reader_key) as reader:
            async with running_agent(config, host) as agent:
                await until(lambda: agent.connection.client)
                await ask(reader, verb="trace", lease=30)
                host.feed.put(5, link=100)
            assert agent.drained
            assert host.traces[0].detached
            frames = await kept(reader, "ipttctl-web1", 10)
        assert Counter(head.kind for head, _ in frames) == {"events": 1, "stories": 1}

    asyncio.run(run())


def test_the_end_is_bounded_although_the_leaf_is_gone(
    leaf: Server, agent_key: Key, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(leaf, agent_key, f"{ALL}drain: 500ms\n")
        async with running_agent(config, host) as agent:
            await until(lambda: agent.connection.client)
            leaf.kill()
            host.feed.put(5)
            await until(lambda: agent.feed.read == 5)
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 5
        assert not agent.drained

    asyncio.run(run())


@pytest.mark.parametrize(
    "text",
    [os.urandom(2_000_000).hex(), "long" * (MOST_BODY // 4)],
    ids=["no message", "no frame"],
)
def test_a_story_that_nothing_can_hold_is_counted_and_holds_nothing_up(
    leaf: Server, agent_key: Key, reader_key: Key, text: str
) -> None:
    def story(number: int) -> Told:
        if number:
            return told(number)
        return Told(told(0).story, json.dumps({"packet": 0, "text": text}))

    async def run() -> None:
        host = FakeHost(story=story)
        config = agent_config(leaf, agent_key, "publish: {events: none}\n")
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            await until(lambda: agent.connection.client)
            await ask(reader, verb="trace", lease=30)
            host.feed.put(1, link=100)
            await until(lambda: agent.ledger.lost["stories"] == 1)
            host.feed.put(3, link=100)
            await until(lambda: agent.ledger.lost["stories"] == 2)
            frames = await kept(reader, "ipttctl-web1", 2)
        [(head, body)] = frames
        assert [one["packet"] for one in json_of(head, body)] == [1, 2]
        assert head.sequence == 2
        assert agent.drained

    asyncio.run(run())


def test_a_story_that_cannot_be_told_is_counted_and_ends_nothing(
    leaf: Server, agent_key: Key, reader_key: Key
) -> None:
    def story(number: int) -> Told:
        if number == 0:
            raise RecursionError("too deep")
        return told(number)

    said: list[str] = []

    async def run() -> None:
        host = FakeHost(story=story)
        config = agent_config(leaf, agent_key, "publish: {events: none}\n")
        async with (
            running_agent(config, host, said.append) as agent,
            client(leaf, reader_key) as reader,
        ):
            await until(lambda: agent.connection.client)
            await ask(reader, verb="trace", lease=30)
            other = await ask(reader, verb="trace", lease=30)
            for count in (1, 2):
                host.feed.put(1, link=100)
                await until(partial(untold, agent, count))
            # another trace goes on
            host.traces[1].teller._stories = told
            host.feed.put(1, link=101)
            await kept(reader, "ipttctl-web1", 1)
            answer = await ask(reader, verb="end", trace=other["trace"])
            assert answer["lost"] == 2
            [(head, body)] = await kept(reader, "ipttctl-web1", 1)
        assert [one["packet"] for one in json_of(head, body)] == [0]
        assert (head.sequence, head.lost) == (0, {"untold": 2})
        assert sum("could not be told by RecursionError: too deep" in one for one in said) == 1
        assert agent.drained

    asyncio.run(run())


def test_what_a_leaf_refuses_is_no_problem_of_the_connection(
    leaf: Server, agent_key: Key, host: FakeHost
) -> None:
    """It would stay in the status until the next one, whatever is published meanwhile."""
    said: list[str] = []

    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key), host, said.append) as agent:
            await until(lambda: agent.connection.client)
            connected = agent.connection.client
            assert connected
            for _ in range(2):
                # late answers are refused so
                await connected._process_err("'permissions violation for publish to \"_INBOX.x\"'")
            assert agent.connection.problem == ""
            assert agent.status.startswith("leaf: connected")

    asyncio.run(run())
    assert sum("violation" in one for one in said) == 1


def test_a_fault_in_a_command_is_answered_and_ends_nothing(
    leaf: Server, agent_key: Key, reader_key: Key
) -> None:
    class Faulty(FakeHost):
        def links(self) -> list[dict[str, Any]]:
            raise ZeroDivisionError("something of ours")

    async def run() -> None:
        async with (
            running_agent(agent_config(leaf, agent_key), Faulty()) as agent,
            client(leaf, reader_key) as asker,
        ):
            await until(lambda: agent.connection.client)
            for _ in range(2):
                answer = await ask(asker, verb="links")
                assert answer["error"] == "the agent failed: ZeroDivisionError; please report it"

    asyncio.run(run())


def test_what_a_leaf_forgot_is_counted(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    """Its disk was lost, say: the stream is made again, and the next frame tells of it."""

    async def run() -> None:
        config = agent_config(leaf, agent_key, ALL)
        async with running_agent(config, host) as agent:
            host.feed.put(30)
            await until(partial(published, agent, 30))
            leaf.kill()
            leaf.forget()
            leaf.start()
            await until(lambda: agent.ledger.lost["events"])
            host.feed.put(5)
            await until(partial(published, agent, 35))
            async with client(leaf, reader_key) as reader:
                [(head, _)] = await kept(reader, "ipttctl-web1", 5)
        assert (head.sequence, head.count, head.lost) == (30, 5, {"stream": 30})

    asyncio.run(run())


OURS = '{"stream": "ipttctl-web1", "seq": %d}'


@pytest.mark.parametrize(
    "answer",
    [
        *(b"no JSON", b"[]", b"{}", b'{"error": 3}', b'{"stream": "other", "seq": 1}'),
        *((OURS % number).encode() for number in (0, -5, 2**53 + 1, 2**60)),
        (OURS.replace("%d", "true")).encode(),
    ],
)
def test_an_answer_to_a_frame_that_is_not_of_the_stream_is_none(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost, answer: bytes
) -> None:
    """A hub that was taken over hears frames, and can answer them."""

    async def run() -> None:
        config = agent_config(leaf, agent_key, ALL)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as hub:
            await until(lambda: agent.publisher.ready)

            async def respond(message: Msg) -> None:
                await message.respond(answer)

            await hub.jetstream().delete_stream("ipttctl-web1")
            answers = await hub.subscribe("ipttctl.ev.web1", cb=respond)
            await hub.flush()
            host.feed.put(3)
            await until(lambda: agent.publisher.again)
            assert agent.publisher.frames == 0
            await answers.unsubscribe()
            # and the stream is made again, which somebody had removed
            await until(partial(published, agent, 3))
            [(head, _)] = await kept(hub, "ipttctl-web1", 3)
        assert (head.count, head.lost) == (3, {})

    asyncio.run(run())


def test_heartbeats_go_on_while_a_command_takes_long(
    leaf: Server, agent_key: Key, reader_key: Key
) -> None:
    began, done = threading.Event(), threading.Event()

    class Busy(FakeHost):
        def links(self) -> list[dict[str, Any]]:
            began.set()
            assert done.wait(60)
            return []

    async def run() -> None:
        heard: list[Msg] = []

        async def hear(message: Msg) -> None:
            heard.append(message)

        async with (
            running_agent(agent_config(leaf, agent_key), Busy()) as agent,
            client(leaf, reader_key) as asker,
        ):
            try:
                await until(lambda: agent.connection.client)
                asked = asyncio.create_task(ask(asker, verb="links", wait=60))
                await asyncio.to_thread(began.wait, 20)
                await asker.subscribe("ipttctl.hb.web1", cb=hear)
                await asker.flush()
                await until(lambda: len(heard) >= 4)
                assert not asked.done()
            finally:
                done.set()
            assert (await asked)["ok"]

    asyncio.run(run())
