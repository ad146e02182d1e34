# SPDX-License-Identifier: GPL-2.0
"""libvirt's default network, through iptables-nft; its guest is a namespace behind the bridge."""

from __future__ import annotations

from tests.kernel.support.both_traces import listening, trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Network, ip_batch, namespace
from tests.kernel.tools.packets import TOOLS

GUEST = "192.168.122.50"


def test_the_default_network_is_named(net: Network, router: Box) -> None:
    dns, outwards, inwards = packets = TOOLS["libvirt, default network"]
    router.start_dbus()
    router.start("libvirtd", ready=("test", "-S", "/run/libvirt/libvirt-sock"))
    router.run("virsh", "--connect", "network:///system", "net-start", "default")
    with namespace("t-guest") as guest:
        ip_batch(
            net.router.name,
            f"link add vnet0 type veth peer name eth0 netns {guest.name}",
            "link set vnet0 master virbr0 up",
        )
        ip_batch(
            guest.name,
            f"address add {GUEST}/24 dev eth0",
            "link set eth0 up",
            "route add default via 192.168.122.1",
        )
        # ports of the bridge listen before they forward
        wait_for(lambda: "1 received" in guest.ping("192.168.122.1", check=False))
        with (
            listening(net.right, 8080),
            listening(guest, 8080),
            watched(router, net.left, net.router_address) as watch,
        ):
            ports = watch.sends(
                trying(guest, "192.168.122.1", 53, dns),
                trying(guest, net.right_address, 8080, outwards),
                trying(net.left, GUEST, 8080, inwards),
            )
            watch.confirm(ports, packets)
