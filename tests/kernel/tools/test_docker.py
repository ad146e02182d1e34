# SPDX-License-Identifier: GPL-2.0
"""Docker, through iptables-nft."""

from __future__ import annotations

from tests.kernel.support.both_traces import trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.network import Network
from tests.kernel.tools.containers import PORT, container
from tests.kernel.tools.packets import TOOLS

#: the first address that Docker gives
CONTAINER = "172.17.0.2"


def test_a_published_port_is_named(net: Network, router: Box) -> None:
    # where forwarding was off, it switches that on, and has the policy drop the rest
    net.router.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    # without its proxy a container reaches its own published port by NAT
    options = ("--storage-driver=vfs", "--userland-proxy=false")
    router.start("dockerd", *options, ready=("test", "-S", "/run/docker.sock"))
    published, hairpin, other = packets = TOOLS["Docker"]
    with (
        container(router, "docker") as inside,
        watched(router, net.left, net.router_address) as watch,
    ):
        ports = watch.sends(
            trying(net.left, net.router_address, PORT, published),
            trying(inside, net.router_address, PORT, hairpin),
            trying(net.left, CONTAINER, 81, other),
        )
        watch.confirm(ports, packets)
