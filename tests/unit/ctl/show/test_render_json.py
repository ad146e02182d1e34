# SPDX-License-Identifier: GPL-2.0
"""Output for programs: stable, documented keys with plain values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ipttctl.events.records import decode_events
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import HistoryEntry, Link, LinkChange, ModuleStatus
from ipttctl.show import render_json
from ipttctl.show.rule import Rule
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import (
    MINOR,
    VERSION,
    Command,
    EventFlag,
    Feature,
    Kind,
    Layout,
    Walk,
    parse_batch,
)
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import (
    NFT_CONTINUE,
    NFT_RETURN,
    batch_payload,
    chain_event,
    chain_link,
    event,
    link,
    nf_link,
    status,
)

DOCUMENT = Path(__file__).parents[4] / "docs" / "json.md"


def documented(section: str) -> list[str]:
    """The keys of a section's table."""
    text = DOCUMENT.read_text().split(f"\n## {section}")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def parsed(**changes: Any) -> dict[str, Any]:
    line = render_json.dumps(render_json.event_object(record(**changes)))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_keys_are_the_documented_ones() -> None:
    assert list(render_json.event_object(record())) == documented("Event")
    assert list(render_json.link_object(Link.from_attributes(link()))) == documented("Link")
    made = HistoryEntry.from_attributes({})
    assert list(render_json.history_object(made)) == documented("Generation")


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


#: keys that depend on the kind of an event at chains
OF_KIND = (
    "rulenum", "rule_handle", "depth", "decision", "target", "verdict", "queue", "queue_bypass",
    "errno", "cost_ns",
)  # fmt: skip  # in two lines


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, [1, 9, 0, "jump", "near", None, None, None, None, None]),
        (
            {"verdict": NFT_CONTINUE, "target": b"", "depth": 2},
            [1, 9, 2, "continue", None, None, None, None, None, None],
        ),
        (
            {"verdict": 3, "verdict_data": 5, "target": b"", "flags": EventFlag.QUEUE_BYPASS},
            [1, 9, 0, "queue", None, None, 5, True, None, None],
        ),
        (
            {"verdict": 0, "verdict_data": 111, "target": b""},
            [1, 9, 0, "drop", None, None, None, None, "ECONNREFUSED", None],
        ),
        (
            {"kind": Kind.CHAIN_END, "rulenum": 0, "verdict": NFT_RETURN, "depth": 1},
            [None, None, 1, "return", None, None, None, None, None, None],
        ),
        (
            {"kind": Kind.CHAIN_POLICY, "rulenum": 0, "verdict": 1},
            [None, None, 0, "accept", None, None, None, None, None, None],
        ),
        (
            {"kind": Kind.CHAIN_KNOWN, "rulenum": 0, "verdict": NFT_CONTINUE},
            [None] * 10,
        ),
        (
            {"kind": Kind.CHAIN_EXIT, "rulenum": 0, "verdict": 1, "cost": 900},
            [None, None, None, None, None, "ACCEPT", None, None, None, 900],
        ),
        (
            {"kind": Kind.CHAIN_EXIT, "verdict": 3, "verdict_data": 7},
            [None, None, None, None, None, "QUEUE", 7, False, None, 0],
        ),
    ],
)
def test_chains(changes: dict[str, Any], values: list[Any]) -> None:
    found = parsed(**chain_event(**changes))
    assert [found[key] for key in OF_KIND] == values
    expected = {
        "kind": Kind(changes.get("kind", Kind.CHAIN_RULE)).name.lower(), "table": "filter",
        "chain": "out", "table_family": "inet", "table_handle": 3, "chain_handle": 1,
        "ruleset": 7, "uncertain": False, "hook": "OUTPUT", "hook_family": "inet4", "family": 4,
        "traversal": 7, "priority": None, "source_port": 22, "arp_operation": None,
    }  # fmt: skip  # pairs together
    assert {key: found[key] for key in expected} == expected
    assert parsed(**chain_event(**changes | {"flags": EventFlag.UNCERTAIN}))["uncertain"]
    rules = None if changes.get("kind") == Kind.CHAIN_KNOWN else 4
    counted = parsed(**chain_event(**changes | {"flags": EventFlag.COUNTED}, rules=4))
    assert counted["rules"] == rules


