# SPDX-License-Identifier: GPL-2.0
"""Netlink attributes as construct formats: scalar types, attribute sets and their nesting.

The layout is that of ``struct nlattr`` (include/uapi/linux/netlink.h): a length of 16 bits that
counts the header, a type of 16 bits whose upper two bits are flags, a value, padding to four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from construct import FormatField, Int16un, Int32sn, Int32un, Int64un, Struct

from ipttproto.enumerations import DocumentedType, Feature
from ipttproto.errors import ProtocolError
from ipttproto.layout import packer

NLA_ALIGNTO: Final = 4
NLA_F_NESTED: Final = 1 << 15
NLA_TYPE_MASK: Final = 0x3FFF

AttributeHeader: Final = Struct("length" / Int16un, "type" / Int16un)
HEADER_SIZE: Final = AttributeHeader.sizeof()
_HEADER: Final = packer(AttributeHeader)


@dataclass(frozen=True)
class ScalarType:
    """The type of a value that is not a nest: its policy type and YNL name.

    ``format`` is that of a number, and ``range`` bounds it.
    """

    ynl: str
    policy: str
    format: struct.Struct | None = None
    range: range = range(0)


def _number(field: FormatField[int, int]) -> struct.Struct:
    return struct.Struct(field.fmtstr)


U32: Final = ScalarType("u32", "NLA_U32", _number(Int32un), range(1 << 32))
S32: Final = ScalarType("s32", "NLA_S32", _number(Int32sn), range(-(1 << 31), 1 << 31))
U64: Final = ScalarType("u64", "NLA_U64", _number(Int64un), range(1 << 64))
STRING: Final = ScalarType("string", "NLA_NUL_STRING")
BINARY: Final = ScalarType("binary", "NLA_BINARY")


@dataclass(frozen=True)
class Attribute:
    """One attribute of a set.

    ``enum`` names the values of a number, or ``bits`` its bits; ``minimum`` and ``maximum`` bound
    a number; ``max_length`` bounds the bytes of a string (without its NUL) or of a binary value;
    ``record`` is the struct that a binary value holds; ``reply`` keeps an attribute out of requests
    where its set also travels in replies; ``since`` is the feature that a request with it needs.
    """

    name: str
    number: int
    type: ScalarType | AttributeSet
    doc: str
    multi: bool = False
    enum: DocumentedType | None = None
    bits: DocumentedType | None = None
    minimum: int | None = None
    maximum: int | None = None
    max_length: int | None = None
    record: Any = None
    reply: bool = False
    since: Feature | None = None

    @property
    def nested(self) -> AttributeSet | None:
        """The set that the attribute nests; None for a scalar."""
        return self.type if isinstance(self.type, AttributeSet) else None


class AttributeSet:
    """A space of attributes, by number and by name. Parses to plain dicts and builds from them.

    A dict maps the attribute's name to its value: int, str, bytes or the dict of a nest; an
    attribute that may occur several times maps to a list.
    """

    def __init__(self, name: str, doc: str, *attributes: Attribute) -> None:
        self.name = name
        self.doc = doc
        self.attributes = attributes
        self.by_name: Mapping[str, Attribute] = {a.name: a for a in attributes}
        self.by_number: Mapping[int, Attribute] = {a.number: a for a in attributes}
        if len(self.by_name) != len(attributes) or len(self.by_number) != len(attributes):
            raise ValueError(f"attribute set {name}: a name or a number is used twice")

    def build(self, values: Mapping[str, Any]) -> bytes:
        """Build the attributes in the order of ``values``.

        Raises ProtocolError for an unknown name and for a value out of bounds.
        """
        out = bytearray()
        for name, value in values.items():
            attribute = self.by_name.get(name)
            if attribute is None:
                raise ProtocolError(f"{self.name} has no attribute {name!r}")
            for item in value if attribute.multi else (value,):
                out += _build_one(self, attribute, item)
        return bytes(out)

    def features(self, values: Mapping[str, Any]) -> Feature:
        """The features that a module has to have for these values, as ``build`` takes them."""
        needed = Feature(0)
        for name, value in values.items():
            attribute = self.by_name.get(name)
            if attribute is None:
                continue
            needed |= attribute.since or Feature(0)
            for item in value if attribute.multi else (value,):
                needed |= _features_of_value(attribute, item)
        return needed

    def parse(self, data: bytes | memoryview) -> dict[str, Any]:
        """Parse the values by name; attributes with an unknown number are skipped.

        Raises ProtocolError for attributes that are truncated or do not fit their type.
        """
        values: dict[str, Any] = {}
        for number, payload in split(data):
            attribute = self.by_number.get(number)
            if attribute is None:
                continue
            value = _parse_one(self, attribute, payload)
            if attribute.multi:
                values.setdefault(attribute.name, []).append(value)
            else:
                values[attribute.name] = value
        return values


def split(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, payload) of each attribute in ``data``; ProtocolError if one is truncated."""
    view = memoryview(data)
    offset, end = 0, len(view)
    while offset < end:
        left = end - offset
        if left < HEADER_SIZE:
            raise ProtocolError(f"{left} bytes after the last attribute")
        length, kind = _HEADER.unpack_from(view, offset)
        if not HEADER_SIZE <= length <= left:
            raise ProtocolError(
                f"attribute {kind & NLA_TYPE_MASK} says {length} bytes, {left} are there"
            )
        yield kind & NLA_TYPE_MASK, view[offset + HEADER_SIZE : offset + length]
        offset += align(length)


