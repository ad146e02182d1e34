# SPDX-License-Identifier: GPL-2.0
"""Stories as lines of JSON, with the keys of docs/stories.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from ipttctl.escape import Escaped
from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttctl.families import family_name, nft_family_name
from ipttctl.show.render_json import dumps, rule_values
from ipttctl.show.story_plots import PlotForms, StepForm
from ipttctl.show.story_rules import NOT_READ, Rules, blamed_at, is_reject, is_rule
from ipttctl.show.story_words import (
    Part,
    Peers,
    StorySources,
    came_in,
    end_words,
    is_refused,
    protocol_name,
    sender_of,
    socket_of,
    socket_words,
    untold_peers,
    version_at,
)
from ipttctl.show.transport_json import transport_values
from ipttctl.stories import model
from ipttctl.stories.model import EndKind, PacketField, Plot, Story
from ipttctl.stories.occurrences import Headers, Named, freed
from ipttctl.stories.queues import queue_behind
from ipttctl.stories.steps import OF_NFT
from ipttctl.system.who import Participant, Receiver
from ipttproto import EventFlag, Kind, Verdict

FORMAT: Final = 2
"""Version of the objects. Keys may be added without another one."""

_NUMBERS: Final[Mapping[PacketField, Callable[[EventRecord], int]]] = {
    PacketField.PRIORITY: lambda record: record.skb_priority,
    PacketField.MARK: lambda record: record.mark,
    PacketField.TTL: lambda record: record.ttl,
    PacketField.TOS: lambda record: record.tos,
    PacketField.CT_MARK: lambda record: record.ct_mark,
    PacketField.CT_ZONE: lambda record: record.ct_zone,
}

Values = dict[str, Any]
"""An object. A value that is a function gives the JSON text of the value for one story."""

_JOINING: Final = frozenset({Kind.JOURNEY_JOINED, Kind.JOURNEY_WAITS})
"""Kinds of events that name the packet that another one becomes a part of."""


class StoryJson:
    """A line for each story."""

    def __init__(self, sources: StorySources | None = None) -> None:
        """Take names and rules from ``sources``."""
        self._sources = sources or StorySources()
        self._parts = PlotForms(self._made, self._sources)

    def lines(self, stories: Sequence[Story]) -> list[Escaped]:
        """The lines for stories."""
        self._parts.learn(stories)
        return [Escaped(self._line(story)) for story in stories]

    def _made(self, plot: Plot, rules: Rules, peers: Peers) -> list[Part]:
        made = _PlotJson(plot, rules, peers, self._sources, self._line)
        return list(_joined(_texts(made.values())))

    def _line(self, story: Story) -> str:
        """The line of a story, or of a branch, whose plot is known."""
        parts = self._parts[story.plot]
        return "".join([part if isinstance(part, str) else part(story) for part in parts])


def story_object(story: Story, sources: StorySources | None = None) -> dict[str, Any]:
    """A story as an object. Keys that do not apply are null."""
    [line] = StoryJson(sources).lines([story])
    found: dict[str, Any] = json.loads(line)
    return found


def _texts(value: object) -> Iterator[Part]:
    """The JSON text of a value, in pieces: functions in it stay as they are."""
    match value:
        case dict():
            yield "{"
            for place, (key, one) in enumerate(value.items()):
                yield f"{',' if place else ''}{dumps(key)}:"
                yield from _texts(one)
            yield "}"
        case list():
            yield "["
            for place, one in enumerate(value):
                yield "," if place else ""
                yield from _texts(one)
            yield "]"
        case _ if callable(value):
            yield value
        case _:
            yield dumps(value)


def _joined(parts: Iterator[Part]) -> Iterator[Part]:
    """Parts with as few texts as possible."""
    text: list[str] = []
    for part in parts:
        if isinstance(part, str):
            text.append(part)
            continue
        if text:
            yield "".join(text)
            text = []
        yield part
    yield "".join(text)


class _PlotJson(StepForm[Values]):
    """Makes the object of a plot."""

    def __init__(
        self,
        plot: Plot,
        rules: Rules,
        peers: Peers,
        sources: StorySources,
        branch: Callable[[Story], str],
    ) -> None:
        """``branch`` gives the text of a branch."""
        super().__init__(plot, rules, peers, sources)
        self._branch = branch

    def values(self) -> Values:
        plot = self.plot
        first, end = plot.record(0), plot.end.at
        has_pid = bool(first.flags & EventFlag.PID)
        return {
            "type": "story",
            "format": FORMAT,
            "packet": lambda story: str(story.number),
            "copy_of": lambda story: str(story.copy_of or "null"),
            "time_ns": lambda story: str(story.times[0] + story.clock_offset),
            "monotonic_ns": lambda story: str(story.times[0]),
            "duration_ns": lambda story: str(story.times[end] - story.times[0]),
            **self._place(0),
            "in_device": describe.text(first.in_name) or None if came_in(plot) else None,
            "in_peer": self._peer(0) if came_in(plot) else None,
            "pid": first.pid if has_pid else None,
            "sender": self._sender if has_pid and self.sources.sender else None,
            "headers": self._headers(0),
            "steps": list(self.of_steps()),
            "folded_branches": len(plot.folded),
            "end": self._end(),
        }

    def _peer(self, at: int) -> Values | None:
        peer = self.peers.get(at)
        return peer.values() if peer else None

    def _sender(self, story: Story) -> str:
        return _process(sender_of(story, self.sources))

    def _place(self, at: int) -> Values:
        record, names = self.plot.record(at), self.sources.names
        cookie = record.netns_cookie
        return {
            "netns": record.netns or None,
            "netns_cookie": cookie or None,
            "netns_name": (
                (lambda story: dumps(names.name(cookie, story.times[at]))) if names else None
            ),
        }

    def _headers(self, at: int) -> Part:
        plot = self.plot
        cut = plot.cut(at)

        def text(story: Story) -> str:
            headers = story.headers[at]
            return _headers_text(headers, version_at(plot, at, headers), cut)

        return text

    @staticmethod
    def _after(at: int) -> Part:
        return lambda story: str(story.times[at] - story.times[0])

    def route(self, step: model.RouteStep) -> Values:
        out = describe.text(self.plot.record(step.at).out_name) or None
        return {
            "step": "route",
            "after_ns": self._after(step.at),
            "device": out if step.forwarded or step.rerouted else None,
            "rerouted": step.rerouted,
            "changes": self._changes(step.changes),
        }

    def device(self, step: model.DeviceStep) -> Values:
        record = self.plot.record(step.at)
        return {
            "step": "sent" if step.sent else "received",
            "after_ns": self._after(step.at),
            "device": describe.text(record.out_name if step.sent else record.in_name) or None,
            "peer": self._peer(step.at),
            "crossed": step.crossed,
            **self._place(step.at),
            "changes": self._changes(step.changes),
        }

    def socket(self, step: model.SocketStep) -> Values:
        return {
            "step": "socket",
            "after_ns": self._after(step.at),
            "headers": self._headers(step.at),
            "socket": self._socket(step.at),
        }

    def tunnel(self, step: model.TunnelStep) -> Values:
        return {
            "step": "decapsulated" if step.removed else "encapsulated",
            "after_ns": self._after(step.after),
            "headers": self._headers(step.after),
        }

    def branch(self, step: model.BranchStep) -> Values:
        index = step.index
        return {
            "step": "branch",
            "after_ns": lambda story: str(story.branches[index].times[0] - story.times[0]),
            "folded": index in self.plot.folded,
            "story": lambda story: self._branch(story.branches[index]),
        }

    def passage(self, step: model.Passage) -> Values:
        record = self.plot.record(step.first)
        end = None if step.end is None else self.plot.record(step.end)
        return {
            "step": "hook",
            "after_ns": self._after(step.first),
            "hook": describe.hook(record),
            "hook_family": family_name(record.pf),
            **self._place(step.first),
            "in_device": describe.text(record.in_name) or None,
            "out_device": describe.text(record.out_name) or None,
            "ct_id": lambda story: str(story.connection(step.last) or "null"),
            "arrived": self._changes(step.arrived),
            "functions": [self._call(call) for call in step.calls],
            "functions_unseen": queue_behind(self.plot, step) is not None,
            **_verdict(end),
        }

    def _call(self, call: model.FunctionCall) -> Values:
        record = None if call.at is None else self.plot.record(call.at)
        priority = record is not None and record.flags & EventFlag.PRIORITY
        return {
            "function": describe.text(record.chain) or None if record else None,
            "module": describe.text(record.table) or None if record else None,
            "priority": record.priority if record and priority else None,
            "consulted": [self._consultation(one) for one in call.consulted],
            "changes": self._changes(call.changes),
            **_verdict(record),
        }

    def _consultation(self, consulted: model.Consultation) -> Values:
        record = self.plot.record(consulted.at)
        end = None if consulted.end is None else self.plot.record(consulted.end)
        nft = record.kind in OF_NFT
        return {
            "backend": "nft" if nft else "legacy",
            "table_family": nft_family_name(record.family) if nft else None,
            "table": describe.text(record.table),
            "chain": describe.text((end or record).chain),
            "connection_known": consulted.known,
            "rules": [self._rule(step) for step in consulted.rules],
            **_verdict(end),
        }

    def _rule(self, step: model.RuleStep) -> Values:
        return {
            "after_ns": self._after(step.at),
            **self._named_rule(step.at),
            "changes": self._changes(step.changes),
        }

    def _named_rule(self, at: int) -> Values:
        record, rule = self.plot.record(at), self.rules.get(at)
        nft = record.kind in OF_NFT
        return {
            "kind": "rule" if not nft and is_rule(record, rule) else describe.kind(record),
            "table_family": nft_family_name(record.family) if nft else None,
            "table": rule.table if rule and rule.table else describe.text(record.table),
            "chain": rule.chain if rule and rule.chain else describe.text(record.chain),
            "rulenum": record.rulenum or None,
            "rule_handle": record.rule_handle or None if nft else None,
            "decision": describe.decision_name(record.verdict) if nft else None,
            "target": describe.text(record.target) or None,
            "uncertain": bool(record.flags & EventFlag.UNCERTAIN),
            **rule_values(None if rule is NOT_READ else rule),
        }

    def _changes(self, changes: Sequence[model.PacketChange]) -> list[Values]:
        return [
            {
                "field": change.field.value,
                "before": self._value(change.field, change.before),
                "after": self._value(change.field, change.after),
                "initial": change.initial,
            }
            for change in changes
        ]

    def _value(self, field: PacketField, at: int) -> object:
        plot = self.plot
        record = plot.record(at)
        match field:
            case PacketField.SOURCE | PacketField.DESTINATION:
                cut = plot.cut(at)

                def end_of_way(story: Story) -> str:
                    headers = story.headers[at]
                    version = version_at(plot, at, headers)
                    known = transport_values(headers, version, whole=not cut)
                    address, port = known[field.value], known[f"{field.value}_port"]
                    if port is None:
                        return dumps(address)
                    return dumps(f"[{address}]:{port}" if version == 6 else f"{address}:{port}")

                return end_of_way
            case PacketField.CT_STATE:
                return describe.member(record.ct_state)
            case _:
                return _NUMBERS[field](record)

    def _socket(self, at: int) -> Part:
        uid, sources = self.plot.record(at).verdict_data, self.sources

        def text(story: Story) -> str:
            words = socket_words(story, at, sources)
            return _socket_text(words, uid, story.named.get(at), socket_of(story, at, sources))

        return text

    def _joined(self) -> Part:
        """The number of the packet that this one went into, if that is followed."""
        kinds = [one.record.kind for one in self.plot.occurrences]
        at = max((at for at, kind in enumerate(kinds) if kind in _JOINING), default=-1)

        def text(story: Story) -> str:
            named = story.named.get(at)
            return str((named and named.number) or "null")

        return text

    def _end(self) -> Values:
        plot, end = self.plot, self.plot.end
        last = plot.record(end.at)
        blame = blamed_at(plot, self.rules)
        blamed = None if blame is None else plot.record(blame)
        rule = None if blame is None else self.rules.get(blame)
        of_function = blamed is not None and blamed.kind == Kind.SPINE_FUNCTION
        by_kernel = end.kind.is_drop and last.kind == Kind.JOURNEY_DROPPED
        reason = None
        if by_kernel and self.sources.reason:
            reason = self.sources.reason(last.verdict_data)
        device = peer = None
        if end.kind is EndKind.LEFT and end.device is not None:
            device = describe.text(plot.record(end.device).out_name) or None
            peer = self._peer(end.device)
        return {
            "kind": end.kind.value,
            "dropped": end.kind.is_drop,
            "rejected": blamed is not None and is_reject(blamed, rule),
            "text": self._end_text(),
            "hook": describe.hook(plot.record(end.place)) if end.place is not None else None,
            "rule": (
                self._named_rule(blame) if end.kind is EndKind.RULE and blame is not None else None
            ),
            "function": describe.text(blamed.chain) or None if of_function and blamed else None,
            "module": describe.text(blamed.table) or None if of_function and blamed else None,
            "drop_reason": reason,
            "drop_reason_number": last.verdict_data if by_kernel else None,
            "drop_function": describe.text(last.chain) or None if by_kernel else None,
            "drop_module": describe.text(last.table) or None if by_kernel else None,
            **({"queue_full": True} if is_refused(plot) else {}),
            "device": device,
            "peer": peer,
            "queue": (
                blamed.verdict_data if end.kind is EndKind.QUEUED and blamed is not None else None
            ),
            "joined": self._joined() if end.kind is EndKind.JOINED else None,
            "headers": self._headers(end.at),
            "socket": self._socket(end.socket) if end.socket is not None else None,
            "why": end.why or None,
            "events_lost": end.events_lost,
        }

    def _end_text(self) -> Part:
        """The answer; a text is one of the values, which become JSON with the others."""
        untold = untold_peers(self.plot, self.peers)
        words = end_words(self.plot, self.rules, self.sources, untold)
        if isinstance(words, str):
            return words
        return lambda story: dumps(words(story))


@lru_cache(maxsize=1 << 10)
def _headers_text(headers: Headers, version: int | None, cut: int) -> str:
    named = version is not None or headers.ethertype == describe.ARP
    return dumps(
        {
            "family": version,
            "ethertype": headers.ethertype,
            "protocol": protocol_name(headers) if named else None,
            **transport_values(headers, version, whole=not cut),
            "fragment": bool(cut & EventFlag.FRAGMENT),
            "length": headers.length,
        }
    )


@lru_cache(maxsize=1 << 10)
def _process(found: Participant | None) -> str:
    return dumps(found.values() if found else None)


@lru_cache(maxsize=1 << 10)
def _socket_text(words: str, uid: int, named: Named | None, holders: Receiver | None) -> str:
    return dumps(
        {
            "text": words,
            "inode": named.number or None if named else None,
            "cookie": named.cookie or None if named else None,
            "uid": uid,
            **(holders or Receiver(0, None)).values(),
        }
    )


def _verdict(record: EventRecord | None) -> Values:
    if record is None:
        return {"verdict": None, "errno": None}
    dropped = record.verdict == Verdict.DROP or freed(record)
    return {
        "verdict": describe.verdict_name(Verdict.DROP if dropped else record.verdict),
        "errno": (
            describe.error_name(record.verdict_data) if dropped and record.verdict_data else None
        ),
    }
