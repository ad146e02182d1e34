# SPDX-License-Identifier: GPL-2.0
"""Output for programs: stable, documented keys with plain values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ipttctl.events.records import decode
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import HistoryEntry, Link, LinkChange
from ipttctl.show import render_json
from ipttproto import Command, EventFlag, Kind, parse_batch
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import batch_payload, event, link, nf_link

DOCUMENT = Path(__file__).parents[4] / "docs" / "json.md"


def documented(section: str) -> list[str]:
    """The keys of a section's table."""
    text = DOCUMENT.read_text().split(f"\n## {section}")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def parsed(**changes: Any) -> dict[str, Any]:
    line = render_json.dumps(render_json.event(record(**changes)))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_keys_are_the_documented_ones() -> None:
    assert list(render_json.event(record())) == documented("Event")
    assert list(render_json.link(Link.from_attributes(link()))) == documented("Link")
    assert list(render_json.history(HistoryEntry.from_attributes({}))) == documented("Generation")


def test_rule() -> None:
    found = parsed(flags=EventFlag.PID | EventFlag.FOREIGN)
    expected = {
        "kind": "rule",
        "time_ns": 1_000_000_005_000_000_000,
        "skb": "0xffff888012345678",
        "cpu": 1,
        "sequence": 40,
        "pid": 4321,
        "dest_mac": None,
        "in_name": None,
        "out_name": "enp0s8",
        "source": "192.168.1.138",
        "destination_port": 53030,
        "tcp_flags": ["ACK", "PSH"],
        "icmp_type": None,
        "foreign_trace": True,
        "fragment": False,
        "table": "filter",
        "hook": "OUTPUT",
        "rulenum": 1,
        "verdict": None,
        "cost_ns": None,
    }
    assert {key: found[key] for key in expected} == expected


def test_exit() -> None:
    exit_event = {"kind": Kind.EXIT, "cost": 77425}
    keys = ("rulenum", "verdict", "errno", "queue", "queue_bypass", "cost_ns")

    def values(**changes: Any) -> list[Any]:
        found = parsed(**exit_event, **changes)
        return [found[key] for key in keys]

    assert values(verdict=1) == [None, "ACCEPT", None, None, None, 77425]
    assert values(verdict=0, verdict_data=111) == [None, "DROP", "ECONNREFUSED", None, None, 77425]
    assert values(verdict=3, verdict_data=7) == [None, "QUEUE", None, 7, False, 77425]
    bypass = values(verdict=3, flags=EventFlag.QUEUE_BYPASS)
    assert bypass == [None, "QUEUE", None, 0, True, 77425]


def test_protocols() -> None:
    keys = ("protocol", "protocol_name", "source_port", "destination_port", "tcp_flags")
    for number, name in ((132, "SCTP"), (136, "UDPLITE"), (33, "DCCP")):
        found = parsed(protocol=number)
        assert [found[key] for key in keys] == [number, name, 22, 53030, None]
    found = parsed(protocol=89)
    assert [found[key] for key in keys] == [89, "OSPF", None, None, None]
    assert parsed(protocol=253)["protocol_name"] is None


def test_ports_of_a_bridge() -> None:
    keys = ("physin_name", "physin_ifindex", "physout_name", "physout_ifindex")
    assert [parsed()[key] for key in keys] == [None] * 4
    found = parsed(physin_name=b"eth0", physin_ifindex=3, physout_name=b"eth1", physout_ifindex=4)
    assert [found[key] for key in keys] == ["eth0", 3, "eth1", 4]


def test_packet_at_a_netfilter_hook() -> None:
    nf = {"kind": Kind.PACKET, "pf": 7, "priority": -5, "verdict": 0, "traversal": 0}
    found = parsed(**nf)
    expected = {
        "kind": "packet", "hook": "OUTPUT", "hook_family": "bridge", "priority": -5,
        "verdict": "DROP", "family": 4, "ethertype": 2048, "source": "192.168.1.138",
        "source_port": 22, "arp_operation": None, "table": None, "chain": None, "rulenum": None,
        "rules": None, "traversal": None, "cost_ns": None, "payload": None, "payload_value": None,
    }  # fmt: skip  # pairs together
    assert {key: found[key] for key in expected} == expected

    arp = parsed(**nf | {"pf": 3, "hook": 1}, ethertype=0x0806, arp_operation=1)
    keys = ("hook", "family", "protocol", "source", "destination", "source_port", "arp_operation")
    assert [arp[key] for key in keys] == [
        "OUT", None, None, "192.168.1.138", "192.168.1.12", None, "request",
    ]  # fmt: skip  # pairs together
    other = parsed(**nf | {"pf": 5, "hook": 0}, ethertype=0x88CC)
    assert [other[key] for key in keys] == ["INGRESS", *[None] * 6]


def test_payload() -> None:
    plain = batch_payload([event(flags=EventFlag.PAYLOAD)], payloads={0: b"\x01\xff"})
    [found] = decode(parse_batch(plain))
    shown = render_json.event(found)
    assert (shown["payload"], shown["payload_value"]) == ("01ff", None)
    shown = render_json.event(found, payload=lambda record: {"length": len(record.payload)})
    assert (shown["payload"], shown["payload_value"]) == ("01ff", {"length": 2})


def test_link_at_a_netfilter_hook() -> None:
    value = Link.from_attributes(nf_link(gone=2))
    measured = Measurement.between(None, value, 1.5)
    found = render_json.link(value, measured=measured)
    expected: dict[str, Any] = {
        "hook": "nf:netdev/ingress@-10", "family": None, "netns": 4026532201, "device": "eth0",
        "ifindex": 2, "mode": "filter", "report_drops": True, "gone": "device",
        "slots": {"packet": {"runs": 9, "run_time_ns": 900}}, "drops": 3, "lost": 1,
        "measured": {
            "seconds": 1.5,
            "slots": {"packet": {"runs": 9, "run_time_ns": 900, "ns_per_run": 100.0}},
        },
        "payload_map": 33, "payload_size": 16, "rollback_in_s": 1.5, "armed": [],
    }  # fmt: skip  # pairs together
    assert {key: found[key] for key in expected} == expected


def test_history() -> None:
    back = {"generation": 3, "action": 3, "time": 5, "pid": 0, "comm": "", "uid": 0}
    assert render_json.history(HistoryEntry.from_attributes(back)) == {
        "generation": 3, "action": "rollback", "time_ns": 5, "pid": None, "uid": None,
        "comm": None, "programs": {},
    }  # fmt: skip  # pairs together
    own = render_json.history(HistoryEntry.from_attributes(back | {"pid": 7, "comm": "x"}))
    assert (own["pid"], own["uid"], own["comm"]) == (7, 0, "x")


def test_no_ports_where_there_are_none() -> None:
    assert parsed(flags=EventFlag.FRAGMENT)["source_port"] is None
    assert parsed(protocol=1, icmp_type=8, icmp_id=9)["source_port"] is None
    assert parsed(protocol=1, icmp_type=8, icmp_id=9)["icmp_id"] == 9


def test_change_holds_the_link() -> None:
    value = LinkChange.from_message(Command.LINK_DETACHED, link(reason=1))
    assert value is not None
    found = render_json.change(value)
    assert (found["change"], found["reason"], found["link"]) == ("detached", "request", 3)


def test_names_with_any_byte_are_one_line_of_utf8() -> None:
    assert parsed(chain=b"a\xff\nb")["chain"] == "a\\xff\nb"
