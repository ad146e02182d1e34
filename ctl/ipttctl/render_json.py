# SPDX-License-Identifier: GPL-2.0
"""Events, links and the module for programs: objects for JSON, with the keys of docs/json.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ipttctl import describe
from ipttctl.losses import Losses
from ipttctl.netns import NamespaceNames
from ipttctl.objects import Link, LinkChange, ModuleStatus
from ipttproto import DetachReason, EventFlag, Hook, Kind

if TYPE_CHECKING:
    from ipttctl.records import EventRecord


def dumps(value: Mapping[str, Any]) -> str:
    """An object on one line."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def event(record: EventRecord, names: NamespaceNames | None = None) -> dict[str, Any]:
    """An event. What does not apply to it is null."""
    flags = record.flags
    is_exit = record.kind == Kind.EXIT
    whole = describe.has_ports(record)
    ports = whole and record.protocol in {describe.TCP, describe.UDP}
    icmp = whole and record.protocol in {describe.ICMP, describe.ICMPV6}
    verdict = describe.VERDICTS[record.verdict] if record.verdict < 6 else str(record.verdict)
    return {
        "kind": describe.kind(record),
        "time_ns": record.time + record.clock_offset,
        "monotonic_ns": record.time,
        "link": record.link,
        "generation": record.generation,
        "cpu": record.cpu,
        "sequence": record.sequence,
        "traversal": record.traversal,
        "skb": f"0x{record.skb:x}",
        "netns": record.netns,
        "netns_name": names.name(record.netns) if names else None,
        "pid": record.pid if flags & EventFlag.PID else None,
        "in_name": describe.text(record.in_name) or None,
        "in_ifindex": record.in_ifindex or None,
        "out_name": describe.text(record.out_name) or None,
        "out_ifindex": record.out_ifindex or None,
        "dest_mac": describe.mac(record.dmac) if flags & EventFlag.DMAC else None,
        "mark": record.mark,
        "length": record.length,
        "family": 6 if record.pf == 10 else 4,
        "protocol": record.protocol,
        "source": describe.address(record.saddr, record.pf),
        "destination": describe.address(record.daddr, record.pf),
        "source_port": record.sport if ports else None,
        "destination_port": record.dport if ports else None,
        "tcp_flags": (
            [name for name in describe.tcp_flags(record.tcp_flags).split(",") if name]
            if ports and record.protocol == describe.TCP
            else None
        ),
        "icmp_type": record.icmp_type if icmp else None,
        "icmp_code": record.icmp_code if icmp else None,
        "icmp_id": record.icmp_id if icmp and describe.echo(record) else None,
        "fragment": bool(flags & EventFlag.FRAGMENT),
        "truncated": bool(flags & EventFlag.TRUNCATED),
        "foreign_trace": bool(flags & EventFlag.FOREIGN),
        "table": describe.text(record.table),
        "chain": describe.text(record.chain),
        "hook": describe.hook(record.hook),
        "rulenum": None if is_exit else record.rulenum,
        "rules": record.rules,
        "verdict": verdict if is_exit else None,
        "errno": (
            describe.error_name(record.verdict_data)
            if is_exit and verdict == "DROP" and record.verdict_data
            else None
        ),
        "queue": record.verdict_data if is_exit and verdict == "QUEUE" else None,
        "cost_ns": record.cost if is_exit else None,
    }


def link(value: Link) -> dict[str, Any]:
    """A link."""
    stats = value.stats
    return {
        "link": value.id,
        "generation": value.generation,
        "hook": value.hook.name.lower() if isinstance(value.hook, Hook) else value.hook,
        "family": value.family,
        "persistent": value.persistent,
        "programs": {
            slot.name.lower(): {"id": program.id, "tag": program.tag, "name": program.name}
            for slot, program in value.programs.items()
        },
        "filter_length": value.filter_length,
        "cookie": value.cookie,
        "owner_portid": value.owner_portid or None,
        "owner_pid": value.owner_pid,
        "owner_comm": value.owner_comm,
        "armed": sorted(value.armed),
        "packets": stats.packets,
        "selected": stats.selected,
        "events": stats.events,
        "nested": stats.nested,
    }


def change(value: LinkChange) -> dict[str, Any]:
    """What happened to a link, with the link."""
    reason = value.reason
    return {
        "change": value.change.value,
        "reason": reason.name.lower() if isinstance(reason, DetachReason) else reason,
        **link(value.link),
    }


def status(value: ModuleStatus) -> dict[str, Any]:
    """The module and its event streams."""
    return {
        "version": value.version,
        "fingerprint": f"{value.fingerprint:08x}",
        "cpus": [
            {
                "cpu": cpu.cpu,
                "events": cpu.sequence,
                **{f"lost_{cause.name.lower()}": count for cause, count in cpu.lost.items()},
            }
            for cpu in value.cpus
        ],
    }


def totals(events: int, packets: int | None, losses: Losses) -> dict[str, Any]:
    """What a stream has shown, at its end."""
    return {
        "events": events,
        "packets": packets,
        "lost": losses.events,
        "lost_observer": losses.observer,
        "lost_ring": losses.ring,
        "lost_memory": losses.memory,
        "nested": losses.nested,
    }
