# SPDX-License-Identifier: GPL-2.0
"""Tunnels between the ends of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.kernel.support.kernel import run
from tests.kernel.support.network import Network
from tests.kernel.support.three_hosts import devices
from tests.kernel.support.topologies import set_up


@contextmanager
def wireguard(net: Network) -> Iterator[None]:
    """A tunnel of WireGuard, from 10.6.0.1 on the left to 10.6.0.2 on the right."""
    ends = ((net.left, net.right, 1, 2), (net.right, net.left, 2, 1))
    keys = {where.name: run("wg", "genkey").strip() for where, *_ in ends}
    made = [
        (where, "wg0", ["link add wg0 type wireguard", *set_up("wg0", f"10.6.0.{near}/24")])
        for where, _, near, _ in ends
    ]
    with devices(*made):
        for where, other, _, far in ends:
            public = run("wg", "pubkey", text=keys[other.name]).strip()
            commands = (
                f"wg set wg0 private-key /dev/stdin listen-port 51820 peer {public} "
                f"allowed-ips 10.6.0.0/24 endpoint 10.77.{far}.2:51820"
            )
            run("ip", "netns", "exec", where.name, *commands.split(), text=keys[where.name])
        # the handshake
        net.left.ping("10.6.0.2", "-W", "10")
        yield
