# SPDX-License-Identifier: GPL-2.0
"""The events of several batches together, for work on many of them at once."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from ipttproto.attributes import HEADER_SIZE
from ipttproto.batches import STRIDE, EventBatch, as_array, unpack_row
from ipttproto.family import Event
from ipttproto.layout import fields, row_format

if TYPE_CHECKING:
    from ipttproto.arrays import np, npt

#: number of events from which on arrays take less time
_MANY: Final = 16


@dataclass(frozen=True)
class JoinedBatches:
    """Events of some batches, in their order, and for each of them its CPU and numbers.

    ``wire`` holds the events as the module sent them. ``payloads`` holds the bytes that programs
    added, by the place of the event.
    """

    wire: bytes
    cpus: Sequence[int]
    sequences: Sequence[int]
    clock_offsets: Sequence[int]
    payloads: Mapping[int, bytes]

    @classmethod
    def of(cls, batches: Iterable[EventBatch]) -> JoinedBatches:
        """The events of batches."""
        parts: list[memoryview] = []
        cpus: list[int] = []
        sequences: list[int] = []
        offsets: list[int] = []
        payloads: dict[int, bytes] = {}
        for batch in batches:
            payloads |= {len(cpus) + place: data for place, data in batch.payloads.items()}
            parts.append(batch.wire)
            cpus += repeat(batch.cpu, len(batch))
            sequences += batch.sequences()
            offsets += repeat(batch.clock_offset, len(batch))
        return cls(b"".join(parts), cpus, sequences, offsets, payloads)

    def __len__(self) -> int:
        return len(self.cpus)

    def first(self, count: int) -> JoinedBatches:
        """The first so many events."""
        return self.part(0, count)

    def select(self, wanted: Sequence[bool]) -> JoinedBatches:
        """The events for which ``wanted``, which is as long, is true."""
        if all(wanted):
            return self
        places = [place for place, one in enumerate(wanted) if one]
        return JoinedBatches(
            b"".join([self.wire[place * STRIDE : (place + 1) * STRIDE] for place in places]),
            [self.cpus[place] for place in places],
            [self.sequences[place] for place in places],
            [self.clock_offsets[place] for place in places],
            {new: self.payloads[old] for new, old in enumerate(places) if old in self.payloads},
        )

    def each(self) -> Iterator[JoinedBatches]:
        """Each event by itself."""
        return (self.part(place, place + 1) for place in range(len(self)))

    @cached_property
    def events(self) -> npt.NDArray[np.void]:
        """The events as an array."""
        return as_array(self.wire)

    def values(self, member: str) -> list[int]:
        """A member of each event, which is a number."""
        if len(self) < _MANY:
            return [value for (value,) in self.rows((member,), range(len(self)))]
        values: list[int] = self.events[member].tolist()
        return values

    def keys(self, members: tuple[str, ...]) -> list[bytes]:
        """The bytes of some members of each event: equal only if these members are."""
        if len(self) < _MANY:
            return [
                b"".join([self.wire[at + begin : at + end] for begin, end in _spans(members)])
                for at in range(0, len(self.wire), STRIDE)
            ]
        from ipttproto.arrays import np  # noqa: PLC0415  # 60 ms, and few events need no arrays

        rows = np.frombuffer(self.wire, np.uint8).reshape(-1, STRIDE)
        parts = [rows[:, begin:end] for begin, end in _spans(members)]
        joined = np.concatenate(parts, axis=1)
        keys: list[bytes] = joined.view(f"V{joined.shape[1]}").ravel().tolist()
        return keys

    def row(self, place: int) -> tuple[Any, ...]:
        """The members of an event, in the order of the record."""
        return unpack_row(self.wire, place)

    def rows(self, members: tuple[str, ...], places: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        """Some members of some events, in the order of the record; names end in NULs."""
        unpack = _format(members).unpack_from
        return (unpack(self.wire, place * STRIDE) for place in places)

    def part(self, begin: int, end: int) -> JoinedBatches:
        """The events from one place to before another."""
        if begin == 0 and end >= len(self):
            return self
        return JoinedBatches(
            self.wire[begin * STRIDE : end * STRIDE],
            self.cpus[begin:end],
            self.sequences[begin:end],
            self.clock_offsets[begin:end],
            {place - begin: data for place, data in self.payloads.items() if begin <= place < end},
        )


@cache
def _format(members: tuple[str, ...]) -> struct.Struct:
    return struct.Struct(f"={HEADER_SIZE}x{row_format(Event, members)}")


@cache
def _spans(members: tuple[str, ...]) -> list[tuple[int, int]]:
    """Begin and end of the bytes of members among those of an event, neighbours as one."""
    spans: list[tuple[int, int]] = []
    for member in fields(Event):
        if member.name not in members:
            continue
        begin = HEADER_SIZE + member.offset
        if spans and spans[-1][1] == begin:
            begin, _ = spans.pop()
        spans.append((begin, HEADER_SIZE + member.offset + member.size))
    return spans
