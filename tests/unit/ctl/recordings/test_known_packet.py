# SPDX-License-Identifier: GPL-2.0
"""Packets as events show them: whatever a filter makes of these is what libpcap makes of all."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipttctl.bpf.filter_run import FilterRun
from ipttctl.bpf.filters import compile_filter
from ipttctl.recordings.kept_packet import kept_bytes
from ipttctl.recordings.known_packet import Shown, shown_packets
from ipttproto import EventFlag, Kind
from tests.unit.ctl.bpf.test_filter_run import EXPRESSIONS, taken

MORE = (
    *EXPRESSIONS,
    "icmp or icmp6",
    "icmp[4:2] = 7",
    "ip[6] & 0x40 != 0",
    "ip6[7] < 5",
    "ip6[4:2] > 40",
    "ip6[0] & 0xf = 1",
    "udp[4:2] > 20",
    "less 60",
    "proto 50 or ip6 proto 17",
    "ip6[40:2] = 80",
    "host 2001:db8::1 or src host 192.0.2.7",
)
RUNS = {text: FilterRun(compile_filter(text), text) for text in MORE}


@st.composite
def packets(draw: st.DrawFn) -> tuple[bytes, Shown]:
    """A packet, and what the module shows of it: see kmod_netlink/packet.c."""
    six = draw(st.booleans())
    protocol = draw(st.sampled_from([6, 6, 17, 50, 58 if six else 1]))
    ports = draw(st.sampled_from([(80, 4096), (4096, 53), (443, 443)]))
    echo = draw(st.booleans())
    kind = (128 if six else 8) if echo else 3
    transport = bytearray(draw(st.binary(min_size=20, max_size=40)))
    if protocol in {6, 17}:
        transport[:4] = struct.pack("!HH", *ports)
    elif protocol != 50:
        transport[:6] = struct.pack("!BBHH", kind, 0, 0, 7)
    tos, ttl = draw(st.sampled_from([0, 16, 0xB8])), draw(st.sampled_from([1, 4, 64]))
    offset = draw(st.sampled_from([0, 0, 1, 0x1FFF]))
    if six:
        offset = 0
        source, destination = bytes.fromhex("20010db8") + bytes(11) + b"\1", bytes(15) + b"\2"
        head = struct.pack("!IHBB", 0x60000000 | tos << 20, len(transport), protocol, ttl)
        head += source + destination
    else:
        options = draw(st.sampled_from([b"", b"\1\1\1\0", bytes(40)]))
        source, destination = b"\xc0\0\2\7", b"\x0a\0\0\1"
        flags = draw(st.sampled_from([0, 0x4000, 0x2000]))
        words, length = 5 + len(options) // 4, 20 + len(options) + len(transport)
        first = struct.pack(
            "!BBHHHBBH", 0x40 | words, tos, length, 9, flags | offset, ttl, protocol, 0
        )
        head = first + source + destination + options
    packet = head + bytes(transport)
    whole = not offset
    spine = draw(st.booleans())
    shown: dict[str, Any] = {
        "netns_cookie": 1,
        "pid": 0,
        "length": len(packet),
        "sport": ports[0] if whole and protocol in {6, 17} else 0,
        "dport": ports[1] if whole and protocol in {6, 17} else 0,
        "icmp_id": 7 if whole and echo and protocol in {1, 58} else 0,
        "ethertype": 0x86DD if six else 0x0800,
        "flags": 0 if whole else int(EventFlag.FRAGMENT),
        "ttl": ttl if spine else 0,
        "tos": tos if spine else 0,
        "kind": int(Kind.SPINE_FUNCTION if spine else Kind.RULE),
        "pf": 10 if six else 2,
        "protocol": protocol,
        "tcp_flags": transport[13] if whole and protocol == 6 else 0,
        "icmp_type": kind if whole and protocol in {1, 58} else 0,
        "icmp_code": 0,
        "saddr": source.ljust(16, b"\0"),
        "daddr": destination.ljust(16, b"\0"),
    }
    return packet, Shown(**shown)


@settings(max_examples=600, deadline=None)
@given(packets(), st.sampled_from(MORE))
def test_what_is_told_is_true(made: tuple[bytes, Shown], text: str) -> None:
    packet, shown = made
    answers = {RUNS[text].takes(one) for one in shown_packets(shown)}
    if answers in ({True}, {False}):
        assert answers == {taken(text, packet)}


@settings(max_examples=200, deadline=None)
@given(packets())
def test_expressions_about_recorded_fields_are_told(made: tuple[bytes, Shown]) -> None:
    packet, shown = made
    for text in ("tcp port 80", "net 10.0.0.0/8 and not icmp", "greater 100", "icmp or icmp6"):
        assert {RUNS[text].takes(one) for one in shown_packets(shown)} == {taken(text, packet)}


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": int(EventFlag.TRUNCATED)},
        {"protocol": 58, "icmp_type": 143},
        {"flags": int(EventFlag.TRUNCATED), "saddr": bytes(16), "daddr": bytes(16)},
    ],
)
def test_headers_behind_others_are_not_known(changes: dict[str, Any]) -> None:
    empty = dict.fromkeys(Shown._fields, 0)
    ends = {"saddr": b"\xfd".ljust(16, b"\1"), "daddr": b"\xfd".ljust(16, b"\2")}
    shown = Shown(**{**empty, **ends, "ethertype": 0x86DD, "length": 96, "protocol": 6, **changes})
    [packet] = shown_packets(shown)
    assert RUNS["tcp port 80"].takes(packet) is not True
    assert RUNS["proto 50 or ip6 proto 17"].takes(packet) is None


def test_bytes_that_are_none() -> None:
    assert kept_bytes(b"") is None
    assert kept_bytes(struct.pack("<II", 60, 0) + bytes(8)) is None
    found = kept_bytes(struct.pack("<II", 60, 4) + b"\x45\0\0\x3c" + bytes(4))
    assert found is not None
    assert (found.length, found.bits) == (60, b"\x45\0\0\x3c")
