# SPDX-License-Identifier: GPL-2.0
"""Docker, through iptables-nft."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest

from tests.kernel.support.both_traces import fetch, trying, watched
from tests.kernel.support.box import PATIENCE, Box
from tests.kernel.support.cli import Running, running
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, Network
from tests.kernel.tools.containers import PORT, container
from tests.kernel.tools.packets import TOOLS

#: the first address that Docker gives
CONTAINER = "172.17.0.2"


Story = dict[str, Any]


@pytest.fixture
def inside(net: Network, router: Box) -> Iterator[Namespace]:
    """A container with a published port, by its network namespace."""
    # where forwarding was off, it switches that on, and has the policy drop the rest
    net.router.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    # without its proxy a container reaches its own published port by NAT
    options = ("--storage-driver=vfs", "--userland-proxy=false")
    router.start("dockerd", *options, ready=("test", "-S", "/run/docker.sock"))
    with container(router, "docker") as made:
        yield made


def test_a_published_port_is_named(net: Network, router: Box, inside: Namespace) -> None:
    published, hairpin, other = packets = TOOLS["Docker"]
    with watched(router, net.left, net.router_address) as watch:
        ports = watch.sends(
            trying(net.left, net.router_address, PORT, published),
            trying(inside, net.router_address, PORT, hairpin),
            trying(net.left, CONTAINER, 81, other),
        )
        watch.confirm(ports, packets)


def test_a_connection_is_told_from_outside_to_the_container_and_back(
    net: Network, inside: Namespace
) -> None:
    wanted = f"tcp dst port {PORT} and src host {net.left_address}"
    with running("trace", "--both-ways", "-o", "json", wanted) as trace:
        trace.wait_for_text("tracing: links")
        # neither its rules' texts nor its devices' peers are known when they are new
        ports = iter(range(5001, 5100))
        wait_for(lambda: is_whole(begun(trace, net, next(ports))), PATIENCE, "texts and peers")
        port = next(ports)
        there, back = begun(trace, net, port), answered(trace, port)
    texts = [(one["owner_about"], one["rule"]) for one in rules(there, "docker")]
    assert any(about == f"published port {PORT}" for about, _ in texts), texts
    assert all(text for _, text in texts)
    # one story from the client to the container's socket
    assert there["sender"]["comm"].startswith("python")
    assert there["end"]["kind"] == "delivered"
    taken = there["end"]["headers"]
    assert (taken["destination"], taken["destination_port"]) == (CONTAINER, 80)
    assert [one["comm"] for one in there["end"]["socket"]["holders"]] == ["busybox"]
    assert namespaces(there) == [net.left.inode, net.router.inode, inside.inode]
    # the device that sent it there names the container at its other end
    peer = last_peer(there)
    assert (peer["netns"], peer["container"]["engine"]) == (inside.inode, "docker")
    # the answer is the container's at first, and the published port's at its end
    assert (back["headers"]["source"], back["headers"]["source_port"]) == (CONTAINER, 80)
    assert back["end"]["kind"] == "delivered"
    taken = back["end"]["headers"]
    assert (taken["source"], taken["source_port"]) == (net.router_address, PORT)
    assert namespaces(back)[-2:] == [net.router.inode, net.left.inode]


def begun(trace: Running, net: Network, source_port: int) -> Story:
    """Fetch the page; the story of the connection's first packet."""
    net.left.call(fetch, net.router_address, PORT, source_port)
    return the_one(trace, lambda one: one["headers"]["source_port"] == source_port, ["SYN"])


def answered(trace: Running, port: int) -> Story:
    """The story of the first answer to a source port."""
    return the_one(
        trace, lambda one: one["end"]["headers"]["destination_port"] == port, ["ACK", "SYN"]
    )


def the_one(trace: Running, chosen: Callable[[Story], bool], flags: list[str]) -> Story:
    """The last story that was chosen and has these TCP flags, once there is one."""

    def found() -> list[Story]:
        return [
            one
            for one in trace.records()
            if one["type"] == "story" and one["headers"]["tcp_flags"] == flags and chosen(one)
        ]

    wait_for(found, PATIENCE, f"the story of {' '.join(flags)}")
    return found()[-1]


def rules(story: Story, owner: str) -> list[dict[str, Any]]:
    """The rules of an owner that a packet met."""
    functions = [f for one in story["steps"] if one["step"] == "hook" for f in one["functions"]]
    met = [rule for f in functions for one in f["consulted"] for rule in one["rules"]]
    return [rule for rule in met if rule["owner"] == owner]


def last_peer(story: Story) -> Any:
    """The other end of the last device that sent a packet, if it is known."""
    return [one["peer"] for one in story["steps"] if one["step"] == "sent"][-1]


def is_whole(story: Story) -> bool:
    """Whether a story has what is looked up when its packet comes."""
    return bool(rules(story, "docker") and last_peer(story))


def namespaces(story: Story) -> list[int]:
    """The network namespaces of a story's hooks and devices, in their order."""
    passed = [one["netns"] for one in story["steps"] if "netns" in one]
    return [one for one, _ in groupby(passed)]
