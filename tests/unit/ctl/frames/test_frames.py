# SPDX-License-Identifier: GPL-2.0
"""Frames as bytes, in files, and those that come twice."""

from __future__ import annotations

import io
import json
import random
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipttctl.frames.bodies import JSON_FORMAT, events_body, events_of, json_body, json_of
from ipttctl.frames.codec import HEADER_SIZE, MAGIC, MOST_BODY, decode, encode
from ipttctl.frames.head import EVENTS, KINDS, STORIES, FrameError, FrameHead
from ipttctl.frames.reader import FrameReader
from ipttctl.frames.seen import Seen
from ipttctl.frames.writer import FrameNumbers
from ipttproto import EventBatch, JoinedBatches, parse_batch
from tests.unit.ctl.support import batch_payload, event

EXAMPLES = settings(max_examples=150, deadline=None)


def head(**members: Any) -> FrameHead:
    """A head."""
    return FrameHead(
        **{
            "kind": STORIES,
            "host": "web-1",
            "boot": "6d0f",
            "run": "ab12",
            "sequence": 0,
            "count": 1,
            "time": 1_700_000_000_000_000_000,
            "monotonic": 5_000_000_000,
            "format": dict(JSON_FORMAT),
            **members,
        }
    )


def batch(count: int, sequence: int = 7, cpu: int = 1, **members: Any) -> EventBatch:
    """Events of one CPU."""
    made = [event(**{"time": 1000 + place, **members}) for place in range(count)]
    return parse_batch(batch_payload(made, cpu=cpu, sequence=sequence))


def texts(most: int = 20) -> st.SearchStrategy[str]:
    """Texts of hosts."""
    return st.text(st.characters(categories=["L", "N", "P"]), max_size=most)


NUMBERS = st.integers(0, 2**62)
HEADS = st.builds(
    FrameHead,
    kind=st.sampled_from(sorted(KINDS)),
    host=texts(),
    boot=texts(),
    run=texts(),
    sequence=NUMBERS,
    count=st.integers(0, 2**31 - 1),
    time=NUMBERS,
    monotonic=NUMBERS,
    lost=st.dictionaries(st.sampled_from(["ring", "memory", "spool", "stream"]), NUMBERS),
    format=st.dictionaries(st.sampled_from(["version", "size"]), NUMBERS),
)
BODIES = st.one_of(
    st.binary(max_size=600),
    st.builds(lambda piece, times: piece * times, st.binary(max_size=8), st.integers(0, 500)),
)


@EXAMPLES
@given(HEADS, BODIES)
def test_a_frame_comes_back(made: FrameHead, body: bytes) -> None:
    assert decode(encode(made, body)) == (made, body)


@EXAMPLES
@given(HEADS, BODIES, st.sets(st.sampled_from(sorted(KINDS))))
def test_bodies_of_other_kinds_are_left_out(made: FrameHead, body: bytes, kinds: set[str]) -> None:
    reader = FrameReader(io.BytesIO(encode(made, body)), lambda head: head.kind in kinds)
    assert list(reader) == [(made, body if made.kind in kinds else b"")]


@EXAMPLES
@given(HEADS, BODIES, st.data())
def test_a_damaged_frame_is_one_error(made: FrameHead, body: bytes, data: st.DataObject) -> None:
    whole = bytearray(encode(made, body))
    if data.draw(st.booleans(), label="cut"):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FrameError) as told:
        decode(bytes(whole))
    assert "\n" not in str(told.value)


@EXAMPLES
@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes_are_one_error(noise: bytes, magic: bool) -> None:
    data = MAGIC + noise if magic else noise
    with pytest.raises(FrameError):
        decode(data)
    reader = FrameReader(io.BytesIO(data))
    assert list(reader) == []
    assert reader.torn or reader.skipped == len(data)


def _forged(flags: int, head_length: int, stored: int, body: int, rest: bytes = b"") -> bytes:
    """Bytes with right checksums, whatever they claim."""
    header = struct.pack("<4sIIIII", MAGIC, flags, head_length, stored, body, zlib.crc32(rest))
    return header + struct.pack("<I", zlib.crc32(header)) + rest


