# SPDX-License-Identifier: GPL-2.0
"""Event messages: the events of a batch as rows of Python values, or as one numpy array."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

from ipttproto.attributes import HEADER_SIZE, AttributeHeader, align, split
from ipttproto.enumerations import Loss
from ipttproto.errors import ProtocolError
from ipttproto.family import FIRST_SIZES, Batch, Event, Payload, Top
from ipttproto.layout import dtype, fields, packer, row_format

if TYPE_CHECKING:
    from ipttproto.arrays import np, npt

#: the most bytes that fit into an attribute
_MOST: Final = 0xFFFF - HEADER_SIZE
_BATCH: Final = packer(Batch)
_BATCH_NUMBER: Final = Top.by_name["batch"].number
_CAUSES: Final = tuple(Loss)
_EVENT_SIZE: Final = Event.sizeof()
STRIDE: Final = align(HEADER_SIZE + _EVENT_SIZE)
"""Bytes from one event to the next, each in an attribute."""

#: one attribute with one event, without its header
_ROW: Final = struct.Struct(
    f"={HEADER_SIZE}x{row_format(Event)}{STRIDE - HEADER_SIZE - _EVENT_SIZE}x"
)
_TIME: Final = struct.Struct(f"={HEADER_SIZE}x{row_format(Event, ('time',))}")
_NO_HEADER: Final = "an events message does not start with a batch header of our layout"
#: members before the names, which are the last ones
_NOT_NAMES: Final = [member.c_type for member in fields(Event)].index("char")


@cache
def event_dtype() -> np.dtype[np.void]:
    """The numpy structured type of an event."""
    return dtype(Event)


@cache
def _attribute_dtype() -> np.dtype[np.void]:
    from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms, and rows need no arrays

    return np.dtype(
        {
            "names": ["event"],
            "formats": [event_dtype()],
            "offsets": [HEADER_SIZE],
            "itemsize": STRIDE,
        }
    )


@cache
def _whole_dtype() -> np.dtype[np.void]:
    from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms, and rows need no arrays

    return np.dtype((np.void, STRIDE))


def as_array(wire: bytes | memoryview) -> npt.NDArray[np.void]:
    """Events, each in its attribute, as an array."""
    from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms, and rows need no arrays

    events: npt.NDArray[np.void] = np.frombuffer(wire, _attribute_dtype())["event"]
    return events


@dataclass(frozen=True)
class EventBatch:
    """Events of one CPU, consecutive unless ``select`` left some out.

    ``sequence`` is the number of the first event that the module sent. ``lost`` counts this CPU's
    losses so far, by cause. ``clock_offset`` added to an event's time gives CLOCK_REALTIME, both in
    ns. ``wire`` holds the events, each in its attribute. ``places``, unless None, are their places
    among those that the module sent. ``payloads`` holds the bytes that programs added, by index
    into ``events``.
    """

    cpu: int
    sequence: int
    lost: dict[Loss, int]
    clock_offset: int
    wire: memoryview
    payloads: Mapping[int, bytes] = field(default_factory=dict)
    places: npt.NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.wire) // STRIDE

    @cached_property
    def events(self) -> npt.NDArray[np.void]:
        """The events as an array, for work on all of them without Python code for each."""
        return as_array(self.wire)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The members of each event, in the order of the record."""
        for place in range(len(self)):
            yield unpack_row(self.wire, place)

    def select(self, wanted: npt.NDArray[np.bool_]) -> EventBatch:
        """The batch of the events for which ``wanted``, an array of the same length, is true."""
        [chosen] = select([self], wanted, self.wire)
        return chosen

    def without_first(self, count: int) -> EventBatch:
        """The batch without its first ``count`` events, as if the module had not sent them."""
        payloads = {event - count: data for event, data in self.payloads.items() if event >= count}
        return replace(
            self,
            sequence=self.sequence + count,
            wire=self.wire[count * STRIDE :],
            payloads=payloads,
            places=None if self.places is None else self.places[count:] - count,
        )

    def time(self, place: int) -> int:
        """The time (CLOCK_MONOTONIC, ns) of an event."""
        (time,) = _TIME.unpack_from(self.wire, place * STRIDE)
        return int(time)

    def sequences(self) -> list[int]:
        """The number of each event."""
        if self.places is None:
            return list(range(self.sequence, self.sequence + len(self)))
        return [self.sequence + place for place in self.places.tolist()]


def joined_wire(batches: Sequence[EventBatch]) -> bytes | memoryview:
    """The events of some batches, each in its attribute."""
    return batches[0].wire if len(batches) == 1 else b"".join([batch.wire for batch in batches])


