# SPDX-License-Identifier: GPL-2.0
"""Fixtures of the tests with real tools, which only `make test-tools` runs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kernel.support.box import Box, box
from tests.kernel.support.network import Network


@pytest.fixture(autouse=True)
def wanted() -> None:
    """Skip, unless the make target that makes the root asks for these tests."""
    if not os.environ.get("IPTT_TOOLS"):
        pytest.skip("make test-tools makes the root with the tools, and runs this")


@pytest.fixture
def router(wanted: None, net: Network) -> Iterator[Box]:  # noqa: ARG001 - order
    """The tools in the router of the network, which sends as many ICMP errors as there are."""
    net.router.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
    with box(net.router) as made:
        yield made
