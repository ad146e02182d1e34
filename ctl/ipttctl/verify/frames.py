# SPDX-License-Identifier: GPL-2.0
"""Parts of frames: addresses, checksums, the Ethernet header."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

ETH_IP, ETH_IP6, ETH_ARP, ETH_VLAN = 0x0800, 0x86DD, 0x0806, 0x8100


TCP_OPTIONS: Final = (
    b"",
    bytes((2, 4, 5, 0xB4)),  # maximum segment size
    bytes((2, 4, 2, 0x18, 1, 3, 3, 7, 4, 2, 1, 1)),  # and window scale, SACK permitted
    bytes((8, 10)) + bytes(8) + bytes((1, 1)),  # timestamps
    bytes((2, 40, 1, 1)),  # longer than the header
)
IP_OPTIONS: Final = (
    bytes((148, 4, 0, 0)),  # router alert
    bytes((7, 7, 4, 0, 0, 0, 0, 0)),  # record route
    bytes((1, 1, 1, 0)),
)


@dataclass(frozen=True)
class Ends:
    """Two addresses of one IP version."""

    source: str
    target: str

    @property
    def version(self) -> int:
        """The IP version."""
        return 6 if ":" in self.source else 4


def ethertype(ends: Ends) -> int:
    """The Ethernet type of an IP version."""
    return ETH_IP6 if ends.version == 6 else ETH_IP


def ethernet(target: str, source: str, kind: int, payload: bytes) -> bytes:
    """A frame."""
    return mac(target) + mac(source) + kind.to_bytes(2, "big") + payload


def mac(text: str) -> bytes:
    """A MAC address as bytes."""
    return bytes.fromhex(text.replace(":", ""))


def address(text: str) -> bytes:
    """An IP address as bytes."""
    return (IPv6Address(text) if ":" in text else IPv4Address(text)).packed


def pseudo_header(ends: Ends, protocol: int, length: int) -> bytes:
    """The header that checksums of UDP and TCP include."""
    addresses = address(ends.source) + address(ends.target)
    if ends.version == 6:
        return addresses + struct.pack("!I3xB", length, protocol)
    return addresses + struct.pack("!xBH", protocol, length)


def checksum(data: bytes) -> int:
    """The Internet checksum."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
