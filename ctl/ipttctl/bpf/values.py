# SPDX-License-Identifier: GPL-2.0
"""Conversion between bytes and the values that people and JSON write, by type.

| Type                                | Value                                                   |
|-------------------------------------|---------------------------------------------------------|
| integer                             | number; text: decimal, 0x.., an address that fits       |
| __be16, __be64                      | number, converted from network byte order               |
| __be32, struct in_addr              | IPv4 address; accepted: a number too                    |
| struct in6_addr, __be32[4]          | IPv6 address                                            |
| bool, floating point                | true, false; number                                     |
| enum                                | name, or the number if it has no name                   |
| char array                          | text if printable, else as an array of bytes            |
| array of bytes                      | `0a:00:..`; accepted: list, an address that fits        |
| other array                         | list                                                    |
| struct                              | object of all members                                   |
| union                               | object of all members; accepted: any that agree         |
| pointer                             | `0x..`                                                  |

The members of a union are views of the same bytes.
Every type also accepts `0a:00:..`, all bytes in the order in which they lie in memory.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from ipttctl.bpf.btf import Array, Enum, Float, Int, Member, Pointer, Struct, Type
from ipttctl.errors import UsageError

ORDER: Final[Literal["little", "big"]] = "little" if sys.byteorder == "little" else "big"
"""The host's byte order."""

_HEX: Final = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2})+")
_FLOATS: Final = {2: "=e", 4: "=f", 8: "=d"}
_ADDRESS_STRUCTS: Final = {"struct in_addr": 4, "struct in6_addr": 16}


def decode(kind: Type, data: bytes) -> Any:  # noqa: PLR0911 - one for each kind
    """The value of ``data``, which has ``kind.size`` bytes."""
    if is_address(kind):
        return str(ipaddress.ip_address(data))
    match kind:
        case Int():
            return _number(kind, data)
        case Enum():
            number = int.from_bytes(data, ORDER, signed=kind.signed)
            return next((name for name, value in kind.values if value == number), number)
        case Float() if kind.size in _FLOATS:
            fraction: float = struct.unpack(_FLOATS[kind.size], data)[0]
            return fraction if math.isfinite(fraction) else str(fraction)
        case Pointer():
            return f"0x{int.from_bytes(data, ORDER):x}"
        case Array():
            return _array(kind, data)
        case Struct():
            return _members(kind, data, 0)
    return data.hex(":")


def encode(kind: Type, value: Any, called: str = "value") -> bytes:
    """The bytes of a value; ``called`` names it in error messages.

    Raises:
        UsageError: it is not a value of this type.
    """
    writer = _Writer(kind.size)
    writer.put(kind, value, 0, called)
    return bytes(writer.data)


def is_address(kind: Type) -> bool:
    """Whether a type is certainly an IP address."""
    match kind:
        case Int():
            return kind.network and kind.size == 4
        case Array():
            return kind.size == 16 and isinstance(kind.element, Int) and is_address(kind.element)
        case Struct():
            return _ADDRESS_STRUCTS.get(kind.name) == kind.size
    return False


def parse_hex(text: str) -> bytes | None:
    """The bytes that ``0a:00:..`` stands for; None if it is not of this form."""
    return bytes.fromhex(text.replace(":", "")) if _HEX.fullmatch(text) else None


def parse_address(text: str, size: int) -> bytes | None:
    """The bytes of an IP address in network byte order; None if it is no address of ``size``."""
    try:
        packed = ipaddress.ip_address(text).packed
    except ValueError:
        return None
    return packed if len(packed) == size else None


# --- reading -------------------------------------------------------------------------------------


def _number(kind: Int, data: bytes) -> int | bool:
    order: Literal["little", "big"] = "big" if kind.network else ORDER
    number = int.from_bytes(data, order, signed=kind.signed)
    return bool(number) if kind.boolean and number in {0, 1} else number


def _array(kind: Array, data: bytes) -> Any:
    element = kind.element
    if isinstance(element, Int) and element.size == 1 < kind.size and not element.boolean:
        text = _text(data) if element.char else None
        return data.hex(":") if text is None else text
    parts = (data[i * element.size : (i + 1) * element.size] for i in range(kind.count))
    return [decode(element, part) for part in parts]


