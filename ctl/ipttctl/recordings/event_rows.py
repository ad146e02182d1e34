# SPDX-License-Identifier: GPL-2.0
"""The columns of the table of events, made for many events at once.

Most columns are the same for many events. They are made once for all that are alike, as objects of
JSON, and numbers that differ from event to event are taken from the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ipttctl.events.records import EventRecord, decode_event
from ipttctl.show.render_json import event_object
from ipttctl.system.namespace_names import NameAt
from ipttproto import JoinedBatches

_HEADERS: Final = (
    *("pf", "flags", "ethertype", "saddr", "daddr", "protocol", "sport", "dport"),
    *("length", "arp_operation"),
)
_OF_HEADERS: Final = {
    "family": "family",
    "protocol": "protocol_name",
    "source": "source",
    "source_port": "source_port",
    "destination": "destination",
    "destination_port": "destination_port",
    "length": "length",
}
_APART: Final = {
    *("time", "skb", "packet", "cost", "traversal", "cpu", "sequence", "clock_offset", "payload"),
    *("saddr", "daddr", "sport", "dport", "length", "icmp_id", "tcp_flags", "dmac", "ct_id"),
}
_REST: Final = tuple(one for one in EventRecord._fields if one not in _APART)
_OF_REST: Final = {
    **{name: name for name in ("link", "kind", "netns", "netns_cookie", "hook", "hook_family")},
    **{name: name for name in ("mark", "table_family", "table", "chain", "rulenum")},
    **{name: name for name in ("rule_handle", "function", "module", "verdict", "pid", "comm")},
    "in_device": "in_name",
    "out_device": "out_name",
}
_COSTS: Final = "cost_ns"


class EventColumns:
    """Makes the columns, but for those that say where the events come from."""

    def __init__(self, names: NameAt) -> None:
        """Name namespaces by ``names``."""
        self._names = names
        self._known: dict[tuple[int, bytes], Mapping[str, Any]] = {}

    def of(self, events: JoinedBatches) -> dict[str, Sequence[Any]]:
        """The columns of events, by name."""
        if len(self._known) > 1 << 16:
            self._known.clear()
        rest = self._objects(0, events, events.keys(_REST))
        headers = self._objects(1, events, events.keys(_HEADERS))
        times = events.values("time")
        cookies = events.values("netns_cookie")
        found: dict[str, Sequence[Any]] = {
            "time": list(map(sum, zip(times, events.clock_offsets, strict=True))),
            "monotonic_ns": times,
            "cpu": list(events.cpus),
            "sequence": list(events.sequences),
            "packet": [number or None for number in events.values("packet")],
            "netns_name": [
                self._names.name(cookie, time) for cookie, time in zip(cookies, times, strict=True)
            ],
            _COSTS: [
                cost if one[_COSTS] is not None else None
                for cost, one in zip(events.values("cost"), rest, strict=True)
            ],
            "payload": [events.payloads.get(place) for place in range(len(events))],
        }
        for name, key in _OF_REST.items():
            found[name] = [one[key] for one in rest]
        for name, key in _OF_HEADERS.items():
            found[name] = [one[key] for one in headers]
        return found

    def _objects(
        self, which: int, events: JoinedBatches, keys: Sequence[bytes]
    ) -> list[Mapping[str, Any]]:
        """The object of each event; those with the same key have the same members of a kind."""
        known = self._known
        for place, key in enumerate(keys):
            if (which, key) not in known:
                known[which, key] = _object(decode_event(events, place))
        return [known[which, key] for key in keys]


def _object(record: EventRecord) -> Mapping[str, Any]:
    made = event_object(record)
    # events that limits left out have few members
    wanted = {*_OF_REST.values(), *_OF_HEADERS.values(), _COSTS}
    return {name: made.get(name) for name in wanted}
