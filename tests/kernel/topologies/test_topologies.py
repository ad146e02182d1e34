# SPDX-License-Identifier: GPL-2.0
"""Stories of packets in topologies that hosts have, compared with what others say of them.

    left                 router                  right
10.77.1.2 --- veth --- 10.77.1.1
                       10.77.2.1 --- veth --- 10.77.2.2

Packet sockets on all devices say where a packet was, as tcpdump does; rules count; sockets have got
it or not; connection tracking lists connections.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest

from ipttctl.stories.model import Story
from tests.kernel.support.journeys import told
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, Network, ip_batch, namespace
from tests.kernel.support.three_hosts import (
    ARRIVED,
    COUNTING,
    PORT,
    SENT,
    Here,
    Watch,
    answered,
    devices,
    rules,
)
from tests.kernel.support.topologies import (
    end_text,
    listener,
    nft,
    nft_counts,
    send,
    set_up,
    text,
)


def addressed(story: Story) -> tuple[str, int]:
    """The packet's destination at its end."""
    headers = story.headers[story.end.at]
    return socket.inet_ntoa(headers.daddr[:4]), headers.dport


# --- one way through the three --------------------------------------------------------------------


def test_the_way_is_that_of_tcpdump(net: Network, here: Here) -> None:
    with listener(net.right, PORT) as receiver, here() as watched:
        send(net.left, "10.77.2.2", PORT)
        receiver.recv(1)
    story = watched.one()
    assert told(story) == [*ARRIVED, "socket", "delivered"]
    watched.check_devices()
    assert "route to r2" in text(story)


def test_two_back_ends_in_two_namespaces(net: Network, here: Here) -> None:
    """Rules of iptables-legacy in the router, and of nft behind it."""
    net.router.restore(
        "*mangle\n-A PREROUTING -p udp -j MARK --set-mark 7\nCOMMIT\n"
        "*nat\n-A POSTROUTING -p udp -j SNAT --to 10.77.2.1\nCOMMIT\n"
        "*filter\n-A FORWARD -p udp --dport 12 -j DROP\nCOMMIT\n"
    )
    accepted: list[Story] = []
    dropped: list[Story] = []
    with (
        rules(
            net.right,
            "t",
            "chain in { type filter hook input priority 0; udp dport 11 counter drop; }",
        ),
        listener(net.right, PORT) as receiver,
        here() as watched,
    ):
        for port in (PORT, 11, 12):
            send(net.left, "10.77.2.2", port)
        _, sender = receiver.recvfrom(1)
        counted = nft_counts(net.right, "in")
        legacy = net.router.counted("FORWARD")
    net.router.restore("*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n")
    for story in watched.stories:
        (dropped if story.end.kind.is_drop else accepted).append(story)
    [story] = accepted
    lines = text(story)
    assert lines[lines.index("mangle PREROUTING 1 matched") + 1] == "mark 0x0 > 0x7"
    assert f"> from 10.77.2.1:{sender[1]}" in lines
    assert sender[0] == "10.77.2.1"
    by_nft, by_legacy = dropped
    assert (counted, legacy) == ([1], 1)
    assert end_text(by_nft).startswith("dropped by nft ip t in 1 ")
    assert end_text(by_legacy).startswith("dropped by filter FORWARD 1 (rule uncertain: ")
    watched.check_devices()


def test_a_connection_of_conntrack(net: Network, here: Here) -> None:
    with (
        rules(
            net.router,
            "t",
            "chain pre { type nat hook prerouting priority dstnat;"
            "udp dport 20 dnat to 10.77.2.2:10; }",
        ),
        listener(net.right, PORT) as receiver,
        here() as watched,
    ):
        send(net.left, "10.77.1.1", 20)
        _, (address, port) = receiver.recvfrom(1)
        listed = net.router.run("conntrack", "-L", "-o", "id", "-p", "udp", "--orig-port-dst", "20")
    story = watched.one()
    assert f"dst=10.77.1.1 sport={port} dport=20" in listed
    assert f"src=10.77.2.2 dst={address} sport=10 dport={port}" in listed
    assert "> 10.77.2.2:10" in text(story)
    assert addressed(story) == ("10.77.2.2", 10)
    tracked = re.findall(r"\bid=(\d+)", listed)
    assert {str(one) for one in story.connections if one} == set(tracked)
    watched.check_devices()