@EXAMPLES
@given(*[st.integers(0, 2**32 - 1)] * 4, st.binary(max_size=64))
def test_lengths_that_are_claimed_allocate_nothing(
    flags: int, first: int, stored: int, body: int, rest: bytes
) -> None:
    data = _forged(flags, first, stored, body, rest)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            decode(data)
        list(FrameReader(io.BytesIO(data)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_does_not_go_off() -> None:
    first = head().to_bytes()
    stored = zlib.compress(bytes(MOST_BODY * 4))
    for claimed in (MOST_BODY, 1000):
        data = _forged(1, len(first), len(stored), claimed, first + stored)
        tracemalloc.start()
        try:
            with pytest.raises(FrameError, match="not as long as its header says"):
                decode(data)
            assert tracemalloc.get_traced_memory()[1] < 3 * MOST_BODY
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("kind", "packets"),
        ("kind", ["events"]),
        ("kind", {}),
        ("host", "a\nb"),
        ("host", "x" * 256),
        ("run", 5),
        ("sequence", -1),
        ("sequence", 2**63),
        ("count", True),
        ("count", 2**40),
        ("lost", {"Bad Name": 1}),
        ("lost", {"ring": -1}),
        ("format", {"version": "1"}),
        ("format", []),
    ],
)
def test_a_head_out_of_bounds_is_neither_written_nor_read(member: str, value: object) -> None:
    with pytest.raises(FrameError):
        head(**{member: value}).to_bytes()
    with pytest.raises(FrameError):
        encode(head(**{member: value}), b"")
    with pytest.raises(FrameError):
        FrameHead.from_bytes(json.dumps({**asdict(head()), member: value}).encode())


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 5000, '{"kind":NaN}', '{"sequence":1e400}', "9" * 5000, "\xff"],
)
def test_a_head_of_other_text_is_one_error(text: str) -> None:
    with pytest.raises(FrameError):
        FrameHead.from_bytes(text.encode("latin-1"))


def test_members_of_later_versions_are_left_out() -> None:
    later = head().to_bytes().replace(b"{", b'{"zone":"a",', 1)
    assert FrameHead.from_bytes(later) == head()


def test_another_version_is_named() -> None:
    data = bytearray(encode(head(), b"x"))
    data[3] = 9
    with pytest.raises(FrameError, match="version 9"):
        decode(bytes(data))


@EXAMPLES
@given(st.integers(0, 2**32), st.integers(2, 8))
def test_a_reader_goes_on_after_damage(seed: int, count: int) -> None:
    chance = random.Random(seed)
    frames = [encode(head(sequence=n), bytes(chance.randbytes(90))) for n in range(count)]
    broken = chance.randrange(count - 1)
    place = chance.randrange(len(frames[broken]))
    hurt = bytearray(frames[broken])
    hurt[place] ^= 1 << chance.randrange(8)
    whole = b"".join([*frames[:broken], bytes(hurt), *frames[broken + 1 :]])
    reader = FrameReader(io.BytesIO(whole))
    assert [one.sequence for one, _ in reader] == [n for n in range(count) if n != broken]
    assert (reader.damaged, reader.skipped, reader.torn) == (1, len(hurt), False)


