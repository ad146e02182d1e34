# SPDX-License-Identifier: GPL-2.0
"""Differences between outcomes as sentences, and masks of what chance decides."""

from __future__ import annotations

import struct

from ipttctl.verify.masks import masked_frame, masked_trace
from ipttctl.verify.netlink import SubsystemMessage, attribute
from ipttctl.verify.outcome import Outcome, differences
from ipttctl.verify.packets import ACK, SYN

ETHERNET = bytes(12) + b"\x08\x00"


def ip4(identifier: int, protocol: int, payload: bytes, ttl: int = 64) -> bytes:
    checksum = identifier ^ 0xFFFF
    addresses = bytes((10, 77, 1, 2, 10, 77, 2, 2))
    length = 20 + len(payload)
    fields = (0x45, 0, length, identifier, 0, ttl, protocol, checksum)
    return struct.pack("!BBHHHBBH", *fields) + addresses + payload


def tcp(flags: int, sequence: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 80, 20001, sequence, 7, 0x50, flags, 512, sequence & 0xFFFF, 0)


def test_equal_outcomes_have_no_difference() -> None:
    outcome = Outcome({"rule 1": "1 packets"}, {"arrived": ("a", "b")})
    assert not differences(outcome, outcome)


def test_each_difference_is_a_sentence() -> None:
    one = Outcome({"rule 1": "1 packets", "rule 2": "-"}, {"arrived": ("a", "b"), "traces": ("x",)})
    two = Outcome({"rule 1": "2 packets"}, {"arrived": ("a", "c"), "traces": ("x", "x")})
    assert differences(one, two) == [
        "rule 1: 1 packets without links, 2 packets with links",
        "rule 2: - without links, missing with links",
        "arrived: b came 1 times more without links",
        "arrived: c came 1 times more with links",
        "traces: x came 1 times more with links",
    ]


def test_another_order_is_a_difference() -> None:
    one, two = (Outcome({}, {"traces": order}) for order in (("x", "y"), ("y", "x")))
    assert differences(one, two) == ["traces: the order differs from number 1 on"]


def test_what_the_kernel_chooses_is_masked() -> None:
    one, two = (masked_frame(ETHERNET + ip4(i, 17, b"data")) for i in (5, 6))
    assert one == two
    assert masked_frame(ETHERNET + ip4(5, 17, b"date")) != one
    assert masked_frame(ETHERNET + ip4(5, 17, b"data", ttl=63)) != one


def test_only_cookies_are_masked_in_segments() -> None:
    cookies = {masked_frame(ETHERNET + ip4(1, 6, tcp(SYN | ACK, number))) for number in (1, 2)}
    assert len(cookies) == 1
    segments = {masked_frame(ETHERNET + ip4(1, 6, tcp(ACK, number))) for number in (1, 2)}
    assert len(segments) == 2


def test_a_packet_in_an_icmp_error_is_masked() -> None:
    def error(code: int, identifier: int) -> str:
        about = struct.pack("!BBHI", 3, code, identifier, 0) + ip4(identifier, 17, b"data")
        return masked_frame(ETHERNET + ip4(1, 1, about))

    assert error(1, 5) == error(1, 6)
    assert error(1, 5) != error(3, 5)


def test_trace_messages_lose_their_identity() -> None:
    def trace(identity: int, handle: int) -> list[str]:
        payload = attribute(3, struct.pack("!Q", handle)) + attribute(
            6, struct.pack("!I", identity)
        )
        return list(masked_trace(SubsystemMessage(10, 17, 1, payload)))

    assert trace(1, 4) == trace(2, 4)
    assert trace(1, 4) != trace(1, 5)


def test_a_frame_that_ends_early_is_no_error() -> None:
    whole = ETHERNET + ip4(1, 6, tcp(SYN | ACK, 1))
    for length in range(len(whole)):
        assert len(masked_frame(whole[:length])) == 2 * length
