# SPDX-License-Identifier: GPL-2.0
"""Stories of packets that go in others: tunnels, WireGuard, IPsec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.kernel.support.journeys import told
from tests.kernel.support.network import Network, ip_batch
from tests.kernel.support.three_hosts import (
    ARRIVED,
    PORT,
    Here,
    Watch,
    answered,
    devices,
    rules,
)
from tests.kernel.support.topologies import (
    end_text,
    listener,
    nft_counts,
    send,
    set_up,
    text,
)
from tests.kernel.support.tunnels import wireguard

TUNNELS: Final = {
    "ipip": "link add tun1 type ipip local 10.77.{near}.2 remote 10.77.{far}.2",
    "gre": "link add tun1 type gre local 10.77.{near}.2 remote 10.77.{far}.2 key 5",
    "gretap": "link add tun1 type gretap local 10.77.{near}.2 remote 10.77.{far}.2",
    "vxlan": "link add tun1 type vxlan id 7 local 10.77.{near}.2 remote 10.77.{far}.2 dstport 4789",
}
OUTER: Final = {"ipip": "ipip", "gre": "gre", "gretap": "gre", "vxlan": "udp"}


@pytest.mark.parametrize("kind", TUNNELS)
def test_a_tunnel(net: Network, watch: Watch, kind: str) -> None:
    made = [
        (
            where,
            "tun1",
            [TUNNELS[kind].format(near=near, far=far), *set_up("tun1", f"10.5.0.{near}/24")],
        )
        for where, near, far in ((net.left, 1, 2), (net.right, 2, 1))
    ]
    drop = "chain f { type filter hook forward priority 0; meta length > 300 counter drop; }"
    namespaces = (net.left, net.router, net.right)
    with devices(*made):
        answered(net.left, "10.5.0.2")
        with (
            listener(net.right, PORT) as receiver,
            watch(*namespaces, shortest=300) as watched,
        ):
            send(net.left, "10.5.0.2", PORT, 300)
            receiver.recv(300)
        with rules(net.router, "t", drop), watch(*namespaces, shortest=300) as cut:
            send(net.left, "10.5.0.2", PORT, 300)
            counted = nft_counts(net.router, "f")
    story = watched.one()
    assert told(story) == [
        *("output", "postrouting", "to tun1", "packed"),
        *ARRIVED,
        *("unpacked", "from tun1", "prerouting", "input", "socket", "delivered"),
    ]
    [packed, unpacked] = [line for line in text(story) if line.startswith("tunnel")]
    assert packed.startswith("tunnel encapsulated: 10.77.1.2")
    assert packed.endswith(f"proto {OUTER[kind]}")
    assert unpacked.startswith("tunnel decapsulated: 10.5.0.1:")
    # the headers of tunnels have marks and TTLs of their own
    assert not [line for line in text(story) if "on its way here" in line]
    watched.check_devices()
    assert counted == [1]
    assert end_text(cut.one()).startswith("dropped by nft ip t f 1 ")
    cut.check_devices()


def test_wireguard(net: Network, here: Here) -> None:
    with wireguard(net), listener(net.right, PORT) as receiver, here() as watched:
        send(net.left, "10.6.0.2", PORT)
        receiver.recv(1)
    [story] = [one for one in watched.stories if "10.6.0.2" in text(one)[0]]
    assert told(story) == [
        *("output", "postrouting", "to wg0", "packed"),
        *ARRIVED,
        *("unpacked", "from wg0", "prerouting", "input", "socket", "delivered"),
    ]
    watched.check_devices()


@contextmanager
def ipsec(net: Network, mode: str) -> Iterator[None]:
    """ESP between left and right, for their networks behind the tunnel or for themselves."""
    near, far, own = "10.77.1.2", "10.77.2.2", ("10.8.1.2", "10.8.2.2")
    inner = own if mode == "tunnel" else (near, far)
    for where in (net.left, net.right):
        lines = []
        for source, target, spi in ((near, far, "0x100"), (far, near, "0x200")):
            out = (source == near) == (where is net.left)
            first, second = inner if source == near else inner[::-1]
            state = f"src {source} dst {target} proto esp spi {spi} mode {mode} reqid 1"
            selector = f"src {first} dst {second} dir {'out' if out else 'in'}"
            template = f"src {source} dst {target} proto esp reqid 1 mode {mode}"
            lines += [
                f"xfrm state add {state} aead rfc4106(gcm(aes)) 0x{'ab' * 20} 128",
                f"xfrm policy add {selector} tmpl {template}",
            ]
        ip_batch(where.name, *lines)
    for number, where in ((1, net.left), (2, net.right)) if mode == "tunnel" else ():
        ip_batch(
            where.name,
            f"address add 10.8.{number}.2/32 dev lo",
            f"route add 10.8.{3 - number}.2/32 via 10.77.{number}.1 src 10.8.{number}.2",
        )
    try:
        yield
    finally:
        for number, where in ((1, net.left), (2, net.right)):
            ip_batch(where.name, "xfrm state flush", "xfrm policy flush")
            if mode == "tunnel":
                ip_batch(where.name, f"address delete 10.8.{number}.2/32 dev lo")


@pytest.mark.parametrize("mode", ["transport", "tunnel"])
def test_ipsec(net: Network, here: Here, mode: str) -> None:
    address = "10.8.2.2" if mode == "tunnel" else "10.77.2.2"
    with ipsec(net, mode):
        with listener(net.right, PORT) as receiver, here() as watched:
            send(net.left, address, PORT)
            receiver.recv(1)
        ip_batch(net.right.name, "xfrm state flush")
        with here() as unknown:
            send(net.left, address, PORT)
        ip_batch(net.left.name, "xfrm state flush", "xfrm policy flush")
        if mode == "transport":
            with listener(net.right, PORT), here() as plain:
                send(net.left, address, PORT)
                statistics = net.right.run("cat", "/proc/net/xfrm_stat").split()
            assert statistics[statistics.index("XfrmInTmplMismatch") + 1] == "1"
            assert "IPsec policy" in end_text(plain.one())
    # the packet of a tunnel comes in by the device once more
    again = ["from eth0"] if mode == "tunnel" else []
    assert told(watched.one()) == [
        *("output", "postrouting", "packed"),
        *ARRIVED,
        *("unpacked", *again, "prerouting", "input", "socket", "delivered"),
    ]
    watched.check_devices()
    assert "tunnel encapsulated: 10.77.1.2 > 10.77.2.2 proto esp" in text(watched.one())
    assert end_text(unknown.one()).startswith("dropped: ")
    assert "xfrm_input" in end_text(unknown.one())
    unknown.check_devices()
