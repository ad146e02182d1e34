# SPDX-License-Identifier: GPL-2.0
"""Events as lines of JSON.

Most of a line is the same for many events. It is made once for all of them, by ``event_object``,
with places for what differs from event to event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ipttctl.escape import Escaped
from ipttctl.events.records import DECISIVE, EventRecord, decode_event
from ipttctl.show.momentary import namespaces_of
from ipttctl.show.render_json import dumps, event_object, payload_values, rule_values
from ipttctl.show.rule import PayloadOf, RulesOf
from ipttctl.system.namespace_names import NameAt
from ipttproto import EventFlag, JoinedBatches

_MOST_TEMPLATES: Final = 1 << 13
"""Most templates that are kept, each of some 2 KB."""

#: key -> what stands in a template for its value, in the order of ``EventJson._values``
_DIFFERENT: Final = {
    "time_ns": "%d",
    "monotonic_ns": "%d",
    "cpu": "%d",
    "sequence": "%d",
    "traversal": "%d",
    "skb": '"0x%x"',
    "packet": "%s",
    "netns_name": "%s",
    "cost_ns": "%d",
}
#: the same for null
_NULL: Final = "null%.0s"
#: keys whose values come as they are in JSON, null too
_GIVEN: Final = {"packet", "netns_name"}
_MEMBERS: Final = tuple(
    member
    for member in EventRecord._fields
    if member not in {"time", "skb", "packet", "cost", "traversal", "cpu", "sequence"}
)
_OF_RULE: Final = tuple(rule_values(None))
_OF_PAYLOAD: Final = tuple(payload_values(None, None))


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
        self._templates: dict[bytes, str] = {}

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
            events.values("cost"),
            self._of_rules(events),
            self._of_payloads(events),
            strict=True,
        )
        templates = self._of_events(events)
        return [
            Escaped(template % value) for template, value in zip(templates, values, strict=True)
        ]

    def _of_events(self, events: JoinedBatches) -> Sequence[str]:
        """The template of each event."""
        templates = self._templates
        if len(templates) > _MOST_TEMPLATES:
            templates.clear()
        keys = events.keys(_MEMBERS)
        for place, key in enumerate(keys):
            if key not in templates:
                templates[key] = _template(event_object(decode_event(events, place)))
        return [templates[key] for key in keys]

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


def _template(values: dict[str, Any]) -> str:
    """A line with places for what differs from event to event."""
    parts = []
    for key, value in values.items():
        if key in _DIFFERENT:
            text = _NULL if value is None and key not in _GIVEN else _DIFFERENT[key]
            parts.append(f"{dumps(key)}:{text}")
        elif key in {_OF_RULE[0], _OF_PAYLOAD[0]}:
            parts.append("%s")
        elif key not in _OF_RULE and key not in _OF_PAYLOAD:
            parts.append(_pairs({key: value}).replace("%", "%%"))
    return f"{{{','.join(parts)}}}"


def _pairs(values: dict[str, Any]) -> str:
    """Keys and their values, without the braces of an object."""
    return dumps(values)[1:-1]
