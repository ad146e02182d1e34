# SPDX-License-Identifier: GPL-2.0
"""A trace on several hosts: real servers, agents with made-up events, and the asker's side."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.cli import hosts_run
from ipttctl.cli.hosts_asked import HostsAsked
from ipttctl.cli.options import Output
from ipttctl.errors import IpttctlError, LinkDetachedError
from ipttctl.fleet import hosts_trace, leases
from ipttctl.fleet.asker import Asker, connected
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.heartbeat import Selector
from ipttctl.fleet.host import Told, Untold
from ipttctl.fleet.hosts_trace import HostsTrace
from ipttctl.joins.chains import StoryChain
from ipttctl.joins.marks import Mark, Way
from tests.unit.ctl.fleet.fleet_host import TwoServers, heard
from tests.unit.ctl.fleet.support import FakeHost, running_agent, until
from tests.unit.ctl.joins.simulation import replace_mark
from tests.unit.ctl.joins.telling import MARK

HOSTS = ("web1", "web2")


def teller(way: Way, clock: Callable[[], int] = time.monotonic_ns) -> Any:
    """Stories of packets of which the number is their TCP's sequence."""

    def told(number: int) -> Told:
        mark: Mark = replace_mark(MARK, sequence=1000 * number)._replace(way=way)
        marks = {**mark.values(), "packet": number, "after_ns": 0, "device": "eth0"}
        story = {
            "packet": number,
            "in_device": None if way is Way.DEPARTURE else "eth0",
            "monotonic_ns": clock(),
            "end": {"kind": "left"},
            "join": [marks],
        }
        return Told(None, json.dumps(story))  # type: ignore[arg-type]  # nobody looks at it

    return told


def config(servers: TwoServers, host: str, events: str = "none", more: str = "") -> AgentConfig:
    return parse_config(
        f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\nhost: {host}\n"
        f"publish: {{events: {events}}}\nheartbeat: 300ms\nstream: {{bytes: 4194304}}\n{more}",
        "agent.yaml",
    )


@asynccontextmanager
async def fleet(
    servers: TwoServers, events: str = "none", more: str = "", kept: Sequence[str] = HOSTS
) -> AsyncIterator[tuple[list[FakeHost], Asker]]:
    """Two hosts; ``events`` are those that agents publish.

    There may be ``more`` in their configurations. The hub keeps stories of ``kept``.
    """
    hosts = [
        FakeHost(boot="b-1", story=teller(Way.DEPARTURE)),
        FakeHost(boot="b-2", story=teller(Way.ARRIVAL)),
    ]
    async with AsyncExitStack() as stack:
        agents = []
        for name, host in zip(HOSTS, hosts, strict=True):
            own = config(servers, name, events, more)
            agents.append(await stack.enter_async_context(running_agent(own, host)))
        # a hub asks late again for a stream that it did not find
        await until(lambda: all(one.publisher.ready for one in agents))
        asker = await stack.enter_async_context(connected(servers.settings))
        await heard(asker, len(hosts))
        sources = [
            StreamSource(name=f"ipttctl-{name}", external=ExternalStream(api="$JS.leaf.API"))
            for name in kept
        ]
        js = asker.client.jetstream(timeout=10)
        await js.add_stream(StreamConfig(name="ipttctl", sources=sources, max_bytes=64 << 20))
        yield hosts, asker


@asynccontextmanager
async def traced(asker: Asker) -> AsyncIterator[HostsTrace]:
    """A trace on all hosts, which is read and renewed."""
    trace = HostsTrace(asker)
    await trace.begin(await asker.find(Selector()), {"filter": "tcp port 443"})
    reading = asyncio.create_task(trace.read())
    try:
        await trace.reading_begun(reading)
        yield trace
    finally:
        await trace.end()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def answered_again(hosts: Sequence[FakeHost]) -> Callable[[], bool]:
    """Whether hosts have renewed a trace twice: for the second time once their stories are read.

    Their clocks are looked at for each answer.
    """
    answers = Counter[str]()

    def counting(host: FakeHost) -> Callable[[], int]:
        clock = host.clock

        def look() -> int:
            answers[host.boot] += 1
            return clock()

        return look

    for host in hosts:
        host.clock = counting(host)
    return lambda: all(answers[host.boot] >= 2 for host in hosts)


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
            # one by one: somebody may have the right to read these alone
            consumers = await asker.client.jetstream(timeout=10).consumers_info("ipttctl")
            read = {one.config.filter_subject for one in consumers}
            assert read == {f"ipttctl.story.{host}" for host in HOSTS}
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
            hosts[0].traces[0].untold = Untold(left_out=7, unfollowed=1)
            await trace.end()
            assert list(trace.sentences()) == [
                "web1: 7 packets left out by its governor",
                "web1: 1 time there was no room to follow a packet",
            ]
            await until(lambda: all(one.detached for host in hosts for one in host.traces))

    asyncio.run(run())


