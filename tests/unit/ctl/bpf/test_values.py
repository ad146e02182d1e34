# SPDX-License-Identifier: GPL-2.0
"""Conversion of bytes to values by their types, and back."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipttctl.bpf.btf import Array, Btf, Enum, Float, Int, Member, Pointer, Struct, Type
from ipttctl.bpf.values import decode, encode
from ipttctl.errors import ProgramError, UsageError

U8, U16, U32, U64 = (Int(f"__u{8 * size}", size) for size in (1, 2, 4, 8))
S16 = Int("short", 2, signed=True)
BOOL = Int("_Bool", 1, boolean=True)
BE16, BE32 = Int("__be16", 2, network=True), Int("__be32", 4, network=True)
CHAR = Int("char", 1, signed=True, char=True)
COLOUR = Enum("enum colour", 4, False, (("RED", 1), ("BLUE", 7)))
LEVEL = Enum("enum level", 4, True, (("LOW", -1),))
MAC = Array("__u8[6]", 6, U8, 6)
NAME = Array("char[8]", 8, CHAR, 8)
IN6 = Struct("struct in6_addr", 16, (Member("bytes", Array("__u8[16]", 16, U8, 16), 0),))
PAIR = Struct("struct pair", 4, (Member("a", U16, 0), Member("b", BE16, 16)))
EITHER = Struct(
    "union either",
    4,
    (Member("whole", U32, 0), Member("halves", Array("__u16[2]", 4, U16, 2), 0)),
    union=True,
)
FIELDS = Struct(
    "struct fields",
    4,
    (
        Member("low", U32, 0, 3),
        Member("high", Int("int", 4, signed=True), 3, 5),
        Member("", Struct("union", 2, (Member("x", U16, 0), Member("y", U8, 0)), union=True), 16),
    ),
)

#: type, its bytes (numbers in the host's order), its value
CASES: list[tuple[Type, bytes, Any]] = [
    (U8, b"\xff", 255),
    (U32, struct.pack("=I", 1 << 31), 1 << 31),
    (S16, struct.pack("=h", -2), -2),
    (U64, struct.pack("=Q", 1 << 63), 1 << 63),
    (BOOL, b"\1", True),
    (BE16, b"\1\2", 0x102),
    (BE32, b"\x0a\0\0\1", "10.0.0.1"),
    (COLOUR, struct.pack("=I", 7), "BLUE"),
    (COLOUR, struct.pack("=I", 8), 8),
    (LEVEL, struct.pack("=i", -1), "LOW"),
    (Float("double", 8), struct.pack("=d", 0.5), 0.5),
    (Float("float", 4), struct.pack("=f", float("-inf")), "-inf"),
    (Array("char[1]", 1, CHAR, 1), b"\xff", [-1]),
    (Pointer("pointer", 8), struct.pack("=Q", 0xFFFF888000000000), "0xffff888000000000"),
    (MAC, bytes.fromhex("0a0b0c0d0e0f"), "0a:0b:0c:0d:0e:0f"),
    (NAME, b"eth0\0\0\0\0", "eth0"),
    (NAME, b"\0" * 8, ""),
    (NAME, b"12345678", "31:32:33:34:35:36:37:38"),
    (NAME, b"a\0b\0\0\0\0\0", "61:00:62:00:00:00:00:00"),
    (NAME, b"\xff\0\0\0\0\0\0\0", "ff:00:00:00:00:00:00:00"),
    (Array("__u16[2]", 4, U16, 2), struct.pack("=HH", 1, 2), [1, 2]),
    (Array("__be32[4]", 16, BE32, 4), b"\xfd" + bytes(14) + b"\1", "fd00::1"),
    (Struct("struct in_addr", 4, (Member("s_addr", BE32, 0),)), b"\x7f\0\0\1", "127.0.0.1"),
    (IN6, bytes(15) + b"\1", "::1"),
    (PAIR, struct.pack("=H", 3) + b"\0\4", {"a": 3, "b": 4}),
    (EITHER, struct.pack("=HH", 5, 6), None),
]


@pytest.mark.parametrize(("kind", "data", "value"), CASES, ids=str)
def test_values(kind: Type, data: bytes, value: Any) -> None:
    found = decode(kind, data)
    if value is not None:
        assert found == value
        assert type(found) is type(value)
    assert encode(kind, found) == data
    assert encode(kind, json.loads(json.dumps(found))) == data
    if kind.size > 1:
        assert encode(kind, data.hex(":")) == data


@pytest.mark.skipif(sys.byteorder == "big", reason="the bytes are written down for little-endian")
def test_bit_fields_and_members_of_unnamed_unions() -> None:
    data = bytes([0b11101_010, 0, 0x34, 0x12])
    assert decode(FIELDS, data) == {"low": 2, "high": -3, "x": 0x1234, "y": 0x34}
    assert encode(FIELDS, {"low": 2, "high": -3, "x": 0x1234}) == data
    assert encode(FIELDS, {"low": 2, "high": -3, "x": 0x1234, "y": 0x34}) == data
    assert decode(EITHER, struct.pack("=HH", 5, 6)) == {"whole": 0x60005, "halves": [5, 6]}


@pytest.mark.parametrize(
    ("kind", "text", "data"),
    [
        (U32, "0x10", struct.pack("=I", 16)),
        (U32, "10.0.0.1", b"\x0a\0\0\1"),
        (BE32, "1", b"\0\0\0\1"),
        (BE16, "0x102", b"\1\2"),
        (BOOL, "true", b"\1"),
        (COLOUR, "0x7", struct.pack("=I", 7)),
        (MAC, [1, 2, 3, 4, 5, 6], bytes(range(1, 7))),
        (Array("__u8[4]", 4, U8, 4), "10.0.0.1", b"\x0a\0\0\1"),
        (Array("__u8[16]", 16, U8, 16), "::1", bytes(15) + b"\1"),
        (Float("float", 4), "0.5", struct.pack("=f", 0.5)),
        (Pointer("pointer", 8), "0x10", struct.pack("=Q", 16)),
    ],
)
def test_what_is_taken_besides(kind: Type, text: Any, data: bytes) -> None:
    assert encode(kind, text) == data


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (U8, 256, "value: 256 is not between 0 and 255"),
        (U8, -1, "value: -1 is not between 0 and 255"),
        (S16, "40000", "value: 40000 is not between -32768 and 32767"),
        (U32, "x", "value: 'x' is no __u32; it takes a number or an IP address"),
        (U32, "::1", "value: '::1' is no __u32"),
        (U64, "10.0.0.1", "value: '10.0.0.1' is no __u64; it takes a number$"),
        (U32, True, "value: True is no __u32"),
        (U32, 1.5, "value: 1.5 is no __u32"),
        (U32, None, "value: None is no __u32"),
        (BOOL, "yes", "value: 'yes' is no _Bool; it takes true or false"),
        (COLOUR, "GREEN", "value: 'GREEN' is no enum colour; there are: RED, BLUE"),
        (COLOUR, 1 << 32, "is not between 0 and 4294967295"),
        (Float("double", 8), "x", "value: 'x' is not a number"),
        (NAME, "12345678", "value: '12345678' is longer than 7 bytes, or has a NUL"),
        (MAC, "0a:0b", r"value: '0a:0b' is no __u8\[6\]; it takes JSON or 6 bytes as 0a:00:..$"),
        (MAC, [1], r"value: __u8\[6\] takes 6 elements, not 1"),
        (MAC, [0, 0, 0, 0, 0, 256], r"value\[5\]: 256 is not between"),
        (MAC, 5, r"value: 5 is no __u8\[6\]; it takes a list"),
        (PAIR, {"a": 1}, "value: member 'b' of struct pair is missing"),
        (PAIR, {"a": 1, "b": 1, "c": 1}, "value: struct pair has no member 'c'; it takes an obj"),
        (PAIR, {"a": 70000, "b": 1}, "value.a: 70000 is not between 0 and 65535"),
        (PAIR, [1, 2], r"value: \[1, 2\] is no struct pair; it takes an object of a, b"),
        (PAIR, "1", "value: '1' is no struct pair; it takes JSON or 4 bytes as 0a:00:.."),
        (EITHER, {}, "value: no member of union either is given; give whole or halves"),
        (EITHER, {"whole": 1, "halves": [2, 0]}, "does not agree with another member of its union"),
        (FIELDS, {"low": 8, "high": 0, "x": 1}, "value.low: 8 is not between 0 and 7"),
        (FIELDS, {"low": 0, "high": 16, "x": 1}, "value.high: 16 is not between -16 and 15"),
        (FIELDS, {"low": 0, "high": 0}, "value: no member of union is given; give x or y"),
        (FIELDS, {"low": 0, "high": 0, "x": 1, "y": 2}, "value.y: does not agree"),
        (Type("void", 0), "x", "value: 'x' is no void"),
    ],
)
def test_what_is_no_value(kind: Type, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        encode(kind, value)


@pytest.fixture(scope="module")
def everything(object_file: Path) -> Type:
    """The largest type of types.c, as clang describes it."""
    section = (object_file.parent / "btf").resolve()
    command = ["llvm-objcopy", f"--dump-section=.BTF={section}", str(object_file)]
    subprocess.run(command, check=True)
    with Btf.from_data(section.read_bytes()) as types:
        number = types.structure("everything")
        assert types.structure("nothing") < 0
        assert {m.name for m in types.members(number)} >= {"packets", "pair", ""}
        assert list(types.members(0)) == []
        with pytest.raises(ProgramError, match="there is no type 100000"):
            types.type(100000)
        return types.type(number)


def test_types_of_a_compiler(everything: Type) -> None:
    assert isinstance(everything, Struct)
    value = {
        "packets": 1,
        "small": -2,
        "port": 443,
        "colour": "BLUE",
        "name": "eth0",
        "whole": 0x20001,
        "halves": [1, 2] if sys.byteorder == "little" else [2, 1],
        "low": 5,
        "high": -7,
        "on": True,
        "mac": "0a:0b:0c:0d:0e:0f",
        "host": "10.0.0.1",
        "host6": "fd00::1",
        "pointer": "0x10",
        "ratio": 0.25,
        "pair": {"first": 1, "second": 2},
    }
    data = encode(everything, value)
    assert len(data) == everything.size
    assert decode(everything, data) == value
    assert str(everything) == "struct everything"


@settings(max_examples=300, deadline=None)
@given(data=st.binary(min_size=96, max_size=96))
def test_every_value_that_is_shown_is_taken_back(everything: Type, data: bytes) -> None:
    data = data[: everything.size].ljust(everything.size, b"\0")
    shown = decode(everything, data)
    again = encode(everything, json.loads(json.dumps(shown)))
    assert json.dumps(decode(everything, again)) == json.dumps(shown)


def test_broken_types_are_refused() -> None:
    with pytest.raises(ProgramError, match=r"the types \(BTF\) are broken"):
        Btf.from_data(b"nonsense")
