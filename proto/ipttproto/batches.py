# SPDX-License-Identifier: GPL-2.0
"""Event messages as one numpy array, without Python code per event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from construct import ConstructError

from ipttproto.arrays import np, npt
from ipttproto.attributes import HEADER_SIZE, NLA_TYPE_MASK, AttributeHeader, align, split
from ipttproto.enumerations import Loss
from ipttproto.errors import ProtocolError
from ipttproto.family import Batch, Event, Payload, Top
from ipttproto.layout import dtype

EVENT_DTYPE: Final = dtype(Event)

_STRIDE: Final = align(HEADER_SIZE + Event.sizeof())
_BATCH_SIZE: Final = align(HEADER_SIZE + Batch.sizeof())
#: one attribute with one event; its header is read to check it
_WIRE_DTYPE: Final = np.dtype(
    {
        "names": ["length", "type", "event"],
        "formats": ["u2", "u2", EVENT_DTYPE],
        "offsets": [0, 2, HEADER_SIZE],
        "itemsize": _STRIDE,
    }
)


@dataclass(frozen=True)
class EventBatch:
    """Events of one CPU, consecutive unless ``select`` left some out.

    ``sequence`` is the number of the first event that the module sent. ``lost`` counts this CPU's
    losses so far, by cause. ``clock_offset`` added to an event's time gives CLOCK_REALTIME, both in
    ns. ``payloads`` holds the bytes that programs added, by index into ``events``. ``places``,
    unless None, holds the place of each event among those that the module sent.
    """

    cpu: int
    sequence: int
    lost: dict[Loss, int]
    clock_offset: int
    events: npt.NDArray[np.void]
    payloads: Mapping[int, bytes] = field(default_factory=dict)
    places: npt.NDArray[np.intp] | None = None

    def select(self, wanted: npt.NDArray[np.bool_]) -> EventBatch:
        """The batch of the events for which ``wanted``, an array of the same length, is true."""
        kept = np.flatnonzero(wanted)
        payloads = self.payloads and {
            new: self.payloads[old] for new, old in enumerate(kept.tolist()) if old in self.payloads
        }
        places = kept if self.places is None else self.places[kept]
        return replace(self, events=self.events[kept], payloads=payloads, places=places)

    def without_first(self, count: int) -> EventBatch:
        """The batch without its first ``count`` events, as if the module had not sent them."""
        payloads = {event - count: data for event, data in self.payloads.items() if event >= count}
        return replace(
            self,
            sequence=self.sequence + count,
            events=self.events[count:],
            payloads=payloads,
        )

    def sequences(self) -> list[int]:
        """The number of each event."""
        if self.places is None:
            return list(range(self.sequence, self.sequence + len(self.events)))
        return [self.sequence + place for place in self.places.tolist()]


def parse_batch(payload: bytes | memoryview) -> EventBatch:
    """Decode the attributes of an ``events`` message; raises ProtocolError if they are malformed.

    The module puts the batch header first, then the events, so that they form an array, and the
    payloads that programs added last.
    """
    view = memoryview(payload)
    try:
        attribute = AttributeHeader.parse(view)
        header = Batch.parse(view[HEADER_SIZE:])
    except ConstructError as error:
        raise ProtocolError(f"batch header: {error}") from None
    if (
        attribute.type & NLA_TYPE_MASK != Top.by_name["batch"].number
        or attribute.length != HEADER_SIZE + Batch.sizeof()
    ):
        raise ProtocolError("an events message does not start with a batch header of our layout")
    body = view[_BATCH_SIZE:]
    end = header.count * _STRIDE
    if len(body) < end:
        raise ProtocolError(f"batch says {header.count} events, {len(body)} bytes are there")
    wire = np.frombuffer(body[:end], _WIRE_DTYPE)
    if (wire["type"] != Top.by_name["event"].number).any() or (
        wire["length"] != HEADER_SIZE + Event.sizeof()
    ).any():
        raise ProtocolError("a batch holds something else than events of our layout")
    return EventBatch(
        header.cpu,
        header.sequence,
        {cause: header.lost[cause] for cause in Loss},
        header.clock_offset,
        wire["event"],
        _parse_payloads(body[end:], header.count),
    )


def _parse_payloads(body: memoryview, events: int) -> dict[int, bytes]:
    """The payloads that programs added, by the index of the event."""
    found: dict[int, bytes] = {}
    for number, nest in split(body):
        if number != Top.by_name["payload"].number:
            raise ProtocolError("a batch holds something else than events of our layout")
        payload = Payload.parse(nest)
        if payload.get("event", events) >= events:
            raise ProtocolError("a payload is of no event in its batch")
        found[payload["event"]] = payload.get("data", b"")
    return found
