# SPDX-License-Identifier: GPL-2.0
"""tcpdump expressions: the kernel accepts libpcap's programs for them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from ipttctl.bpf.filters import LONGEST, compile_filter, filter_text
from ipttctl.errors import ProgramError, UsageError
from ipttproto.family import limit


def run(code: bytes, packet: bytes) -> int:  # noqa: PLR0912 - an interpreter
    """Run a classic-BPF filter with the instructions that libpcap generates for these tests."""
    program = list(struct.iter_unpack("=HBBI", code))
    a = x = pc = 0
    memory: dict[int, int] = {}
    while True:
        op, jt, jf, k = program[pc]
        pc += 1
        size = {0x00: 4, 0x08: 2, 0x10: 1}.get(op & 0x18, 0)
        match op & 0x07:
            case 0x00 if op & 0xE0 in {0x20, 0x40}:
                offset = k + (x if op & 0xE0 == 0x40 else 0)
                if offset + size > len(packet):
                    return 0
                a = int.from_bytes(packet[offset : offset + size])
            case 0x00 if op & 0xE0 == 0x60:
                a = memory[k]
            case 0x00 if op & 0xE0 == 0x00:
                a = k
            case 0x01 if op & 0xE0 == 0xA0:
                if k >= len(packet):
                    return 0
                x = 4 * (packet[k] & 0xF)
            case 0x02:
                memory[k] = a
            case 0x04 if op & 0xF8 == 0x50:
                a &= k
            case 0x05 if op & 0xF0 == 0x00:
                pc += k
            case 0x05:
                other = x if op & 0x08 else k
                taken = {0x10: a == other, 0x20: a > other, 0x30: a >= other, 0x40: a & other != 0}
                pc += jt if taken[op & 0xF0] else jf
            case 0x06:
                return a if op & 0x18 == 0x10 else k
            case _:
                raise AssertionError(f"instruction {op:#x} is not expected here")


def ipv4(source: str, destination: str, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, fragment, 64, protocol, 0)
    return head + addresses + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    addresses = ip_address(source).packed + ip_address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def ports(source: int, destination: int) -> bytes:
    return struct.pack("!HH", source, destination) + bytes(16)


TCP4 = ipv4("10.0.0.2", "10.0.0.1", 6, ports(40000, 443))
UDP4 = ipv4("10.0.0.2", "10.0.0.1", 17, ports(40000, 53))
LATER4 = ipv4("10.0.0.2", "10.0.0.1", 6, ports(40000, 443), fragment=100)
TCP6 = ipv6("fd00::2", "fd00::1", 6, ports(443, 40000))


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [
        ("ip", [TCP4, UDP4, LATER4]),
        ("ip6", [TCP6]),
        ("tcp", [TCP4, LATER4, TCP6]),
        ("tcp port 443", [TCP4, TCP6]),
        ("tcp port 443 and host 10.0.0.2", [TCP4]),
        ("udp or host fd00::1", [UDP4, TCP6]),
        ("dst port 53", [UDP4]),
        ("not ip", [TCP6]),
        ("len > 1000", []),
    ],
)
@pytest.mark.parametrize("optimize", [True, False])
def test_filters_accept_what_they_say(
    expression: str, accepted: list[bytes], *, optimize: bool
) -> None:
    if expression.startswith("len"):
        # len is no load from the packet, and run() knows only those.
        assert len(compile_filter(expression, optimize=optimize)) % 8 == 0
        return
    code = compile_filter(expression, optimize=optimize)
    packets = [TCP4, UDP4, LATER4, TCP6]
    assert [packet for packet in packets if run(code, packet)] == accepted


def test_the_code_is_what_the_kernel_checks() -> None:
    code = compile_filter("tcp port 443 or udp portrange 1-99 or icmp6 or host 10.1.2.3")
    program = list(struct.iter_unpack("=HBBI", code))
    for index, (op, jt, jf, k) in enumerate(program):
        if op & 0x07 == 0x05:
            jumps = (k,) if op & 0xF0 == 0 else (jt, jf)
            assert all(index + 1 + jump < len(program) for jump in jumps)
    assert program[-1][0] & 0x07 == 0x06


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("tcp port", "filter 'tcp port': .*syntax error.*; see: man 7 pcap-filter"),
        ("ether host 1:2:3:4:5:6", "ethernet addresses supported only on"),
        ("vlan 3", "no VLAN support for Raw IP"),
        ("port 70000", "70000"),
    ],
)
def test_refusals_are_in_libpcaps_words(expression: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        compile_filter(expression)


@pytest.mark.parametrize("expression", ["", " \t\n", "tcp\0"])
def test_expressions_that_are_none(expression: str) -> None:
    with pytest.raises(UsageError):
        compile_filter(expression)


def test_the_protocol_and_the_compiler_have_the_kernels_limit() -> None:
    assert limit("MAX_FILTER") == LONGEST


def test_a_filter_too_long_for_the_kernel_is_refused() -> None:
    hosts = " or ".join(f"host fd00::{i:x}" for i in range(1, 1200))
    with pytest.raises(ProgramError, match="instructions, the kernel takes 4096; make it shorter"):
        compile_filter(hosts, optimize=False)


@pytest.mark.parametrize("expression", ["udp port 53", "icmp6 or host fd00::1", "len > 1000"])
def test_instructions_as_text_are_taken_back(expression: str) -> None:
    code = compile_filter(expression)
    text = filter_text(code)
    assert text.startswith(f"{len(code) // 8},")
    assert compile_filter(text) == code


def test_bytecode_of_iptables() -> None:
    """The example of iptables-extensions(8) matches TCP."""
    code = compile_filter("4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0")
    assert [run(code, packet) for packet in (TCP4, UDP4)] == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2,6 0 0 1", "says that it has 2 instructions and has 1"),
        ("1,65536 0 0 1", "'65536 0 0 1' is no instruction of a filter; it is code, jt, jf and k"),
        ("1,6 256 0 1", "no instruction"),
        ("1,6 0 0 4294967296", "no instruction"),
        ("4097" + ",6 0 0 1" * 4097, "has 4097 instructions, the kernel takes 4096"),
        # not instructions at all
        ("1,6 0 0", "syntax error"),
        ("1,6 0 0 -1", "syntax error"),
    ],
)
def test_instructions_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        compile_filter(text)