def late(behind: int, drift: float) -> Callable[[], int]:
    """A clock that is behind, and falls back further."""
    began = time.monotonic_ns()
    return lambda: int(began - behind + (time.monotonic_ns() - began) * (1 - drift))


def test_clocks_may_be_apart_and_drift(servers: TwoServers) -> None:
    """Packets come to a host seconds before they are sent, by its own clock."""

    async def run() -> None:
        async with fleet(servers) as (hosts, asker):
            clock = hosts[1].clock = late(5_000_000_000, 500e-6)
            hosts[1].story = teller(Way.ARRIVAL, clock)
            async with traced(asker) as trace:
                for host in hosts:
                    host.feed.put(20, link=100)
                found = await chains(trace, 20)
                web1, web2 = ("web1", "b-1"), ("web2", "b-2")
                lives = [[one.life for one in chain.stories] for chain in found]
                assert lives == [[web1, web2]] * 20
                low, high = trace.joiner.clocks.difference(web1, web2, time.monotonic_ns())
                assert low <= clock() - time.monotonic_ns() <= high
                assert high - low < 2_000_000_000
                [wire] = found[0].wires
                assert wire.least is not None
                assert wire.most is not None
                assert 0 <= wire.least <= wire.most < 2_000_000_000
                assert trace.joiner.counts.joined == 20

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


def test_what_a_host_loses_is_named_where_it_publishes_events_too(servers: TwoServers) -> None:
    """Losses of before the trace are not of it."""

    async def run() -> None:
        async with fleet(servers, "traces") as (hosts, asker):
            hosts[0].feed.put(1, link=3, lost=5)
            await asyncio.sleep(0.5)
            async with traced(asker) as trace:
                hosts[0].feed.put(1, link=100, lost=7)
                assert len(await chains(trace, 1)) == 1
                await trace.end()
                assert list(trace.sentences()) == ["web1: lost 7 items"]

    asyncio.run(run())


def test_a_host_whose_stories_do_not_come_to_the_hub_is_named(servers: TwoServers) -> None:
    """Its stream is no source of the hub's; it traces and answers all the same."""

    async def run() -> None:
        async with fleet(servers, kept=HOSTS[:1]) as (hosts, asker):
            again = answered_again(hosts)
            async with traced(asker) as trace:
                await until(again)
                hosts[0].feed.put(3, link=100)
                hosts[1].feed.put(2, link=100)
                assert len(await chains(trace, 3)) == 3
                assert list(trace.sentences()) == []
                await trace.end()
                assert list(trace.sentences()) == ["web2: 2 stories never came"]
                assert not trace.complete

    asyncio.run(run())


def test_stories_told_before_they_are_read_are_not_missed(servers: TwoServers) -> None:
    async def run() -> None:
        async with fleet(servers, more="watch: [{name: all}]\n") as (hosts, asker):
            await until(lambda: all(host.traces for host in hosts))
            for host in hosts:
                host.feed.put(5, link=100)
            # by then the hub has them
            await asyncio.sleep(1)
            again = answered_again(hosts)
            async with traced(asker) as trace:
                await until(again)
                await trace.end()
                assert trace.complete
                assert list(trace.sentences()) == []

    asyncio.run(run())


@pytest.mark.parametrize("events", ["none", "traces"])
def test_a_host_that_publishes_no_stories_does_not_trace(servers: TwoServers, events: str) -> None:
    async def run() -> None:
        async with fleet(servers, f"{events}, stories: false") as (hosts, asker):
            found = await asker.find(Selector())
            with pytest.raises(IpttctlError, match="web1: no stories are published here"):
                await HostsTrace(asker).begin(found, {})
            # somebody else may read its events
            answer = asker.ask("web1", "trace", {"lease": 60})
            if events == "traces":
                await answer
            else:
                with pytest.raises(IpttctlError, match="no stories are published here"):
                    await answer
            assert len(hosts[0].traces) == (events == "traces")

    asyncio.run(run())


def test_stories_of_a_trace_of_somebody_else_are_not_missed(servers: TwoServers) -> None:
    """All that an agent tells is numbered together."""

    async def run() -> None:
        async with fleet(servers) as (hosts, asker), traced(asker) as trace:
            await asker.ask("web1", "trace", {"lease": 60})
            for link in (100, 101, 100):
                hosts[0].feed.put(1, link=link)
                await asyncio.sleep(0.5)
            assert len(await chains(trace, 2)) == 2
            assert [host.stories for host in trace.hosts] == [2, 0]
            assert list(trace.sentences()) == []

    asyncio.run(run())


