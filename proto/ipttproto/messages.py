# SPDX-License-Identifier: GPL-2.0
"""Whole messages: netlink and generic-netlink headers, and acknowledgements with extack."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from construct import Int8un, Int16un, Int32sn, Int32un, Struct

from ipttproto.attributes import STRING, U32, Attribute, AttributeSet, align
from ipttproto.errors import ProtocolError
from ipttproto.family import VERSION, Top
from ipttproto.layout import packer
from ipttproto.operations import Command

MessageHeader: Final = Struct(
    "length" / Int32un,
    "type" / Int16un,
    "flags" / Int16un,
    "sequence" / Int32un,
    "portid" / Int32un,
)
GenericHeader: Final = Struct("command" / Int8un, "version" / Int8un, "reserved" / Int16un)
ErrorHeader: Final = Struct("error" / Int32sn, "request" / MessageHeader)

PAYLOAD_OFFSET: Final = MessageHeader.sizeof() + GenericHeader.sizeof()

_MESSAGE: Final = packer(MessageHeader)
_GENERIC: Final = packer(GenericHeader)
_ERROR: Final = struct.Struct(Int32sn.fmtstr)

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
_MAX_ERRNO: Final = 4095


class Flag(enum.IntFlag):
    """Header flags (include/uapi/linux/netlink.h)."""

    REQUEST = 0x1
    MULTI = 0x2
    ACK = 0x4
    DUMP_INTERRUPTED = 0x10
    CAPPED = 0x100
    ACK_TLVS = 0x200
    DUMP = 0x300


ErrorAttributes: Final = AttributeSet(
    "extack",
    "Attributes of an acknowledgement (enum nlmsgerr_attrs).",
    Attribute("message", 1, STRING, "what was wrong"),
    Attribute("offset", 2, U32, "where in the request the bad attribute stands, bytes"),
    Attribute("miss-type", 5, U32, "number of the attribute that is missing"),
    Attribute("miss-nest", 6, U32, "offset of the nest that misses it"),
)


@dataclass(frozen=True)
class Acknowledgement:
    """The kernel's answer to a request: ``errno`` is 0 for success.

    The extended acknowledgement is ``message``, ``offset`` (of the bad attribute), ``missing``
    (number of a missing attribute) and ``missing_nest`` (offset of the nest that lacks it).
    """

    sequence: int
    errno: int
    message: str = ""
    offset: int | None = None
    missing: int | None = None
    missing_nest: int | None = None


@dataclass(frozen=True)
class Message:
    """A message of the family, with its attributes still unparsed."""

    sequence: int
    command: int
    flags: int
    payload: memoryview

    def attributes(self) -> dict[str, Any]:
        """The attributes by name; raises ProtocolError if they are malformed."""
        return Top.parse(self.payload)


@dataclass(frozen=True)
class Done:
    """The end of a dump; ``flags`` say whether it was interrupted."""

    sequence: int
    errno: int
    flags: int = 0


def build_request(
    family_id: int,
    command: Command,
    attributes: Mapping[str, Any],
    *,
    sequence: int,
    flags: Flag = Flag.ACK,
) -> bytes:
    """Build a request to the kernel; raises ProtocolError for attributes that do not fit."""
    payload = Top.build(attributes)
    length = PAYLOAD_OFFSET + len(payload)
    header = _MESSAGE.pack(length, family_id, int(Flag.REQUEST | flags), sequence, 0)
    return header + _GENERIC.pack(command, VERSION, 0) + payload


def first_type(data: bytes) -> int:
    """The type of a datagram's first message: its family, or a number of netlink's own; 0: none."""
    return int(_MESSAGE.unpack_from(data)[1]) if len(data) >= _MESSAGE.size else 0


def parse_datagram(
    family_id: int, data: bytes | memoryview
) -> Iterator[Message | Acknowledgement | Done]:
    """Parse the messages of one datagram; raises ProtocolError if one is truncated."""
    view = memoryview(data)
    while view:
        length, kind, flags, sequence, _ = _unpack(_MESSAGE, view, "message header")
        if not _MESSAGE.size <= length <= len(view):
            raise ProtocolError(f"message says {length} bytes, {len(view)} are there")
        body, view = view[_MESSAGE.size : length], view[align(length) :]
        if kind == NLMSG_ERROR:
            yield _parse_acknowledgement(flags, body)
        elif kind == NLMSG_DONE:
            error = _unpack(_ERROR, body, "end of dump")[0] if body else 0
            yield Done(sequence, _errno(error), flags)
        elif kind == family_id:
            command, _, _ = _unpack(_GENERIC, body, "generic-netlink header")
            yield Message(sequence, command, flags, body[_GENERIC.size :])


def _parse_acknowledgement(flags: int, body: memoryview) -> Acknowledgement:
    error, *_ = _unpack(_ERROR, body, "acknowledgement")
    request = body[_ERROR.size :]
    length, _, _, sequence, _ = _unpack(_MESSAGE, request, "acknowledgement")
    extack: dict[str, Any] = {}
    if flags & Flag.ACK_TLVS:
        kept = _MESSAGE.size if flags & Flag.CAPPED else max(length, _MESSAGE.size)
        extack = ErrorAttributes.parse(request[_MESSAGE.size + align(kept - _MESSAGE.size) :])
    return Acknowledgement(
        sequence,
        _errno(error),
        extack.get("message", ""),
        extack.get("offset"),
        extack.get("miss-type"),
        extack.get("miss-nest"),
    )


def _errno(error: int) -> int:
    """The errno of a reply, which carries it negated (include/linux/err.h: MAX_ERRNO)."""
    if not -_MAX_ERRNO <= error <= 0:
        raise ProtocolError(f"{error} is not an error of the kernel")
    return -error


def _unpack(format_: struct.Struct, data: memoryview, what: str) -> tuple[Any, ...]:
    if len(data) < format_.size:
        raise ProtocolError(f"{what}: {len(data)} bytes, {format_.size} expected")
    return format_.unpack_from(data)
