# SPDX-License-Identifier: GPL-2.0
"""Filters run on packets that are known in part: libpcap says what they do to whole ones."""

from __future__ import annotations

import ctypes
import struct
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipttctl.bpf.filter_run import FilterRun, PartlyKnown
from ipttctl.bpf.filters import compile_filter
from ipttctl.errors import ProgramError

EXPRESSIONS = (
    "tcp port 80",
    "udp and host 10.0.0.1",
    "net 10.0.0.0/8 and not icmp",
    "ip6 and tcp dst port 443",
    "portrange 20-90",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "icmp[icmptype] = icmp-echo",
    "ip[8] < 5 or ip[0] & 0xf != 5",
    "ip[6:2] & 0x1fff = 0",
    "greater 100",
    "tcp[4:4] % 7 = 3",
    "ip[2:2] - ((ip[0] & 0xf) << 2) > 40",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420",
    "ip[1] / ip[9] = 2",
    "ip[1] >> ip[9] = 2 or ip[4:2] * 3 = ip[1] ^ 5 | 3",
    "not (src port 53 or dst port 53) and ip proto 17",
)
BACK = (
    "tcp[-20] & 0xf0 = 0x40",
    "tcp[-8:4] = 0x0a000001 or tcp[-60] = 0x4f",
    "tcp[0x7fffffff] = 0 or tcp[-21] != 0",
)
"""Expressions that look back from the transport header. The kernel adds in 32 bits, libpcap does
not."""
RUNS = {text: FilterRun(compile_filter(text), text) for text in (*EXPRESSIONS, *BACK)}


class Program(ctypes.Structure):
    """struct bpf_program."""

    _fields_ = (("len", ctypes.c_uint), ("insns", ctypes.c_char_p))


@cache
def libpcap() -> ctypes.CDLL:
    library = ctypes.CDLL("libpcap.so.0.8")
    library.bpf_filter.restype = ctypes.c_uint
    library.bpf_filter.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint]
    return library


