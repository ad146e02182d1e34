# SPDX-License-Identifier: GPL-2.0
"""The ends and the transport header of a packet in JSON: the same keys in events and stories."""

from __future__ import annotations

from typing import Any, Protocol

from ipttctl.events import describe, protocols


class PacketMembers(Protocol):
    """The members that events and the headers of stories have alike."""

    @property
    def ethertype(self) -> int:
        """Network protocol (ETH_P_*)."""

    @property
    def protocol(self) -> int:
        """Transport protocol (IPPROTO_*)."""

    @property
    def saddr(self) -> bytes:
        """Source address."""

    @property
    def daddr(self) -> bytes:
        """Destination address."""

    @property
    def sport(self) -> int:
        """Source port."""

    @property
    def dport(self) -> int:
        """Destination port."""

    @property
    def tcp_flags(self) -> int:
        """Byte 13 of the TCP header."""

    @property
    def icmp_type(self) -> int:
        """Type of ICMP or ICMPv6."""

    @property
    def icmp_code(self) -> int:
        """Code of ICMP or ICMPv6."""


def transport_values(packet: PacketMembers, version: int | None, *, whole: bool) -> dict[str, Any]:
    """Addresses, ports, flags, type and code; None for those that the packet does not have.

    ``version`` is that of IP, if it is IP. ``whole`` says that the transport header is there.
    """
    addresses = version is not None or packet.ethertype == describe.ARP
    has_transport = version is not None and whole
    ports = has_transport and packet.protocol in protocols.WITH_PORTS
    icmp = has_transport and packet.protocol in {protocols.ICMP, protocols.ICMPV6}
    return {
        "source": describe.address(packet.saddr, version) if addresses else None,
        "destination": describe.address(packet.daddr, version) if addresses else None,
        "source_port": packet.sport if ports else None,
        "destination_port": packet.dport if ports else None,
        "tcp_flags": _flags(packet) if ports and packet.protocol == protocols.TCP else None,
        "icmp_type": packet.icmp_type if icmp else None,
        "icmp_code": packet.icmp_code if icmp else None,
    }


def _flags(packet: PacketMembers) -> list[str]:
    return [name for name in describe.tcp_flags(packet.tcp_flags).split(",") if name]
