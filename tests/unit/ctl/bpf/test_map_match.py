# SPDX-License-Identifier: GPL-2.0
"""Maps that a program may use instead of its own, and what keeps others from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ipttctl.bpf.btf import Array, Btf, Enum, Float, Int, Member, Pointer, Struct, Type
from ipttctl.bpf.map_match import difference, same_layout
from ipttctl.bpf.maps import Map
from ipttctl.bpf.specs import CollectionSpec
from ipttctl.bpf.syscalls import MapInfo

U32, S32 = Int("__u32", 4), Int("int", 4, signed=True)
BE32, BOOL = Int("__be32", 4, network=True), Int("_Bool", 1, boolean=True)
COLOUR = Enum("enum colour", 4, False, (("RED", 1), ("BLUE", 7)))


def pair(second: Type = U32, name: str = "second", bits: int = 32, union: bool = False) -> Struct:
    members = (Member("first", U32, 0), Member(name, second, bits))
    return Struct("struct pair", 8, members, union)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (U32, Int("u32", 4), True),
        (U32, S32, False),
        (U32, BE32, False),
        (U32, Int("__u64", 8), False),
        (Int("__u8", 1), BOOL, False),
        (Int("char", 1, signed=True, char=True), Int("__s8", 1, signed=True), True),
        (COLOUR, replace(COLOUR, name="enum paint"), True),
        (COLOUR, replace(COLOUR, values=COLOUR.values[:1]), False),
        (COLOUR, U32, False),
        (Array("a", 8, U32, 2), Array("b", 8, Int("u32", 4), 2), True),
        (Array("a", 8, U32, 2), Array("b", 8, S32, 2), False),
        (Array("a", 8, U32, 2), Array("b", 8, Int("__u8", 1), 8), False),
        (pair(), replace(pair(), name="struct other"), True),
        (pair(), pair(S32), False),
        (pair(), pair(name="other"), False),
        (pair(), pair(bits=0), False),
        (pair(), pair(union=True), False),
        (pair(), replace(pair(), members=pair().members[:1]), False),
        (Pointer("pointer", 8), Pointer("pointer", 8), True),
        (Pointer("pointer", 8), Float("double", 8), False),
    ],
)
def test_layouts(one: Type, other: Type, same: bool) -> None:
    assert same_layout(one, other) is same
    assert same_layout(other, one) is same
    assert same_layout(one, one)


@pytest.fixture
def spec(object_file: Path) -> CollectionSpec:
    return CollectionSpec.from_object(object_file)


def like(spec: CollectionSpec, name: str, **changes: Any) -> Map:
    """The map in the kernel that a spec's would be, with changes."""
    wanted = spec.maps[name]
    info = MapInfo(
        7, wanted.type, wanted.key_size, wanted.value_size, wanted.max_entries, wanted.flags, name
    )
    with Btf.from_data(spec.btf) as types:
        key = types.type(wanted.key_type) if wanted.key_type else None
        value = types.type(wanted.value_type) if wanted.value_type else None
    made = SimpleNamespace(
        info=info, type="of another type", format=SimpleNamespace(key_type=key, value_type=value)
    )
    for change, content in changes.items():
        if change in {"key_type", "value_type"}:
            setattr(made.format, change, content)
        else:
            made.info = replace(made.info, **{change: content})
    return cast(Map, made)


@pytest.mark.parametrize("name", ["networks", "shared", "types.rodata"])
def test_a_map_fits_its_own_spec(spec: CollectionSpec, name: str) -> None:
    assert difference(spec, spec.maps[name], like(spec, name)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": 1}, "type of another type, not lpm_trie"),
        ({"key_size": 4}, "key_size 4, not 8"),
        ({"max_entries": 17}, "max_entries 17, not 16"),
        ({"flags": 0}, "flags 0, not 1"),
        ({"key_type": U32}, "other keys: __u32, not struct net4"),
        ({"key_type": None, "value_type": None}, ""),
    ],
)
def test_what_differs_is_named(spec: CollectionSpec, changes: dict[str, Any], words: str) -> None:
    assert difference(spec, spec.maps["networks"], like(spec, "networks", **changes)) == words


def test_the_member_that_differs_is_named(spec: CollectionSpec) -> None:
    with Btf.from_data(spec.btf) as types:
        value = types.type(spec.maps["networks"].value_type)
    assert isinstance(value, Struct)
    first, *rest = value.members
    for members, words in (
        ((replace(first, name="counted"), *rest), "has a member 'counted' there only"),
        ((first, *rest[:-1]), f"has a member '{rest[-1].name}' here only"),
        ((replace(first, type=S32), *rest), "'packets' is int, not __u64"),
        ((replace(first, bits=8), *rest), "'packets' of struct everything lies at another place"),
    ):
        other = like(spec, "networks", value_type=replace(value, members=members))
        told = difference(spec, spec.maps["networks"], other)
        assert told.startswith("other values: ")
        assert told.endswith(words)


def test_keys_of_arrays_are_indices(spec: CollectionSpec) -> None:
    spec.maps["shared"].type = 2
    other = like(spec, "shared", key_type=S32)
    assert difference(spec, spec.maps["shared"], other) == ""
