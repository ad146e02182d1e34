# SPDX-License-Identifier: GPL-2.0
"""A trace on several hosts: real servers, agents with made-up events, and the asker's side."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.errors import IpttctlError
from ipttctl.fleet.asker import Asker, connected
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.heartbeat import Selector
from ipttctl.fleet.host import Told
from ipttctl.fleet.hosts_trace import HostsTrace
from ipttctl.joins.chains import StoryChain
from ipttctl.joins.marks import Mark, Way
from tests.unit.ctl.fleet.fleet_host import TwoServers, heard, two_servers
from tests.unit.ctl.fleet.support import FakeHost, running_agent, until
from tests.unit.ctl.joins.simulation import replace_mark
from tests.unit.ctl.joins.test_joiner import MARK

HOSTS = ("web1", "web2")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[TwoServers]:
    with two_servers(tmp_path) as started:
        yield started


def teller(way: Way) -> Any:
    """Stories of packets of which the number is their TCP's sequence."""

    def told(number: int) -> Told:
        mark: Mark = replace_mark(MARK, sequence=1000 * number)._replace(way=way)
        marks = {**mark.values(), "packet": number, "after_ns": 0, "device": "eth0"}
        story = {
            "packet": number,
            "in_device": None if way is Way.DEPARTURE else "eth0",
            "monotonic_ns": time.monotonic_ns(),
            "end": {"kind": "left"},
            "join": [marks],
        }
        return Told(None, json.dumps(story))  # type: ignore[arg-type]  # nobody looks at it

    return told


def config(servers: TwoServers, host: str) -> AgentConfig:
    return parse_config(
        f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\nhost: {host}\n"
        "publish: {events: none}\nheartbeat: 300ms\nstream: {bytes: 4194304}\n",
        "agent.yaml",
    )


@asynccontextmanager
async def fleet(servers: TwoServers) -> AsyncIterator[tuple[list[FakeHost], Asker]]:
    """Two hosts, whose stories the hub keeps."""
    hosts = [
        FakeHost(boot="b-1", story=teller(Way.DEPARTURE)),
        FakeHost(boot="b-2", story=teller(Way.ARRIVAL)),
    ]
    async with AsyncExitStack() as stack:
        for name, host in zip(HOSTS, hosts, strict=True):
            await stack.enter_async_context(running_agent(config(servers, name), host))
        asker = await stack.enter_async_context(connected(servers.settings))
        await heard(asker, len(hosts))
        sources = [
            StreamSource(name=f"ipttctl-{name}", external=ExternalStream(api="$JS.leaf.API"))
            for name in HOSTS
        ]
        js = asker.client.jetstream(timeout=10)
        await js.add_stream(StreamConfig(name="ipttctl", sources=sources, max_bytes=64 << 20))
        yield hosts, asker


@asynccontextmanager
async def traced(asker: Asker) -> AsyncIterator[HostsTrace]:
    """A trace on all hosts, which is read and renewed."""
    trace = HostsTrace(asker)
    await trace.begin(await asker.find(Selector()), {"filter": "tcp port 443"})
    tasks = [asyncio.create_task(trace.read()), asyncio.create_task(trace.renew())]
    try:
        await trace.reading_begun(tasks[0])
        yield trace
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def chains(trace: HostsTrace, count: int) -> list[StoryChain]:
    """As many chains as are waited for."""
    found: list[StoryChain] = []
    end = time.monotonic() + 30
    while len(found) < count and time.monotonic() < end:
        found += trace.chains()
        await asyncio.sleep(0.1)
    return found


def test_stories_of_two_hosts_come_as_one_and_the_trace_ends_everywhere(
    servers: TwoServers,
) -> None:
    async def run() -> None:
        async with fleet(servers) as (hosts, asker), traced(asker) as trace:
            orders = [order for host in hosts for verb, order in host.done if verb == "trace"]
            assert {order.filter for order in orders} == {"tcp port 443"}
            # one key for all, which nobody else knows
            [key] = {order.join for order in orders}
            assert key is not None
            assert len(key) == 16
            # the second packet does not arrive
            hosts[0].feed.put(3, link=100)
            hosts[1].feed.put(2, link=100)
            found = await chains(trace, 3)
            assert [[one.life for one in chain.stories] for chain in found] == [
                [("web1", "b-1"), ("web2", "b-2")],
                [("web1", "b-1"), ("web2", "b-2")],
                [("web1", "b-1")],
            ]
            # answers have told how the clocks differ
            low, high = trace.joiner.clocks.difference(
                ("web1", "b-1"), ("web2", "b-2"), time.monotonic_ns()
            )
            assert low <= 0 <= high
            assert high - low < 2_000_000_000
            assert list(trace.sentences()) == []
            assert [host.stories for host in trace.hosts] == [3, 2]
            await trace.end()
            await until(lambda: all(one.detached for host in hosts for one in host.traces))

    asyncio.run(run())


def test_hosts_that_do_not_trace_and_those_that_lose_are_named(servers: TwoServers) -> None:
    async def run() -> None:
        async with fleet(servers) as (hosts, asker):
            for number in range(4):
                await asker.ask("web2", "trace", {"lease": 60})
                assert len(hosts[1].traces) == number + 1
            async with traced(asker) as trace:
                assert [host.name for host in trace.hosts] == ["web1"]
                hosts[0].feed.put(1, link=100)
                assert len(await chains(trace, 1)) == 1
                hosts[0].feed.put(1, link=100, lost=7)
                assert len(await chains(trace, 1)) == 1
                assert list(trace.sentences()) == [
                    "web2: 4 traces of others run here, which is the most",
                    "web1: lost 7 items",
                ]

    asyncio.run(run())


def test_none_that_traces_is_an_error(servers: TwoServers) -> None:
    async def run() -> None:
        async with fleet(servers) as (_, asker):
            found = await asker.find(Selector())
            with pytest.raises(IpttctlError, match=r"web1: 'example\.org' in the filter"):
                await HostsTrace(asker).begin(found, {"filter": "host example.org"})

    asyncio.run(run())


@pytest.mark.parametrize(("selector", "found"), [("web1,web2", []), ("all", [b"found 2 hosts\n"])])
def test_the_command_prints_chains_until_it_is_told_to_stop(
    servers: TwoServers, tmp_path: Path, selector: str, found: list[bytes]
) -> None:
    settings = tmp_path / "hub.yaml"
    settings.write_text(f"url: {servers.hub.url}\nnkey: {servers.asker.seed}\n")
    words = ["trace", "--hosts", selector, "--wait", "5", "--hub", str(settings), "-o", "json"]

    async def run() -> None:
        async with fleet(servers) as (hosts, _):
            command = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ipttctl", *words, "tcp"),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            assert command.stderr
            for line in [*found, b"tracing on web1, web2\n"]:
                assert await command.stderr.readline() == line
            hosts[0].feed.put(2, link=100)
            hosts[1].feed.put(1, link=100)
            assert command.stdout
            chains = [json.loads(await command.stdout.readline()) for _ in range(2)]
            assert [[one["host"] for one in chain["stories"]] for chain in chains] == [
                ["web1", "web2"],
                ["web1"],
            ]
            assert chains[1]["open"][0]["state"] == "unseen"
            command.send_signal(signal.SIGINT)
            _, err = await command.communicate()
            assert command.returncode == 0
            assert err.decode().splitlines() == [
                "2 packets told, by 3 stories",
                "1 wire joined, 1 departure not seen elsewhere, 0 ends ambiguous",
            ]
            assert all(one.detached for host in hosts for one in host.traces)

    asyncio.run(run())