@EXAMPLES
@given(st.integers(0, 400))
def test_a_torn_end_is_the_end(cut: int) -> None:
    frames = [encode(head(sequence=n), b"y" * 40) for n in range(3)]
    whole = b"".join(frames)
    end = max(0, len(whole) - cut)
    reader = FrameReader(io.BytesIO(whole[:end]))
    found = [one.sequence for one, _ in reader]
    assert found == list(range(end // len(frames[0])))
    assert reader.torn == (end % len(frames[0]) != 0)
    assert not reader.damaged


def test_a_reader_goes_on_where_bytes_are_missing_in_the_middle() -> None:
    """A frame of which a part is gone says that it is longer than the file."""
    chance = random.Random(1)
    frames = [encode(head(sequence=n), chance.randbytes(5000)) for n in range(6)]
    frames[1] = encode(head(sequence=1), chance.randbytes(60_000))
    whole = b"".join([frames[0], frames[1][:100], *frames[2:]])
    reader = FrameReader(io.BytesIO(whole))
    assert [one.sequence for one, _ in reader] == [0, 2, 3, 4, 5]
    assert (reader.damaged, reader.skipped, reader.torn) == (1, 100, False)
    # and the end is one although what is before it was damaged
    reader = FrameReader(io.BytesIO(whole[:-1]))
    assert [one.sequence for one, _ in reader] == [0, 2, 3, 4]
    assert (reader.damaged, reader.skipped, reader.torn) == (1, 100, True)


def test_a_file_of_frames_that_say_they_are_longer_takes_no_time() -> None:
    long = _forged(0, 10, 1 << 23, 1 << 23, b"")
    good = encode(head(), b"z")
    file = io.BytesIO((long + good) * 20_000)
    reader = FrameReader(file)
    begin = time.monotonic()
    assert len(list(reader)) == 20_000
    assert reader.damaged == 20_000
    assert time.monotonic() - begin < 20


def test_bytes_between_frames_are_passed_over_across_reads() -> None:
    noise = (b"IPF" * 30_000)[:70_001]
    whole = noise + encode(head(), b"z") + noise + encode(head(sequence=1), b"z")
    reader = FrameReader(io.BytesIO(whole))
    assert [one.sequence for one, _ in reader] == [0, 1]
    assert (reader.damaged, reader.skipped) == (2, 2 * len(noise))


def test_a_file_of_false_frames_takes_no_time() -> None:
    false = _forged(0, 10, 100, 100, bytes(110)) * 20_000
    reader = FrameReader(io.BytesIO(false))
    assert list(reader) == []
    assert reader.damaged == 20_000


@pytest.mark.parametrize("gap", [4, 28, 40, 1000])
def test_a_file_of_false_beginnings_is_read_once(gap: int) -> None:
    class Counted(io.BytesIO):
        given = 0

        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            self.given += len(found)
            return found

    count = 3000
    file = Counted((MAGIC + bytes(gap - len(MAGIC))) * count + encode(head(), b"z"))
    size = len(file.getvalue())
    reader = FrameReader(file)
    assert [one.sequence for one, _ in reader] == [0]
    assert (reader.damaged, reader.skipped) == (count, gap * count)
    assert file.given == size


@EXAMPLES
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [MAGIC, MAGIC[:2], MAGIC[:3], encode(head(), b"z" * 40), bytes(1 << 16)]
            ),
        ),
        max_size=8,
    )
)
def test_frames_are_found_wherever_they_are(parts: list[bytes]) -> None:
    """Bytes that are passed over and those that are read are all that there are."""
    whole = b"".join(parts)
    frame = encode(head(), b"z" * 40)
    reader = FrameReader(io.BytesIO(whole))
    found = len(list(reader))
    assert found == whole.count(frame)
    rest = len(whole) - found * len(frame) - reader.skipped
    assert 0 < rest < len(frame) if reader.torn else rest == 0


# --- bodies ---------------------------------------------------------------------------------------


def _events(batches: list[EventBatch]) -> list[tuple[Any, ...]]:
    joined = JoinedBatches.of(batches)
    where = zip(joined.cpus, joined.sequences, joined.clock_offsets, strict=True)
    return [
        (*joined.row(place), *one, joined.payloads.get(place)) for place, one in enumerate(where)
    ]


def _written(batches: list[EventBatch]) -> tuple[FrameHead, bytes]:
    form, body = events_body(batches)
    return head(kind=EVENTS, count=sum(map(len, batches)), format=form), body


def test_events_come_back() -> None:
    batches = [batch(3), batch(20, sequence=90, cpu=0, packet=5), batch(1, sequence=10)]
    batches[1] = replace(batches[1], payloads={4: b"bytes", 19: b""})
    assert _events(events_of(*decode(encode(*_written(batches))))) == _events(batches)


def test_events_of_which_some_were_chosen_come_back() -> None:
    whole = batch(40)
    chosen = whole.select(np.arange(40) % 3 > 0)
    chosen = replace(chosen, payloads={2: b"two"})
    assert _events(events_of(*_written([chosen]))) == _events([chosen])


def test_no_events_come_back() -> None:
    assert events_of(*_written([])) == []


def test_records_of_another_minor_version_are_read() -> None:
    first, body = _written([batch(2)])
    size = first.format["size"]
    records = [body[:size] + b"new!", body[size : 2 * size] + b"new!"]
    longer = replace(first, format={**first.format, "size": size + 4})
    assert _events(events_of(longer, b"".join(records) + body[2 * size :])) == _events([batch(2)])