# --- bridges --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bridge() -> Iterator[tuple[Namespace, Namespace, Namespace]]:
    """Two namespaces on a bridge in a third one, whose packets br_netfilter hands to IP."""
    with namespace("w-a") as left, namespace("w-bridge") as middle, namespace("w-b") as right:
        ip_batch(middle.name, "link add br0 type bridge", *set_up("br0", "10.78.0.1/24"))
        for number, where in ((1, left), (2, right)):
            ip_batch(
                middle.name,
                f"link add p{number} type veth peer name eth0 netns {where.name}",
                f"link set p{number} master br0",
                *set_up(f"p{number}"),
            )
            ip_batch(where.name, *set_up("eth0", f"10.78.0.1{number}/24"))
        run("modprobe", "br_netfilter")
        middle.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
        # once the ports forward
        answered(left, "10.78.0.12")
        answered(left, "10.78.0.1")
        nft(middle, f"table ip seen {{ {COUNTING} }}")
        yield left, middle, right


BRIDGED: Final = ["to eth0", "from p1", "prerouting"]


def hooks(story: Story) -> list[str]:
    """The words of a story without hooks of the sender, and of bridges."""
    return [word for word in told(story) if not word.startswith("bridge")]


def test_a_bridge_hands_packets_to_ip(
    bridge: tuple[Namespace, Namespace, Namespace], watch: Watch
) -> None:
    left, middle, right = bridge
    middle.iptables("-A", "FORWARD", "-p", "udp", "--dport", "11", "-j", "DROP")
    with listener(right, PORT) as receiver, listener(middle, PORT) as own, watch(*bridge) as seen:
        send(left, "10.78.0.12", PORT)
        send(left, "10.78.0.12", 11)
        send(left, "10.78.0.1", PORT)
        receiver.recv(1)
        own.recv(1)
        counted = middle.counted("FORWARD")
    middle.iptables("-F", "FORWARD")
    through, dropped, to_bridge = seen.stories
    way = [one for one in hooks(through) if one not in {"output", "postrouting", "input"}]
    assert way == [*BRIDGED, "forward", "to p2", "from eth0", "prerouting", "socket", "delivered"]
    # nobody routed it, and what hands it on is no end
    assert not [line for line in text(through) if "route" in line or "stolen" in line]
    assert end_text(dropped).startswith("dropped by filter FORWARD 1 (rule uncertain: ")
    assert counted == 1
    # at PREROUTING of br0 nothing is left to do but to pass it on
    assert told(to_bridge)[-5:] == ["from br0", "prerouting", "input", "socket", "delivered"]
    seen.check_devices()


def test_a_bridge_drops(bridge: tuple[Namespace, Namespace, Namespace], watch: Watch) -> None:
    left, middle, _ = bridge
    # behind br_netfilter, which goes on by itself, it would not be asked
    chain = "chain f { type filter hook forward priority filter; ip protocol udp counter drop; }"
    with rules(middle, "t", chain, "bridge"), watch(*bridge) as seen:
        send(left, "10.78.0.12", PORT)
        counted = nft_counts(middle, "f")
    assert counted == [1]
    assert end_text(seen.one()).startswith("dropped by nft bridge t f 1 ")
    seen.check_devices()


# --- devices on devices ---------------------------------------------------------------------------


@contextmanager
def on_r1(net: Network, kind: str, mode: str, where: Namespace, address: str) -> Iterator[None]:
    """A device on r1 of the router, in another namespace."""
    ip_batch(
        net.router.name,
        f"link add link r1 name v0 netns {where.name} type {kind} mode {mode}",
    )
    ip_batch(where.name, *set_up("v0", f"{address}/24"))
    try:
        yield
    finally:
        ip_batch(where.name, "link delete v0")


