# SPDX-License-Identifier: GPL-2.0
"""A hub that was taken over, with the example configurations of leaf and hub."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.fleet.heartbeat import Heartbeat, Selector, find_hosts
from tests.unit.ctl.fleet.example_fleet import Fleet, taken
from tests.unit.ctl.fleet.support import (
    FakeHost,
    agent_config,
    ask,
    connect,
    kept,
    running_agent,
    until,
)

__all__ = ["taken"]  # a fixture

ALL = "publish: {events: all, linger: 10ms}\n"


async def unheard(client: Client, subject: str, data: bytes = b"{}") -> bool:
    """Whether nobody answers."""
    try:
        await client.request(subject, data, 1)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
        return True
    return False


async def consumer_made(hub: Client) -> dict[str, Any]:
    """The leaf's answer to the wish for one more consumer of its stream, which stays."""
    config = {"deliver_policy": "all", "ack_policy": "none", "inactive_threshold": 3600 * 10**9}
    wish = {"stream_name": "ipttctl-web1", "config": config}
    data = json.dumps(wish).encode()
    subject = "$JS.web1.API.CONSUMER.CREATE.ipttctl-web1"
    found: dict[str, Any] = json.loads((await hub.request(subject, data, 5)).data)
    return found


def test_a_hub_that_was_taken_over_reaches_no_more_of_a_leaf(taken: Fleet, host: FakeHost) -> None:
    """The leaf's own configuration says what comes in, whatever the hub says."""

    async def run() -> None:
        config = agent_config(taken.leaf, taken.keys["AGENT_WEB1"], ALL)
        async with running_agent(config, host) as agent:
            host.feed.put(3)
            await until(lambda: agent.publisher.items == 3)
            hub = await taken.user("OPERATOR")
            hosts: list[Heartbeat] = []
            end = time.monotonic() + 30
            while not hosts:
                assert time.monotonic() < end
                hosts = await find_hosts(hub, Selector.parse(""), 0.5)
            small = json.dumps({"name": "ipttctl-web1", "subjects": ["x"], "max_bytes": 1}).encode()
            more = json.dumps({"name": "more", "subjects": ["more"]}).encode()
            reached = []
            for what, data in (
                ("STREAM.UPDATE.ipttctl-web1", small),
                ("STREAM.CREATE.more", more),
                ("STREAM.MSG.DELETE.ipttctl-web1", b'{"seq": 1}'),
                ("STREAM.MSG.GET.ipttctl-web1", b'{"seq": 1}'),
                ("STREAM.SNAPSHOT.ipttctl-web1", b'{"deliver_subject": "_INBOX.x"}'),
                ("STREAM.RESTORE.again", b"{}"),
                ("STREAM.PURGE.ipttctl-web1", b""),
                ("STREAM.DELETE.ipttctl-web1", b""),
                ("STREAM.NAMES", b""),
                ("CONSUMER.DURABLE.CREATE.ipttctl-web1.d", b"{}"),
                ("INFO", b""),
            ):
                if not await unheard(hub, f"$JS.web1.API.{what}", data):
                    reached.append(what)
            assert reached == []
            # what the hub is for goes on: commands, and sourcing
            assert (await ask(hub, verb="links"))["ok"]
            external = ExternalStream(api="$JS.web1.API")
            source = StreamSource(name="ipttctl-web1", external=external)
            await hub.jetstream().add_stream(StreamConfig(name="ipttctl", sources=[source]))
            frames = await kept(hub, "ipttctl", 3, 60)
            assert [head.count for head, _ in frames] == [3]
            # last: 2.10.25 lets nobody source any more once there are as many as may be
            made = 0
            while made < 99 and "error" not in await consumer_made(hub):
                made += 1
            assert made == 16
            await hub.close()

            leaf = await connect(taken.leaf, taken.keys["AGENT_WEB1"])
            info = await leaf.jetstream().stream_info("ipttctl-web1")
            assert info.config.max_bytes == config.stream.bytes
            assert (info.state.messages, info.state.last_seq) == (1, 1)
            await leaf.close()

    asyncio.run(run())
