# SPDX-License-Identifier: GPL-2.0
"""The examples that come with nftables."""

from __future__ import annotations

from tests.kernel.support.both_traces import listening, trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.network import Network, ip_batch
from tests.kernel.tools.packets import TOOLS, Packet

#: those that every kernel takes; others need devices, modules or SELinux
LOADED = {"workstation.nft", "nat.nft", "inet-filter.nft", "all-in-one.nft", "ct_helpers.nft"}
EXAMPLES = "usr/share/doc/nftables/examples"


def load(box: Box, name: str) -> bool:
    """Load an example alone; whether nft and the kernel take it."""
    # one deletes this table first
    box.run("nft", "-f", "-", text="flush ruleset; add table ip filter")
    return box.works("sh", "-c", f"cd /{EXAMPLES} && nft -f {name}")


def test_all_that_load(net: Network, router: Box) -> None:
    devices = ("eth0", "eth1", "eth2", "eth3", "bond0", "bond1")
    ip_batch(net.router.name, *(f"link add {device} type dummy" for device in devices))
    names = sorted(path.name for path in (router.root / EXAMPLES).glob("*.nft"))
    packet = Packet("to a port", "", "", "")
    loaded = set()
    with listening(net.router, 8080), watched(router, net.left, net.router_address) as watch:
        for name in names:
            if load(router, name):
                loaded.add(name)
                watch.mark()
                (port,) = watch.sends(trying(net.left, net.router_address, 8080, packet))
                watch.check(port)
    assert loaded >= LOADED


def test_workstation(net: Network, router: Box) -> None:
    assert load(router, "workstation.nft")
    outside, inside = packets = TOOLS["workstation.nft"]
    with listening(net.router, 8080), watched(router, net.router, "127.0.0.1") as watch:
        ports = watch.sends(
            trying(net.left, net.router_address, 8080, outside),
            trying(net.router, "127.0.0.1", 8080, inside),
        )
        watch.confirm(ports, packets)


def test_nat(net: Network, router: Box) -> None:
    assert load(router, "nat.nft")
    ip_batch(net.right.name, "address add 1.1.1.1/32 dev lo")
    ip_batch(net.router.name, f"route add 1.1.1.1 via {net.right_address}")
    translated, other = packets = TOOLS["nat.nft"]
    with listening(net.right, 1234), watched(router, net.left, net.router_address) as watch:
        ports = watch.sends(
            trying(net.left, net.router_address, 1000, translated),
            trying(net.left, net.router_address, 1001, other),
        )
        watch.confirm(ports, packets)
