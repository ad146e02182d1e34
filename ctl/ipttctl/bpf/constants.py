# SPDX-License-Identifier: GPL-2.0
"""Constants of a collection as people write them: the type of each, and the value that fits it.

As in cilium/ebpf they are rewritten in the spec, before anything is loaded. In an object file they
are variables, whose types its BTF describes. In a source for bpfcc they are what IPTTRACE_CONST
declares, with the type that is written there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from ipttctl.bpf.btf import Array, Btf, Float, Int, Pointer, Struct, Type
from ipttctl.bpf.specs import CollectionSpec
from ipttctl.bpf.values import ORDER, encode
from ipttctl.errors import ProgramError, UsageError

_FIXED: Final = re.compile(
    r"(?:__)?(?P<sign>[us])(?P<bits>8|16|32|64)|(?P<unsigned>u?)int(?P<width>8|16|32|64)_t"
)
_NETWORK: Final = re.compile(r"__be(16|32|64)")
_BOOLEAN: Final = frozenset({"bool", "_Bool"})
_TRUTHS: Final = {"true": True, "false": False, "1": True, "0": False}
_QUALIFIERS: Final = frozenset({"const", "volatile"})
#: words of C's integer types -> bytes, the first that a type has decides; of the target bpf
_WORDS: Final = {"char": 1, "short": 2, "long": 8, "int": 4, "signed": 4, "unsigned": 4}


def constant_type(spec: CollectionSpec, name: str) -> Type:
    """The type of a constant that the spec has.

    Raises:
        ProgramError: its type is not known.
    """
    if spec.elf:
        return spec.elf.content.constants[name].place.type
    text = spec.declared.get(name, f"__u{spec.constants[name]}")
    kind = _of_c(text) or _described(spec, text)
    if kind is None:
        raise ProgramError(
            f"constant {name}: there is no type {text}", "write __u32 or another width instead"
        )
    return kind


def set_constants(spec: CollectionSpec, values: Mapping[str, Any]) -> None:
    """Set constants that the spec has, from text or from the values that JSON and YAML have.

    Raises:
        UsageError: a value is not one of its type, or is of a type that cannot be set.
        ProgramError: there is no such constant, or its type is not known.
    """
    for name, value in values.items():
        if name not in spec.constants:
            raise missing([spec], name)
        kind = constant_type(spec, name)
        called = f"constant {name} ({kind})"
        given = _checked(kind, value, called)
        data = encode(kind, given, called)
        spec.values[name] = given if spec.elf else int.from_bytes(data, ORDER)


def identity(spec: CollectionSpec) -> bytes:
    """Bytes that differ whenever other constants are set, or the same ones to other values."""
    parts = []
    for name, value in sorted(spec.values.items()):
        if spec.elf:
            data = encode(constant_type(spec, name), value, name)
        else:
            data = (value % (1 << spec.constants[name])).to_bytes(8, ORDER)
        parts.append([name, data.hex()])
    return json.dumps(parts).encode() if parts else b""


def missing(specs: Sequence[CollectionSpec], name: str) -> ProgramError:
    """The error for a constant that none of the specs has."""
    known = sorted({one for spec in specs for one in _listed(spec)})
    return ProgramError(
        f"the programs have no constant {name}", f"there are: {', '.join(known) or 'none'}"
    )


def _listed(spec: CollectionSpec) -> Iterator[str]:
    """The constants with their types, except texts that the compiler has named."""
    for name in spec.constants:
        if "." not in name and not name.startswith("___"):
            with suppress(ProgramError):
                yield f"{name} ({constant_type(spec, name)})"


def _checked(kind: Type, value: Any, called: str) -> Any:
    """A value that ``encode`` takes, parsed if it is the text of a type with parts.

    Raises:
        UsageError: the type is one that programs cannot have, or its value is neither true nor
            false.
    """
    if _has_number_of_another_kind(kind):
        raise UsageError(f"{called} cannot be set", "it takes an integer, text or an enum's name")
    if isinstance(kind, Int) and kind.boolean:
        if isinstance(value, str):
            value = _TRUTHS.get(value.lower(), value)
        if value not in (0, 1) or isinstance(value, float):
            raise UsageError(f"{called}: {value!r} is neither true nor false")
        return bool(value)
    if isinstance(kind, Struct | Array) and isinstance(value, str):
        return _parts(value, called)
    return value


def _parts(text: str, called: str) -> Any:
    """JSON's value of a text that begins as an object or a list, or else the text."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{called}: '{text:.40}' is not JSON: {error}") from None


def _has_number_of_another_kind(kind: Type) -> bool:
    """Whether a type is, or has in it, a floating-point number or a pointer."""
    match kind:
        case Float() | Pointer():
            return True
        case Array():
            return _has_number_of_another_kind(kind.element)
        case Struct():
            return any(_has_number_of_another_kind(member.type) for member in kind.members)
    return False


def _of_c(text: str) -> Type | None:
    """The number that a type's name in C stands for; None if it is not a number's name."""
    words = [word for word in text.split() if word not in _QUALIFIERS]
    name = " ".join(words)
    if name in _BOOLEAN:
        return Int(name, 1, boolean=True)
    if found := _NETWORK.fullmatch(name):
        return Int(name, int(found[1]) // 8, network=True)
    if found := _FIXED.fullmatch(name):
        bits = int(found["bits"] or found["width"])
        return Int(name, bits // 8, signed=found["sign"] == "s" or found["unsigned"] == "")
    if name in {"float", "double"}:
        return Float(name, 8)
    if words and set(words) <= _WORDS.keys():
        size = next(size for word, size in _WORDS.items() if word in words)
        return Int(name, size, signed="unsigned" not in words, char=size == 1)
    return None


def _described(spec: CollectionSpec, text: str) -> Type | None:
    """The type of a name that the spec's own types or the kernel's have."""
    name = " ".join(word for word in text.split() if word not in _QUALIFIERS)
    if spec.btf:
        with Btf.from_data(spec.btf) as types:
            found = types.named(name)
        if found is not None:
            return found
    with suppress(ProgramError), Btf.of_kernel() as types:
        return types.named(name)
    return None