def test_the_ruleset_of_a_table() -> None:
    keys = ("ruleset", "uncertain")
    for kind in (Kind.RULE, Kind.RETURN, Kind.POLICY, Kind.EXIT):
        assert [parsed(kind=kind)[key] for key in keys] == [None, False]
        found = parsed(kind=kind, ruleset=9, flags=EventFlag.UNCERTAIN)
        assert [found[key] for key in keys] == [9, True]
    assert [parsed(kind=Kind.PACKET)[key] for key in keys] == [None, None]


def test_what_only_chains_have_is_null_elsewhere() -> None:
    keys = (
        "table_family", "table_handle", "chain_handle", "rule_handle", "depth", "decision",
        "target",
    )  # fmt: skip  # in two lines
    for kind in (Kind.RULE, Kind.RETURN, Kind.POLICY, Kind.EXIT, Kind.PACKET, Kind.KNOWN):
        assert [parsed(kind=kind)[key] for key in keys] == [None] * len(keys)


def test_numbers_of_rules_are_of_rules() -> None:
    of_packets = set(Kind) - {Kind.LEFT_OUT}
    numbered = {kind for kind in of_packets if parsed(kind=kind, rulenum=1)["rulenum"] == 1}
    assert numbered == {Kind.RULE, Kind.RETURN, Kind.POLICY, Kind.CHAIN_RULE}
    known = parsed(kind=Kind.KNOWN, rulenum=0, table=b"nat")
    keys = ("kind", "table", "chain", "verdict", "rules", "cost_ns")
    assert [known[key] for key in keys] == ["known", "nat", "OUTPUT", None, None, None]


def test_arp_at_a_chain() -> None:
    arp = parsed(**chain_event(pf=3, family=3, hook=1, ethertype=0x0806, arp_operation=2))
    keys = ("hook", "table_family", "family", "protocol", "source", "arp_operation")
    assert [arp[key] for key in keys] == ["OUT", "arp", None, None, "192.168.1.138", "reply"]


def test_rule_itself() -> None:
    rule = Rule("-j ACCEPT", "", "iptables", "docker", "forwarding")
    keys = ("rule", "rule_syntax", "rule_note", "owner", "owner_about")
    found = render_json.event_object(record(**chain_event()), rule=rule)
    assert [found[key] for key in keys] == ["-j ACCEPT", "iptables", None, "docker", "forwarding"]
    found = render_json.event_object(record(**chain_event()), rule=Rule(None, "it is gone"))
    assert [found[key] for key in keys] == [None, None, "it is gone", None, None]
    assert [parsed()[key] for key in keys] == [None] * 5


def test_payload() -> None:
    plain = batch_payload([event(flags=EventFlag.PAYLOAD)], payloads={0: b"\x01\xff"})
    [found] = decode_events(parse_batch(plain))
    shown = render_json.event_object(found)
    assert (shown["payload"], shown["payload_value"]) == ("01ff", None)
    shown = render_json.event_object(found, payload=lambda record: {"length": len(record.payload)})
    assert (shown["payload"], shown["payload_value"]) == ("01ff", {"length": 2})


def test_link_at_a_netfilter_hook() -> None:
    value = Link.from_attributes(nf_link(gone=2))
    measured = Measurement.between(None, value, 1.5)
    found = render_json.link_object(value, measured=measured)
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


def test_link_at_a_chain() -> None:
    expected: dict[str, Any] = {
        "hook": "chain:inet/filter/out", "family": None, "netns": 4026532201, "netns_cookie": 5,
        "netns_name": None, "device": None, "mode": None, "gone": None, "armed": ["chains"],
    }  # fmt: skip  # pairs together
    found = render_json.link_object(Link.from_attributes(chain_link()))
    assert {key: found[key] for key in expected} == expected
    names = NamespaceNames(())
    everywhere = render_json.link_object(Link.from_attributes(link(hook=3, armed=0, gone=1)), names)
    keys = ("hook", "netns", "netns_cookie", "netns_name", "gone", "armed")
    assert [everywhere[key] for key in keys] == ["chain", None, None, None, "netns", []]


