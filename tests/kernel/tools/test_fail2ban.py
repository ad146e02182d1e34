# SPDX-License-Identifier: GPL-2.0
"""fail2ban, with its actions for nftables and for iptables."""

from __future__ import annotations

import pytest

from tests.kernel.support.both_traces import connect, listening, trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.network import Network
from tests.kernel.tools.packets import TOOLS

JAIL = """[DEFAULT]
backend = polling
banaction = {action}

[sshd]
enabled = false

[web]
enabled = true
filter = sshd
port = 8080
logpath = /run/web.log
"""


@pytest.mark.parametrize("tool", ["nftables", "iptables"])
def test_a_ban_is_named(net: Network, router: Box, tool: str) -> None:
    router.write("/etc/fail2ban/jail.local", JAIL.format(action=f"{tool}-multiport"))
    router.write("/run/web.log", "")
    router.run("mkdir", "/run/fail2ban")
    router.start("fail2ban-server", "-xf", "start", ready=("fail2ban-client", "ping"))
    banned, other = packets = TOOLS[f"fail2ban, {tool}"]
    with listening(net.router, 8080, 8081):
        net.left.call(connect, net.router_address, 8080, 0, "answered")
        router.run("fail2ban-client", "set", "web", "banip", net.left_address)
        with watched(router, net.left, net.router_address) as watch:
            ports = watch.sends(
                trying(net.left, net.router_address, 8080, banned),
                trying(net.left, net.router_address, 8081, other),
            )
            watch.confirm(ports, packets)
