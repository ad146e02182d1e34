# SPDX-License-Identifier: GPL-2.0
"""`ipttctl trace --hosts`: three namespaces that play hosts, each with an agent, a leaf and a hub.

left ---- router (DNAT 8080 > 80, MASQUERADE) ---- right
agent     agent                                    agent
  +---------+---- leaf ---- hub ---- trace           |
            +----------------------------------------+
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.support.cli import Running, running
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Network, network, send_udp
from tests.unit.ctl.fleet.fleet_host import TwoServers, keep_leaf, two_servers

BEGINNING = 900
"""Seconds for a verification of the walks and compilations, which the first trace needs."""

HOSTS = ("left", "router", "right")
FILTER = "udp port 8080 or udp port 80 or udp port 99"


@pytest.fixture
def place() -> Iterator[Network]:
    """The three hosts; datagrams to port 99 are lost before the right one looks at them."""
    with network("h") as made:
        made.left.iptables("-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT")
        forward = ("-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", "8080")
        made.router.iptables(*forward, "-j", "DNAT", "--to", f"{made.right_address}:80")
        made.router.iptables("-t", "nat", "-A", "POSTROUTING", "-o", "r2", "-j", "MASQUERADE")
        made.right.iptables("-A", "INPUT", "-p", "udp", "--dport", "80", "-j", "DROP")
        made.right.run("tc", "qdisc", "add", "dev", "eth0", "ingress")
        lost = "protocol ip parent ffff: u32 match ip dport 99 0xffff action drop"
        made.right.run("tc", "filter", "add", "dev", "eth0", *lost.split())
        yield made


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[TwoServers]:
    with two_servers(tmp_path) as made:
        yield made


@pytest.fixture
def agents(tmp_path: Path, servers: TwoServers, place: Network) -> Iterator[None]:
    """An agent for each namespace, all of which the hub hears."""
    namespaces = dict(zip(HOSTS, (place.left, place.router, place.right), strict=True))
    with ExitStack() as stack:
        started: list[Running] = []
        for host, one in namespaces.items():
            file = tmp_path / f"{host}.yaml"
            file.write_text(
                f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\n"
                f"host: {host}\nnetns: {one.name}\nlabels: {{role: node}}\nheartbeat: 1s\n"
                "publish: {events: none}\nstream: {bytes: 4194304}\n"
            )
            started.append(stack.enter_context(running("agent", "--config", str(file))))
        for agent in started:
            wait_for(partial(says, agent, "connected to"), 120)
        asyncio.run(keep_leaf(servers, HOSTS))
        yield


def says(command: Running, text: str) -> bool:
    """Whether a command that runs has printed something on standard error."""
    assert command.process.poll() is None, command.err()
    return text in command.err()


@pytest.mark.usefixtures("agents")
def test_a_packet_across_three_hosts_is_one_story(
    tmp_path: Path, servers: TwoServers, place: Network
) -> None:
    hub = tmp_path / "hub.yaml"
    hub.write_text(f"url: {servers.hub.url}\nnkey: {servers.asker.seed}\n")
    asked = ("trace", "--hosts", ",".join(HOSTS), "--hub", str(hub), FILTER, "-o", "json")
    with running(*asked) as trace:
        wait_for(partial(says, trace, "tracing on left, right, router"), BEGINNING)
        place.left.call(send_udp, place.router_address, 8080, [b"one"])
        place.left.call(send_udp, place.right_address, 99, [b"lost"])
        wait_for(lambda: len(trace.out().splitlines()) >= 2, 120)
        trace.stop(signal.SIGINT)
    chains = [json.loads(line) for line in trace.out().splitlines()]
    told, lost = sorted(chains, key=lambda chain: -len(chain["stories"]))
    check_told(told)
    assert [one["host"] for one in lost["stories"]] == ["left", "router"]
    assert [(one["story"], one["state"], one["device"]) for one in lost["open"]] == [
        (1, "unseen", "r2")
    ]
    assert lost["answers"][0].startswith("router: left by r2")
    assert lost["answers"][0].endswith("not seen on any traced host")
    assert "2 packets told, by 5 stories" in trace.err()
    assert "3 wires joined, 1 departure not seen elsewhere, 0 ends ambiguous" in trace.err()


def check_told(chain: dict[str, Any]) -> None:
    """Check the chain of the packet that arrives."""
    assert [one["host"] for one in chain["stories"]] == list(HOSTS)
    left, router, right = (one["story"] for one in chain["stories"])
    assert left["end"]["kind"] == router["end"]["kind"] == "left"
    assert right["end"]["kind"] == "dropped_by_rule"
    assert router["headers"]["destination_port"] == 8080
    assert right["headers"]["destination_port"] == 80
    assert right["headers"]["source"] == router["end"]["headers"]["source"] == "10.77.2.1"
    wires = [(one["out_device"], one["in_device"]) for one in chain["wires"]]
    assert wires == [("eth0", "r1"), ("r2", "eth0")]
    assert chain["open"] == []
    assert len(chain["answers"]) == 1
    assert chain["answers"][0].startswith("right: dropped by filter INPUT 1")
