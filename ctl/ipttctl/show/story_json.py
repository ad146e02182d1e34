# SPDX-License-Identifier: GPL-2.0
"""Stories as lines of JSON, with the keys of docs/stories.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ipttctl.escape import Escaped
from ipttctl.events import describe, protocols
from ipttctl.events.records import EventRecord
from ipttctl.families import family_name, nft_family_name
from ipttctl.show.render_json import dumps, rule_values
from ipttctl.show.rule import Rule
from ipttctl.show.story_words import (
    StorySources,
    came_in,
    end_words,
    is_reject,
    protocol_name,
    rule_ats,
    version_at,
)
from ipttctl.stories.model import (
    BranchStep,
    Consultation,
    DeviceStep,
    EndKind,
    FunctionCall,
    PacketChange,
    PacketField,
    Passage,
    Plot,
    RouteStep,
    RuleStep,
    SocketStep,
    Story,
    StoryStep,
    TunnelStep,
)
from ipttctl.stories.occurrences import freed
from ipttctl.stories.steps import OF_NFT
from ipttproto import EventFlag, Kind, Verdict

FORMAT: Final = 1
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
Rules = Mapping[int, Rule | None]


class StoryJson:
    """A line for each story."""

    def __init__(self, sources: StorySources | None = None) -> None:
        """Take names and rules from ``sources``."""
        self._sources = sources or StorySources()

    def lines(self, stories: Sequence[Story]) -> list[Escaped]:
        """The lines for stories."""
        return [Escaped(dumps(story_object(story, self._sources))) for story in stories]


def story_object(story: Story, sources: StorySources | None = None) -> Values:
    """A story as an object. Keys that do not apply are null."""
    return _StoryObject(story, sources or StorySources()).values()


class _StoryObject:
    def __init__(self, story: Story, sources: StorySources) -> None:
        self._story = story
        self._plot = story.plot
        self._sources = sources
        self._rules = _rules(story.plot, sources)

    def values(self) -> Values:
        story, plot = self._story, self._plot
        first = plot.record(0)
        sender = None
        if first.flags & EventFlag.PID and self._sources.sender:
            sender = self._sources.sender(story.first)
        return {
            "type": "story",
            "format": FORMAT,
            "packet": story.number,
            "copy_of": story.copy_of or None,
            "time_ns": story.began + story.clock_offset,
            "monotonic_ns": story.began,
            "duration_ns": story.ended - story.began,
            **self._place(0),
            "in_device": describe.text(first.in_name) or None if came_in(plot) else None,
            "pid": first.pid if first.flags & EventFlag.PID else None,
            "sender": sender,
            "headers": self._headers(0),
            "steps": [self._step(step) for step in story.steps],
            "folded_branches": len(plot.folded),
            "end": self._end(),
        }

    def _place(self, at: int) -> Values:
        record, names = self._plot.record(at), self._sources.names
        name = names.name(record.netns_cookie, self._story.times[at]) if names else None
        return {
            "netns": record.netns or None,
            "netns_cookie": record.netns_cookie or None,
            "netns_name": name,
        }

    def _headers(self, at: int) -> Values:
        story, headers = self._story, self._story.headers[at]
        version = version_at(self._plot, at, headers)
        is_arp = headers.ethertype == describe.ARP
        flags = self._plot.record(at).flags
        whole = not self._plot.occurrences[at].cut
        ports = version is not None and headers.protocol in protocols.WITH_PORTS and whole
        icmp = version is not None and headers.protocol in {protocols.ICMP, protocols.ICMPV6}
        addresses = version is not None or is_arp
        return {
            "family": version,
            "ethertype": headers.ethertype,
            "protocol": protocol_name(headers) if addresses else None,
            "source": describe.address(headers.saddr, version) if addresses else None,
            "destination": describe.address(headers.daddr, version) if addresses else None,
            "source_port": headers.sport if ports else None,
            "destination_port": headers.dport if ports else None,
            "tcp_flags": (
                [name for name in describe.tcp_flags(headers.tcp_flags).split(",") if name]
                if ports and headers.protocol == protocols.TCP
                else None
            ),
            "icmp_type": headers.icmp_type if icmp and whole else None,
            "icmp_code": headers.icmp_code if icmp and whole else None,
            "fragment": bool(flags & EventFlag.FRAGMENT),
            "length": story.headers[at].length,
        }

    def _after(self, at: int) -> int:
        return self._story.times[at] - self._story.began

    def _step(self, step: StoryStep) -> Values:
        match step:
            case Passage():
                return self._passage(step)
            case RouteStep():
                record = self._plot.record(step.at)
                out = describe.text(record.out_name) or None
                local = not (step.forwarded or step.rerouted)
                return {
                    "step": "route",
                    "after_ns": self._after(step.at),
                    "device": None if local else out,
                    "rerouted": step.rerouted,
                    "changes": self._changes(step.changes),
                }
            case DeviceStep():
                record = self._plot.record(step.at)
                name = record.out_name if step.sent else record.in_name
                return {
                    "step": "sent" if step.sent else "received",
                    "after_ns": self._after(step.at),
                    "device": describe.text(name) or None,
                    "crossed": step.crossed,
                    **self._place(step.at),
                    "changes": self._changes(step.changes),
                }
            case SocketStep():
                return {
                    "step": "socket",
                    "after_ns": self._after(step.at),
                    **self._socket(step.at),
                }
            case TunnelStep():
                return {
                    "step": "decapsulated" if step.removed else "encapsulated",
                    "after_ns": self._after(step.after),
                    "headers": self._headers(step.after),
                }
            case BranchStep():
                branch = self._story.branches[step.index]
                return {
                    "step": "branch",
                    "after_ns": branch.began - self._story.began,
                    "folded": step.index in self._plot.folded,
                    "story": story_object(branch, self._sources),
                }

    def _passage(self, passage: Passage) -> Values:
        record = self._plot.record(passage.first)
        end = None if passage.end is None else self._plot.record(passage.end)
        return {
            "step": "hook",
            "after_ns": self._after(passage.first),
            "hook": describe.hook(record),
            "hook_family": family_name(record.pf),
            **self._place(passage.first),
            "in_device": describe.text(record.in_name) or None,
            "out_device": describe.text(record.out_name) or None,
            "arrived": self._changes(passage.arrived),
            "functions": [self._call(call) for call in passage.calls],
            **_verdict(end),
        }

    def _call(self, call: FunctionCall) -> Values:
        record = None if call.at is None else self._plot.record(call.at)
        priority = record is not None and record.flags & EventFlag.PRIORITY
        return {
            "function": describe.text(record.chain) or None if record else None,
            "module": describe.text(record.table) or None if record else None,
            "priority": record.priority if record and priority else None,
            "consulted": [self._consultation(one) for one in call.consulted],
            "changes": self._changes(call.changes),
            **_verdict(record),
        }

    def _consultation(self, consulted: Consultation) -> Values:
        record = self._plot.record(consulted.at)
        end = None if consulted.end is None else self._plot.record(consulted.end)
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

    def _rule(self, step: RuleStep) -> Values:
        return {
            "after_ns": self._after(step.at),
            **self._named_rule(step.at),
            "changes": self._changes(step.changes),
        }

    def _named_rule(self, at: int) -> Values:
        record = self._plot.record(at)
        nft = record.kind in OF_NFT
        return {
            "kind": describe.kind(record),
            "table_family": nft_family_name(record.family) if nft else None,
            "table": describe.text(record.table),
            "chain": describe.text(record.chain),
            "rulenum": record.rulenum or None,
            "rule_handle": record.rule_handle or None if nft else None,
            "decision": describe.decision_name(record.verdict) if nft else None,
            "target": describe.text(record.target) or None,
            "uncertain": bool(record.flags & EventFlag.UNCERTAIN),
            **rule_values(self._rules.get(at)),
        }

    def _changes(self, changes: Sequence[PacketChange]) -> list[Values]:
        return [
            {
                "field": change.field.value,
                "before": self._value(change.field, change.before),
                "after": self._value(change.field, change.after),
                "initial": change.initial,
            }
            for change in changes
        ]

    def _value(self, field: PacketField, at: int) -> int | str | None:
        record = self._plot.record(at)
        match field:
            case PacketField.SOURCE | PacketField.DESTINATION:
                headers = self._headers(at)
                address, port = headers[field.value], headers[f"{field.value}_port"]
                if port is None:
                    return str(address)
                return f"[{address}]:{port}" if headers["family"] == 6 else f"{address}:{port}"
            case PacketField.CT_STATE:
                return describe.member(record.ct_state)
            case _:
                return _NUMBERS[field](record)

    def _socket(self, at: int) -> Values:
        record = self._story.record(at)
        text = self._sources.socket(record) if self._sources.socket else None
        return {
            "socket": text,
            "inode": record.rule_handle or None,
            "cookie": record.table_handle or None,
            "uid": record.verdict_data,
        }

    def _end(self) -> Values:
        story, plot, end = self._story, self._plot, self._plot.end
        last = plot.record(end.at)
        rule = self._rules.get(end.blame) if end.blame is not None else None
        blamed = None if end.blame is None else plot.record(end.blame)
        of_function = blamed is not None and blamed.kind == Kind.SPINE_FUNCTION
        by_kernel = last.kind == Kind.JOURNEY_DROPPED
        reason = None
        if by_kernel and self._sources.reason:
            reason = self._sources.reason(last.verdict_data)
        device = None
        if end.kind is EndKind.LEFT and end.device is not None:
            device = describe.text(plot.record(end.device).out_name) or None
        return {
            "kind": end.kind.value,
            "dropped": end.kind.is_drop,
            "rejected": blamed is not None and is_reject(blamed, rule),
            "text": end_words(story, rule, self._sources),
            "hook": describe.hook(plot.record(end.place)) if end.place is not None else None,
            "rule": (
                self._named_rule(end.blame)
                if end.kind is EndKind.RULE and end.blame is not None
                else None
            ),
            "function": describe.text(blamed.chain) or None if of_function and blamed else None,
            "module": describe.text(blamed.table) or None if of_function and blamed else None,
            "drop_reason": reason,
            "drop_reason_number": last.verdict_data if by_kernel else None,
            "drop_function": describe.text(last.chain) or None if by_kernel else None,
            "drop_module": describe.text(last.table) or None if by_kernel else None,
            "device": device,
            "queue": (
                blamed.verdict_data if end.kind is EndKind.QUEUED and blamed is not None else None
            ),
            "headers": self._headers(end.at),
            "socket": self._socket(end.socket) if end.socket is not None else None,
            "why": end.why or None,
        }


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


def _rules(plot: Plot, sources: StorySources) -> Rules:
    ats = list(rule_ats(plot))
    if not sources.rules or not ats:
        return {}
    return dict(zip(ats, sources.rules([plot.record(at) for at in ats]), strict=True))
