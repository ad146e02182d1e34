# SPDX-License-Identifier: GPL-2.0
"""Marks of a packet where it leaves a host or comes to one: what of it survives the wire."""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ipttctl.events.describe import address
from ipttctl.events.protocols import TCP

VERSION: Final = 2

_TRANSPORT: Final = 1
_TIMESTAMPS: Final = 2
_FORM: Final = struct.Struct("=8B7I4H4xQ16s16s")
_MOST: Final = {
    "family": 6,
    "protocol": 2**8 - 1,
    "tcp_flags": 2**8 - 1,
    "hashed": 64,
    # no packet has more, also where the kernel has not cut it into segments yet
    "payload": 2**19,
    **dict.fromkeys(("length", "sequence", "acknowledged", "timestamp", "echoed", "id"), 2**32 - 1),
    **dict.fromkeys(("fragment", "segment", "source_port", "destination_port"), 2**16 - 1),
    "hash": 2**64 - 1,
}
"""The greatest value of each number."""

_SYN: Final = 0x02
_LEAST_SEGMENT: Final = 256
_BROADCAST: Final = "255.255.255.255"


class Way(enum.StrEnum):
    """Where a packet was seen."""

    ARRIVAL = "arrival"
    """As it came in, before the first function of its hook."""
    DEPARTURE = "departure"
    """At the device that sends it."""


class Mark(NamedTuple):
    """The members of ``struct join`` in bpf/join.c.

    Addresses are text. ``timestamp`` and ``echoed`` are None where TCP has none; ``hash`` is None
    where nothing was hashed. Without ``transport`` there was no transport header to be read.
    ``segment`` is 0 of what is not many packets, to be cut by GSO or merged by GRO, and of TCP.
    """

    way: Way
    family: int
    protocol: int
    transport: bool
    tcp_flags: int
    hashed: int
    length: int
    payload: int
    sequence: int
    acknowledged: int
    timestamp: int | None
    echoed: int | None
    id: int
    fragment: int
    segment: int
    source_port: int
    destination_port: int
    hash: int | None
    source: str
    destination: str

    @property
    def flow(self) -> tuple[object, ...]:
        """The protocol, the addresses and the ports."""
        ends = self.source, self.destination, self.source_port, self.destination_port
        return (self.protocol, *ends)

    @property
    def is_tcp(self) -> bool:
        """Whether there is a TCP header."""
        return self.protocol == TCP and self.transport

    @property
    def key(self) -> tuple[object, ...] | None:
        """Equal for marks that can be of one packet; None where too little is known.

        Marks of TCP's data have the same key if they can be parts of one another; ``span`` says
        which parts.
        """
        if self.is_tcp:
            common = *self.flow, self.acknowledged, self.timestamp, self.echoed
            if self.has_data:
                return (*common, "data")
            return (*common, self.sequence, self.payload, self.tcp_flags)
        if self.segment:
            # what left and what came may not be of the same of those that it is made of
            return (*self.flow, self.id, self.length, self.way)
        if not self.id and (self.fragment or not self.transport or self._is_unread):
            return None
        return (
            *self.flow,
            *(self.sequence, self.id, self.fragment, self.length),
            *(self.hashed, self.hash),
        )

    @property
    def _is_unread(self) -> bool:
        """Whether there is a payload, and no byte of it was looked at."""
        return self.payload > 0 and not self.hashed

    @property
    def has_data(self) -> bool:
        """Whether it is of bytes of TCP, and of nothing else than bytes that may be cut."""
        return self.is_tcp and self.payload > 0 and not self.tcp_flags & _SYN

    @property
    def span(self) -> tuple[int, int]:
        """The numbers of its bytes, if it has such; the end is behind the last one."""
        if self.has_data:
            return self.sequence, self.sequence + self.payload
        return 0, 1

    @property
    def is_multicast(self) -> bool:
        """Whether it is for many hosts, so that one that left may come to several."""
        if self.family == 4:
            first = self.destination.partition(".")[0]
            return (first.isdecimal() and 224 <= int(first) < 240) or self.destination == _BROADCAST
        return self.destination.startswith("ff")

    @property
    def is_weak(self) -> bool:
        """Whether a packet that is sent again looks the same."""
        if self.is_tcp:
            return self.timestamp is None
        return not self.id

    def fits_id(self, other: Mark) -> bool | None:
        """Whether IPv4's ids of segments of TCP can be of the same packet; None if unknown.

        Segments that are cut from one packet have consecutive ids.
        """
        if not (self.is_tcp and self.family == 4 and self.id and other.id):
            return None
        ahead = (other.sequence - self.sequence + (1 << 31)) % (1 << 32) - (1 << 31)
        between = (other.id - self.id + (1 << 15)) % (1 << 16) - (1 << 15)
        if not ahead:
            return not between
        most = abs(ahead) // _LEAST_SEGMENT + 1
        return 0 < between <= most if ahead > 0 else -most <= between < 0

    def values(self) -> dict[str, Any]:
        """The mark as an object."""
        found = self._asdict()
        found["hash"] = None if self.hash is None else f"{self.hash:016x}"
        return found


def decode_mark(payload: bytes) -> Mark | None:
    """The mark in a payload of an event; None if there is none, or of another version."""
    if len(payload) < _FORM.size:
        return None
    (
        version, way, family, protocol, what, tcp_flags, hashed, _,
        length, size, sequence, acknowledged, timestamp, echoed,
        number, fragment, segment, source_port, destination_port,
        digest, source, destination,
    ) = _FORM.unpack_from(payload)  # fmt: skip  # a line for each size in _FORM
    if version != VERSION or way not in (1, 2) or family not in (4, 6):
        return None
    timed = bool(what & _TIMESTAMPS)
    return Mark(
        Way.ARRIVAL if way == 1 else Way.DEPARTURE,
        family,
        protocol,
        bool(what & _TRANSPORT),
        tcp_flags,
        hashed,
        length,
        size,
        sequence,
        acknowledged,
        timestamp if timed else None,
        echoed if timed else None,
        number,
        fragment,
        segment,
        source_port,
        destination_port,
        digest if hashed else None,
        address(source, family),
        address(destination, family),
    )


def mark_of(value: Mapping[str, Any]) -> Mark | None:
    """A mark from its object, which somebody else made; None if it is none."""
    try:
        # hosts with an older version tell nothing of many datagrams
        found = {name: value[name] for name in Mark._fields if name != "segment"}
        found["segment"] = value.get("segment", 0)
        found["way"] = Way(found["way"])
        if found["hash"] is not None:
            found["hash"] = int(found["hash"], 16)
    except (KeyError, ValueError, TypeError):
        return None
    texts, nullable = {"source", "destination"}, {"timestamp", "echoed", "hash"}
    for name, one in found.items():
        if name in texts:
            good = isinstance(one, str) and len(one) <= 64
        elif name == "transport":
            good = isinstance(one, bool)
        elif name == "way" or (name in nullable and one is None):
            good = True
        else:
            good = isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= _MOST[name]
        if not good:
            return None
    return Mark(**found)
