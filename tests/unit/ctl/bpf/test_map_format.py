# SPDX-License-Identifier: GPL-2.0
"""Keys and values of maps, with types and without."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Array, Int, Member, Struct, Type
from ipttctl.bpf.map_format import MapFormat
from ipttctl.bpf.syscalls import MapInfo, MapType
from ipttctl.errors import UsageError

HASH = 1
U8, U16, U32 = (Int(f"__u{8 * size}", size) for size in (1, 2, 4))
BE32 = Int("__be32", 4, network=True)


def info(kind: int, key: int, value: int = 4) -> MapInfo:
    return MapInfo(9, kind, key, value, 16, 0, "test")


def trie(data: Type) -> Struct:
    return Struct("struct k", 4 + data.size, (Member("len", U32, 0), Member("data", data, 32)))


def prefix(length: int, address: bytes) -> bytes:
    return struct.pack("=I", length) + address


NET4 = prefix(8, b"\x0a\0\0\0")
NET6 = prefix(16, b"\xfd" + bytes(15))


@pytest.mark.parametrize(
    ("size", "given", "data", "shown"),
    [
        (1, "10", b"\x0a", 10),
        (2, "0x10", struct.pack("=H", 16), 16),
        (4, "7", struct.pack("=I", 7), 7),
        (4, "10.0.0.1", b"\x0a\0\0\1", None),
        (4, "0a:00:00:01", b"\x0a\0\0\1", None),
        (8, 1 << 40, struct.pack("=Q", 1 << 40), 1 << 40),
        (6, "0a:0b:0c:0d:0e:0f", bytes.fromhex("0a0b0c0d0e0f"), "0a:0b:0c:0d:0e:0f"),
        (3, "[1, 2, 3]", b"\1\2\3", "01:02:03"),
        (16, "fd00::1", b"\xfd" + bytes(14) + b"\1", "fd:00:" + "00:" * 13 + "01"),
    ],
)
def test_without_types_the_size_tells(size: int, given: Any, data: bytes, shown: Any) -> None:
    form = MapFormat(info(HASH, size))
    assert form.key_bytes(given) == data
    if shown is not None:
        assert form.key(data) == shown
    assert form.key_bytes(form.key(data)) == data


@pytest.mark.parametrize(
    "kind",
    [
        None,
        trie(U32),
        trie(BE32),
        trie(Array("__u8[4]", 4, U8, 4)),
        trie(Struct("struct in_addr", 4, (Member("s_addr", BE32, 0),))),
    ],
)
def test_tries_of_addresses_have_prefixes_for_keys(kind: Type | None) -> None:
    form = MapFormat(info(MapType.LPM_TRIE, 8), kind)
    assert form.key_bytes("10.0.0.0/8") == NET4
    assert form.key(NET4) == "10.0.0.0/8"
    assert form.key_bytes("10.1.2.3/8") == NET4
    assert form.key_bytes("10.0.0.1") == prefix(32, b"\x0a\0\0\1")
    assert form.key_bytes(NET4.hex(":")) == NET4
    with pytest.raises(UsageError, match="'fd00::/16' is no IPv4 prefix; such as 10"):
        form.key_bytes("fd00::/16")


@pytest.mark.parametrize(
    "kind", [None, trie(Array("__u8[16]", 16, U8, 16)), trie(Array("__u32[4]", 16, U32, 4))]
)
def test_tries_of_ipv6_addresses_too(kind: Type | None) -> None:
    form = MapFormat(info(MapType.LPM_TRIE, 20), kind)
    assert form.key_bytes("fd00::/16") == NET6
    assert form.key(NET6) == "fd00::/16"
    with pytest.raises(
        UsageError, match=r"key: '10\.0\.0\.0/8' is no IPv6 prefix; such as fd00::/8"
    ):
        form.key_bytes("10.0.0.0/8")


def test_tries_of_something_else_show_their_members() -> None:
    kind = Struct(
        "struct k", 8, (Member("len", U32, 0), Member("a", U16, 32), Member("b", U16, 48))
    )
    form = MapFormat(info(MapType.LPM_TRIE, 8), kind)
    data = struct.pack("=IHH", 16, 1, 2)
    assert form.key(data) == {"len": 16, "a": 1, "b": 2}
    assert form.key_bytes('{"len": 16, "a": 1, "b": 2}') == data


def test_addresses_are_keys_of_a_hash_by_its_types() -> None:
    form = MapFormat(info(HASH, 4), BE32)
    assert form.key(b"\x0a\0\0\1") == "10.0.0.1"
    assert form.key_bytes("10.0.0.1") == b"\x0a\0\0\1"


def test_types_of_another_size_are_not_believed() -> None:
    form = MapFormat(info(HASH, 2), BE32, U8)
    assert form.key_type is form.value_type is None
    assert form.key(struct.pack("=H", 7)) == 7


def test_text_is_json_where_a_type_has_parts() -> None:
    pair = Struct("struct pair", 4, (Member("a", U16, 0), Member("b", U16, 16)))
    form = MapFormat(info(HASH, 4), pair, Array("__u16[2]", 4, U16, 2))
    assert form.key_bytes('{"a": 1, "b": 2}') == struct.pack("=HH", 1, 2)
    assert form.value_bytes("[3, 4]") == struct.pack("=HH", 3, 4)
    with pytest.raises(UsageError, match="' is not JSON: "):
        form.key_bytes('{"a": 1')


def test_values_of_each_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "possible_cpus", lambda: 3)
    form = MapFormat(info(MapType.PERCPU_HASH, 4))
    one, two, three = (struct.pack("=Q", n) for n in (1, 2, 3))
    assert form.value_bytes("1") == one * 3
    assert form.value_bytes("[1, 2, 3]") == one + two + three
    assert form.value_bytes([1, 2, 3]) == one + two + three
    assert form.value(one + two + three) == [1, 2, 3]
    with pytest.raises(UsageError, match="the map has one for each of 3 CPUs, not 2"):
        form.value_bytes("[1, 2]")
    with pytest.raises(UsageError, match=r"value\[2\]: 'x' is no __u32"):
        form.value_bytes([1, 2, "x"])
    with pytest.raises(UsageError, match="value: 'x' is no __u32"):
        form.value_bytes("x")


def test_a_list_is_a_cpus_value_where_it_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "possible_cpus", lambda: 2)
    form = MapFormat(info(MapType.PERCPU_ARRAY, 4), U32, Array("__u16[2]", 4, U16, 2))
    both = struct.pack("=HHI", 1, 2, 0)
    assert form.value_bytes("[1, 2]") == both + both
    assert form.value_bytes("[[1, 2], [3, 4]]") == both + struct.pack("=HHI", 3, 4, 0)
    assert form.value(both + both) == [[1, 2], [1, 2]]
