# SPDX-License-Identifier: GPL-2.0
"""Datagrams that the kernel could send, and invalid variants of them."""

from __future__ import annotations

import signal
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import strategies as st

from ipttproto import Command, Flag, build_request
from ipttproto.attributes import BINARY, STRING, Attribute, AttributeSet, ScalarType
from ipttproto.family import Batch, Event, Top
from ipttproto.messages import (
    NLMSG_DONE,
    NLMSG_ERROR,
    ErrorAttributes,
    ErrorHeader,
    GenericHeader,
    MessageHeader,
)

FAMILY_ID = 29
_EXTREMES = (0, 1, 3, 4, 15, 16, 17, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def values_of(space: AttributeSet) -> st.SearchStrategy[dict[str, Any]]:
    """Any values that the set allows."""

    def one(attribute: Attribute) -> st.SearchStrategy[Any]:
        if attribute.nested:
            return values_of(attribute.nested)
        most = attribute.max_length if attribute.max_length is not None else 64
        if attribute.type is STRING:
            return st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=most)
        if attribute.type is BINARY:
            return st.binary(max_size=min(most, 64))
        assert isinstance(attribute.type, ScalarType)
        numbers = attribute.type.range
        return st.integers(
            numbers[0] if attribute.minimum is None else attribute.minimum,
            numbers[-1] if attribute.maximum is None else attribute.maximum,
        )

    return st.fixed_dictionaries(
        {},
        optional={
            a.name: st.lists(one(a), min_size=1, max_size=3) if a.multi else one(a)
            for a in space.attributes
        },
    )


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A netlink message."""
    length = MessageHeader.sizeof() + len(body)
    header = {"length": length, "type": kind, "flags": flags, "sequence": sequence, "portid": 0}
    return MessageHeader.build(header) + body + bytes(-length % 4)


_SEQUENCES = st.integers(0, 3)


@st.composite
def replies(draw: st.DrawFn) -> bytes:
    """A reply or a notification with any attributes."""
    return build_request(
        FAMILY_ID,
        draw(st.sampled_from(Command)),
        draw(values_of(Top)),
        sequence=draw(_SEQUENCES),
        flags=draw(st.sampled_from([Flag(0), Flag.MULTI, Flag.MULTI | Flag.DUMP_INTERRUPTED])),
    )


@st.composite
def acknowledgements(draw: st.DrawFn) -> bytes:
    """An acknowledgement with any errno and any extended acknowledgement."""
    sequence = draw(_SEQUENCES)
    request = {"length": 20, "type": FAMILY_ID, "flags": 5, "sequence": sequence, "portid": 0}
    body = ErrorHeader.build({"error": draw(st.integers(-(1 << 31), 0)), "request": request})
    return message(
        NLMSG_ERROR,
        int(Flag.CAPPED | Flag.ACK_TLVS),
        sequence,
        body + ErrorAttributes.build(draw(values_of(ErrorAttributes))),
    )


@st.composite
def ends_of_dumps(draw: st.DrawFn) -> bytes:
    """The end of a dump."""
    return message(
        NLMSG_DONE,
        int(Flag.MULTI),
        draw(_SEQUENCES),
        draw(st.sampled_from([b"", struct.pack("=i", 0), struct.pack("=i", -4)])),
    )


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """The attributes of a message of events."""
    events = draw(st.lists(st.binary(min_size=Event.sizeof(), max_size=Event.sizeof()), max_size=3))
    header = {
        "sequence": draw(st.integers(0, (1 << 64) - 1)),
        "lost": draw(st.lists(st.integers(0, (1 << 64) - 1), min_size=3, max_size=3)),
        "clock_offset": draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        "cpu": draw(st.one_of(st.integers(0, 3), st.integers(0, (1 << 32) - 1))),
        "count": len(events),
        "event_size": Event.sizeof(),
        "reserved": 0,
    }
    return Top.build({"batch": Batch.build(header), "event": events})


@st.composite
def event_messages(draw: st.DrawFn) -> bytes:
    """A message of events."""
    generic = GenericHeader.build({"command": Command.EVENTS, "version": 1, "reserved": 0})
    return message(FAMILY_ID, 0, 0, generic + draw(batches()))


def datagrams() -> st.SearchStrategy[bytes]:
    """A few messages of all kinds."""
    kinds = st.one_of(replies(), acknowledgements(), ends_of_dumps(), event_messages())
    return st.lists(kinds, min_size=1, max_size=3).map(b"".join)


def _patched(data: bytes, place: int, piece: bytes) -> bytes:
    place = place % (len(data) + 1) // len(piece) * len(piece)
    return data[:place] + piece + data[place + len(piece) :]


_EDITS: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.tuples(st.integers(0, 4096), st.sampled_from(_EXTREMES)).map(
        lambda at: lambda data: _patched(data, at[0], struct.pack("=I", at[1]))
    ),
    st.tuples(st.integers(0, 4096), st.sampled_from(_EXTREMES)).map(
        lambda at: lambda data: _patched(data, at[0], struct.pack("=H", at[1] & 0xFFFF))
    ),
    st.tuples(st.integers(0, 4096), st.integers(0, 255)).map(
        lambda at: lambda data: _patched(data, at[0], bytes([at[1]]))
    ),
    st.integers(0, 4096).map(lambda at: lambda data: data[: at % (len(data) + 1)]),
    st.integers(0, 4096).map(lambda at: lambda data: data[at % (len(data) + 1) :]),
    st.tuples(st.integers(0, 4096), st.binary(min_size=1, max_size=20)).map(
        lambda at: (
            lambda data: data[: at[0] % (len(data) + 1)] + at[1] + data[at[0] % (len(data) + 1) :]
        )
    ),
    st.integers(2, 5).map(lambda times: lambda data: data * times),
)


def mutated(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The data with a few errors."""

    def apply(given: tuple[bytes, list[Callable[[bytes], bytes]]]) -> bytes:
        result, edits = given
        for edit in edits:
            result = edit(result)
        return result

    return st.tuples(data, st.lists(_EDITS, min_size=1, max_size=4)).map(apply)


def anything() -> st.SearchStrategy[bytes]:
    """Datagrams, invalid variants, and arbitrary bytes."""
    return st.one_of(mutated(datagrams()), datagrams(), st.binary(max_size=300))


class TooLongError(AssertionError):
    """An operation took too long."""


@contextmanager
def bounded(size: int, *, seconds: float = 20) -> Iterator[None]:
    """Fail if the block takes too long, or too much memory for ``size`` bytes of input.

    The time limit is for hangs, not for speed: machines are busy.
    """

    def stop(*_: object) -> None:
        raise TooLongError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    allowed = (1 << 20) + 1000 * size
    assert peak < allowed, f"{peak} bytes of memory for {size} bytes of input"
