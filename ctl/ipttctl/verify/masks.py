# SPDX-License-Identifier: GPL-2.0
"""Packets without what chance decides: identifiers, checksums over them, SYN cookies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ipttctl.verify.netlink import Message, attributes
from ipttctl.verify.packets import ACK, SYN

_TCP: Final = 6
_FRAGMENT: Final = 44
_EXTENSIONS: Final = (0, 43, 44, 60)
_TRACE_ID, _LINK, _NETWORK, _TRANSPORT, _CONNECTION = 6, 7, 8, 9, 18


def masked_frame(frame: bytes) -> str:
    """A frame as hexadecimal digits, masked; anything else unchanged."""
    data = bytearray(frame)
    ethertype = frame[12:14]
    if ethertype == b"\x08\x00":
        _mask_ip4(data, 14)
    elif ethertype == b"\x86\xdd":
        _mask_ip6(data, 14)
    return data.hex()


def masked_trace(message: Message) -> Iterator[str]:
    """The attributes of a trace message, masked."""
    protocol = 0
    for kind, value in attributes(message.payload):
        data = bytearray(value)
        if kind in {_TRACE_ID, _CONNECTION}:
            continue
        if kind == _NETWORK and data:
            if data[0] >> 4 == 4:
                protocol = data[9] if len(data) > 9 else 0
                _mask_ip4(data, 0)
            elif data[0] >> 4 == 6:
                protocol = data[6] if len(data) > 6 else 0
        if kind == _TRANSPORT and protocol == _TCP:
            _mask_tcp(data, 0)
        yield f"{kind}:{data.hex()}"


def _mask_ip4(data: bytearray, start: int) -> None:
    """Mask the identifier and the checksum, and what follows."""
    if len(data) < start + 20:
        return
    data[start + 4 : start + 6] = data[start + 10 : start + 12] = bytes(2)
    fragment = int.from_bytes(data[start + 6 : start + 8]) & 0x1FFF
    if data[start + 9] == _TCP and not fragment:
        _mask_tcp(data, start + (data[start] & 0xF) * 4)


def _mask_ip6(data: bytearray, start: int) -> None:
    """Mask the identifier of a fragment, and what follows."""
    if len(data) < start + 40:
        return
    following, offset = data[start + 6], start + 40
    while following in _EXTENSIONS and len(data) >= offset + 8:
        if following == _FRAGMENT:
            data[offset + 4 : offset + 8] = bytes(4)
            length = 8
        else:
            length = (data[offset + 1] + 1) * 8
        following, offset = data[offset], offset + length
    if following == _TCP:
        _mask_tcp(data, offset)


def _mask_tcp(data: bytearray, start: int) -> None:
    """Mask sequence number, checksum and options of an answer to a SYN, which may be a cookie."""
    if len(data) >= start + 20 and data[start + 13] & (SYN | ACK) == SYN | ACK:
        data[start + 4 : start + 8] = bytes(4)
        data[start + 16 : start + 18] = bytes(2)
        data[start + 20 :] = bytes(len(data) - start - 20)
