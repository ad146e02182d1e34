# SPDX-License-Identifier: GPL-2.0
"""A file of packets in the form of pcapng, each with its story as a comment.

The packets are as they were at the first of their events that has bytes of them: from the network
header on, cut to what was kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO, Final, NamedTuple

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_ORDER: Final = 0x1A2B3C4D
_RAW: Final = 101
"""The link type of packets that begin with the IP header (LINKTYPE_RAW)."""

_COMMENT, _NAME, _RESOLUTION, _PROGRAM = 1, 2, 9, 4
_NANOSECONDS: Final = 9
_MOST_OPTION: Final = 0xFFFC
"""Most bytes of an option, so that the padded length fits too."""


class CapturedPacket(NamedTuple):
    """A packet: the time of its bytes (CLOCK_REALTIME, ns), its device, and its whole length."""

    time: int
    device: str
    length: int
    data: bytes
    comment: str


class PcapngWriter:
    """Writes packets to a file."""

    def __init__(self, file: BinaryIO, program: str, snaplen: int) -> None:
        """Write the beginning; ``snaplen`` are most bytes of a packet."""
        self._file = file
        self._snaplen = snaplen
        self._interfaces: dict[str, int] = {}
        section = struct.pack("<IHHq", _ORDER, 1, 0, -1)
        self._block(_SECTION, section + _options([(_PROGRAM, program.encode())]))

    def write(self, packet: CapturedPacket) -> None:
        """Write a packet."""
        interface = self._interfaces.get(packet.device)
        if interface is None:
            interface = self._interfaces[packet.device] = len(self._interfaces)
            options = [
                (_NAME, packet.device.encode(errors="replace")),
                (_RESOLUTION, bytes([_NANOSECONDS])),
            ]
            self._block(_INTERFACE, struct.pack("<HHI", _RAW, 0, self._snaplen) + _options(options))
        head = struct.pack(
            "<IIIII",
            interface,
            packet.time >> 32,
            packet.time & 0xFFFFFFFF,
            len(packet.data),
            max(packet.length, len(packet.data)),
        )
        options = [(_COMMENT, packet.comment.encode(errors="replace"))] if packet.comment else []
        self._block(_PACKET, head + _padded(packet.data) + _options(options))

    def _block(self, kind: int, body: bytes) -> None:
        size = len(body) + 12
        self._file.write(struct.pack("<II", kind, size) + body + struct.pack("<I", size))


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    parts: list[bytes] = []
    for code, value in options:
        # a character may be cut; readers show that as such
        cut = value[:_MOST_OPTION]
        parts += (struct.pack("<HH", code, len(cut)), _padded(cut))
    return b"".join([*parts, bytes(4)]) if parts else b""


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
