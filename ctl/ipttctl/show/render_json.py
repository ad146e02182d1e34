# SPDX-License-Identifier: GPL-2.0
"""Events, links and the module as objects for JSON, with the keys of docs/json.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from ipttctl import families
from ipttctl.escape import code
from ipttctl.events import describe, protocols
from ipttctl.events.records import EventRecord
from ipttctl.hooks import of_event
from ipttctl.hooks.hook import LINK_VALUES
from ipttctl.link.condition import Violation
from ipttctl.link.limits import LeftOut, Limits
from ipttctl.link.losses import Losses
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import (
    HistoryEntry,
    Link,
    LinkChange,
    LinkList,
    ModuleStatus,
    ProgramInfo,
    Shadow,
)
from ipttctl.show.rule import PayloadOf, Rule
from ipttctl.show.transport_json import transport_values
from ipttctl.system.namespace_names import NameAt
from ipttproto import EventFlag, Kind, Slot

_NOT_PLAIN: Final = re.compile("[^ -~]")
#: json.dumps makes one for each call
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def dumps(value: Any) -> str:
    r"""An object, or another value, on one line of printable ASCII.

    A byte that is not UTF-8, a lone surrogate in Python, cannot be in JSON: it becomes the text
    ``\xff``.
    """
    text = _ENCODER.encode(value)
    return text if text.isascii() and text.isprintable() else _NOT_PLAIN.sub(_escaped, text)


def event_object(
    record: EventRecord,
    names: NameAt | None = None,
    payload: Callable[[EventRecord], Any] | None = None,
    rule: Rule | None = None,
) -> dict[str, Any]:
    """An event. Keys that do not apply to it are null; one of no packet has other keys.

    ``payload`` decodes the bytes that a program added. ``rule`` is the rule that it names.
    """
    if record.kind == Kind.LEFT_OUT:
        return _left_out_object(record)
    # plain numbers: the operators of IntFlag would take most of the time
    flags = int(record.flags)
    found = {
        "kind": describe.kind(record),
        "time_ns": record.time + record.clock_offset,
        "monotonic_ns": record.time,
        "link": record.link,
        "generation": record.generation,
        "cpu": record.cpu,
        "sequence": record.sequence,
        "traversal": None,
        "skb": f"0x{record.skb:x}",
        "packet": record.packet or None,
        "netns": record.netns,
        "netns_cookie": record.netns_cookie,
        "netns_name": names.name(record.netns_cookie, record.time) if names else None,
        **process_values(record),
        "in_name": describe.text(record.in_name) or None,
        "in_ifindex": record.in_ifindex or None,
        "out_name": describe.text(record.out_name) or None,
        "out_ifindex": record.out_ifindex or None,
        "physin_name": describe.text(record.physin_name) or None,
        "physin_ifindex": record.physin_ifindex or None,
        "physout_name": describe.text(record.physout_name) or None,
        "physout_ifindex": record.physout_ifindex or None,
        "dest_mac": describe.mac(record.dmac) if flags & EventFlag.DMAC.value else None,
        "mark": record.mark,
        "length": record.length,
        **packet_values(record),
        "fragment": bool(flags & EventFlag.FRAGMENT.value),
        "truncated": bool(flags & EventFlag.TRUNCATED.value),
        "foreign_trace": bool(flags & EventFlag.FOREIGN.value),
        "table": None,
        "chain": None,
        "hook": describe.hook(record),
        "hook_family": families.family_name(record.pf),
        "priority": None,
        "rulenum": None,
        "table_family": None,
        "table_handle": None,
        "chain_handle": None,
        "rule_handle": None,
        "ruleset": None,
        "uncertain": None,
        "depth": None,
        "decision": None,
        "target": None,
        "rules": None,
        "verdict": None,
        "shadow": None,
        "shadow_verdict": None,
        "errno": None,
        "queue": None,
        "queue_bypass": None,
        "cost_ns": None,
        "function": None,
        "module": None,
        "function_id": None,
        "function_number": None,
        "functions": None,
        "skb_priority": None,
        "ct_state": None,
        "ct_mark": None,
        "ct_id": None,
        "ct_zone": None,
        "ttl": None,
        "tos": None,
        "copy_of": None,
        "joined": None,
        "whole": None,
        "socket_inode": None,
        "socket_cookie": None,
        "socket_uid": None,
        "drop_reason": None,
        **rule_values(rule),
        **payload_values(record if flags & EventFlag.PAYLOAD.value else None, payload),
    }
    # keys that the kind of hook has; all others stay null
    found.update(of_event(record.kind).event_values(record))
    return found


def _left_out_object(record: EventRecord) -> dict[str, Any]:
    """An event that is of no packet: a link leaves packets out. The numbers are all so far."""
    return {
        "kind": describe.member(record.kind),
        "time_ns": record.time + record.clock_offset,
        "monotonic_ns": record.time,
        "cpu": record.cpu,
        "sequence": record.sequence,
        "link": record.link,
        "left_out": asdict(LeftOut.from_record(record)),
    }


def process_values(record: EventRecord) -> dict[str, Any]:
    """The keys of the process that an event happened in; None for all if it is not known."""
    known = int(record.flags) & EventFlag.PID.value
    return {
        "pid": record.pid if known else None,
        "pid_start": record.pid_start if known else None,
        "comm": describe.text(record.comm) if known else None,
        "uid": record.uid if known else None,
        "cgroup_id": (record.cgroup or None) if known else None,
    }


def packet_values(record: EventRecord) -> dict[str, Any]:
    """The keys that packets of a flow have alike: protocols, addresses, ports, flags and types."""
    version = describe.version(record)
    is_arp = record.ethertype == describe.ARP
    icmp = version is not None and describe.is_icmp(record)
    return {
        "ethertype": record.ethertype,
        "family": version,
        "protocol": None if version is None else record.protocol,
        "protocol_name": None if version is None else protocols.NAMES.get(record.protocol),
        **transport_values(record, version, whole=describe.has_transport(record)),
        "icmp_id": (
            record.icmp_id if icmp and protocols.echo(record.protocol, record.icmp_type) else None
        ),
        "arp_operation": describe.arp_operation(record.arp_operation) if is_arp else None,
    }


def rule_values(rule: Rule | None) -> dict[str, Any]:
    """The keys of the rule that an event names, or of none."""
    return {
        "rule": rule.text if rule else None,
        "rule_syntax": rule.syntax if rule else None,
        "rule_note": rule.why or None if rule else None,
        "owner": rule.owner if rule else None,
        "owner_about": rule.about if rule else None,
    }


def payload_values(record: EventRecord | None, payload: PayloadOf | None) -> dict[str, Any]:
    """The keys of the bytes that a program added to an event, or to none."""
    return {
        "payload": record.payload.hex() if record else None,
        "payload_value": payload(record) if record and payload else None,
    }


def link_object(
    value: Link, names: NameAt | None = None, measured: Measurement | None = None
) -> dict[str, Any]:
    """A link, with the measurement of its programs, if any."""
    stats = value.stats
    where = {**LINK_VALUES, **value.hook.values(names)}
    armed = where.pop("armed")
    return {
        "link": value.id,
        "name": value.name or None,
        "generation": value.generation,
        "hook": str(value.hook),
        **where,
        "persistent": value.persistent,
        "exclusive": value.exclusive,
        "programs": _programs(value.programs),
        "slots": {
            _slot(slot): {"runs": slot_stats.runs, "run_time_ns": slot_stats.run_time}
            for slot, slot_stats in stats.slots.items()
        },
        "measured": None if measured is None else _measured(measured),
        "filter_length": value.filter_length,
        "cookie": value.cookie,
        "payload_map": value.payload_map or None,
        "payload_size": value.payload_size,
        "limits": _limits(value.limits),
        "owner_portid": value.owner_portid or None,
        "owner_pid": value.owner_pid,
        "owner_comm": value.owner_comm,
        "labels": dict(value.labels),
        "reason_text": value.reason or None,
        "transaction": value.transaction or None,
        "ended_generation": value.ended,
        "journey": value.journey,
        "armed": armed,
        "outcome": _member(value.outcome),
        "rollback_in_s": value.rollback_in,
        "guards": [str(guard) for guard in value.guards],
        "violation": _violation(value.violation),
        "packets": stats.packets,
        "selected": stats.selected,
        "events": stats.events,
        "drops": stats.drops,
        "lost": stats.lost,
        "left_out": asdict(stats.left_out),
        "nested": stats.nested,
        "shadow": None if value.shadow is None else _shadow(value.shadow),
        "agreed": stats.agreed,
        "disagreed": stats.disagreed,
        "shadow_runs": stats.shadow_runs,
        "shadow_run_time_ns": stats.shadow_run_time,
    }


def change_object(
    value: LinkChange, names: NameAt | None = None, made: HistoryEntry | None = None
) -> dict[str, Any]:
    """A change of a link, with the link; ``made`` is the origin of its new generation."""
    return {
        "change": value.change.value,
        "reason": _member(value.reason),
        "forced_pid": value.forced_pid or None,
        "forced_comm": value.forced_comm or None,
        "requester_pid": value.requester_pid or None,
        "requester_comm": value.requester_comm or None,
        "made": None if made is None else history_object(made),
        **link_object(value.link, names),
    }


def link_list_object(value: LinkList, names: NameAt | None = None) -> dict[str, Any]:
    """All links at the beginning of a stream of their changes, or after some were lost."""
    return {
        "change": "list",
        "overrun": value.overrun,
        "links": [link_object(one, names) for one in value.links],
    }


def history_object(entry: HistoryEntry) -> dict[str, Any]:
    """The origin of a link's generation."""
    by_module = not entry.pid
    return {
        "generation": entry.generation,
        "action": _member(entry.action),
        "time_ns": entry.time,
        "pid": entry.pid or None,
        "uid": None if by_module else entry.uid,
        "comm": entry.comm or None,
        "transaction": entry.transaction or None,
        "reason_text": entry.reason or None,
        "violation": _violation(entry.violation),
        "programs": _programs(entry.programs),
    }