def select(
    batches: Sequence[EventBatch], wanted: npt.NDArray[np.bool_], wire: bytes | memoryview
) -> Iterator[EventBatch]:
    """The batches of those of their events for which ``wanted``, as long as all of them, is true.

    ``wire`` is theirs, as ``joined_wire`` has it. It takes many batches little more time than one.
    """
    from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms; somebody has chosen by it

    (kept,) = wanted.nonzero()
    # numpy copies records member by member
    chosen = np.frombuffer(wire, _whole_dtype())[kept].view(np.uint8).data
    begins = np.array(list(accumulate(map(len, batches), initial=0)))
    all_places = kept - begins[begins.searchsorted(kept, "right") - 1]
    cuts = kept.searchsorted(begins).tolist()
    for batch, (cut, end) in zip(batches, pairwise(cuts), strict=True):
        places = all_places[cut:end]
        payloads: Mapping[int, bytes] = {}
        if batch.payloads:
            payloads = {
                new: batch.payloads[old]
                for new, old in enumerate(places.tolist())
                if old in batch.payloads
            }
        yield EventBatch(
            batch.cpu,
            batch.sequence,
            batch.lost,
            batch.clock_offset,
            chosen[cut * STRIDE : end * STRIDE],
            payloads,
            places if batch.places is None else batch.places[places],
        )


def unpack_row(wire: bytes | memoryview, place: int) -> tuple[Any, ...]:
    """The members of one of the events on the wire, in the order of the record."""
    row = _ROW.unpack_from(wire, place * STRIDE)
    return (*row[:_NOT_NAMES], *[name.rstrip(b"\0") for name in row[_NOT_NAMES:]])


def parse_batch(payload: bytes | memoryview) -> EventBatch:
    """Decode the attributes of an ``events`` message; raises ProtocolError if they are malformed.

    The module puts the batch header first, then the events, so that they form an array, and the
    payloads that programs added last. Members that a later minor version appended to a record are
    left out; those that an earlier one lacks are zero.
    """
    view = memoryview(payload)
    number, first = next(split(view), (0, view))
    if number != _BATCH_NUMBER or len(first) < FIRST_SIZES["batch"]:
        raise ProtocolError(_NO_HEADER)
    behind = view[align(HEADER_SIZE + len(first)) :]
    if len(first) < _BATCH.size:
        first = memoryview(_fitted(first, _BATCH.size))
    sequence, *lost, clock_offset, cpu, count, size, _ = _BATCH.unpack_from(first)
    if not FIRST_SIZES["event"] <= size <= _MOST:
        raise ProtocolError(_NO_HEADER)
    stride = align(HEADER_SIZE + size)
    end = count * stride
    if len(behind) < end:
        raise ProtocolError(f"batch says {count} events, {len(behind)} bytes are there")
    wire, behind = behind[:end], behind[end:]
    if wire.cast("I")[:: stride // HEADER_SIZE].tobytes() != _event_header(size) * count:
        raise ProtocolError("a batch holds something else than events of one layout")
    if size != _EVENT_SIZE:
        wire = _in_our_layout(wire, stride)
    payloads = _parse_payloads(behind, count) if behind else {}
    return EventBatch(
        cpu, sequence, dict(zip(_CAUSES, lost, strict=True)), clock_offset, wire, payloads
    )


@cache
def _event_header(size: int) -> bytes:
    """The header of each event's attribute."""
    header = {"length": HEADER_SIZE + size, "type": Top.by_name["event"].number}
    return AttributeHeader.build(header)


def bare_records(wire: bytes | memoryview) -> bytes:
    """Events, each in its attribute, as records one after the other."""
    from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms; only recordings need it

    rows = np.frombuffer(wire, np.uint8).reshape(-1, STRIDE)
    return rows[:, HEADER_SIZE : HEADER_SIZE + _EVENT_SIZE].tobytes()


def parse_records(records: bytes | memoryview, size: int) -> bytes:
    """Records of ``size`` bytes each, without attributes, as ``EventBatch.wire`` has them.

    Records of another minor version are read as those in messages are.

    Raises:
        ProtocolError: there cannot be such records.
    """
    if not FIRST_SIZES["event"] <= size <= _MOST or len(records) % size:
        raise ProtocolError("records of events are not of a layout that is known")
    from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms; only recordings have such records

    known = min(size, _EVENT_SIZE)
    wire = np.zeros((len(records) // size, STRIDE), np.uint8)
    wire[:, :HEADER_SIZE] = np.frombuffer(_event_header(_EVENT_SIZE), np.uint8)
    found = np.frombuffer(records, np.uint8).reshape(-1, size)
    wire[:, HEADER_SIZE : HEADER_SIZE + known] = found[:, :known]
    return wire.tobytes()


def _in_our_layout(wire: memoryview, stride: int) -> memoryview:
    """Events of another minor version's layout, each as long as ours."""
    events = (wire[at : at + stride] for at in range(0, len(wire), stride))
    return memoryview(b"".join(_fitted(event, STRIDE) for event in events))


def _fitted(record: memoryview, size: int) -> bytes:
    """A record with exactly ``size`` bytes."""
    return bytes(record[:size]).ljust(size, b"\0")


def _parse_payloads(body: memoryview, events: int) -> dict[int, bytes]:
    """The payloads that programs added, by the index of the event."""
    found: dict[int, bytes] = {}
    for number, nest in split(body):
        if number != Top.by_name["payload"].number:
            raise ProtocolError("a batch holds something else than events of one layout")
        payload = Payload.parse(nest)
        if payload.get("event", events) >= events:
            raise ProtocolError("a payload is of no event in its batch")
        found[payload["event"]] = payload.get("data", b"")
    return found
