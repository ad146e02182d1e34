# SPDX-License-Identifier: GPL-2.0
"""Netlink attributes as construct formats: scalar types, attribute sets and their nesting.

The layout is that of ``struct nlattr`` (include/uapi/linux/netlink.h): a length of 16 bits that
counts the header, a type of 16 bits whose upper two bits are flags, a value, padding to four bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from construct import (
    Construct,
    ConstructError,
    GreedyBytes,
    Int16un,
    Int32sn,
    Int32un,
    Int64un,
    NullTerminated,
    Struct,
)

from ipttproto.enumerations import DocumentedType, Feature
from ipttproto.errors import ProtocolError

NLA_ALIGNTO: Final = 4
NLA_F_NESTED: Final = 1 << 15
NLA_TYPE_MASK: Final = 0x3FFF

AttributeHeader: Final = Struct("length" / Int16un, "type" / Int16un)
HEADER_SIZE: Final = AttributeHeader.sizeof()


@dataclass(frozen=True)
class ScalarType:
    """The type of a value that is not a nest: its construct format, policy type and YNL name.

    ``range`` bounds a number.
    """

    ynl: str
    policy: str
    format: Construct[Any, Any]
    range: range = range(0)


U32: Final = ScalarType("u32", "NLA_U32", Int32un, range(1 << 32))
S32: Final = ScalarType("s32", "NLA_S32", Int32sn, range(-(1 << 31), 1 << 31))
U64: Final = ScalarType("u64", "NLA_U64", Int64un, range(1 << 64))
STRING: Final = ScalarType("string", "NLA_NUL_STRING", NullTerminated(GreedyBytes))
BINARY: Final = ScalarType("binary", "NLA_BINARY", GreedyBytes)


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
    offset = 0
    while offset < len(view):
        if len(view) - offset < HEADER_SIZE:
            raise ProtocolError(f"{len(view) - offset} bytes after the last attribute")
        header = AttributeHeader.parse(view[offset : offset + HEADER_SIZE])
        if not HEADER_SIZE <= header.length <= len(view) - offset:
            raise ProtocolError(
                f"attribute {header.type & NLA_TYPE_MASK} says {header.length} bytes, "
                f"{len(view) - offset} are there"
            )
        yield header.type & NLA_TYPE_MASK, view[offset + HEADER_SIZE : offset + header.length]
        offset += align(header.length)


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
    if isinstance(attribute.type, AttributeSet):
        return attribute.type.parse(payload)
    stream = io.BytesIO(payload)
    try:
        value = attribute.type.format.parse_stream(stream)
    except ConstructError as error:
        raise ProtocolError(f"{space.name}.{attribute.name}: {error}") from None
    if stream.read(1):
        raise ProtocolError(f"{space.name}.{attribute.name}: {len(payload)} bytes are too many")
    return value.decode(errors="surrogateescape") if attribute.type is STRING else value


def _build_one(space: AttributeSet, attribute: Attribute, value: Any) -> bytes:
    where = f"{space.name}.{attribute.name}"
    number = attribute.number
    if isinstance(attribute.type, AttributeSet):
        payload = attribute.type.build(value)
        number |= NLA_F_NESTED
    else:
        if isinstance(value, str):
            value = value.encode(errors="surrogateescape")
        if attribute.type is STRING and b"\0" in value:
            raise ProtocolError(f"{where}: there is a NUL in the text")
        _check_bounds(where, attribute, value)
        try:
            payload = attribute.type.format.build(value)
        except (ConstructError, TypeError) as error:
            raise ProtocolError(f"{where}: {error}") from None
    length = HEADER_SIZE + len(payload)
    if length > 0xFFFF:
        raise ProtocolError(f"{where}: {len(payload)} bytes do not fit into an attribute")
    header = AttributeHeader.build({"length": length, "type": number})
    return header + payload + bytes(align(length) - length)


def _check_bounds(where: str, attribute: Attribute, value: Any) -> None:
    if isinstance(value, int):
        if attribute.minimum is not None and value < attribute.minimum:
            raise ProtocolError(f"{where}: {value} is below {attribute.minimum}")
        if attribute.maximum is not None and value > attribute.maximum:
            raise ProtocolError(f"{where}: {value} is above {attribute.maximum}")
    elif attribute.max_length is not None and len(value) > attribute.max_length:
        raise ProtocolError(f"{where}: {len(value)} bytes, at most {attribute.max_length} allowed")
