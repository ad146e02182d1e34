# SPDX-License-Identifier: GPL-2.0
"""Events as lines of JSON.

Most of a line is the same for many events. It is made once for all of them, by ``event_object``,
with places for what differs from event to event. So are the keys of a process and those of a flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Final

from ipttctl.escape import Escaped
from ipttctl.events.records import DECISIVE, EventRecord, decode_event
from ipttctl.show.momentary import namespaces_of
from ipttctl.show.render_json import (
    dumps,
    event_object,
    packet_values,
    payload_values,
    process_values,
    rule_values,
)
from ipttctl.show.rule import PayloadOf, RulesOf
from ipttctl.system.namespace_names import NameAt
from ipttproto import EventFlag, JoinedBatches

_MOST_TEXTS: Final = 1 << 13
"""Most texts of a kind that are kept, each of some 2 KB at most."""

#: key -> what stands in a template for its value, in the order of ``EventJson.lines``
_DIFFERENT: Final = {
    "time_ns": "%d",
    "monotonic_ns": "%d",
    "cpu": "%d",
    "sequence": "%d",
    "traversal": "%d",
    "skb": '"0x%x"',
    "packet": "%s",
    "netns_name": "%s",
    "mark": "%d",
    "length": "%d",
    "cost_ns": "%d",
    "ct_id": "%s",
}
#: the same for null
_NULL: Final = "null%.0s"
#: keys whose values come as they are in JSON, null too
_GIVEN: Final = {"packet", "netns_name"}

#: members that ``process_values`` and ``packet_values`` depend on, besides ``flags`` and ``pf``
_OF_PROCESS: Final = ("pid", "pid_start", "comm", "uid", "cgroup")
_OF_PACKET: Final = (
    *("ethertype", "saddr", "daddr", "protocol", "sport", "dport", "tcp_flags"),
    *("icmp_type", "icmp_code", "icmp_id", "arp_operation"),
)
_OF_MOMENT: Final = (
    *("time", "clock_offset", "cpu", "sequence", "traversal", "skb", "packet"),
    *("mark", "length", "cost", "ct_id", "payload"),
)
_OF_TEMPLATE: Final = tuple(
    member
    for member in EventRecord._fields
    if member not in {*_OF_MOMENT, *_OF_PROCESS, *_OF_PACKET}
)

_NO_EVENT: Final = EventRecord._make([0] * len(EventRecord._fields))
#: keys that follow each other and have one place, in the order of ``EventJson.lines``
_TOGETHER: Final = [
    tuple(values)
    for values in (
        process_values(_NO_EVENT),
        packet_values(_NO_EVENT),
        rule_values(None),
        payload_values(None, None),
    )
]
_FIRST: Final = {keys[0] for keys in _TOGETHER}
_OTHERS: Final = {key for keys in _TOGETHER for key in keys[1:]}
_NOT_THE_SAME: Final = frozenset({*_DIFFERENT, *_FIRST, *_OTHERS})


class EventJson:
    """A line for each event, with the keys of docs/json.md."""

    def __init__(
        self,
        names: NameAt | None = None,
        payload: PayloadOf | None = None,
        rules: RulesOf | None = None,
    ) -> None:
        """Name namespaces by ``names``, decode payloads by ``payload``, and show ``rules``."""
        self._names = names
        self._payload = payload
        self._rules = rules
        self._templates = _KeptTexts(_template, _OF_TEMPLATE)
        self._processes = _KeptTexts(
            lambda record: _pairs(process_values(record)), ("flags", *_OF_PROCESS)
        )
        self._packets = _KeptTexts(
            lambda record: _pairs(packet_values(record)), ("flags", "pf", *_OF_PACKET)
        )

    def lines(self, events: JoinedBatches) -> list[Escaped]:
        """The lines for events."""
        namespaces = namespaces_of(events, self._names)
        if namespaces is None:
            return [line for one in events.each() for line in self.lines(one)]
        names = {key: dumps(name) for key, (_, name) in namespaces.names.items()}
        times = events.values("time")
        values = zip(
            map(sum, zip(times, events.clock_offsets, strict=True)),
            times,
            events.cpus,
            events.sequences,
            events.values("traversal"),
            events.values("skb"),
            [number or "null" for number in events.values("packet")],
            [names[key] for key in namespaces.keys],
            self._processes.of(events),
            events.values("mark"),
            events.values("length"),
            self._packets.of(events),
            events.values("cost"),
            [number or "null" for number in events.values("ct_id")],
            self._of_rules(events),
            self._of_payloads(events),
            strict=True,
        )
        templates = self._templates.of(events)
        return [
            Escaped(template % value) for template, value in zip(templates, values, strict=True)
        ]

    def _of_rules(self, events: JoinedBatches) -> Sequence[str]:
        """The keys of the rule that each event names."""
        if self._rules is None:
            return [_pairs(rule_values(None))] * len(events)
        keys = events.keys(DECISIVE)
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        places = sorted(first.values())
        rules = self._rules([decode_event(events, place) for place in places])
        texts = {
            keys[place]: _pairs(rule_values(rule))
            for place, rule in zip(places, rules, strict=True)
        }
        return [texts[key] for key in keys]

    def _of_payloads(self, events: JoinedBatches) -> Sequence[str]:
        """The keys of the bytes that a program added to each event."""
        texts = [_pairs(payload_values(None, None))] * len(events)
        added = int(EventFlag.PAYLOAD)
        for place, flags in enumerate(events.values("flags")):
            if flags & added:
                record = decode_event(events, place)
                texts[place] = _pairs(payload_values(record, self._payload))
        return texts


class _KeptTexts:
    """Texts of events, each kept by the members that it depends on."""

    def __init__(self, make: Callable[[EventRecord], str], members: tuple[str, ...]) -> None:
        self._make = make
        self._members = members
        self._known: dict[bytes, str] = {}

    def of(self, events: JoinedBatches) -> list[str]:
        """The text of each event."""
        known = self._known
        if len(known) > _MOST_TEXTS:
            known.clear()
        keys = events.keys(self._members)
        for place, key in enumerate(keys):
            if key not in known:
                known[key] = self._make(decode_event(events, place))
        return [known[key] for key in keys]


def _template(record: EventRecord) -> str:
    """A line with places for what differs from event to event."""
    # a number, so that null says that such events have none
    values = event_object(record._replace(ct_id=1))
    parts: list[str] = []
    for differ, keys in groupby(values, _NOT_THE_SAME.__contains__):
        if differ:
            parts += [_place(key, values[key]) for key in keys if key not in _OTHERS]
        else:
            parts.append(_pairs({key: values[key] for key in keys}).replace("%", "%%"))
    return f"{{{','.join(parts)}}}"


def _place(key: str, value: object) -> str:
    """The place of a key, or of those that follow it with one place."""
    if key in _FIRST:
        return "%s"
    return f'"{key}":{_NULL if value is None and key not in _GIVEN else _DIFFERENT[key]}'


def _pairs(values: dict[str, Any]) -> str:
    """Keys and their values, without the braces of an object."""
    return dumps(values)[1:-1]