@EXAMPLES
@given(st.data())
def test_bodies_of_anything_are_one_error(data: st.DataObject) -> None:
    made, body = _written([replace(batch(3), payloads={1: b"abc"})])
    form = dict(made.format)
    change = data.draw(st.sampled_from(["size", "rows", "count", "body", "version"]))
    number = data.draw(st.integers(0, 2**62) | st.integers(0, 500))
    if change == "body":
        place = data.draw(st.integers(0, len(body) - 1))
        body = body[:place] + data.draw(st.binary(max_size=9)) + body[place + 1 :]
    elif change == "count":
        made = replace(made, count=number % 2**31)
    else:
        form[change] = number
    with suppress(FrameError):
        found = events_of(replace(made, format=form), body)
        assert sum(map(len, found)) == made.count


def test_json_comes_back() -> None:
    body = json_body(['{"a":1}', '{"b":"\\u2028"}'])
    assert json_of(head(count=2), body) == [{"a": 1}, {"b": "\u2028"}]


@pytest.mark.parametrize(
    ("count", "body"),
    [
        (1, b"[1]\n"),
        (2, b"{}\n"),
        (1, b"{}"),
        (1, b"{\n"),
        (1, b'{"a":NaN}\n'),
        (1, b"[" * 100_000 + b"\n"),
        (1, b"\xff\n"),
        (1 << 20, b"{}\n" * (1 << 20)),
    ],
)
def test_json_of_another_form_is_one_error(count: int, body: bytes) -> None:
    with pytest.raises(FrameError):
        json_of(head(count=count), body)


# --- numbers --------------------------------------------------------------------------------------


def test_message_ids() -> None:
    assert head(host="a/b", sequence=5).message_id == "a%2Fb/6d0f/ab12/stories/5"
    assert head(sequence=5, count=0).message_id == "web-1/6d0f/ab12/stories/5/end"


def test_numbers_have_no_gaps_and_losses_are_told_once() -> None:
    numbers = FrameNumbers("web-1", "6d0f")
    numbers.lose(EVENTS, "ring", 3)
    first = numbers.head(EVENTS, 5, {})
    numbers.throw_away(first, "spool")
    second = numbers.head(EVENTS, 2, {})
    third = numbers.head(EVENTS, 1, {})
    assert [one.sequence for one in (first, second, third)] == [0, 5, 7]
    assert (second.lost, third.lost) == ({"ring": 3, "spool": 5}, {})
    assert numbers.head(STORIES, 1, {}).sequence == 0
    assert FrameNumbers("web-1", "6d0f").run != numbers.run


@EXAMPLES
@given(st.lists(st.integers(0, 30), max_size=120))
def test_each_frame_is_seen_once(order: list[int]) -> None:
    frames = [head(sequence=3 * n, count=3) for n in range(31)]
    seen, known = Seen(), set()
    for n in order:
        assert seen.first(frames[n]) == (n not in known)
        known.add(n)
    assert seen.again == len(order) - len(known)
    assert seen.missing() == 3 * (max(known, default=-1) + 1 - len(known))


def test_the_empty_frame_at_the_end_is_seen_once() -> None:
    seen = Seen()
    assert [seen.first(head(sequence=4, count=0)) for _ in range(2)] == [True, False]
    assert seen.first(head(sequence=4))


def test_what_is_expected_and_has_not_come_is_missing() -> None:
    seen = Seen()

    def expect(number: int) -> int:
        seen.expect("web-1", "6d0f", "ab12", STORIES, number)
        return seen.missing(beginnings=False)

    # nobody knows of the first ones whether they could come
    assert [expect(number) for number in (10, 10, 15)] == [0, 0, 5]
    # of one that is later than the first question and earlier than its answer, it does
    assert seen.first(head(sequence=8, count=1))
    assert seen.missing(beginnings=False) == 6
    assert seen.first(head(sequence=9, count=3))
    assert seen.missing(beginnings=False) == 3
    assert seen.first(head(sequence=12, count=4))
    assert expect(16) == 0
    assert seen.missing() == 8
    assert not seen.first(head(sequence=12, count=4))


def test_all_that_a_run_has_made_may_be_missing() -> None:
    seen = Seen()
    for number in (0, 3):
        seen.expect("web-1", "6d0f", "ab12", STORIES, number)
    assert seen.missing(beginnings=False) == 3


def test_the_memory_of_frames_is_bounded() -> None:
    seen = Seen()
    for n in range(5000):
        assert seen.first(head(sequence=2 * n))
    assert seen.missing() == 1024
    for n in range(5000):
        assert seen.first(head(run=str(n)))
    # those that were heard of last are still known
    assert not seen.first(head(run="4999"))


def test_the_header_is_as_long_as_documented() -> None:
    assert HEADER_SIZE == 28
