# SPDX-License-Identifier: GPL-2.0
"""Events taken apart: what happened, to which packet, with which headers, and when.

Many packets take the same way, so the part that says what happened is the same for many events. It
is decoded once for all of them, and known by its identity afterwards.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

from ipttctl.events.records import EventRecord, decode_event
from ipttproto import EventFlag, JoinedBatches, Kind, Verdict

_NO_REASON: Final = 2

_MOST_KEPT: Final = 1 << 15
"""Most kinds of occurrences, and most headers, that are kept for the next events."""


class Headers(NamedTuple):
    """The members of an event that its packet's headers decide, under the same names."""

    length: int
    sport: int
    dport: int
    icmp_id: int
    ethertype: int
    arp_operation: int
    protocol: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    dmac: bytes
    saddr: bytes
    daddr: bytes

    @property
    def blank(self) -> bool:
        """Whether the event does not tell what packet it is about."""
        return not (any(self.saddr) or any(self.daddr) or self.ethertype)


class Weight(enum.Enum):
    """The meaning of an event for the end of a story."""

    NONE = enum.auto()
    """The packet goes on."""
    SOFT = enum.auto()
    """It ends here unless more is heard of it: a verdict of drop, a socket."""
    FINAL = enum.auto()
    """It is gone."""
    COPY = enum.auto()
    """It begins here, as a copy."""
    WAITS = enum.auto()
    """It is a fragment, and waits for the others."""
    WHOLE = enum.auto()
    """It is what fragments waited for."""


class Occurrence:
    """All that an event tells but for the moment, the headers and the number of the packet.

    ``record`` is an event of this kind with these members 0. Two events of which the same happened
    have the same object.
    """

    __slots__ = ("cut", "drops", "record", "shows_packet", "weight")

    def __init__(self, record: EventRecord) -> None:
        self.record = record
        self.weight = _weight(record)
        self.drops = record.kind == Kind.JOURNEY_DROPPED or (
            self.weight is Weight.SOFT and record.kind != Kind.JOURNEY_SOCKET
        )
        """Whether it tells that the packet is dropped."""
        self.cut = int(record.flags & (EventFlag.FRAGMENT | EventFlag.TRUNCATED))
        """The flags that say that there is no transport header, as a number."""
        self.shows_packet = record.kind not in _OF_JOURNEY or bool(record.pf)
        """Whether it tells the headers, if the packet is one of IP or ARP."""


class Named(NamedTuple):
    """The numbers that an event of two packets or of a socket names, which few others share.

    ``number`` is that of the other packet, or the inode number of a socket, whose ``cookie`` it is;
    in events of fragments, until their story is told, the module's for the whole.
    """

    number: int
    cookie: int


Entry: TypeAlias = tuple[int, Occurrence, Headers, Named | None]
"""An event of a story: its time, what happened, the packet's headers, and numbers that it names."""

Arrival: TypeAlias = tuple[int, int, int, Occurrence, Headers, int, Named | None]
"""An event as it comes in: the number of its packet, the clock's offset, then its entry, with the
id of the packet's connection before the numbers that it names."""


_HEADERS: Final = Headers._fields
_MOMENT: Final = ("time", "skb", "cost", "packet", "ct_id", "traversal", "cpu", "sequence")
_OF_HEADERS: Final = attrgetter(*_HEADERS)
_KEPT: Final = tuple(
    member
    for member in EventRecord._fields
    if member not in {*_HEADERS, *_MOMENT, "clock_offset", "payload"}
)
_OF_OCCURRENCE: Final = attrgetter(*_KEPT)
_NOTHING: Final[dict[str, Any]] = {
    **dict.fromkeys((*_MOMENT, *_HEADERS, "clock_offset"), 0),
    **dict.fromkeys(("saddr", "daddr"), bytes(16)),
    "dmac": bytes(6),
    "payload": b"",
}
_OF_TWO: Final = frozenset(
    {Kind.JOURNEY_COPY, Kind.JOURNEY_JOINED, Kind.JOURNEY_WAITS, Kind.JOURNEY_WHOLE}
)
_NAMING: Final = _OF_TWO | {Kind.JOURNEY_SOCKET}
_EXITS: Final = frozenset({Kind.EXIT, Kind.CHAIN_EXIT, Kind.SPINE_EXIT, Kind.SPINE_FUNCTION})
_OF_JOURNEY: Final = frozenset(kind for kind in Kind if kind.name.startswith("JOURNEY_"))
_WEIGHTS: Final[Mapping[int, Weight]] = {
    Kind.JOURNEY_DROPPED: Weight.FINAL,
    Kind.JOURNEY_FREED: Weight.FINAL,
    Kind.JOURNEY_LOST: Weight.FINAL,
    Kind.JOURNEY_COPY: Weight.COPY,
    Kind.JOURNEY_SOCKET: Weight.SOFT,
    Kind.JOURNEY_WAITS: Weight.WAITS,
    Kind.JOURNEY_WHOLE: Weight.WHOLE,
}