def status_object(value: ModuleStatus) -> dict[str, Any]:
    """The module, what is known of its walk through chains, and its event streams."""
    return {
        "version": value.version,
        "protocol": "{}.{}".format(*value.protocol) if value.protocol else None,
        "features": [feature.name.lower() for feature in value.features if feature.name],
        "fingerprint": f"{value.fingerprint:08x}",
        "walk": describe.member(value.walk) if value.walk else None,
        "walk_compared": value.walk_compared,
        "walk_layout": describe.member(value.walk_layout) if value.walk_layout else None,
        "walk_refusal": value.walk_refusal or None,
        "spine_walk": describe.member(value.spine_walk) if value.spine_walk else None,
        "restoring": value.restoring,
        "cpus": [
            {
                "cpu": cpu.cpu,
                "events": cpu.sequence,
                **{f"lost_{cause.name.lower()}": count for cause, count in cpu.lost.items()},
            }
            for cpu in value.cpus
        ],
    }


def totals_object(events: int, packets: int | None, losses: Losses) -> dict[str, Any]:
    """The totals of a stream at its end."""
    return {
        "events": events,
        "packets": packets,
        "lost": losses.events,
        "lost_observer": losses.observer,
        "lost_ring": losses.ring,
        "lost_memory": losses.memory,
        "nested": losses.nested,
    }