@pytest.mark.parametrize("events", ["none", "traces"])
def test_watches_of_hosts_are_nothing_to_who_traces(servers: TwoServers, events: str) -> None:
    """Neither their stories, nor what was lost before the trace began."""

    async def run() -> None:
        async with fleet(servers, events, "watch: [{name: all}]\n") as (hosts, asker):
            await until(lambda: all(host.traces for host in hosts))
            for lost in (0, 7):
                hosts[0].feed.put(1, link=3, lost=lost)
                await asyncio.sleep(0.3)
            async with traced(asker) as trace:
                for link in (101, 100, 101):
                    for host in hosts:
                        host.feed.put(1, link=link)
                    await asyncio.sleep(0.3)
                found = await chains(trace, 2)
                assert [len(chain.stories) for chain in found] == [2, 2]
                assert [host.stories for host in trace.hosts] == [2, 2]
                await trace.end()
                assert list(trace.sentences()) == []
            assert not any(host.traces[0].detached for host in hosts)

    asyncio.run(run())


def test_hosts_that_began_go_on_until_the_last_one_has(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_trace, "LEASE", 2.0)

    async def run() -> None:
        async with fleet(servers) as (hosts, asker):
            hosts[1].delay = 5
            async with traced(asker) as trace:
                hosts[0].feed.put(1, link=100)
                hosts[1].feed.put(1, link=100)
                [chain] = await chains(trace, 1)
                assert [one.life[0] for one in chain.stories] == ["web1", "web2"]
                assert not hosts[0].traces[0].detached
                assert list(trace.sentences()) == []

    asyncio.run(run())


def test_hosts_that_grant_less_than_they_are_asked_for_go_on(servers: TwoServers) -> None:
    async def run() -> None:
        async with fleet(servers, more="traces: {lease: 1s}\n") as (hosts, asker):
            async with traced(asker) as trace:
                await asyncio.sleep(3)
                assert not any(host.traces[0].detached for host in hosts)
                assert list(trace.sentences()) == []
            assert all(host.traces[0].detached for host in hosts)

    asyncio.run(run())


@pytest.mark.parametrize("renewed", [True, False])
def test_a_host_whose_links_went_is_named(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch, renewed: bool
) -> None:
    monkeypatch.setattr(leases, "_LOOK", 0.1)
    monkeypatch.setattr(hosts_trace, "LEASE", 1.5 if renewed else 30.0)

    async def run() -> None:
        async with fleet(servers) as (hosts, asker), traced(asker) as trace:
            hosts[1].traces[0].gone = LinkDetachedError(100)
            await until(lambda: hosts[1].traces[0].detached)
            if renewed:
                await until(lambda: trace.hosts[1].problem)
            await trace.end()
            assert list(trace.sentences()) == ["web2: link 100 was detached by somebody else"]
            assert hosts[0].traces[0].detached

    asyncio.run(run())


def test_an_end_while_hosts_begin_ends_it_on_those_that_have(servers: TwoServers) -> None:
    async def run() -> None:
        async with fleet(servers) as (hosts, asker):
            hosts[1].delay = 3
            trace = HostsTrace(asker)
            begun = asyncio.create_task(trace.begin(await asker.find(Selector()), {"filter": ""}))
            await until(lambda: trace.hosts)
            begun.cancel()
            await asyncio.wait([begun])
            await trace.end()
            await until(lambda: hosts[0].traces[0].detached, 5)

    asyncio.run(run())


def test_a_hub_that_is_started_again_costs_no_story(servers: TwoServers) -> None:
    async def run() -> None:
        async with fleet(servers) as (hosts, asker), traced(asker) as trace:
            hosts[0].feed.put(1, link=100)
            assert len(await chains(trace, 1)) == 1
            servers.hub.kill()
            hosts[0].feed.put(2, link=100)
            hosts[1].feed.put(2, link=100)
            await asyncio.sleep(2)
            servers.hub.start()
            # the hub takes its time until it asks the leaf again
            await until(lambda: [host.stories for host in trace.hosts] == [3, 2], 120)
            await until(lambda: not any(host.problem for host in trace.hosts), 90)
            assert not trace.problem
            assert not any("never" in one for one in trace.sentences())

    asyncio.run(run())


# --- the command ------------------------------------------------------------------------------


