# SPDX-License-Identifier: GPL-2.0
"""Ends of packets between three namespaces, compared with what others say of them.

    left                 router                  right
10.77.1.2 --- veth --- 10.77.1.1
                       10.77.2.1 --- veth --- 10.77.2.2

Devices that have seen the packet, counters of rules, devices, sockets and queues, and ICMP errors.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final, TypeAlias

import pytest

from ipttctl.link.controller import Controller
from ipttctl.stories.model import EndKind
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.journeys import reason, told
from tests.kernel.support.kernel import run, wait_for
from tests.kernel.support.network import Namespace, Network, network
from tests.kernel.support.nfqueue import ACCEPT, DROP, queue
from tests.kernel.support.topologies import (
    Watched,
    end_text,
    listener,
    nft,
    nft_counts,
    send,
    statistic,
    text,
    watching,
)

PORT: Final = 10
ROUTER: Final = """
table ip seen {
    chain pre { type filter hook prerouting priority 10; counter; }
    chain forward { type filter hook forward priority 10; counter; }
    chain post { type filter hook postrouting priority 10; counter; }
}
"""
COME_IN: Final = ["to eth0", "from r1", "prerouting"]
LEFT_BY: Final = [*COME_IN, "forward", "postrouting"]

Here: TypeAlias = Callable[[], AbstractContextManager[Watched]]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network("e") as made:
        nft(made.router, ROUTER)
        # the neighbours are known from here on
        made.left.ping("10.77.2.2")
        yield made


@pytest.fixture
def here(net: Network, controller: Controller, make_program: MakeProgram) -> Here:
    """Watches the three namespaces."""
    return lambda: watching(controller, make_program, net.left, net.router, net.right)


def way(watched: Watched) -> list[str]:
    """The words of the only story from the sender's device on, without the end."""
    words = told(watched.one())
    return words[words.index("to eth0") : -1]


def send_raw(source: str, address: str) -> None:
    """Send a datagram with a source address that is not ours."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
        datagram = struct.pack("!HHHH", 4000, PORT, 9, 0) + b"x"
        addresses = socket.inet_aton(source) + socket.inet_aton(address)
        length = 20 + len(datagram)
        header = struct.pack("!BBHHHBBH", 0x45, 0, length, 7, 0, 64, socket.IPPROTO_UDP, 0)
        sender.sendto(header + addresses + datagram, (address, 0))


# --- routing --------------------------------------------------------------------------------------


def test_the_reverse_path_filter(net: Network, here: Here) -> None:
    keys = ("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.r1.rp_filter")
    before = statistic(net.router, "TcpExtIPReversePathFilter")
    net.router.run("sysctl", "-qw", *(f"{key}=1" for key in keys))
    with here() as watched:
        net.left.call(send_raw, "10.55.0.1", "10.77.2.2")
    net.router.run("sysctl", "-qw", *(f"{key}=0" for key in keys))
    assert statistic(net.router, "TcpExtIPReversePathFilter") == before + 1
    assert "reverse path filter" in end_text(watched.one())
    assert way(watched) == COME_IN
    watched.check_devices()


def test_a_martian(net: Network, here: Here) -> None:
    """The source is an address of the router."""
    with here() as watched:
        net.left.call(send_raw, "10.77.2.1", "10.77.2.2")
    assert watched.one().end.kind is EndKind.KERNEL
    assert "martian" in end_text(watched.one())
    assert way(watched) == COME_IN
    watched.check_devices()


def test_no_route(net: Network, here: Here) -> None:
    before = statistic(net.router, "IpExtInNoRoutes")
    with here() as watched:
        send(net.left, "10.99.9.9", PORT)
    assert statistic(net.router, "IpExtInNoRoutes") == before + 1
    assert reason(watched.one())[1] == "ip_error"
    assert way(watched) == COME_IN
    # the router says so
    assert len(watched.errors) == 1
    watched.check_devices()


def test_a_time_to_live_that_ends(net: Network, here: Here) -> None:
    with here() as watched:
        net.left.call(send_with_ttl, "10.77.2.2", 1)
    assert end_text(watched.one()).startswith("dropped: time to live exceeded")
    assert way(watched) == COME_IN
    [error] = watched.errors
    assert "time-exceeded" in text(error)[0]
    watched.check_devices()


def send_with_ttl(address: str, ttl: int) -> None:
    """Send a datagram with a time to live."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sender.sendto(b"x", (address, PORT))


def test_a_neighbour_that_does_not_answer(net: Network, here: Here) -> None:
    with here() as watched:
        send(net.left, "10.77.2.77", PORT)
        wait_for(
            lambda: "10.77.2.77 FAILED" in net.router.run("ip", "neigh", "show", "dev", "r2"),
            what="the neighbour is given up",
        )
    assert end_text(watched.one()).startswith("dropped: neighbour does not answer")
    assert way(watched) == LEFT_BY
    watched.check_devices()


# --- devices and sockets --------------------------------------------------------------------------


def test_a_queueing_discipline(net: Network, here: Here) -> None:
    ours = ("tc", "-n", net.router.name, "qdisc")
    run(*ours, "add", "dev", "r2", "root", "netem", "loss", "100%")
    with here() as watched:
        send(net.left, "10.77.2.2", PORT)
    counted = run("tc", "-n", net.router.name, "-s", "qdisc", "show", "dev", "r2")
    run(*ours, "delete", "dev", "r2", "root")
    assert "(dropped 1," in counted
    assert end_text(watched.one()).startswith("dropped: queueing discipline (QDISC_DROP")
    assert way(watched) == LEFT_BY
    watched.check_devices()