@pytest.mark.parametrize(
    ("kind", "mode"), [("macvlan", "bridge"), ("ipvlan", "l2"), ("ipvlan", "l3")]
)
def test_a_device_on_another(net: Network, watch: Watch, kind: str, mode: str) -> None:
    """The lower device's packets go to a namespace that only a hook there names."""
    with namespace("w-on") as above, on_r1(net, kind, mode, above, "10.77.1.51"):
        nft(above, f"table ip seen {{ {COUNTING} }}")
        if mode == "l3":
            # it does not answer when neighbours are asked for
            address = net.router.run("cat", "/sys/class/net/r1/address").strip()
            ip_batch(net.left.name, f"neigh replace 10.77.1.51 lladdr {address} dev eth0")
        answered(net.left, "10.77.1.51")
        namespaces, inode = (net.left, net.router, above), above.inode
        with listener(above, PORT) as receiver, watch(*namespaces) as inward:
            send(net.left, "10.77.1.51", PORT)
            receiver.recv(1)
        with listener(net.left, PORT) as receiver, watch(*namespaces) as outward:
            send(above, "10.77.1.2", PORT)
            receiver.recv(1)
        ip_batch(net.left.name, "neigh delete 10.77.1.51 dev eth0")
    way = [word for word in told(inward.one()) if word.startswith(("to ", "from "))]
    assert way == ["to eth0", "from r1", "from v0"]
    assert told(inward.one())[-3:] == ["input", "socket", "delivered"]
    assert f"device in by v0, namespace {inode}" in text(inward.one())
    way = [word for word in told(outward.one()) if word.startswith(("to ", "from "))]
    assert way == ["to v0", "to r1", "from eth0"]
    for watched in (inward, outward):
        watched.check_devices()


def test_a_vrf(net: Network, here: Here) -> None:
    with devices(
        (
            net.router,
            "blue",
            [
                "link add blue type vrf table 100",
                *set_up("blue"),
                "link set r1 master blue",
                "link set r2 master blue",
            ],
        )
    ):
        net.left.ping("10.77.2.2")
        chain = "chain in { type filter hook input priority 0; udp dport 11 counter drop; }"
        with (
            rules(net.router, "t", chain),
            listener(net.right, PORT) as receiver,
            here() as watched,
        ):
            send(net.left, "10.77.2.2", PORT)
            send(net.left, "10.77.1.1", 11)
            send(net.router, "10.77.2.2", PORT, device="blue")
            for _ in range(2):
                receiver.recv(1)
            counted = nft_counts(net.router, "in")
    net.left.ping("10.77.2.2")
    forwarded, dropped, sent = watched.stories
    assert "device in by blue" in text(forwarded)
    assert told(forwarded)[-3:] == told(sent)[-3:] == ["input", "socket", "delivered"]
    assert counted == [1]
    assert end_text(dropped).startswith("dropped by nft ip t in 1 ")
    # tcpdump sees those of the VRF only on that very device
    watched.check_devices("w-router from blue", "w-router from blue")


# --- ways past the hooks --------------------------------------------------------------------------


def test_a_flow_table(net: Network, here: Here) -> None:
    table = (
        "flowtable ft { hook ingress priority 0; devices = { r1, r2 }; }\n"
        "chain f { type filter hook forward priority 0; ct state established flow add @ft;"
        "counter; }"
    )
    with (
        rules(net.router, "t", table),
        listener(net.right, PORT) as receiver,
        listener(net.left, 4444) as client,
        here() as watched,
    ):
        for _ in range(2):
            client.sendto(b"x", ("10.77.2.2", PORT))
            receiver.sendto(receiver.recv(1), ("10.77.1.2", 4444))
            client.recv(1)
        counted = nft_counts(net.router, "f")
    assert counted == [2]
    slow, _, fast, back = watched.stories
    way = [word for word in told(slow) if word != "ingress"]
    assert way == [*ARRIVED, "socket", "delivered"]
    for story in (fast, back):
        lines = text(story)
        ingress = "netdev INGRESS nf_flow_offload_ip_hook (nf_flow_table): handed it on"
        at = lines.index(ingress)
        assert lines[at + 1].startswith("device sent by r")
        assert told(story)[-2:] == ["socket", "delivered"]
        # the flow table lowered the TTL
        assert [line for line in lines if line.endswith("TTL 64 > 63")]
    watched.check_devices()


