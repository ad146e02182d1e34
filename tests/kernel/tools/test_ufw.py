# SPDX-License-Identifier: GPL-2.0
"""ufw, with iptables-nft."""

from __future__ import annotations

from tests.kernel.support.both_traces import listening, trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.network import Network
from tests.kernel.tools.packets import TOOLS


def enable(router: Box) -> None:
    """Allow and reject a port, and leave the others to the default."""
    router.run("ufw", "allow", "8080/tcp")
    router.run("ufw", "reject", "8082/tcp")
    router.run("ufw", "--force", "enable")


def test_rules_are_named(net: Network, router: Box) -> None:
    enable(router)
    allowed, other, rejected, forwarded = packets = TOOLS["ufw"]
    with (
        listening(net.router, 8080, 8081, 8082),
        watched(router, net.left, net.router_address) as watch,
    ):
        ports = watch.sends(
            trying(net.left, net.router_address, 8080, allowed),
            trying(net.left, net.router_address, 8081, other),
            trying(net.left, net.router_address, 8082, rejected),
            trying(net.left, net.right_address, 8080, forwarded),
        )
        watch.confirm(ports, packets)