def _violation(violation: Violation | None) -> dict[str, Any] | None:
    if violation is None:
        return None
    return {
        "guard": str(violation.condition),
        "link": violation.link,
        "count": violation.count,
        "packets": violation.packets,
        "time_ms": violation.time,
    }


def _programs(programs: Mapping[Slot, ProgramInfo]) -> dict[str, Any]:
    return {
        _slot(slot): {"id": program.id, "tag": program.tag, "name": program.name}
        for slot, program in programs.items()
    }


def _shadow(shadow: Shadow) -> dict[str, Any]:
    return {
        "number": shadow.number,
        "programs": _programs(shadow.programs),
        "filter_length": shadow.filter_length,
        "cookie": shadow.cookie,
        "payload_map": shadow.payload_map or None,
        "payload_size": shadow.payload_size,
        "limits": _limits(shadow.limits),
        "promote_if": [str(condition) for condition in shadow.promote_if],
    }


def _limits(limits: Limits) -> dict[str, int | None]:
    return {name: value or None for name, value in asdict(limits).items()}


def _measured(measured: Measurement) -> dict[str, Any]:
    return {
        "seconds": measured.seconds,
        "slots": {
            _slot(slot): {
                "runs": stats.runs,
                "run_time_ns": stats.run_time,
                "ns_per_run": stats.run_time / stats.runs if stats.runs else None,
            }
            for slot, stats in measured.slots.items()
        },
    }


def _member(value: int | None) -> str | None:
    return None if value is None else describe.member(value)


def _slot(slot: Slot) -> str:
    return slot.name.lower()


def _escaped(found: re.Match[str]) -> str:
    """The JSON escape for a character that is not plain."""
    try:
        units = found[0].encode("utf-16-be")
    except UnicodeEncodeError:
        return code(found[0]).replace("\\", r"\\")
    return "".join(
        rf"\u{high:02x}{low:02x}" for high, low in zip(units[::2], units[1::2], strict=True)
    )
