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
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.support.cli import Running, running
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, Network, network, send_udp
from tests.unit.ctl.fleet.fleet_host import TwoServers, keep_leaf, two_servers

BEGINNING = 900
"""Seconds for a verification of the walks and compilations, which the first trace needs."""

HOSTS = ("left", "router", "right")
FILTER = "udp port 8080 or udp port 80 or udp port 99 or udp port 7777"

LEFT_INSIDE, RIGHT_INSIDE = "10.79.0.1", "10.79.0.2"
"""Addresses of the ends of a tunnel from left to right: port 7777 is there."""


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
        tunnel(made.left, LEFT_INSIDE, made.right_address)
        tunnel(made.right, RIGHT_INSIDE, made.left_address)
        yield made


def tunnel(end: Namespace, inside: str, far: str) -> None:
    """Make an end of a VXLAN to another address."""
    link = f"link add vx type vxlan id 7 remote {far} dstport 4789 nolearning dev eth0"
    end.run("ip", *link.split())
    end.run("ip", "address", "add", f"{inside}/24", "dev", "vx")
    end.run("ip", "link", "set", "vx", "up")


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
                f"host: {host}\nnetns: {one.name}\nlabels: {{role: node}}\n"
                "publish: {events: none}\nstream: {bytes: 4194304}\n"
            )
            started.append(stack.enter_context(running("agent", "--config", str(file))))
        for agent in started:
            until_says(agent, "connected to", 600)
        asyncio.run(keep_leaf(servers, HOSTS))
        yield


def until_says(command: Running, text: str, seconds: float) -> None:
    """Wait until a command that runs has printed something on standard error."""

    def says() -> bool:
        assert command.process.poll() is None, command.err()
        return text in command.err()

    try:
        wait_for(says, seconds)
    except AssertionError as error:
        raise AssertionError(f"no '{text}': {command.err()}") from error


@pytest.mark.usefixtures("agents")
def test_a_packet_across_three_hosts_is_one_story(
    tmp_path: Path, servers: TwoServers, place: Network
) -> None:
    hub = tmp_path / "hub.yaml"
    hub.write_text(f"url: {servers.hub.url}\nnkey: {servers.asker.seed}\n")
    asked = ("trace", "--hosts", ",".join(HOSTS), "--hub", str(hub), FILTER, "-o", "json")
    with running(*asked) as trace:
        until_says(trace, "tracing on left, right, router", BEGINNING)
        place.left.call(send_udp, place.router_address, 8080, [b"one"])
        place.left.call(send_udp, place.right_address, 99, [b"lost"])
        place.left.call(send_udp, RIGHT_INSIDE, 7777, [b"inside"])
        wait_for(lambda: len(trace.out().splitlines()) >= 3, 300)
        trace.stop(signal.SIGINT)
    chains = [json.loads(line) for line in trace.out().splitlines()]
    ports = [chain["stories"][0]["story"]["headers"]["destination_port"] for chain in chains]
    assert sorted(ports) == [99, 7777, 8080]
    told, lost, inside = (chains[ports.index(port)] for port in (8080, 99, 7777))
    check_told(told)
    check_inside(inside)
    assert [one["host"] for one in lost["stories"]] == ["left", "router"]
    assert [(one["story"], one["state"], one["device"]) for one in lost["open"]] == [
        (1, "unseen", "r2")
    ]
    assert lost["answers"][0].startswith("router: left by r2")
    assert lost["answers"][0].endswith("not seen on any other traced host")
    assert "3 packets told, by 7 stories" in trace.err()
    assert "4 wires joined, 1 departure not seen elsewhere, 0 ends ambiguous" in trace.err()


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


def check_inside(chain: dict[str, Any]) -> None:
    """Check the chain of the packet in the tunnel, of which the router sees the outside only."""
    assert [one["host"] for one in chain["stories"]] == ["left", "right"]
    left, right = (one["story"] for one in chain["stories"])
    assert "encapsulated" in [step["step"] for step in left["steps"]]
    assert left["end"]["headers"]["destination_port"] == 4789
    assert right["headers"]["destination"] == RIGHT_INSIDE
    assert [(one["in_device"]) for one in chain["wires"]] == ["vx"]
    assert chain["open"] == []