def _text(data: bytes) -> str | None:
    """The text in a char array; None unless it is printable and padded with zeros to the end."""
    text, _, rest = data.partition(b"\0")
    if rest.strip(b"\0") or len(text) == len(data):
        return None
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return None
    return decoded if decoded.isprintable() else None


def _members(kind: Struct, data: bytes, base: int) -> dict[str, Any]:
    """The members of a struct that begins ``base`` bits into ``data``."""
    found: dict[str, Any] = {}
    for member in kind.members:
        at = base + member.bits
        if not member.name and isinstance(member.type, Struct):
            found |= _members(member.type, data, at)
        elif member.width:
            found[member.name] = _bit_field(member, data, at)
        else:
            found[member.name] = decode(member.type, data[at // 8 : at // 8 + member.type.size])
    return found


def _bit_field(member: Member, data: bytes, at: int) -> Any:
    number = 0
    for i in range(member.width):
        byte, bit = _place(at, i, member.width)
        number |= (data[byte] >> bit & 1) << i
    signed = isinstance(member.type, Int | Enum) and member.type.signed
    if signed and number >> member.width - 1:
        number -= 1 << member.width
    return decode(member.type, number.to_bytes(member.type.size, ORDER, signed=number < 0))


def _place(at: int, bit: int, width: int) -> tuple[int, int]:
    """The byte that holds a bit of a bit field, and the bit's place in that byte."""
    if ORDER == "little":
        return (at + bit) // 8, (at + bit) % 8
    place = at + width - 1 - bit
    return place // 8, 7 - place % 8


# --- writing -------------------------------------------------------------------------------------


class _Writer:
    """A buffer of bytes to be written; a bit that is written twice has to get the same value."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self._written = bytearray(size)

    def put(self, kind: Type, value: Any, at: int, called: str) -> None:
        """Write a value of a type at a byte."""
        if isinstance(kind, Struct) and not isinstance(value, str):
            self._put_struct(kind, value, 8 * at, called)
        elif isinstance(kind, Array) and not isinstance(value, str):
            self._put_list(kind, value, at, called)
        else:
            self._put_bytes(at, _scalar(kind, value, called), called)

    def _put_struct(self, kind: Struct, value: Any, at: int, called: str) -> None:
        names = _names(kind)
        if not isinstance(value, Mapping):
            raise UsageError(f"{called}: {_shown(value)} is no {kind}", _object_form(names))
        for name in value:
            if name not in names:
                raise UsageError(f"{called}: {kind} has no member '{name}'", _object_form(names))
        for member in kind.members:
            inner = f"{called}.{member.name}"
            if not member.name and isinstance(member.type, Struct):
                part = {n: value[n] for n in _names(member.type) if n in value}
                if part or not kind.union:
                    self._put_struct(member.type, part, at + member.bits, called)
            elif member.name in value:
                self._put_member(member, value[member.name], at + member.bits, inner)
            elif not kind.union:
                raise UsageError(f"{called}: member '{member.name}' of {kind} is missing")
        if kind.union and names and not value:
            raise UsageError(
                f"{called}: no member of {kind} is given", f"give {' or '.join(names)}"
            )

    def _put_member(self, member: Member, value: Any, at: int, called: str) -> None:
        if not member.width:
            self.put(member.type, value, at // 8, called)
            return
        signed = isinstance(member.type, Int | Enum) and member.type.signed
        whole = _scalar(member.type, value, called)
        number = int.from_bytes(whole, ORDER, signed=signed)
        low, high = _range(member.width, signed=signed)
        if not low <= number <= high:
            raise UsageError(f"{called}: {number} is not between {low} and {high}")
        for i in range(member.width):
            byte, bit = _place(at, i, member.width)
            self._put_masked(byte, (number >> i & 1) << bit, 1 << bit, called)

    def _put_list(self, kind: Array, value: Any, at: int, called: str) -> None:
        if not isinstance(value, Sequence) or isinstance(value, bytes):
            raise UsageError(f"{called}: {_shown(value)} is no {kind}", "it takes a list")
        if len(value) != kind.count:
            raise UsageError(f"{called}: {kind} takes {kind.count} elements, not {len(value)}")
        for i, element in enumerate(value):
            self.put(kind.element, element, at + i * kind.element.size, f"{called}[{i}]")

    def _put_bytes(self, at: int, data: bytes, called: str) -> None:
        for i, byte in enumerate(data, at):
            self._put_masked(i, byte, 0xFF, called)

    def _put_masked(self, at: int, byte: int, mask: int, called: str) -> None:
        if (self.data[at] ^ byte) & mask & self._written[at]:
            raise UsageError(
                f"{called}: does not agree with another member of its union", "give one of them"
            )
        self.data[at] = self.data[at] & ~mask | byte
        self._written[at] |= mask


def _scalar(kind: Type, value: Any, called: str) -> bytes:
    """The bytes of a value without parts, or of one given as text."""
    if isinstance(value, str):
        plain = parse_hex(value)
        if plain is not None and len(plain) == kind.size:
            return plain
        if _takes_address(kind) and (plain := parse_address(value, kind.size)) is not None:
            return plain
        if isinstance(kind, Array) and isinstance(kind.element, Int) and kind.element.char:
            return _characters(kind, value, called)
    match kind:
        case Int() | Pointer():
            return _integer(kind, value, called)
        case Enum():
            return _enumerated(kind, value, called)
        case Float() if kind.size in _FLOATS:
            try:
                return struct.pack(_FLOATS[kind.size], float(value))
            except (TypeError, ValueError, OverflowError):
                raise UsageError(f"{called}: {_shown(value)} is not a number") from None
    raise UsageError(f"{called}: {_shown(value)} is no {kind}", _taken(kind))


def _integer(kind: Type, value: Any, called: str) -> bytes:
    signed = isinstance(kind, Int) and kind.signed
    boolean = isinstance(kind, Int) and kind.boolean
    number = value
    if isinstance(value, str):
        words = {"true": 1, "false": 0} if boolean else {}
        number = words.get(value.lower())
        if number is None:
            number = _parsed(value)
    if not isinstance(number, int) or (isinstance(number, bool) and not boolean):
        raise UsageError(f"{called}: {_shown(value)} is no {kind}", _taken(kind))
    low, high = _range(8 * kind.size, signed=signed)
    if not low <= number <= high:
        raise UsageError(f"{called}: {number} is not between {low} and {high}")
    order = "big" if isinstance(kind, Int) and kind.network else ORDER
    return int(number).to_bytes(kind.size, order, signed=signed)


def _enumerated(kind: Enum, value: Any, called: str) -> bytes:
    known = dict(kind.values)
    number = known.get(value, _parsed(value)) if isinstance(value, str) else value
    if not isinstance(number, int) or isinstance(number, bool):
        names = ", ".join(known)
        raise UsageError(f"{called}: {_shown(value)} is no {kind}", f"there are: {names}")
    low, high = _range(8 * kind.size, signed=kind.signed)
    if not low <= number <= high:
        raise UsageError(f"{called}: {number} is not between {low} and {high}")
    return number.to_bytes(kind.size, ORDER, signed=kind.signed)


def _characters(kind: Array, value: str, called: str) -> bytes:
    data = os.fsencode(value)
    if len(data) >= kind.size or b"\0" in data:
        raise UsageError(f"{called}: '{value}' is longer than {kind.size - 1} bytes, or has a NUL")
    return data.ljust(kind.size, b"\0")


def _parsed(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _range(bits: int, *, signed: bool) -> tuple[int, int]:
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def _takes_address(kind: Type) -> bool:
    """Whether this type accepts an IP address of its size."""
    if isinstance(kind, Array) and isinstance(kind.element, Int):
        return kind.element.size == 1 or kind.size == 16
    return is_address(kind) or (isinstance(kind, Int) and kind.size in {4, 16})


def _taken(kind: Type) -> str:
    """A hint that says which values a type takes."""
    address = " or an IP address" if _takes_address(kind) and kind.size in {4, 16} else ""
    match kind:
        case Int() if kind.boolean:
            return "it takes true or false"
        case Int() | Pointer():
            return f"it takes a number{address}"
        case Struct() | Array():
            return f"it takes JSON or {kind.size} bytes as 0a:00:..{address}"
    return f"it takes {kind.size} bytes as 0a:00:..{address}"


def _names(kind: Struct) -> list[str]:
    """The members of a struct's value, those of unnamed members included."""
    names: list[str] = []
    for member in kind.members:
        if not member.name and isinstance(member.type, Struct):
            names += _names(member.type)
        else:
            names.append(member.name)
    return names


def _object_form(names: Sequence[str]) -> str:
    return f"it takes an object of {', '.join(names)}"


def _shown(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