@asynccontextmanager
async def tracing(
    servers: TwoServers, directory: Path, *words: str, hosts: str = "web1,web2"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, once it traces."""
    settings = directory / "hub.yaml"
    settings.write_text(f"url: {servers.hub.url}\nnkey: {servers.asker.seed}\n")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ipttctl", "trace", "--hosts", hosts, "--wait", "5"),
        *("--hub", str(settings), *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert command.stderr
        assert await command.stderr.readline() == b"tracing on web1, web2\n"
        yield command
    finally:
        if command.returncode is None:
            command.kill()
        await command.wait()


def test_equal_chains_are_printed_once_with_their_number(
    servers: TwoServers, tmp_path: Path
) -> None:
    async def run() -> None:
        async with (
            fleet(servers) as (hosts, _),
            tracing(servers, tmp_path, "--summary", "-o", "json") as command,
        ):
            hosts[0].feed.put(3, link=100)
            hosts[1].feed.put(2, link=100)
            await asyncio.sleep(1)
            command.send_signal(signal.SIGINT)
            out, err = await command.communicate()
            assert command.returncode == 0
            found = [json.loads(line) for line in out.splitlines()]
            assert [one["count"] for one in found] == [2, 1]
            assert [len(one["example"]["stories"]) for one in found] == [2, 1]
            assert err.decode().splitlines()[0] == "3 packets told, by 5 stories"

    asyncio.run(run())


def test_a_second_signal_does_not_wait_for_hosts_that_are_silent(
    servers: TwoServers, tmp_path: Path
) -> None:
    async def run() -> None:
        async with fleet(servers), tracing(servers, tmp_path) as command:
            servers.leaf.freeze()
            try:
                begun = time.monotonic()
                command.send_signal(signal.SIGINT)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(command.wait(), 0.5)
                command.send_signal(signal.SIGINT)
                _, err = await command.communicate()
                assert time.monotonic() - begun < 8
            finally:
                servers.leaf.thaw()
            assert command.returncode == 0
            assert b"0 packets told" in err

    asyncio.run(run())


@pytest.mark.parametrize("drops", [False, True])
def test_hosts_are_to_wait_for_drops_if_these_are_asked_for(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch, drops: bool
) -> None:
    """An agent that does not know the member refuses it, so others are not asked for more."""
    asked = HostsAsked(
        selector="web1,web2",
        hub=None,
        wait=None,
        expression="",
        both_ways=False,
        drops=drops,
        summary=False,
        count=None,
        stop_after=0,
        output=Output.TEXT,
    )
    sent: list[dict[str, Any]] = []
    ask = Asker.ask

    async def noting(asker: Asker, host: str, verb: str, *args: Any) -> dict[str, Any]:
        if verb == "trace":
            sent.append(args[0])
        return await ask(asker, host, verb, *args)

    monkeypatch.setattr(Asker, "ask", noting)

    async def run() -> None:
        async with fleet(servers) as (hosts, asker):
            await hosts_run.run_on_hosts(asker, asked, Selector.parse(asked.selector))
            for host in hosts:
                [(verb, order)] = host.done
                assert (verb, order.drops, order.await_drops) == ("trace", False, drops)

    asyncio.run(run())
    assert ["await_drops" in one for one in sent] == [drops] * 2


def test_hosts_trace_on_while_nobody_reads_the_output(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hosts_trace, "LEASE", 2.0)
    read, paused = threading.Event(), threading.Event()

    def lines(_: object) -> None:
        paused.set()
        assert read.wait(30)

    monkeypatch.setattr(hosts_run, "lines", lines)
    asked = HostsAsked(
        selector="web1,web2",
        hub=None,
        wait=None,
        expression="",
        both_ways=False,
        drops=False,
        summary=False,
        count=1,
        stop_after=None,
        output=Output.TEXT,
    )

    chosen = Selector.parse(asked.selector)

    async def run() -> None:
        async with fleet(servers) as (hosts, asker):
            command = asyncio.create_task(hosts_run.run_on_hosts(asker, asked, chosen))
            await until(lambda: all(host.traces for host in hosts))
            while not paused.is_set():
                hosts[0].feed.put(1, link=100)
                await asyncio.sleep(0.2)
            await asyncio.sleep(4)
            assert not any(one.detached for host in hosts for one in host.traces)
            hosts[0].traces[0].untold = Untold(left_out=3)
            read.set()
            await command
            err = capsys.readouterr().err
            assert "web1: 3 packets left out by its governor" in err
            # behind the last packet that is wanted they are waited for all the same
            assert "never came" not in err
            assert all(one.detached for host in hosts for one in host.traces)

    try:
        asyncio.run(run())
    finally:
        read.set()


def test_output_that_nobody_reads_any_more_ends_it_everywhere(
    servers: TwoServers, tmp_path: Path
) -> None:
    async def run() -> None:
        async with fleet(servers) as (hosts, _), tracing(servers, tmp_path) as command:
            assert command.stdout
            command.stdout._transport.close()  # type: ignore[attr-defined]  # the pipe's own end
            hosts[0].feed.put(1, link=100)
            assert await asyncio.wait_for(command.wait(), 30) == 0
            await until(lambda: all(one.detached for host in hosts for one in host.traces))

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
            # the story that has no other end may come first
            chains.sort(key=lambda chain: -len(chain["stories"]))
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
