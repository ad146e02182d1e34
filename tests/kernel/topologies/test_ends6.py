# SPDX-License-Identifier: GPL-2.0
"""Ends of packets of IPv6 between three namespaces, compared with the kernel's counters."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeAlias

import pytest

from ipttctl.link.controller import Controller
from ipttctl.stories.model import EndKind, Story
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.journeys import Journey, following, told
from tests.kernel.support.network import Namespace, Network
from tests.kernel.support.three_hosts import ARRIVED, COUNTING, FORWARDED, PORT, SENT, rules
from tests.kernel.support.topologies import end_text, nft_counts, socket_of, statistic

RIGHT = "fd77:2::2"

Follow: TypeAlias = Callable[..., AbstractContextManager[Journey]]


@pytest.fixture(scope="module")
def hooks(net: Network) -> Iterator[Network]:
    """The three hosts with a chain at every hook of IPv6, whose neighbours are known."""
    with (
        rules(net.left, "seen", COUNTING, "ip6"),
        rules(net.router, "seen", COUNTING, "ip6"),
        rules(net.right, "seen", COUNTING, "ip6"),
    ):
        net.left.ping(RIGHT)
        yield net


@pytest.fixture
def follow(controller: Controller, make_program: MakeProgram) -> Follow:
    def made(expression: str = "ip6 and udp") -> AbstractContextManager[Journey]:
        return following(controller, make_program, expression)

    return made


def send(where: Namespace, address: str, size: int = 1, *, hops: int = 64) -> None:
    """Send a datagram."""
    with socket_of(where, socket.SOCK_DGRAM, socket.AF_INET6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        sender.sendto(b"x" * size, (address, PORT))


def receiver(where: Namespace) -> socket.socket:
    """A socket that takes datagrams."""
    made = socket_of(where, socket.SOCK_DGRAM, socket.AF_INET6)
    made.bind(("", PORT))
    return made


def one(journey: Journey) -> Story:
    """The only story."""
    [story] = journey.stories
    return story


def test_a_datagram_arrives(hooks: Network, follow: Follow) -> None:
    with receiver(hooks.right) as taking:
        with follow() as journey:
            send(hooks.left, RIGHT)
            assert taking.recv(10) == b"x"
        assert told(one(journey)) == [*ARRIVED, "socket", "delivered"]


def test_a_rule_drops(hooks: Network, follow: Follow) -> None:
    chain = f"chain f {{ type filter hook forward priority 0; udp dport {PORT} counter drop; }}"
    with rules(hooks.router, "t", chain, "ip6"):
        with follow() as journey:
            send(hooks.left, RIGHT)
        assert nft_counts(hooks.router, "f") == [1]
    assert told(one(journey)) == [*SENT, "forward", "dropped_by_rule"]
    assert "nft ip6 t f 1" in end_text(one(journey))


def test_a_hop_limit_that_ends(hooks: Network, follow: Follow) -> None:
    with follow() as journey:
        send(hooks.left, RIGHT, hops=1)
    assert end_text(one(journey)).startswith("dropped: hop limit exceeded")
    assert told(one(journey)) == [*SENT, "dropped_by_kernel"]


def test_no_route(hooks: Network, follow: Follow) -> None:
    before = statistic(hooks.router, "Ip6InNoRoutes")
    with follow() as journey:
        send(hooks.left, "fd99::9")
    assert statistic(hooks.router, "Ip6InNoRoutes") == before + 1
    assert "no route" in end_text(one(journey))
    assert one(journey).end.kind is EndKind.KERNEL


def test_nobody_listens(hooks: Network, follow: Follow) -> None:
    before = statistic(hooks.right, "Udp6NoPorts")
    with follow() as journey:
        send(hooks.left, RIGHT)
    assert statistic(hooks.right, "Udp6NoPorts") == before + 1
    assert "no socket" in end_text(one(journey))
    assert told(one(journey)) == [*ARRIVED, "dropped_by_kernel"]


def parts(story: Story) -> list[Story]:
    """A story with all copies and parts."""
    return [story, *(part for branch in story.shown_branches() for part in parts(branch))]


def test_fragments(hooks: Network, follow: Follow) -> None:
    """The sender makes them, and the receiver puts them together."""
    before = statistic(hooks.right, "Ip6ReasmOKs")
    with receiver(hooks.right) as taking, follow("ip6 and (udp or ip6 proto 44)") as journey:
        send(hooks.left, RIGHT, 4000)
        assert len(taking.recv(5000)) == 4000
    assert statistic(hooks.right, "Ip6ReasmOKs") == before + 1
    found = parts(one(journey))
    # three fragments, and the whole
    assert sorted(part.end.kind for part in found) == [EndKind.DELIVERED, *3 * [EndKind.JOINED]]
    # the way of each, from where it was cut
    assert [story for story in found if told(story)[:2] == FORWARDED[2:4]]
