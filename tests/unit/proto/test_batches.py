# SPDX-License-Identifier: GPL-2.0
"""Batches of events: the array has the same contents as construct's result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipttproto import EVENT_DTYPE, Loss, ProtocolError, parse_batch
from ipttproto.family import FIRST_SIZES, Batch, Event, Top

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
        "event_size": Event.sizeof(),
        "reserved": 0,
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


# --- records of other minor versions --------------------------------------------------------------

RAW = [bytes(range(250)).ljust(Event.sizeof(), b"\0"), bytes(Event.sizeof())]
ROWS = list(parse_batch(payload(RAW)).rows())


def grown(header: int, event: int) -> bytes:
    """Two events by a module whose records are longer or shorter by so many bytes."""
    size = Event.sizeof() + event
    first = {
        "sequence": 1 << 40,
        "lost": [1, 2, 3],
        "clock_offset": -7,
        "cpu": 5,
        "count": len(RAW),
        "event_size": size,
        "reserved": 0,
    }
    raw = [one[:size].ljust(size, b"\xff") for one in RAW]
    return Top.build({"batch": Batch.build(first) + b"\xff" * header, "event": raw})


@pytest.mark.parametrize(("header", "event"), [(8, 0), (0, 8), (16, 24), (0, 6)])
def test_members_that_a_later_version_appended_are_left_out(header: int, event: int) -> None:
    batch = parse_batch(grown(header, event) + Top.build({"payload": [{"event": 1, "data": b"x"}]}))
    assert list(batch.rows()) == ROWS
    assert (batch.cpu, batch.sequence, len(batch.events)) == (5, 1 << 40, 2)
    assert batch.payloads == {1: b"x"}
    assert list(batch.without_first(1).rows()) == ROWS[1:]


def test_members_that_an_earlier_version_lacks_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ProtocolError, match="does not start with a batch header"):
        parse_batch(grown(0, -8))
    monkeypatch.setitem(FIRST_SIZES, "event", Event.sizeof() - 8)
    assert list(parse_batch(grown(0, -8)).rows()) == ROWS


def test_events_of_another_size_than_the_header_says() -> None:
    whole = bytearray(grown(0, 8))
    whole[4 + Batch.sizeof()] += 4
    with pytest.raises(ProtocolError, match="something else than events of one layout"):
        parse_batch(bytes(whole))
