# SPDX-License-Identifier: GPL-2.0
"""The bodies of frames: events as records of the module, everything else as lines of JSON.

A body of events has the records one after the other, without the netlink attributes around them;
then a row for each stretch of consecutive events of one CPU, so that they become batches again;
then the bytes that programs added to events.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NoReturn

from ipttctl.frames.head import FrameError, FrameHead
from ipttproto import MINOR, VERSION, EventBatch
from ipttproto.batches import STRIDE, bare_records, joined_wire, parse_records
from ipttproto.errors import ProtocolError
from ipttproto.family import Event

_ROW: Final = struct.Struct("<IIQq")
"""CPU, number of events, number of the first on its CPU, offset of the clock."""

_PAYLOAD: Final = struct.Struct("<II")
"""Place of the event, number of bytes that follow."""

_MOST_PAYLOAD: Final = 1 << 16
_SIZE: Final = Event.sizeof()

MOST_OBJECTS: Final = 1 << 18
"""Most objects in a body of JSON."""

JSON_FORMAT: Final = {"version": 1}
"""The format of a body of JSON."""


def events_body(batches: Sequence[EventBatch]) -> tuple[dict[str, int], bytes]:
    """The format and the body for the events of batches; their losses are not in it."""
    rows: list[bytes] = []
    payloads: list[bytes] = []
    first = 0
    for batch in batches:
        rows += _rows(batch)
        for place, data in sorted(batch.payloads.items()):
            payloads += (_PAYLOAD.pack(first + place, len(data)), data)
        first += len(batch)
    records = bare_records(joined_wire(batches)) if batches else b""
    form = {"version": VERSION, "minor": MINOR, "size": _SIZE, "rows": len(rows)}
    return form, b"".join((records, *rows, *payloads))


def _rows(batch: EventBatch) -> Iterator[bytes]:
    """A row for each stretch of consecutive events."""
    numbers = batch.sequences()
    begin = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            yield _ROW.pack(batch.cpu, place - begin, numbers[begin], batch.clock_offset)
            begin = place


def events_of(head: FrameHead, body: bytes) -> list[EventBatch]:
    """The events of a body, in batches that know nothing of losses.

    Raises:
        FrameError: the body is not as the head says, or of another version of the protocol.
    """
    form = head.format
    version, size, rows = form.get("version"), form.get("size", 0), form.get("rows", 0)
    if version != VERSION:
        raise FrameError(f"events are of version {version} of the protocol, {VERSION} is known")
    end = head.count * size
    behind = end + rows * _ROW.size
    if size < 1 or behind > len(body):
        raise FrameError("a frame has less bytes than its events need")
    view = memoryview(body)
    try:
        wire = memoryview(parse_records(view[:end], size))
    except ProtocolError as error:
        raise FrameError(str(error)) from error
    payloads = _payloads(view[behind:], head.count)
    found: list[EventBatch] = []
    first = 0
    for cpu, count, sequence, offset in _ROW.iter_unpack(view[end:behind]):
        if not 0 < count <= head.count - first:
            raise FrameError("a frame has rows for other events than its own")
        here: dict[int, bytes] = {}
        if payloads:
            all_here = range(first, first + count)
            here = {place - first: payloads[place] for place in all_here if place in payloads}
        part = wire[first * STRIDE : (first + count) * STRIDE]
        found.append(EventBatch(cpu, sequence, {}, offset, part, here))
        first += count
    if first != head.count:
        raise FrameError(f"a frame says {head.count} events, its rows say {first}")
    return found


def _payloads(data: memoryview, events: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + _PAYLOAD.size > len(data):
            raise FrameError("a frame ends within the bytes of a program")
        place, length = _PAYLOAD.unpack_from(data, at)
        at += _PAYLOAD.size
        if place >= events or length > _MOST_PAYLOAD or at + length > len(data):
            raise FrameError("a frame ends within the bytes of a program")
        found[place] = bytes(data[at : at + length])
        at += length
    return found


def json_body(lines: Iterable[str]) -> bytes:
    """The body for objects that are lines of JSON already."""
    return "".join(f"{line}\n" for line in lines).encode()


def json_lines(head: FrameHead, body: bytes) -> list[bytes]:
    """The lines of a body of JSON, one for each object.

    Raises:
        FrameError: there is another number of lines, or they are of a version that is not known.
    """
    if head.format.get("version") != JSON_FORMAT["version"]:
        raise FrameError(f"{head.kind} are of a version that is not known here")
    # an object takes much more room than its line
    if head.count > MOST_OBJECTS or body.count(b"\n") != head.count or not _ends_line(body):
        raise FrameError(f"a frame says {head.count} {head.kind}, others are there")
    return body.split(b"\n")[:-1]


def json_of(head: FrameHead, body: bytes) -> list[dict[str, Any]]:
    """The objects of a body of JSON.

    Raises:
        FrameError: it is not JSON, another number of objects, or of a version that is not known.
    """
    return [json_object(head.kind, line) for line in json_lines(head, body)]


def json_object(kind: str, line: bytes) -> dict[str, Any]:
    """The object of a line of a body of JSON of some kind.

    Raises:
        FrameError: it is none.
    """
    try:
        found = json.loads(line, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"{kind} of a frame are not JSON") from error
    if not isinstance(found, dict):
        raise FrameError(f"{kind} of a frame are no objects")
    return found


def _ends_line(body: bytes) -> bool:
    return not body or body.endswith(b"\n")


def _finite(text: str) -> float:
    """A number that JSON can be made of again: 1e999 is none."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(text)
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(text)
