# SPDX-License-Identifier: GPL-2.0
"""Whether a program may use a map that exists instead of the one that its spec describes."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Array, Btf, Enum, Int, Struct, Type
from ipttctl.bpf.maps import Map
from ipttctl.bpf.specs import CollectionSpec, MapSpec
from ipttctl.bpf.syscalls import MapType
from ipttctl.errors import ProgramError

_SIZES: Final = ("key_size", "value_size", "max_entries", "flags")
#: their keys are indices, which compilers declare with one sign or the other
_INDEXED: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})


def difference(spec: CollectionSpec, wanted: MapSpec, found: Map) -> str:
    """Words for what keeps a map from being used for a spec's; empty if it fits.

    Type, sizes and flags have to be the same. So do the types of keys and values (BTF), where both
    are known, member by member; the names of numbers' types do not matter (``__u32``, ``u32``).
    """
    if found.info.type != wanted.type:
        return f"type {found.type}, not {syscalls.map_type_name(wanted.type)}"
    for what in _SIZES:
        has, asked = getattr(found.info, what), getattr(wanted, what)
        if has != asked:
            return f"{what} {has}, not {asked}"
    for what, has_type, number in (
        ("keys", found.format.key_type, wanted.key_type),
        ("values", found.format.value_type, wanted.value_type),
    ):
        asked_type = _type(spec, number)
        if what == "keys" and found.info.type in _INDEXED:
            continue
        if has_type and asked_type and not same_layout(has_type, asked_type):
            return f"other {what}: {_words(has_type, asked_type)}"
    return ""


def same_layout(one: Type, other: Type) -> bool:
    """Whether two types have the same members, of the same kinds, at the same places."""
    match one, other:
        case Int(), Int():
            alike = ("size", "signed", "boolean", "network")
            return all(getattr(one, name) == getattr(other, name) for name in alike)
        case Enum(), Enum():
            return (one.size, set(one.values)) == (other.size, set(other.values))
        case Array(), Array():
            return one.count == other.count and same_layout(one.element, other.element)
        case Struct(), Struct():
            return (
                (one.size, one.union, len(one.members))
                == (other.size, other.union, len(other.members))
            ) and all(
                (a.name, a.bits, a.width) == (b.name, b.bits, b.width)
                and same_layout(a.type, b.type)
                for a, b in zip(one.members, other.members, strict=True)
            )
    return type(one) is type(other) and one.size == other.size


def _type(spec: CollectionSpec, number: int) -> Type | None:
    if not number or not spec.btf:
        return None
    with suppress(ProgramError), Btf.from_data(spec.btf) as types:
        return types.type(number)
    return None


def _words(has: Type, asked: Type) -> str:
    """The first difference of two types that are not alike."""
    if isinstance(has, Struct) and isinstance(asked, Struct):
        before = {member.name: member for member in has.members}
        after = {member.name: member for member in asked.members}
        for name, member in before.items():
            if name not in after:
                return f"{has} has a member '{name}' there only"
            there = after[name]
            if (member.bits, member.width) != (there.bits, there.width):
                return f"'{name}' of {has} lies at another place"
            if not same_layout(member.type, there.type):
                return f"'{name}' is {member.type}, not {there.type}"
        for name in after:
            if name not in before:
                return f"{asked} has a member '{name}' here only"
    return f"{has}, not {asked}"