def align(length: int) -> int:
    """Round ``length`` up as NLA_ALIGN does."""
    return (length + NLA_ALIGNTO - 1) & ~(NLA_ALIGNTO - 1)


def _features_of_value(attribute: Attribute, value: Any) -> Feature:
    if isinstance(attribute.type, AttributeSet):
        return attribute.type.features(value)
    needed = Feature(0)
    for member in attribute.bits or ():
        if value & member:
            needed |= member.since or Feature(0)
    for member in attribute.enum or ():
        if value == member:
            needed |= member.since or Feature(0)
    return needed


def _parse_one(space: AttributeSet, attribute: Attribute, payload: memoryview) -> Any:
    kind = attribute.type
    if isinstance(kind, AttributeSet):
        return kind.parse(payload)
    if kind.format:
        if len(payload) != kind.format.size:
            raise ProtocolError(
                f"{space.name}.{attribute.name}: {len(payload)} bytes, {kind.format.size} expected"
            )
        return kind.format.unpack(payload)[0]
    value = bytes(payload)
    if kind is BINARY:
        return value
    text, nul, behind = value.partition(b"\0")
    if not nul or behind:
        wrong = "there are bytes behind the text's NUL" if nul else "the text has no NUL"
        raise ProtocolError(f"{space.name}.{attribute.name}: {wrong}")
    return text.decode(errors="surrogateescape")


def _build_one(space: AttributeSet, attribute: Attribute, value: Any) -> bytes:
    where = f"{space.name}.{attribute.name}"
    number = attribute.number
    if isinstance(attribute.type, AttributeSet):
        payload = attribute.type.build(value)
        number |= NLA_F_NESTED
    else:
        if isinstance(value, str):
            value = value.encode(errors="surrogateescape")
        _check_bounds(where, attribute, value)
        payload = _build_scalar(where, attribute.type, value)
    length = HEADER_SIZE + len(payload)
    if length > 0xFFFF:
        raise ProtocolError(f"{where}: {len(payload)} bytes do not fit into an attribute")
    return _HEADER.pack(length, number) + payload + bytes(align(length) - length)


def _build_scalar(where: str, kind: ScalarType, value: Any) -> bytes:
    if kind.format:
        try:
            return kind.format.pack(value)
        except struct.error as error:
            raise ProtocolError(f"{where}: {error}") from None
    if not isinstance(value, bytes | bytearray | memoryview):
        raise ProtocolError(f"{where}: {value!r} is no text and no bytes")
    content = bytes(value)
    if kind is BINARY:
        return content
    if b"\0" in content:
        raise ProtocolError(f"{where}: there is a NUL in the text")
    return content + b"\0"


def _check_bounds(where: str, attribute: Attribute, value: Any) -> None:
    if isinstance(value, int):
        if attribute.minimum is not None and value < attribute.minimum:
            raise ProtocolError(f"{where}: {value} is below {attribute.minimum}")
        if attribute.maximum is not None and value > attribute.maximum:
            raise ProtocolError(f"{where}: {value} is above {attribute.maximum}")
    elif attribute.max_length is not None and len(value) > attribute.max_length:
        raise ProtocolError(f"{where}: {len(value)} bytes, at most {attribute.max_length} allowed")
