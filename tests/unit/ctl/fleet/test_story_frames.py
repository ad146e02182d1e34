# SPDX-License-Identifier: GPL-2.0
"""Frames of stories that whoever traces reads, also of hosts and hubs that were taken over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from ipttctl.fleet.asker import connected
from ipttctl.fleet.hosts_trace import HostsTrace, TracedHost
from ipttctl.fleet.publisher import TRACE
from ipttctl.fleet.story_reader import StoryReader
from ipttctl.fleet.tasks import end_tasks
from ipttctl.frames.bodies import JSON_FORMAT, json_body
from ipttctl.frames.codec import encode
from ipttctl.frames.head import STORIES, FrameHead
from tests.unit.ctl.fleet.fleet_host import TwoServers
from tests.unit.ctl.fleet.support import until

HOSTS = ("web1", "web2")


def message(subject: str, trace: str, data: bytes) -> Msg:
    """A message of the hub's stream."""
    reply = "$JS.ACK.ipttctl.c.1.5.5.1700000000000000000.0"
    return Msg(None, subject, reply, data, {TRACE: trace})  # type: ignore[arg-type]  # not asked


def frame(number: int, lines: list[str], **more: Any) -> bytes:
    head = FrameHead(
        **{
            "kind": STORIES,
            "host": "web1",
            "boot": "b-1",
            "run": "r",
            "sequence": number,
            "count": len(lines),
            "time": 0,
            "monotonic": 0,
            "format": JSON_FORMAT,
            **more,
        }
    )
    return encode(head, json_body(lines))


async def taken(*messages: Msg) -> HostsTrace:
    """A trace of two hosts that gets some messages."""
    trace = HostsTrace(None)  # type: ignore[arg-type]  # nobody is asked
    trace.hosts = [TracedHost(name, (name, "b-1"), f"t-{name}", "r") for name in HOSTS]
    for one in messages:
        await trace.take(one)
    return trace


def test_frames_of_others_that_come_late_are_not_missed() -> None:
    """Several are on their way to the stream at a time, which has them in any order."""

    async def run() -> None:
        trace = await taken(
            message("ipttctl.story.web1", "watch/all", frame(9, ['{"packet":1}'])),
            message("ipttctl.story.web1", "t-web1", frame(10, ['{"packet":2}'])),
            message("ipttctl.story.web1", "watch/all", frame(8, ['{"packet":3}'])),
        )
        trace.hosts[1].answered = True
        assert list(trace.sentences()) == []

    asyncio.run(run())


def test_what_comes_while_nobody_reads_is_read_though_nothing_came_before(
    servers: TwoServers,
) -> None:
    read: list[bytes] = []

    async def take(one: Msg) -> None:
        read.append(one.data)

    async def run() -> None:
        async with connected(servers.settings) as asker:
            js = asker.client.jetstream(timeout=10)
            await js.add_stream(StreamConfig(name="ipttctl", subjects=["told"]))
            await js.publish("told", b"before")
            reader = StoryReader(asker, "told", take)
            reading = asyncio.create_task(reader.run())
            await reader.begun.wait()
            await end_tasks([reading])
            await js.publish("told", b"meanwhile")
            reading = asyncio.create_task(reader.run())
            await until(lambda: read == [b"meanwhile"])
            await end_tasks([reading])

    asyncio.run(run())


def test_frames_of_another_host_or_another_run_are_passed_over() -> None:
    async def run() -> None:
        trace = await taken(
            message("ipttctl.story.web1", "t-web1", frame(0, ['{"packet":1}'])),
            # by another host, in the name of this one, of another run, of no known trace
            message("ipttctl.story.web2", "t-web2", frame(1, ['{"packet":2}'])),
            message("ipttctl.story.web2", "t-web1", frame(1, ['{"packet":2}'])),
            message("ipttctl.story.web1", "t-web1", frame(2**40, ['{"packet":3}'], run="other")),
            message("ipttctl.story.web1", "other", frame(2**40, ['{"packet":4}'], run="other")),
            message("ipttctl.story.web3", "t-web1", frame(2, ['{"packet":5}'])),
            message("ipttctl.story.web1", "t-web1", b"none"),
            message("ipttctl.story.web1", "t-web1", frame(1, ["[1]"])),
            message("ipttctl.story.web1", "t-web1", frame(2, ['{"a":1e999}'])),
            message("ipttctl.story.web1", "t-web1", frame(3, ['{"packet":6}'])),
            message("ipttctl.story.web1", "t-web1", frame(3, ['{"packet":6}'])),
        )
        found = [one.story["packet"] for chain in trace.rest() for one in chain.stories]
        assert found == [1, 6]
        assert list(trace.sentences()) == [
            "web1: 4 damaged frames passed over",
            "web2: silent",
            "web2: 1 damaged frame passed over",
        ]

    asyncio.run(run())


def test_a_frame_of_another_host_does_not_say_which_run_it_is() -> None:
    async def run() -> None:
        trace = await taken(
            message("ipttctl.story.web1", "t-web1", frame(0, ['{"packet":1}'], host="x", run="x")),
            message("ipttctl.story.web1", "t-web1", frame(0, ['{"packet":2}'])),
        )
        assert [one.story["packet"] for chain in trace.rest() for one in chain.stories] == [2]
        assert trace.hosts[0].damaged == 1

    asyncio.run(run())


def test_a_run_has_one_boot() -> None:
    """Each boot that a host made up took room among the clocks."""

    async def run() -> None:
        lives = [
            message("ipttctl.story.web1", "t-web1", frame(n, ['{"packet":1}'], boot=f"b-{n}"))
            for n in range(5)
        ]
        trace = await taken(*lives)
        found = {one.life for chain in trace.rest() for one in chain.stories}
        assert found == {("web1", "b-0")}
        assert trace.hosts[0].damaged == 4

    asyncio.run(run())


def test_a_hub_that_sends_what_is_none_is_not_followed() -> None:
    class Pulled:
        async def fetch(self, *_: Any, **__: Any) -> list[Msg]:
            good = message("ipttctl.story.web1", "t-web1", frame(0, ['{"packet":1}']))
            replies = ["", "$JS.ACK.x", "$JS.ACK.s.c.1.x.y.z.0", "$JS.ACK.s.c.1.5.5.9" + "9" * 400]
            client: Any = None
            bad = [Msg(client, good.subject, one, good.data, good.headers) for one in replies]
            return [*bad, good]

    async def run() -> None:
        trace = await taken()
        reader = StoryReader(trace.asker, "ipttctl.story.web1", trace.take)
        await reader.fetch(Pulled())  # type: ignore[arg-type]  # of the same face
        assert reader.damaged == 4
        assert [host.stories for host in trace.hosts] == [1, 0]

    asyncio.run(run())


@pytest.mark.parametrize("value", [10**400, -1, True, 1.5, "soon", None, [1]])
def test_answers_that_make_no_sense_end_no_renewal(value: object) -> None:
    class Answering:
        asked = 0

        async def ask(self, *_: Any) -> dict[str, Any]:
            self.asked += 1
            return {"clock": value, "lost": value, "lease": value}

    async def run() -> None:
        asker = Answering()
        trace = HostsTrace(asker)  # type: ignore[arg-type]  # of the same face
        host = TracedHost("web1", ("web1", "b-1"), "t")
        task = asyncio.create_task(trace._renew(host))
        await asyncio.sleep(0.05)
        assert not task.done()
        assert asker.asked == 1
        task.cancel()

    asyncio.run(run())
