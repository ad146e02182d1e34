# SPDX-License-Identifier: GPL-2.0
"""Events of one network namespace, as if it were a host of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from ipttproto import EventBatch, JoinedBatches, Kind
from ipttproto.attributes import HEADER_SIZE
from ipttproto.batches import STRIDE, as_array, joined_wire, select
from ipttproto.family import Event
from ipttproto.layout import fields

_OF_END: Final = frozenset({"time", "skb", "packet", "link", "generation"})
"""Members of a packet's arrival elsewhere that are those of its end here."""

_SPANS: Final = {
    member.name: (HEADER_SIZE + member.offset, HEADER_SIZE + member.offset + member.size)
    for member in fields(Event)
}


def within(events: JoinedBatches, cookie: int) -> JoinedBatches:
    """The events in the namespace with a cookie.

    A packet that comes into another one has left this one, as if by a wire: the event says that it
    was used up.
    """
    cookies = events.values("netns_cookie")
    if cookies.count(cookie) == len(cookies):
        return events
    kinds = events.values("kind")
    here = [one == cookie for one in cookies]
    wanted = [one or kind == Kind.JOURNEY_RECEIVED for one, kind in zip(here, kinds, strict=True)]
    chosen = events.select(wanted)
    kept = [one for one, is_wanted in zip(here, wanted, strict=True) if is_wanted]
    ends = {place for place, one in enumerate(kept) if not one}
    if not ends:
        return chosen
    wire, payloads = _ended(chosen.wire, chosen.payloads, ends, cookie)
    return JoinedBatches(bytes(wire), chosen.cpus, chosen.sequences, chosen.clock_offsets, payloads)


def batches_within(
    batches: Sequence[EventBatch], cookie: int, links: Collection[int]
) -> list[EventBatch]:
    """The batches of the events in the namespace with a cookie, which may be of any links.

    Of ``links`` it is known that they follow its packets alone: these leave it as ``within`` has
    them, and reports of these links are there too.
    """
    from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

    wire = joined_wire(batches)
    events = as_array(wire)
    here = events["netns_cookie"] == cookie
    if here.all():
        return list(batches)
    also = np.isin(events["kind"], [Kind.JOURNEY_RECEIVED, Kind.LEFT_OUT])
    wanted = here | (also & np.isin(events["link"], list(links)))
    return [_left(batch, cookie) for batch in select(batches, wanted, wire) if len(batch)]


def _left(batch: EventBatch, cookie: int) -> EventBatch:
    """A batch in which packets have left that came into another namespace."""
    events = batch.events
    elsewhere = (events["kind"] == Kind.JOURNEY_RECEIVED) & (events["netns_cookie"] != cookie)
    ends = set(elsewhere.nonzero()[0].tolist())
    if not ends:
        return batch
    wire, payloads = _ended(batch.wire, batch.payloads, ends, cookie)
    return replace(batch, wire=memoryview(wire), payloads=payloads)


def _ended(
    wire: bytes | memoryview, payloads: Mapping[int, bytes], ends: Collection[int], cookie: int
) -> tuple[bytearray, dict[int, bytes]]:
    """Records and payloads of events, of which those at some places are made ends."""
    changed = bytearray(wire)
    for place in ends:
        _end(memoryview(changed)[place * STRIDE : (place + 1) * STRIDE], cookie)
    return changed, {place: data for place, data in payloads.items() if place not in ends}


def _end(event: memoryview, cookie: int) -> None:
    """Make an arrival elsewhere the end here."""
    for name, (begin, end) in _SPANS.items():
        size = end - begin
        if name == "kind":
            event[begin:end] = int(Kind.JOURNEY_FREED).to_bytes(size, "little")
        elif name == "netns_cookie":
            event[begin:end] = cookie.to_bytes(size, "little")
        elif name not in _OF_END:
            event[begin:end] = bytes(size)