@pytest.mark.parametrize(("forwarding", "port"), [("-m", PORT), ("-g", 53)])
def test_ipvs(net: Network, here: Here, forwarding: str, port: int) -> None:
    run("modprobe", "ip_vs_rr")
    service = ("-u", "10.9.9.9:53")
    ends = (net.router, net.right)
    for where in ends:
        ip_batch(where.name, "address add 10.9.9.9/32 dev lo")
    net.router.run("ipvsadm", "-A", *service, "-s", "rr")
    net.router.run("ipvsadm", "-a", *service, "-r", f"10.77.2.2:{port}", forwarding)
    try:
        with listener(net.right, port) as receiver, here() as watched:
            send(net.left, "10.9.9.9", 53)
            receiver.recv(1)
        connections = net.router.run("ipvsadm", "-Lcn")
        net.router.run("ipvsadm", "-d", *service, "-r", f"10.77.2.2:{port}")
        with here() as nobody:
            send(net.left, "10.9.9.9", 53)
    finally:
        net.router.run("ipvsadm", "-C")
        for where in ends:
            ip_batch(where.name, "address delete 10.9.9.9/32 dev lo")
    story, lines = watched.one(), text(watched.one())
    assert f"10.77.2.2:{port}" in connections
    assert told(story) == [
        *(*SENT, "input", "output", "postrouting", "to r2", "from eth0", "prerouting", "input"),
        *("socket", "delivered"),
    ]
    addresses = [line for line in lines[1:] if "> 10." in line]
    assert len(addresses) == (forwarding == "-m")
    for line in addresses:
        assert line.startswith("OUTPUT on its way here")
        assert line.endswith(": > 10.77.2.2:10")
    assert len([line for line in lines if "TTL" in line]) == 1
    watched.check_devices()
    assert "(ip_vs) at INPUT" in end_text(nobody.one())


def test_multicast_to_several_sockets(net: Network, here: Here) -> None:
    group = socket.inet_aton("239.1.1.1") + socket.inet_aton("10.77.1.1")

    def join(one: socket.socket) -> None:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)

    ip_batch(net.left.name, "route add 239.1.1.1 dev eth0")
    with ExitStack() as stack:
        receivers = [
            stack.enter_context(listener(net.router, PORT, prepare=join)) for _ in range(3)
        ]
        inodes = {os.fstat(one.fileno()).st_ino for one in receivers}
        with here() as watched:
            send(net.left, "239.1.1.1", PORT)
            for one in receivers:
                one.recv(1)
    ip_batch(net.left.name, "route delete 239.1.1.1 dev eth0")
    story = watched.one()
    ends = [story, *story.shown_branches()]
    assert [str(one.end.kind) for one in ends] == ["delivered"] * 3
    assert {one.named[one.end.socket].number for one in ends if one.end.socket} == inodes
    watched.check_devices()


def test_synproxy(net: Network, watch: Watch) -> None:
    proxy = (
        "chain raw { type filter hook prerouting priority raw;"
        "tcp dport 80 tcp flags syn notrack; }\n"
        "chain f { type filter hook forward priority 0;"
        "ct state invalid,untracked counter synproxy mss 1460 wscale 7 timestamp sack-perm; }"
    )
    # its ACK is not to be taken for one of a connection that is under way
    net.router.run("sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
    with (
        rules(net.router, "t", proxy),
        listener(net.right, 80, socket.SOCK_STREAM) as server,
        watch(net.left, net.router, net.right, expression="tcp") as watched,
    ):
        net.left.call(connect, "10.77.2.2", 80)
        server.accept()[0].close()
        counted = nft_counts(net.router, "f")
    # its SYN and its ACK, which the proxy answers and takes
    taken = [story for story in watched.stories if "kept" in told(story)]
    from_client = [story for story in taken if told(story)[:5] == SENT]
    assert counted == [len(from_client)] == [2]
    assert all(end_text(one).startswith("taken by nft_do_chain") for one in from_client)
    # and the server's SYN and ACK
    assert len(taken) == 3
    watched.check_devices()


def connect(address: str, port: int) -> None:
    """Connect, and close the connection."""
    with socket.create_connection((address, port), timeout=20):
        pass
