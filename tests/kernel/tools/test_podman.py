# SPDX-License-Identifier: GPL-2.0
"""Podman with its own network back end and with CNI plugins, through iptables-nft."""

from __future__ import annotations

import pytest

from tests.kernel.support.both_traces import trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.network import Network
from tests.kernel.tools.containers import PORT, container
from tests.kernel.tools.packets import TOOLS

CONFIGURATION = """[containers]
cgroups = "disabled"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
[network]
network_backend = "{backend}"
"""
STORAGE = """[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"""


@pytest.mark.parametrize("name", ["netavark", "CNI"])
def test_a_published_port_is_named(net: Network, router: Box, name: str) -> None:
    router.write("/etc/containers/containers.conf", CONFIGURATION.format(backend=name.lower()))
    router.write("/etc/containers/storage.conf", STORAGE)
    (published,) = packets = TOOLS[f"Podman, {name}"]
    with (
        container(router, "podman"),
        watched(router, net.left, net.router_address) as watch,
    ):
        ports = watch.sends(trying(net.left, net.router_address, PORT, published))
        watch.confirm(ports, packets)
