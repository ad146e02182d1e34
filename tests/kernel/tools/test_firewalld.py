# SPDX-License-Identifier: GPL-2.0
"""firewalld with both of its back ends."""

from __future__ import annotations

import pytest

from tests.kernel.support.both_traces import listening, trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.network import Network
from tests.kernel.tools.packets import TOOLS


def _start(router: Box, backend: str) -> None:
    configuration = router.root / "etc" / "firewalld" / "firewalld.conf"
    text = configuration.read_text()
    assert "FirewallBackend=nftables" in text
    configuration.write_text(text.replace("Backend=nftables", f"Backend={backend}"))
    router.start_dbus()
    router.start("firewalld", "--nofork", "--nopid", ready=("firewall-cmd", "--state"))
    router.run("firewall-cmd", "--zone=dmz", "--change-interface=r2")
    router.run("firewall-cmd", "--zone=public", "--add-port=8080/tcp")


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_zones_are_named(net: Network, router: Box, backend: str) -> None:
    _start(router, backend)
    allowed, other, forwarded = packets = TOOLS[f"firewalld, {backend}"]
    with (
        listening(net.router, 8080, 8081),
        watched(router, net.left, net.router_address) as watch,
    ):
        ports = watch.sends(
            trying(net.left, net.router_address, 8080, allowed),
            trying(net.left, net.router_address, 8081, other),
            trying(net.left, net.right_address, 8080, forwarded),
        )
        watch.confirm(ports, packets)
