# SPDX-License-Identifier: GPL-2.0
"""Whole connections, and what else the kernel handles itself: none of it is told as a drop."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from itertools import chain

import pytest

from ipttctl.link.controller import Controller
from ipttctl.stories.model import Story
from ipttproto import Kind
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.journeys import following
from tests.kernel.support.kernel import settled, wait_for
from tests.kernel.support.network import Namespace, Network
from tests.kernel.support.three_hosts import COUNTING, rules
from tests.kernel.support.topologies import end_text, socket_of, statistic

PORT = 81
ADDRESSES = {socket.AF_INET: "10.77.2.2", socket.AF_INET6: "fd77:2::2"}


def listening(where: Namespace, family: socket.AddressFamily, backlog: int) -> socket.socket:
    """A listening socket in a namespace."""
    made = socket_of(where, socket.SOCK_STREAM, family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("", PORT))
    made.listen(backlog)
    return made


def drops(stories: list[Story]) -> list[str]:
    """The ends of stories that are drops, but for what was sent once more on a busy machine."""
    ends = [end_text(one) for one in stories if one.end.kind.is_drop]
    return [one for one in ends if "TCP data that is there already" not in one]


def exchange(near: socket.socket, far: socket.socket) -> None:
    """Send something each way."""
    for one, other in ((near, far), (far, near)):
        one.sendall(b"x" * 100)
        assert other.recv(200)


@pytest.mark.parametrize("family", ADDRESSES)
@pytest.mark.parametrize("how", ["client", "server", "half", "both"])
def test_a_connection_that_is_closed_has_no_drops(
    net: Network,
    controller: Controller,
    make_program: MakeProgram,
    family: socket.AddressFamily,
    how: str,
) -> None:
    """Whoever closes first, and though one side goes on to send behind the other's FIN."""
    before = statistic(net.left, "TcpInSegs")
    wanted = f"tcp port {PORT}"
    with ExitStack() as stack:
        # answers are known by what came by a hook
        for where in (net.left, net.right) if family == socket.AF_INET6 else ():
            stack.enter_context(rules(where, "six", COUNTING, "ip6"))
        server = stack.enter_context(listening(net.right, family, 8))
        journey = stack.enter_context(following(controller, make_program, wanted, both_ways=True))
        near = stack.enter_context(socket_of(net.left, socket.SOCK_STREAM, family))
        near.connect((ADDRESSES[family], PORT))
        far = stack.enter_context(server.accept()[0])
        far.settimeout(20)
        exchange(near, far)
        first, second = (far, near) if how == "server" else (near, far)
        if how == "half":
            first.shutdown(socket.SHUT_WR)
            assert not second.recv(1)
            for _ in range(3):
                second.sendall(b"y" * 100)
                assert first.recv(200)
        first.close()
        if how in {"client", "server"}:
            assert not second.recv(1)
        second.close()
        settled(lambda: statistic(net.left, "TcpInSegs"))
    assert not drops(journey.stories)
    # each segment that came in has a story; those with data merge, perhaps
    assert len(journey.stories) >= statistic(net.left, "TcpInSegs") - before >= 4
    # the kernel told of drops
    assert [one for one in journey.events if one.kind == Kind.JOURNEY_DROPPED]


def test_a_connection_that_nobody_accepts_is_refused_by_the_full_queue(
    net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    with ExitStack() as stack:
        stack.enter_context(listening(net.right, socket.AF_INET, 0))
        first = stack.enter_context(socket_of(net.left, socket.SOCK_STREAM))
        first.connect(("10.77.2.2", PORT))
        before = statistic(net.right, "TcpExtListenOverflows")
        journey = stack.enter_context(
            following(controller, make_program, f"tcp dst port {PORT} and tcp[tcpflags] == tcp-syn")
        )
        second = stack.enter_context(socket_of(net.left, socket.SOCK_STREAM))
        second.setblocking(False)
        second.connect_ex(("10.77.2.2", PORT))
        wait_for(lambda: statistic(net.right, "TcpExtListenOverflows") > before)
        second.close()
    words = "too many connections wait for it to accept them"
    ends = [end_text(one) for one in journey.stories]
    assert ends
    assert all(words in one for one in ends), ends
    assert all(one.end.kind.is_drop for one in journey.stories)


def test_what_the_kernel_answers_is_used_up(
    net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """On Linux 6.1 all that ICMPv6 handles is freed as if it was dropped."""
    with following(controller, make_program, "icmp or icmp6", both_ways=True) as journey:
        net.left.run("ip", "-6", "neigh", "flush", "all")
        for address in ADDRESSES.values():
            net.left.ping(address)
    assert not drops(journey.stories)
    ends = set(chain.from_iterable(end_text(one).split(" ", 2)[:2] for one in journey.stories))
    assert "used" in ends
