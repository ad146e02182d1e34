# SPDX-License-Identifier: GPL-2.0
"""The bytes of packets that ``record --snaplen`` kept, and those that rules and NAT leave alone."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from ipttctl.bpf.filter_run import PartlyKnown
from ipttctl.events import protocols

CAPTURE: Final = struct.Struct("<II")
"""Length of a packet, and the number of its bytes that follow, as bpf/capture.c has them."""

_CHECKSUMS: Final = {protocols.TCP: 16, protocols.UDP: 6}
"""Places of checksums in transport headers of which NAT changes nothing else but ports."""

_IPV6_HEADER: Final = 40


def kept_bytes(payload: bytes) -> PartlyKnown | None:
    """The packet of the bytes that ``record --snaplen`` kept; None if there are none."""
    if len(payload) < CAPTURE.size:
        return None
    length, captured = CAPTURE.unpack_from(payload)
    data = payload[CAPTURE.size :][:captured]
    return PartlyKnown(length, data, b"\xff" * len(data)) if data else None


def without_fields(packet: PartlyKnown) -> PartlyKnown:
    """A packet of which nobody knows TOS, TTL and checksum: rules change them."""
    known = bytearray(packet.known)
    masks = {0: 240, 1: 15, 7: 0} if _is_ipv6(packet) else dict.fromkeys((1, 8, 10, 11), 0)
    for at, mask in masks.items():
        if at < len(known):
            known[at] &= mask
    return replace(packet, known=bytes(known))


def without_ends(packet: PartlyKnown) -> PartlyKnown:
    """A packet of which nobody knows what NAT changes: addresses, ports and checksums."""
    known = bytearray(packet.known)
    if _is_ipv6(packet):
        first, after, protocol = 8, _IPV6_HEADER, packet.bits[6:7]
    else:
        first, after, protocol = 12, 4 * (packet.bits[0] & 0xF), packet.bits[9:10]
        _forget(known, 10, 12)
    _forget(known, first, first + (32 if _is_ipv6(packet) else 8))
    checksum = _CHECKSUMS.get(int.from_bytes(protocol))
    if checksum is None:
        # an error of ICMP has the headers of another packet
        _forget(known, after, len(known))
    else:
        _forget(known, after, after + 4)
        _forget(known, after + checksum, after + checksum + 2)
    return replace(packet, known=bytes(known))


def _is_ipv6(packet: PartlyKnown) -> bool:
    return packet.bits[0] >> 4 == 6  # the version of IP


def _forget(known: bytearray, begin: int, end: int) -> None:
    for at in range(begin, min(end, len(known))):
        known[at] = 0