def test_traffic_control(net: Network, here: Here) -> None:
    tc = ("tc", "-n", net.router.name)
    run(*tc, "qdisc", "add", "dev", "r2", "clsact")
    drop = ("protocol", "ip", "matchall", "action", "drop")
    run(*tc, "filter", "add", "dev", "r2", "egress", *drop)
    with here() as watched:
        send(net.left, "10.77.2.2", PORT)
    run(*tc, "qdisc", "delete", "dev", "r2", "clsact")
    assert "TC_EGRESS" in end_text(watched.one())
    assert way(watched) == LEFT_BY
    watched.check_devices()


def test_a_socket_without_room(net: Network, here: Here) -> None:
    def small(one: socket.socket) -> None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)

    before = statistic(net.right, "UdpRcvbufErrors")
    with listener(net.right, PORT, prepare=small) as receiver, here() as watched:
        send(net.left, "10.77.2.2", PORT, 1000, count=8)
        receiver.setblocking(False)
        taken = 0
        while True:
            try:
                receiver.recv(2000)
            except BlockingIOError:
                break
            taken += 1
    refused = statistic(net.right, "UdpRcvbufErrors") - before
    ends = [end_text(story) for story in watched.stories]
    full = "the socket's buffer is full (SOCKET_RCVBUFF"
    assert 0 < taken < 8
    assert len([end for end in ends if end.startswith("delivered to socket")]) == taken
    assert len([end for end in ends if full in end]) == refused == 8 - taken
    watched.check_devices()


def test_what_nobody_reads(net: Network, here: Here) -> None:
    """A socket takes it, and is closed."""
    with here() as watched, listener(net.right, PORT):
        send(net.left, "10.77.2.2", PORT)
        wait_for(lambda: pending(net.right), what="the socket has it")
    story = watched.one()
    assert "nobody had read it when the socket was closed" in end_text(story)
    watched.check_devices()


def pending(where: Namespace) -> bool:
    """Whether a socket on the port has something to read."""
    line = where.run("ss", "-nuaH", f"sport = :{PORT}").split()
    return line[1] != "0"


# --- queues ---------------------------------------------------------------------------------------

QUEUED: Final = [*COME_IN, "forward"]


@pytest.fixture
def queueing(net: Network) -> Iterator[None]:
    nft(
        net.router,
        "table ip t { chain f { type filter hook forward priority 0;"
        "udp dport 10 counter queue num 5; udp dport 11 counter queue num 6 bypass; }; }",
    )
    yield
    net.router.run("nft", "delete", "table", "ip", "t")


@pytest.mark.usefixtures("queueing")
def test_a_queue_and_back(net: Network, here: Here) -> None:
    with queue(net.router, 5) as program, listener(net.right, PORT) as receiver:
        with here() as watched:
            send(net.left, "10.77.2.2", PORT)
            program.decide(ACCEPT, mark=0x4D)
            receiver.recv(1)
        counted = nft_counts(net.router, "f")
        rest = nft_counts(net.router, "forward")
    story, lines = watched.one(), text(watched.one())
    assert counted[0] == 1
    # the rest of the hook, which another loop of the kernel's runs
    assert rest[0] > 0
    assert told(story)[-2:] == ["socket", "delivered"]
    unseen = lines.index("FORWARD behind queue 5: rules are seen, other functions are not")
    # it was seen again by a chain behind the queue
    assert unseen < lines.index("FORWARD in queue 5 or on its way here: mark 0x0 > 0x4d")
    assert lines.count("route to r2") == 1
    watched.check_devices()


@pytest.mark.usefixtures("queueing")
def test_a_queue_whose_program_drops(net: Network, here: Here) -> None:
    with queue(net.router, 5) as program, here() as watched:
        send(net.left, "10.77.2.2", PORT)
        program.decide(DROP)
    assert end_text(watched.one()).startswith("dropped in queue 5: by the queue's program, ")
    assert not [line for line in text(watched.one()) if "behind queue" in line]
    assert way(watched) == QUEUED
    watched.check_devices()


@pytest.mark.usefixtures("queueing")
def test_a_queue_that_keeps_a_packet(net: Network, here: Here) -> None:
    with queue(net.router, 5) as program:
        with here() as watched:
            send(net.left, "10.77.2.2", PORT)
        assert end_text(watched.one()).startswith(
            "went into queue 5, and nothing was heard of it since,"
        )
        # it was there
        program.decide(DROP)
    watched.check_devices()


@pytest.mark.usefixtures("queueing")
def test_a_queue_with_nobody_behind_it(net: Network, here: Here) -> None:
    with listener(net.right, 11) as receiver, here() as watched:
        send(net.left, "10.77.2.2", PORT)
        send(net.left, "10.77.2.2", 11)
        receiver.recv(1)
    dropped, bypassed = watched.stories
    assert end_text(dropped).startswith("dropped in queue 5: nobody listens there, ")
    assert told(bypassed)[-2:] == ["socket", "delivered"]
    watched.check_devices()
