# SPDX-License-Identifier: GPL-2.0
"""Metrics of an agent, read over HTTP, and the dashboard that shows them."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ipttctl.fleet.agent import Agent
from ipttctl.fleet.config import MetricsOptions
from ipttctl.fleet.host import Told
from ipttctl.fleet.metrics import OTHER, AgentMetrics, rule_of
from ipttctl.show.story_json import StoryJson
from ipttctl.stories.model import Story
from ipttctl.system.service_manager import ServiceManager
from ipttproto import Kind, Verdict
from tests.unit.ctl.fleet.support import (
    FakeHost,
    Key,
    Server,
    agent_config,
    ask,
    client,
    running_agent,
    until,
)
from tests.unit.ctl.stories.packets import INPUT, Traveller, in_parts, one_story

DASHBOARD = Path(__file__).parents[4] / "docs/examples/fleet/grafana.json"
METRICS = "metrics: {port: 0}\npublish: {events: all, linger: 10ms}\n"


def by_rule(number: int, chain: str = "input") -> Traveller:
    """A packet that a rule drops."""
    packet = Traveller(number)
    packet.received("eth0")
    packet.now(pf=2, hook=INPUT)
    packet.nft(Kind.CHAIN_RULE, chain, 2, Verdict.DROP)
    packet.nft(Kind.CHAIN_EXIT, chain, verdict=Verdict.DROP)
    packet.function("nft_do_chain", 1, verdict=Verdict.DROP)
    packet.leave(Verdict.DROP)
    return packet


def by_kernel(number: int) -> Traveller:
    """A packet that the kernel drops."""
    packet = Traveller(number)
    packet.received("eth0")
    packet.dropped(3, "udp_queue_rcv")
    return packet


def told(story: Story) -> Told:
    [line] = StoryJson().lines([story])
    return Told(story, line)


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_drop_is_counted_for_its_rule_or_function() -> None:
    rule, kernel = (json.loads(told(one_story(made(1))).line) for made in (by_rule, by_kernel))
    assert rule_of(rule["end"]) == ("inet fw input", "2")
    assert rule_of(kernel["end"]) == ("", "udp_queue_rcv")


def test_parts_and_copies_that_are_dropped_are_counted() -> None:
    metrics = AgentMetrics(MetricsOptions(port=0), "web1", lambda: iter(()))
    metrics.told([told(in_parts())])
    found = samples(generate_latest(metrics.registry).decode())
    counts = {
        dict(labels)["rule"]: value
        for (name, labels), value in found.items()
        if name == "ipttctl_drops_total"
    }
    assert counts == {"__dev_queue_xmit": 1, "tcf_action_exec": 1}
    stories = [value for (name, _), value in found.items() if name == "ipttctl_stories_total"]
    assert stories == [1]


def test_only_so_many_rules_have_a_counter() -> None:
    metrics = AgentMetrics(MetricsOptions(port=0, rules=3), "web1", lambda: iter(()))
    metrics.told([told(one_story(by_rule(n, f"chain{n}"))) for n in range(1, 11)])
    metrics.told([told(one_story(by_rule(11, "chain1")))])
    metrics.start()
    try:
        found = samples(fetch(metrics.address[1]))
    finally:
        metrics.stop()
    drops = {
        dict(labels)["chain"]: value
        for (name, labels), value in found.items()
        if name == "ipttctl_drops_total"
    }
    assert drops == {
        "inet fw chain1": 2,
        "inet fw chain2": 1,
        "inet fw chain3": 1,
        OTHER: 7,
    }
    ends = (
        "ipttctl_stories_total",
        (("end", "dropped_by_rule"), ("host", "web1"), ("watch", "")),
    )
    assert found[ends] == 11


def test_names_that_are_no_text_or_look_like_metrics_stay_labels() -> None:
    odd = 'x"} 1\nipttctl_evil{a="\\'
    metrics = AgentMetrics(MetricsOptions(port=0), "web1", lambda: iter(()))
    story = one_story(by_rule(1))
    rules = ({"table": "fw", "chain": chain, "rulenum": 1} for chain in ("\udcff", odd))
    ends = ({"dropped": True, "rule": rule} for rule in rules)
    metrics.told([Told(story, json.dumps({"end": end, "steps": []})) for end in ends])
    metrics.start()
    try:
        text = fetch(metrics.address[1])
    finally:
        metrics.stop()
    drops = {
        dict(labels)["chain"]: value
        for (name, labels), value in samples(text).items()
        if name == "ipttctl_drops_total"
    }
    assert drops == {"fw \\udcff": 1, f"fw {odd}": 1}


def test_an_agent_whose_port_is_taken_runs_and_serves_once_it_is_free(
    leaf: Server, agent_key: Key, host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any local user can take it while the agent does not run."""
    monkeypatch.setattr("ipttctl.fleet.agent._METRICS_AGAIN", 0.1)
    said: list[str] = []

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            config = agent_config(leaf, agent_key, f"metrics: {{port: {port}}}")
            agent = Agent(config, host, ServiceManager({}), said.append)
            running = asyncio.create_task(agent.run())
            await until(lambda: agent.connection.client or running.done())
            await asyncio.sleep(0.3)
        try:
            await until(lambda: any("metrics are on" in one for one in said) or running.done())
            assert "ipttctl_leaf_up" in await asyncio.to_thread(fetch, port)
        finally:
            agent.stop()
            await running
        assert [one for one in said if "metrics" in one] == [
            f"no metrics on 127.0.0.1, port {port}: Address already in use",
            f"metrics are on 127.0.0.1, port {port}",
        ]

    asyncio.run(run())