class Occurrences:
    """Takes events apart, and keeps the parts that will be needed again."""

    def __init__(self) -> None:
        self._known: dict[object, tuple[Occurrence, Named | None]] = {}
        self._headers: dict[object, Headers] = {}

    def of_records(self, records: Iterable[EventRecord]) -> Iterator[Arrival]:
        """The parts of records of followed packets."""
        for record in records:
            if record.packet:
                self._bound()
                key = _OF_OCCURRENCE(record)
                happened, named = self._known.get(key) or self._learn(key, record)
                headers = Headers._make(_OF_HEADERS(record))
                headers = self._headers.setdefault(headers, headers)
                moment = record.packet, record.clock_offset, record.time
                yield *moment, happened, headers, record.ct_id, named

    def of_events(self, events: JoinedBatches) -> Iterable[Arrival]:
        """The parts of events of followed packets, decoded where they are new only."""
        packets = events.values("packet")
        if not all(packets):
            events = events.select([bool(packet) for packet in packets])
            packets = [packet for packet in packets if packet]
        if not packets:
            return ()
        self._bound()
        found = self._happened(events)
        # zip() makes no tuples that outlive a step of the loop, which would cost the most
        return zip(
            packets,
            events.clock_offsets,
            events.values("time"),
            [happened for happened, _ in found],
            self._headers_of(events),
            events.values("ct_id"),
            [named for _, named in found],
            strict=True,
        )

    def _happened(self, events: JoinedBatches) -> list[tuple[Occurrence, Named | None]]:
        keys, known = events.keys(_KEPT), self._known
        return [
            known.get(key) or self._learn(key, decode_event(events, place))
            for place, key in enumerate(keys)
        ]

    def _headers_of(self, events: JoinedBatches) -> list[Headers]:
        keys, known = events.keys(_HEADERS), self._headers
        new = {key: place for place, key in enumerate(keys) if key not in known}
        for key, row in zip(new, events.rows(_HEADERS, new.values()), strict=True):
            made = Headers._make(row)
            known[key] = known.setdefault(made, made)
        return [known[key] for key in keys]

    def _learn(self, key: object, record: EventRecord) -> tuple[Occurrence, Named | None]:
        """Keep what an event tells; some events are alike but for the numbers that they name."""
        same = record._replace(**_NOTHING)
        named = None
        if record.kind in _NAMING:
            named = Named(record.rule_handle, record.table_handle)
            same = same._replace(rule_handle=0, table_handle=0)
            alike = _OF_OCCURRENCE(same)
            occurrence, _ = self._known.setdefault(alike, (Occurrence(same), None))
        else:
            occurrence = Occurrence(same)
        found = occurrence, named
        if record.kind not in _OF_TWO:
            self._known[key] = found
        return found

    def _bound(self) -> None:
        """Forget what is kept if that is too much; stories hold what they need."""
        if len(self._known) > _MOST_KEPT:
            self._known.clear()
        if len(self._headers) > _MOST_KEPT:
            self._headers.clear()


def whole_record(number: int, clock_offset: int, entry: Entry) -> EventRecord:
    """The record of an event, but for its CPU, sequence, passage, cost and address of its skb."""
    time, happened, headers, named = entry
    record = happened.record._replace(
        time=time, packet=number, clock_offset=clock_offset, **headers._asdict()
    )
    if named is None:
        return record
    return record._replace(rule_handle=named.number, table_handle=named.cookie)


def freed(record: EventRecord) -> bool:
    """Whether a function dropped the packet itself: STOLEN, with an errno (NF_DROP_REASON)."""
    return record.verdict == Verdict.STOLEN and record.verdict_data != 0


def function_of(dropped: EventRecord) -> bytes:
    """The function that dropped a packet, without what a compiler added to its name."""
    return dropped.chain.rstrip(b"\0").partition(b".")[0]


def drops_without_reason(dropped: EventRecord) -> bool:
    """Whether the kernel had no reason for a drop, or said none.

    The number of the reason that says nothing is 1 on Linux 6.1, where 2 is that there is no
    socket, and 2 on later ones. So this is asked of functions only that look for no socket.
    """
    return dropped.verdict_data <= _NO_REASON


def _weight(record: EventRecord) -> Weight:
    if (weight := _WEIGHTS.get(record.kind)) is not None:
        return weight
    dropped = record.verdict == Verdict.DROP or (
        record.kind == Kind.SPINE_FUNCTION and freed(record)
    )
    return Weight.SOFT if record.kind in _EXITS and dropped else Weight.NONE
