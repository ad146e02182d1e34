# SPDX-License-Identifier: GPL-2.0
"""Event messages as one numpy array, without a step of Python per event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from construct import ConstructError

from ipttproto.attributes import HEADER_SIZE, NLA_TYPE_MASK, AttributeHeader, align
from ipttproto.errors import ProtocolError
from ipttproto.family import Batch, Event, Loss, Top
from ipttproto.layout import dtype

EVENT_DTYPE: Final = dtype(Event)

_STRIDE: Final = align(HEADER_SIZE + Event.sizeof())
_BATCH_SIZE: Final = align(HEADER_SIZE + Batch.sizeof())
#: one attribute that holds one event; the header is read to check it
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
    """Consecutive events of one CPU.

    ``sequence`` is the number of ``events[0]``; ``lost`` counts what this CPU lost so far, by
    cause; ``clock_offset`` added to an event's time gives CLOCK_REALTIME, both in ns.
    """

    cpu: int
    sequence: int
    lost: dict[Loss, int]
    clock_offset: int
    events: npt.NDArray[np.void]


def parse_batch(payload: bytes | memoryview) -> EventBatch:
    """Decode the attributes of an ``events`` message; raises ProtocolError.

    The module puts the batch header first and the events behind it, so that they are an array.
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
    if len(body) != header.count * _STRIDE:
        raise ProtocolError(f"batch says {header.count} events, {len(body)} bytes are there")
    wire = np.frombuffer(body, _WIRE_DTYPE)
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
    )