def test_an_agent_serves_them_on_loopback_alone(
    leaf: Server, agent_key: Key, reader_key: Key
) -> None:
    host = FakeHost(story=lambda number: told(one_story(by_rule(number + 1))))

    async def run() -> str:
        config = agent_config(leaf, agent_key, METRICS)
        async with running_agent(config, host) as agent, client(leaf, reader_key) as asker:
            await until(lambda: agent.connection.client)
            assert (await ask(asker, verb="trace", lease=60))["ok"]
            assert not (await ask(asker, verb="swap", name="x", link=LINK))["ok"]
            host.feed.put(3, link=100)
            host.feed.put(2, lost=4)
            await until(lambda: agent.publisher.items == 8)
            assert agent.metrics is not None
            await until(lambda: agent.metrics and agent.metrics.address)
            assert agent.metrics.address[0] == "127.0.0.1"
            return await asyncio.to_thread(fetch, agent.metrics.address[1])

    text = asyncio.run(run())
    found = samples(text)
    own = ("host", "web1")
    lost = (("cause", "ring"), own, ("kind", "events"))
    assert found["ipttctl_lost_total", lost] == 4
    assert found["ipttctl_events_read_total", (own,)] == 5
    assert found["ipttctl_leaf_up", (own,)] == 1
    assert found["ipttctl_traces", (own,)] == 1
    assert 0 <= found["ipttctl_lag_seconds", (own,)] < 60
    for_others = ("watch", "")
    assert found["ipttctl_stories_total", (("end", "dropped_by_rule"), own, for_others)] == 3
    commands = {
        labels: n for (name, labels), n in found.items() if name == "ipttctl_commands_total"
    }
    assert commands[own, ("outcome", "done"), ("verb", "trace")] == 1
    assert commands[own, ("outcome", "refused"), ("verb", "swap")] == 1


def test_connections_that_say_nothing_take_few_threads() -> None:
    """Any local user can open as many as there are descriptors."""
    metrics = AgentMetrics(MetricsOptions(port=0), "web1", lambda: iter(()))
    metrics.start()
    before = threading.active_count()
    with ExitStack() as stack:
        stack.callback(metrics.stop)
        silent = [
            stack.enter_context(socket.create_connection(metrics.address, 30)) for _ in range(60)
        ]
        # those behind the first ones are closed, so that there is an end to read
        assert [one.recv(1) for one in silent[8:]] == [b""] * 52
        assert threading.active_count() - before <= 8
        for one in silent:
            one.close()
        # and when these are gone, it serves again
        end = time.monotonic() + 30
        while threading.active_count() > before:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert "ipttctl" in fetch(metrics.address[1])


LINK = {
    "hook": "nf:inet4/input",
    "programs": {"packet": {"digest": f"sha256:{0:064}", "function": "limit"}},
}


def names_in(text: str) -> set[str]:
    """The names of our metrics that a text has."""
    return set(re.findall(r"\bipttctl_[a-z_]+", text))


def test_the_dashboard_shows_metrics_that_there_are(
    leaf: Server, agent_key: Key, host: FakeHost
) -> None:
    async def run() -> str:
        config = agent_config(leaf, agent_key, METRICS)
        async with running_agent(config, host) as agent:
            assert agent.metrics is not None
            metrics = agent.metrics
            await until(lambda: metrics.address)
            return await asyncio.to_thread(fetch, agent.metrics.address[1])

    types = set(re.findall(r"^# TYPE (\S+)", asyncio.run(run()), re.MULTILINE))
    served = {name for name in types if not name.endswith("_created")}
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    shown: set[str] = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            shown |= names_in(target["expr"])
    assert shown <= served, "the dashboard shows what there is not"
    assert served <= shown, "and all that there is"
    page = (DASHBOARD.parents[2] / "fleet.md").read_text()
    assert served == {name for name in names_in(page) if not name.endswith("_")}
