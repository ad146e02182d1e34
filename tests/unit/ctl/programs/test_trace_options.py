# SPDX-License-Identifier: GPL-2.0
"""The conditions of a trace as constants of its programs."""

from __future__ import annotations

import sys
from ipaddress import ip_address, ip_network

import pytest

from ipttctl.errors import UsageError
from ipttctl.programs.trace import TraceOptions


def halves(wire: bytes) -> tuple[int, int]:
    """The two numbers that a program reads an address as."""
    whole = wire.ljust(16, b"\0")
    first, second = whole[:8], whole[8:]
    return int.from_bytes(first, sys.byteorder), int.from_bytes(second, sys.byteorder)


@pytest.mark.parametrize(
    ("address", "family", "network", "mask"),
    [
        ("10.1.2.3", 2, "10.1.2.3", "255.255.255.255"),
        ("10.1.0.0/16", 2, "10.1.0.0", "255.255.0.0"),
        ("fd00:1:2:3:4:5:6:7", 10, "fd00:1:2:3:4:5:6:7", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("fd00::ff00/120", 10, "fd00::ff00", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00"),
        ("fe80::1%lo", 10, "fe80::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ],
)
def test_addresses(address: str, family: int, network: str, mask: str) -> None:
    given = ip_network(address) if "/" in address else ip_address(address)
    found = TraceOptions(address=given).constants()
    assert (found["want"], found["want_address_pf"]) == (4, family)
    high, low = halves(ip_address(network).packed)
    assert (found["want_address_high"], found["want_address_low"]) == (high, low)
    high, low = halves(ip_address(mask).packed)
    assert (found["want_mask_high"], found["want_mask_low"]) == (high, low)


def test_numbers() -> None:
    options = TraceOptions(protocol=0, port=0xFFFF, icmp_id=7, pid=1, netns=1 << 63, family=2)
    assert options.constants() == {
        "want": 1 | 2 | 8 | 16 | 32 | 64,
        "want_pid": 1,
        "want_netns": 1 << 63,
        "want_protocol": 0,
        "want_port": 0xFFFF,
        "want_icmp_id": 7,
        "want_family": 2,
    }
    assert TraceOptions().constants() == {"want": 0}


@pytest.mark.parametrize(
    "options",
    [
        TraceOptions(port=1 << 16),
        TraceOptions(port=-1),
        TraceOptions(pid=0),
        TraceOptions(netns=0),
        TraceOptions(netns=1 << 64),
        TraceOptions(protocol=256),
        TraceOptions(icmp_id=1 << 16),
    ],
    ids=str,
)
def test_numbers_out_of_range(options: TraceOptions) -> None:
    with pytest.raises(UsageError, match="is not between"):
        options.constants()
