# SPDX-License-Identifier: GPL-2.0
"""Batches of events: the array has the same contents as construct's result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipttproto import EVENT_DTYPE, Loss, ProtocolError, parse_batch
from ipttproto.family import Batch, Event, Top

EVENTS = st.lists(
    st.binary(min_size=Event.sizeof(), max_size=Event.sizeof()), min_size=1, max_size=5
)


def payload(events: list[bytes], count: int | None = None) -> bytes:
    header = {
        "sequence": 1 << 40,
        "lost": [1, 2, 3],
        "clock_offset": -7,
        "cpu": 5,
        "count": len(events) if count is None else count,
    }
    return Top.build({"batch": Batch.build(header), "event": events})


@settings(deadline=None)
@given(EVENTS)
def test_array_equals_what_construct_parses(events: list[bytes]) -> None:
    batch = parse_batch(payload(events))
    assert len(batch.events) == len(events)
    for row, raw in zip(batch.events, events, strict=True):
        parsed: Any = Event.parse(raw)
        for name in EVENT_DTYPE.names or ():
            value = row[name]
            if isinstance(value, np.ndarray):
                assert value.tobytes() == parsed[name], name
            elif isinstance(value, bytes):
                assert value == parsed[name].rstrip(b"\0"), name
            else:
                assert int(value) == int(parsed[name]), name


def test_dtype_is_as_large_as_the_record() -> None:
    assert EVENT_DTYPE.itemsize == Event.sizeof()


def test_header() -> None:
    batch = parse_batch(payload([bytes(Event.sizeof())]))
    assert (batch.cpu, batch.sequence, batch.clock_offset) == (5, 1 << 40, -7)
    assert batch.lost == {Loss.RING: 1, Loss.MEMORY: 2, Loss.NESTED: 3}


def test_no_events() -> None:
    assert len(parse_batch(payload([])).events) == 0


@pytest.mark.parametrize(
    ("count", "sentence"),
    [(0, "something else than events"), (1, "something else"), (3, "batch says 3 events")],
)
def test_count_that_is_not_the_events(count: int, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        parse_batch(payload([bytes(Event.sizeof())] * 2, count))


PAYLOADS = Top.build(
    {"payload": [{"event": 0, "data": b"first"}, {"event": 2, "data": b"x" * 256}]}
)


def test_payloads_belong_to_their_events() -> None:
    batch = parse_batch(payload([bytes(Event.sizeof())] * 3) + PAYLOADS)
    assert batch.payloads == {0: b"first", 2: b"x" * 256}
    assert batch.without_first(1).payloads == {1: b"x" * 256}
    assert batch.without_first(1).sequences() == [(1 << 40) + 1, (1 << 40) + 2]


def test_selected_events_keep_their_numbers_and_payloads() -> None:
    batch = parse_batch(payload([bytes(Event.sizeof())] * 3) + PAYLOADS)
    picked = batch.select(np.array([False, True, True]))
    assert picked.sequences() == [(1 << 40) + 1, (1 << 40) + 2]
    assert picked.payloads == {1: b"x" * 256}
    last = picked.select(np.array([False, True]))
    assert (last.sequences(), last.payloads) == ([(1 << 40) + 2], {0: b"x" * 256})
    assert len(picked.select(np.array([False, False])).events) == 0


def test_payload_of_no_event() -> None:
    with pytest.raises(ProtocolError, match="payload is of no event"):
        parse_batch(payload([bytes(Event.sizeof())] * 2) + PAYLOADS)
    nameless = Top.build({"payload": [{"data": b"x"}]})
    with pytest.raises(ProtocolError, match="payload is of no event"):
        parse_batch(payload([bytes(Event.sizeof())]) + nameless)


def test_truncated() -> None:
    whole = payload([bytes(Event.sizeof())])
    for length in range(len(whole)):
        with pytest.raises(ProtocolError):
            parse_batch(whole[:length])


def test_something_else_in_place_of_an_event() -> None:
    whole = bytearray(payload([bytes(Event.sizeof())] * 2))
    second = len(whole) - Event.sizeof() - 4
    whole[second + 2] = 15
    with pytest.raises(ProtocolError, match="something else than events"):
        parse_batch(bytes(whole))


def test_something_else_in_place_of_the_header() -> None:
    with pytest.raises(ProtocolError, match="does not start with a batch header"):
        parse_batch(Top.build({"event": [bytes(Event.sizeof())]}))
    header = Top.build({"batch": bytes(Batch.sizeof() + 8)})
    with pytest.raises(ProtocolError, match="does not start with a batch header"):
        parse_batch(header)
