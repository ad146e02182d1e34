# SPDX-License-Identifier: GPL-2.0
"""Packets and messages without what chance decides.

That are identifiers of packets that the kernel makes or cuts to fragments, SYN cookies, checksums
over them, and link-layer headers of packets that have none yet, where the kernel reports whatever
its memory holds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from ipttctl.verify.frames import ETH_IP, ETH_IP6
from ipttctl.verify.netlink import SubsystemMessage
from ipttctl.verify.packets import ACK, SYN

_TCP, _ICMP, _ICMP6, _FRAGMENT = 6, 1, 58, 44
_EXTENSIONS: Final = (0, 43, 44, 60)
_ERRORS: Final = {_ICMP: (3, 4, 5, 11, 12), _ICMP6: (1, 2, 3, 4)}
_PREFIX: Final = 14

# attributes of nf_tables' trace messages
_TRACE_ID, _LINK, _NETWORK, _TRANSPORT, _TO, _CONNECTION = 6, 7, 8, 9, 12, 18

# attributes of nfnetlink_log
_LOG_TIME, _LOG_TO, _LOG_ADDRESS, _LOG_PAYLOAD = 3, 5, 8, 9
_LOG_SEQUENCES: Final = (12, 13)
_LOG_HARDWARE: Final = (15, 16, 17)


def masked_frame(frame: bytes) -> str:
    """A frame as hexadecimal digits, masked; what is no frame unchanged."""
    data = bytearray(frame)
    ethertype = int.from_bytes(frame[12:14])
    if ethertype == ETH_IP:
        _mask_ip4(data, _PREFIX)
    elif ethertype == ETH_IP6:
        _mask_ip6(data, _PREFIX)
    return data.hex()


def masked_trace(message: SubsystemMessage) -> Iterator[str]:
    """The attributes of a trace message, masked."""
    values = message.attributes
    network = values.get(_NETWORK, b"")
    protocol = 0
    if network and network[0] >> 4 == 4:
        protocol = network[9] if len(network) > 9 else 0
    elif network and network[0] >> 4 == 6:
        protocol = network[6] if len(network) > 6 else 0
    for kind, value in values.items():
        data = bytearray(value)
        if kind in {_TRACE_ID, _CONNECTION} or (kind == _LINK and _TO in values):
            continue
        if kind == _NETWORK and data and data[0] >> 4 == 4:
            _mask_ip4(data, 0)
        if kind == _TRANSPORT:
            _mask_transport(data, 0, protocol)
        yield f"{kind}:{data.hex()}"


def masked_log(message: SubsystemMessage) -> Iterator[str]:
    """The attributes of a message of nfnetlink_log, masked."""
    values = message.attributes
    for kind, value in values.items():
        if kind in {_LOG_TIME, *_LOG_SEQUENCES}:
            continue
        if kind in {_LOG_ADDRESS, *_LOG_HARDWARE} and _LOG_TO in values:
            continue
        yield f"{kind}:{_masked_payload(value) if kind == _LOG_PAYLOAD else value.hex()}"


def _masked_payload(payload: bytes) -> str:
    """A packet that begins with its IP header, or with that of its frame."""
    version = payload[0] >> 4 if payload else 0
    if version not in {4, 6}:
        return masked_frame(payload)
    ethertype = ETH_IP6 if version == 6 else ETH_IP
    return masked_frame(bytes(_PREFIX - 2) + struct.pack("!H", ethertype) + payload)


def _zero(data: bytearray, start: int, end: int) -> None:
    for index in range(start, min(end, len(data))):
        data[index] = 0


def _mask_ip4(data: bytearray, start: int) -> None:
    """Mask the identifier and the checksum, and what follows."""
    _zero(data, start + 4, start + 6)
    _zero(data, start + 10, start + 12)
    if len(data) >= start + 20 and not int.from_bytes(data[start + 6 : start + 8]) & 0x1FFF:
        _mask_transport(data, start + (data[start] & 0xF) * 4, data[start + 9])


def _mask_ip6(data: bytearray, start: int) -> None:
    """Mask the identifier of a fragment, and what follows."""
    if len(data) < start + 40:
        return
    following, offset, fragment = data[start + 6], start + 40, False
    while following in _EXTENSIONS and len(data) >= offset + 8:
        length = (data[offset + 1] + 1) * 8
        if following == _FRAGMENT:
            _zero(data, offset + 4, offset + 8)
            length = 8
            fragment |= bool(int.from_bytes(data[offset + 2 : offset + 4]) & 0xFFF8)
        following, offset = data[offset], offset + length
    if not fragment:
        _mask_transport(data, offset, following)


def _mask_transport(data: bytearray, start: int, protocol: int) -> None:
    """Mask the answer to a SYN, which may be a cookie, and the packet in an ICMP error."""
    if protocol == _TCP and len(data) >= start + 20 and data[start + 13] & (SYN | ACK) == SYN | ACK:
        _zero(data, start + 4, start + 8)
        _zero(data, start + 16, start + 18)
        _zero(data, start + 20, len(data))
    elif len(data) > start and data[start] in _ERRORS.get(protocol, ()):
        _zero(data, start + 2, start + 4)
        (_mask_ip6 if protocol == _ICMP6 else _mask_ip4)(data, start + 8)
