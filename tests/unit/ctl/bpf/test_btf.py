# SPDX-License-Identifier: GPL-2.0
"""Types that no compiler generates: an object file may contain anything."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from ipttctl.bpf.btf import Array, Btf, Struct, Type
from ipttctl.bpf.values import decode, encode
from ipttctl.errors import ProgramError

INT, ARRAY, STRUCT, ENUM, TYPEDEF, CONST = 1, 3, 4, 6, 8, 10
NAME = 1
"""The offset of the only name."""


def kind(number: int, size_or_type: int, rest: bytes = b"", count: int = 0, flag: int = 0) -> bytes:
    return struct.pack("=III", NAME, flag << 31 | number << 24 | count, size_or_type) + rest


def integer(size: int = 4) -> bytes:
    return kind(INT, size, struct.pack("=I", 8 * size))


def array(element: int, count: int) -> bytes:
    return kind(ARRAY, 0, struct.pack("=III", element, 1, count))


def structure(size: int, *members: tuple[int, int], flag: int = 0) -> bytes:
    """A struct of members, each with its type and bit offset (``flag``: and bit width)."""
    listed = b"".join(struct.pack("=III", NAME, number, at) for number, at in members)
    return kind(STRUCT, size, listed, len(members), flag)


def read(*types: bytes, number: int = 0) -> Type:
    """One of some types, numbered from 1; the last one without ``number``."""
    content, names = b"".join(types), b"\0x\0"
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(content), len(content), len(names))
    with Btf.from_data(head + content + names) as btf:
        return btf.type(number or len(types))


def test_what_a_compiler_makes() -> None:
    found = read(integer(), array(1, 3), structure(12, (2, 0)))
    assert decode(found, struct.pack("=III", 1, 2, 3)) == {"x": [1, 2, 3]}


@pytest.mark.parametrize(
    "types",
    [
        pytest.param([structure(4, (1, 0))], id="a struct in itself"),
        pytest.param([structure(4, (2, 0)), structure(4, (1, 0))], id="two in each other"),
        pytest.param([kind(TYPEDEF, 1)], id="a typedef of itself"),
        pytest.param([kind(CONST, 2), kind(CONST, 1)], id="qualifiers of each other"),
        pytest.param([array(1, 1)], id="an array of itself"),
        pytest.param(
            [integer(1), *(array(number, 1) for number in range(1, 100_000))],
            id="100,000 arrays in one another",
        ),
    ],
)
def test_types_without_an_end(types: list[bytes]) -> None:
    with pytest.raises(ProgramError, match=r"types \(BTF\) are broken: more than 32"):
        read(*types)


@pytest.mark.parametrize(
    ("types", "why"),
    [
        ([integer(3)], "'x' has 3 bytes"),
        ([integer(0)], "'x' has 0 bytes"),
        ([kind(ENUM, 5)], "'x' has 5 bytes"),
        ([integer(), array(1, 0xFFFFFFFF), array(2, 0xFFFFFFFF)], "an array has 171798691"),
        ([integer(), structure(4, (1, 8))], "'x' does not fit into 'x'"),
        ([integer(), structure(8, (1, 40 << 24), flag=1)], "'x' does not fit into 'x'"),
    ],
)
def test_types_of_impossible_sizes(types: list[bytes], why: str) -> None:
    with pytest.raises(ProgramError, match=f"broken: {why}"):
        read(*types)


@pytest.mark.parametrize("convert", [decode, lambda found, _: encode(found, {"x": []})])
def test_arrays_of_nothing(convert: Callable[[Type, bytes], object]) -> None:
    found = read(structure(0), array(1, 0xFFFFFFFF), structure(0, (2, 0)))
    assert isinstance(found, Struct)
    assert isinstance(found.members[0].type, Array)
    assert convert(found, b"") in ({"x": []}, b"")


def test_the_deepest_that_is_read() -> None:
    nested = read(integer(1), *(array(number, 1) for number in range(1, 32)))
    value = decode(nested, b"\7")
    for _ in range(31):
        [value] = value
    assert value == 7
