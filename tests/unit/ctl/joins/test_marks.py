# SPDX-License-Identifier: GPL-2.0
"""Marks as the program of bpf/join.c writes them, and as JSON has them."""

from __future__ import annotations

import json
import struct

import pytest

from ipttctl.joins.marks import Mark, Way, decode_mark, mark_of

BYTES = struct.pack(
    "=8B7I4H4xQ16s16s",
    *(2, 2, 4, 6, 3, 0x18, 0, 0),
    *(1052, 1000, 4_294_967_000, 77, 11, 12, 9),
    *(0x2000, 0, 4000, 443),
    0,
    bytes([10, 1, 0, 1]).ljust(16, b"\0"),
    bytes([10, 2, 0, 1]).ljust(16, b"\0"),
)


def test_a_mark_of_tcp() -> None:
    mark = decode_mark(BYTES)
    assert mark == Mark(
        way=Way.DEPARTURE,
        family=4,
        protocol=6,
        transport=True,
        tcp_flags=0x18,
        hashed=0,
        length=1052,
        payload=1000,
        sequence=4_294_967_000,
        acknowledged=77,
        timestamp=11,
        echoed=12,
        id=9,
        fragment=0x2000,
        segment=0,
        source_port=4000,
        destination_port=443,
        hash=None,
        source="10.1.0.1",
        destination="10.2.0.1",
    )
    assert mark_of(json.loads(json.dumps(mark.values()))) == mark


def test_a_mark_of_a_datagram_of_ipv6() -> None:
    address = bytes(range(0x20, 0x30))
    data = bytearray(BYTES)
    data[1:8] = bytes([1, 6, 17, 1, 0, 64, 0])
    data[48:] = struct.pack("=Q", 0xDEADBEEF) + address + address
    mark = decode_mark(bytes(data))
    assert mark
    assert (mark.way, mark.timestamp, mark.hash) == (Way.ARRIVAL, None, 0xDEADBEEF)
    assert mark.source == "2021:2223:2425:2627:2829:2a2b:2c2d:2e2f"
    assert mark_of(json.loads(json.dumps(mark.values()))) == mark


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_known_is_no_mark(place: int) -> None:
    data = bytearray(BYTES)
    data[place] = 9
    assert decode_mark(bytes(data)) is None
    assert decode_mark(bytes(len(BYTES))) is None
    assert decode_mark(BYTES[:-1]) is None


def test_later_fragments_are_known_by_their_id_alone() -> None:
    mark = decode_mark(BYTES)
    assert mark
    later = mark._replace(transport=False, fragment=100, source_port=0, destination_port=0)
    assert later.key is not None
    assert later._replace(id=0).key is None


def test_ids_of_the_segments_of_a_packet_are_consecutive() -> None:
    mark = decode_mark(BYTES)
    assert mark
    after = mark._replace(sequence=(mark.sequence + 2000) % 2**32, id=11)
    assert mark.fits_id(after)
    assert after.fits_id(mark)
    assert mark.fits_id(after._replace(id=30)) is False
    assert mark.fits_id(after._replace(id=0)) is None
    assert mark.fits_id(mark._replace(id=10)) is False