def test_status() -> None:
    found = render_json.status_object(ModuleStatus.from_attributes([status([5], [(1, 2, 3)])]))
    assert re.fullmatch("[0-9a-f]{8}", found.pop("fingerprint"))
    assert found == {
        "version": "0.1.0", "protocol": f"{VERSION}.{MINOR}",
        "features": ["link_names", "guards", "shadows", "upgrades", "ends", "limits", "spine",
                         "journeys"],
        "walk": "verified", "walk_compared": True, "walk_layout": "same", "walk_refusal": None,
        "spine_walk": "verified",
        "restoring": False, "cpus": [
            {"cpu": 0, "events": 5, "lost_ring": 1, "lost_memory": 2, "lost_nested": 3},
        ],
    }  # fmt: skip  # pairs together
    for walk, shown in ((Walk.UNVERIFIED, "unverified"), (Walk.DIFFERS, "differs"), (77, "77")):
        value = ModuleStatus.from_attributes([{"walk": walk, "walk-compared": 0}])
        shows = render_json.status_object(value)
        assert (shows["walk"], shows["walk_compared"]) == (shown, False)
        assert (shows["walk_layout"], shows["walk_refusal"]) == (None, None)
    refused = {"walk": 2, "walk-layout": Layout.DIFFERS, "walk-refusal": "no"}
    shows = render_json.status_object(ModuleStatus.from_attributes([refused]))
    assert (shows["walk_layout"], shows["walk_refusal"]) == ("differs", "no")
    # of a module with another protocol
    shows = render_json.status_object(ModuleStatus.from_attributes([{}]))
    assert (shows["walk"], shows["protocol"], shows["features"]) == (None, None, [])
    # of a newer module
    newer = {"protocol-major": 1, "protocol-minor": 9, "features": 1 << 31 | Feature.GUARDS}
    shows = render_json.status_object(ModuleStatus.from_attributes([newer]))
    assert (shows["protocol"], shows["features"]) == ("1.9", ["guards"])


def test_history() -> None:
    back = {"generation": 3, "action": 3, "time": 5, "pid": 0, "comm": "", "uid": 0}
    assert render_json.history_object(HistoryEntry.from_attributes(back)) == {
        "generation": 3, "action": "rollback", "time_ns": 5, "pid": None, "uid": None,
        "comm": None, "transaction": None, "reason_text": None, "violation": None, "programs": {},
    }  # fmt: skip  # pairs together
    own = render_json.history_object(HistoryEntry.from_attributes(back | {"pid": 7, "comm": "x"}))
    assert (own["pid"], own["uid"], own["comm"]) == (7, 0, "x")


VIOLATION: dict[str, Any] = {
    "condition": {"counter": 6, "comparison": 1, "threshold": 10, "per-time": 1000, "window": 1000,
                  "minimum": 1},
    "link": 3, "count": 57, "packets": 240, "time": 1020,
}  # fmt: skip  # pairs together


def test_swap_that_waits_and_what_became_of_it() -> None:
    waiting = Link.from_attributes(link(guard=[VIOLATION["condition"]], outcome=1))
    keys = ("outcome", "rollback_in_s", "guards", "violation")
    found = render_json.link_object(waiting)
    assert [found[key] for key in keys] == ["waiting", None, ["drops < 10/s"], None]
    told = {"guard": "drops < 10/s", "link": 3, "count": 57, "packets": 240, "time_ms": 1020}
    back = link(outcome=5, violation=VIOLATION)
    found = render_json.link_object(Link.from_attributes(back))
    assert [found[key] for key in keys] == ["rollback_guard", None, [], told]
    entry = {"action": 5, "violation": VIOLATION}
    assert render_json.history_object(HistoryEntry.from_attributes(entry))["violation"] == told
    asked = back | {"requester-pid": 7, "requester-comm": "ipttctl", "outcome": 4}
    change = LinkChange.from_message(Command.LINK_SWAPPED, asked)
    assert change is not None
    found = render_json.change_object(change)
    assert [found[key] for key in ("requester_pid", "requester_comm")] == [7, "ipttctl"]
    # of a newer module
    assert render_json.link_object(Link.from_attributes(link(outcome=99)))["outcome"] == "99"


def test_no_ports_where_there_are_none() -> None:
    assert parsed(flags=EventFlag.FRAGMENT)["source_port"] is None
    assert parsed(protocol=1, icmp_type=8, icmp_id=9)["source_port"] is None
    assert parsed(protocol=1, icmp_type=8, icmp_id=9)["icmp_id"] == 9


def test_change_holds_the_link() -> None:
    value = LinkChange.from_message(Command.LINK_DETACHED, link(reason=1))
    assert value is not None
    found = render_json.change_object(value)
    assert (found["change"], found["reason"], found["link"]) == ("detached", "request", 3)


def test_names_with_any_byte_are_one_line_of_utf8() -> None:
    assert parsed(chain=b"a\xff\nb")["chain"] == "a\\xff\nb"
