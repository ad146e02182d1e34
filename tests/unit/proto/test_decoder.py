# SPDX-License-Identifier: GPL-2.0
"""The decoder with any input: a value or a ProtocolError, in bounded time and memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ipttproto import EVENT_DTYPE, Message, ProtocolError, parse_batch, parse_datagram
from ipttproto.attributes import AttributeSet, split
from ipttproto.family import ATTRIBUTE_SETS, Batch, Top
from ipttproto.messages import NLMSG_ERROR, PAYLOAD_OFFSET, ErrorAttributes
from tests.unit.proto.datagrams import (
    FAMILY_ID,
    anything,
    batches,
    bounded,
    event_messages,
    message,
    mutated,
    values_of,
)

SMALLEST_MESSAGE = 16
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def decode(data: bytes) -> list[Any]:
    """Decode everything in a datagram; ProtocolError if something cannot be decoded."""
    found: list[Any] = []
    for part in parse_datagram(FAMILY_ID, data):
        found.append(part)
        if isinstance(part, Message):
            for parse in (part.attributes, lambda part=part: parse_batch(part.payload)):
                with suppress(ProtocolError):
                    found.append(parse())
    return found


def _huge(place: int, value: int = 0xFFFFFFFF) -> bytes:
    """A valid message of events, except that one length is four gigabytes."""
    data = bytearray(message(FAMILY_ID, 0, 0, b"\x0a\x01\0\0" + bytes(200)))
    struct.pack_into("=I", data, place, value)
    return bytes(data)


@EXAMPLES
@given(anything())
@example(b"")
@example(bytes(16))
@example(_huge(0))
@example(_huge(16))
@example(_huge(20))
@example(message(NLMSG_ERROR, 0x200, 1, struct.pack("=iIHHII", -22, 0xFFFFFFFF, 29, 5, 1, 0)))
@example(message(NLMSG_ERROR, 0x200, 1, struct.pack("=iIHHII", -22, 0, 29, 5, 1, 0) + b"\5\0"))
@example(message(NLMSG_ERROR, 0x300, 1, struct.pack("=iIHHII", -(1 << 31), 0, 29, 5, 1, 0)))
def test_datagrams(data: bytes) -> None:
    with bounded(len(data)), suppress(ProtocolError):
        # each part and each value of it takes up bytes of the datagram
        assert len(decode(data)) <= 3 * len(data) / SMALLEST_MESSAGE + 1


@EXAMPLES
@given(mutated(event_messages()))
def test_messages_of_events(data: bytes) -> None:
    with bounded(len(data)), suppress(ProtocolError):
        for part in parse_datagram(FAMILY_ID, data):
            if isinstance(part, Message):
                batch = parse_batch(part.payload)
                assert len(batch.events) * EVENT_DTYPE.itemsize <= len(data)


@EXAMPLES
@given(st.one_of(mutated(batches()), st.binary(max_size=400)))
@example(Top.build({"batch": bytes(Batch.sizeof() - 4) + b"\xff\xff\xff\xff"}))
def test_batches(data: bytes) -> None:
    with bounded(len(data)), suppress(ProtocolError):
        batch = parse_batch(data)
        assert len(batch.events) * EVENT_DTYPE.itemsize <= len(data)


@pytest.mark.parametrize("space", [*ATTRIBUTE_SETS, ErrorAttributes], ids=lambda space: space.name)
def test_attributes(space: AttributeSet) -> None:
    @EXAMPLES
    @given(st.one_of(mutated(values_of(space).map(space.build)), st.binary(max_size=100)))
    @example(b"\xff\xff\xff\xff")
    @example(b"\0\0\0\0")
    @example(b"\4\0\xff\xff")
    def check(data: bytes) -> None:
        with bounded(len(data)), suppress(ProtocolError):
            values = space.parse(data)
            assert values.keys() <= space.by_name.keys()
        with bounded(len(data)), suppress(ProtocolError):
            assert sum(4 + len(payload) for _, payload in split(data)) <= len(data)

    check()


def _deep(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = struct.pack("=HH", 4 + len(inner), 0x8005) + inner
    return inner


@pytest.mark.parametrize(
    "make",
    [
        lambda size: bytes([16, 0, 0, 0]) + bytes(12) + bytes(size),
        lambda size: message(1, 0, 0, b"") * (size // 16),
        lambda size: message(FAMILY_ID, 0, 0, bytes(4)) * (size // 20),
        lambda size: message(FAMILY_ID, 0, 0, bytes(4) + b"\4\0\x5a\0" * (size // 4)),
        lambda size: message(FAMILY_ID, 0, 0, bytes(4) + _deep(min(size, 60_000) // 4)),
        lambda size: message(FAMILY_ID, 0, 0, bytes(4) + b"\4\0\x11\x80" * (size // 4)),
        lambda size: message(NLMSG_ERROR, 0x300, 1, bytes(20) + b"\5\0\1\0\0\0\0\0" * (size // 8)),
    ],
    ids=["zeros", "other", "empty", "unknown", "deep", "nests", "extack"],
)
def test_long_datagrams(make: Callable[[int], bytes]) -> None:
    """The datagrams are full of the smallest possible parts."""
    data = make((1 << 16) - PAYLOAD_OFFSET - 64)
    with bounded(len(data), seconds=120), suppress(ProtocolError):
        decode(data)