def taken(expression: str, packet: bytes) -> bool:
    """Whether libpcap lets a packet through."""
    code = compile_filter(expression)
    return bool(libpcap().bpf_filter(code, packet, len(packet), len(packet)))


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Packets of which some have headers that make sense."""
    rest = draw(st.binary(max_size=48))
    small = st.integers(0, 255)
    if draw(st.booleans()):
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | draw(st.sampled_from([5, 5, 5, 6, 7])),
            draw(small),
            20 + len(rest),
            draw(st.integers(0, 65535)),
            draw(st.sampled_from([0, 0, 0x4000, 0x2000, 0x2001, 0x1FFF])),
            draw(small),
            draw(st.sampled_from([1, 6, 17, 50])),
            0,
            draw(st.sampled_from([b"\x0a\0\0\1", b"\xc0\0\2\7"])),
            draw(st.sampled_from([b"\x0a\0\0\1", b"\xc0\0\2\7"])),
        )
    else:
        protocol = draw(st.sampled_from([6, 17, 58, 44, 0]))
        head = struct.pack("!IHBB", 0x60000000, len(rest), protocol, 64) + bytes(32)
    ports = draw(st.sampled_from([b"", b"\0\x50\x10\0", b"\x10\0\0\x35", b"\1\xbb\1\xbb"]))
    return draw(st.sampled_from([head + ports + rest, draw(st.binary(max_size=60))]))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EXPRESSIONS), packets())
def test_a_packet_that_is_known_is_taken_as_libpcap_takes_it(text: str, packet: bytes) -> None:
    known = PartlyKnown(len(packet), packet, b"\xff" * len(packet))
    assert RUNS[text].takes(known) is taken(text, packet)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(EXPRESSIONS), packets(), st.data())
def test_no_bit_that_is_not_known_changes_an_outcome(
    text: str, packet: bytes, data: st.DataObject
) -> None:
    """Answers of a run are true of all packets that agree with what is known."""
    size = len(packet)
    mask = bytes(
        data.draw(st.lists(st.sampled_from([0, 0xFF, 0xF0]), min_size=size, max_size=size))
    )
    told = RUNS[text].takes(PartlyKnown(size, packet, mask))
    if told is not None:
        other = data.draw(st.binary(min_size=size, max_size=size))
        mixed = bytes(b & m | o & ~m for b, m, o in zip(packet, mask, other, strict=True))
        assert taken(text, mixed) is told


def segments(words: int, options: bytes) -> tuple[PartlyKnown, bytes]:
    """A segment behind an IP header of a length that is not known, and all of its bytes."""
    head = bytes([0x40, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7])
    transport = b"\x10\0\0\x50" + bytes(8) + b"\x50\2" + bytes(6)
    length = 4 * words + len(transport)
    known = b"\xf0" + b"\xff" * 5 + b"\x1f" + b"\xff" * 13
    ports = b"\xff" * 4 + bytes(9) + b"\xff" + bytes(6)
    whole = bytes([0x40 | words]) + head[1:] + options.ljust(40, b"\0")[: 4 * words - 20]
    return PartlyKnown(length, head, known, (transport, ports)), whole + transport


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.integers(5, 15), st.binary(max_size=60))
def test_the_length_of_the_ip_header_need_not_be_known(
    text: str, words: int, options: bytes
) -> None:
    """A run that does not know it tells what is true of every length, if it tells anything."""
    packet, whole = segments(words, options)
    told = RUNS[text].takes(packet)
    if told is not None:
        assert taken(text, whole) is told


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(BACK), st.integers(5, 15), st.binary(max_size=60))
@example(BACK[0], 5, b"")
@example(BACK[1], 15, b"")
def test_offsets_may_lead_back_to_an_ip_header_of_any_length(
    text: str, words: int, options: bytes
) -> None:
    packet, whole = segments(words, options)
    told = RUNS[text].takes(packet)
    if told is not None:
        known = PartlyKnown(len(whole), whole, b"\xff" * len(whole))
        assert RUNS[text].takes(known) is told


def test_ports_behind_a_header_of_any_length_are_told() -> None:
    head = bytes([0x40, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7])
    known = b"\xf0" + b"\xff" * 5 + b"\x1f" + b"\xff" * 13
    behind = b"\x10\0\0\x50", b"\xff" * 4
    packet = PartlyKnown(60, head, known, behind)
    told = {text: RUNS[text].takes(packet) for text in EXPRESSIONS}
    assert told["tcp port 80"] is True
    assert told["portrange 20-90"] is True
    assert told["udp and host 10.0.0.1"] is False
    assert told["tcp[4:4] % 7 = 3"] is None
    assert told["ip[8] < 5 or ip[0] & 0xf != 5"] is None


def test_a_run_that_would_take_forever_ends() -> None:
    """A test of bits that are not known doubles the ways; each of these reads another byte."""
    text = " and ".join(f"(ip[{n}] & 1 = 0 or ip[{n}] & 2 = 0)" for n in range(1, 20))
    text = f"({text}) and ip[9] = 255 and ip[9] = 254"
    run = FilterRun(compile_filter(text, optimize=False), text)
    packet = PartlyKnown(60, bytes([0x45]) + bytes(59), b"\xff" + bytes(59))
    assert run.takes(packet) is not True


def test_ways_that_meet_again_are_run_once() -> None:
    """Each bit of a byte that is not known parts the ways, until the next one is loaded."""
    tests = [f"48 0 0 40,69 0 1 {1 << n % 8},0 0 0 {n}" for n in range(40)]
    text = ",".join([str(3 * len(tests) + 1), *tests, "6 0 0 1"])
    run = FilterRun(compile_filter(text), text)
    packet = PartlyKnown(60, bytes(60), bytes(60))
    assert run.takes(packet) is True


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1,5 9 9 9", "the kernel does not take instruction 0 (5 9 9 9)"),
        ("1,21 9 9 9", "the kernel does not take instruction 0 (21 9 9 9)"),
        ("2,6 0 0 0,4 0 0 0", "does not end with a return"),
        ("2,52 0 0 0,6 0 0 0", "the kernel does not take instruction 0 (52 0 0 0)"),
        ("2,2 0 0 16,6 0 0 0", "the kernel does not take instruction 0 (2 0 0 16)"),
        ("2,96 0 0 99,6 0 0 0", "the kernel does not take instruction 0 (96 0 0 99)"),
        ("2,5 0 0 1,6 0 0 0", "the kernel does not take instruction 0 (5 0 0 1)"),
        ("2,100 0 0 32,6 0 0 0", "the kernel does not take instruction 0 (100 0 0 32)"),
        ("2,116 0 0 99,6 0 0 0", "the kernel does not take instruction 0 (116 0 0 99)"),
        ("ip6 protochain 17", "has a loop, which no kernel takes"),
    ],
)
def test_what_is_no_filter_is_refused(text: str, said: str) -> None:
    with pytest.raises(ProgramError) as caught:
        FilterRun(compile_filter(text), text)
    assert f"filter '{text}'" in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.remedy
