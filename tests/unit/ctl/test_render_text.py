# SPDX-License-Identifier: GPL-2.0
"""What people read: the columns and their fields, character by character."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from ipttctl.losses import Losses
from ipttctl.measurement import Measurement
from ipttctl.netns import NamespaceNames
from ipttctl.objects import HistoryEntry, Link, LinkChange, SlotStats
from ipttctl.packet_text import packet_text
from ipttctl.records import EventRecord, decode
from ipttctl.render_text import (
    EventText,
    TimeFormat,
    change_line,
    cpu_table,
    history_line,
    link_line,
    totals_line,
)
from ipttproto import Action, Command, EventFlag, Kind, Slot, parse_batch
from tests.unit.ctl.support import batch_payload, event, link, nf_link
from tests.unit.ctl.test_losses import status


def record(**changes: Any) -> EventRecord:
    """An event of CPU 1, number 40, at 1970-01-01 plus 1e9 s plus what ``time`` says."""
    payload = batch_payload([event(**changes)], cpu=1, sequence=40)
    [found] = decode(parse_batch(payload))
    return found


def v6(text: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, text)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("changes", "packet"),
    [
        ({}, "T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030"),
        ({"tcp_flags": 0x12}, "T_ACK,SYN:192.168.1.138:22->192.168.1.12:53030"),
        (
            {"tcp_flags": 0xFF},
            "T_CWR,ECE,URG,ACK,PSH,RST,SYN,FIN:192.168.1.138:22->192.168.1.12:53030",
        ),
        ({"protocol": 17}, "U:192.168.1.138:22->192.168.1.12:53030"),
        ({"protocol": 1, "icmp_type": 8}, "I_request:192.168.1.138->192.168.1.12"),
        ({"protocol": 1, "icmp_type": 0}, "I_reply:192.168.1.138->192.168.1.12"),
        (
            {"protocol": 1, "icmp_type": 3, "icmp_code": 1},
            "I_host-unreachable:192.168.1.138->192.168.1.12",
        ),
        ({"protocol": 47}, "GRE:192.168.1.138->192.168.1.12"),
        (
            {"pf": 10, "saddr": v6("::1"), "daddr": v6("fe80::2"), "tcp_flags": 2},
            "T_SYN:[::1]:22->[fe80::2]:53030",
        ),
        (
            {"pf": 10, "saddr": v6("::1"), "daddr": v6("::1"), "protocol": 58, "icmp_type": 128},
            "I_request:[::1]->[::1]",
        ),
        ({"tcp_flags": 0}, "T:192.168.1.138:22->192.168.1.12:53030"),
        ({"protocol": 132}, "SCTP:192.168.1.138:22->192.168.1.12:53030"),
        ({"protocol": 136}, "UDPLITE:192.168.1.138:22->192.168.1.12:53030"),
        ({"protocol": 33}, "DCCP:192.168.1.138:22->192.168.1.12:53030"),
        ({"protocol": 112}, "VRRP:192.168.1.138->192.168.1.12"),
        ({"protocol": 89}, "OSPF:192.168.1.138->192.168.1.12"),
        ({"protocol": 253}, "P_253:192.168.1.138->192.168.1.12"),
        (
            {"pf": 10, "saddr": v6("::1"), "daddr": v6("ff02::1"), "protocol": 59},
            "NONE:[::1]->[ff02::1]",
        ),
        (
            {"flags": EventFlag.FRAGMENT, "protocol": 132},
            "SCTP_fragment:192.168.1.138->192.168.1.12",
        ),
        ({"flags": EventFlag.FRAGMENT}, "T_fragment:192.168.1.138->192.168.1.12"),
        (
            {"flags": EventFlag.TRUNCATED, "protocol": 47},
            "GRE_truncated:192.168.1.138->192.168.1.12",
        ),
    ],
)
def test_packet(changes: dict[str, Any], packet: str) -> None:
    assert packet_text(record(**changes)) == packet


@pytest.mark.parametrize(
    ("protocol", "icmp_type", "code", "name"),
    [
        (1, 3, 3, "port-unreachable"),
        (1, 3, 15, "destination-unreachable/15"),
        (1, 11, 0, "time-exceeded"),
        (1, 5, 1, "redirect/1"),
        (1, 44, 2, "44/2"),
        (58, 1, 4, "port-unreachable"),
        (58, 2, 0, "packet-too-big"),
        (58, 130, 0, "mld-query"),
        (58, 135, 0, "neighbour-solicitation"),
        (58, 143, 0, "mld2-report"),
        (58, 200, 0, "200/0"),
    ],
)
def test_types_of_icmp(protocol: int, icmp_type: int, code: int, name: str) -> None:
    found = record(protocol=protocol, icmp_type=icmp_type, icmp_code=code)
    assert packet_text(found) == f"I_{name}:192.168.1.138->192.168.1.12"


@pytest.mark.parametrize(
    ("changes", "packet"),
    [
        ({}, "192.168.1.138 -> 192.168.1.12 TCP 22->53030 ACK,PSH"),
        ({"tcp_flags": 0}, "192.168.1.138 -> 192.168.1.12 TCP 22->53030"),
        ({"protocol": 17}, "192.168.1.138 -> 192.168.1.12 UDP 22->53030"),
        ({"protocol": 1, "icmp_type": 8}, "192.168.1.138 -> 192.168.1.12 ICMP request"),
        ({"protocol": 1, "icmp_type": 3}, "192.168.1.138 -> 192.168.1.12 ICMP network-unreachable"),
        ({"protocol": 99}, "192.168.1.138 -> 192.168.1.12 P_99"),
        ({"flags": EventFlag.FRAGMENT}, "192.168.1.138 -> 192.168.1.12 TCP fragment"),
        ({"flags": EventFlag.TRUNCATED}, "192.168.1.138 -> 192.168.1.12 TCP truncated"),
        (
            {"pf": 10, "saddr": v6("::1"), "daddr": v6("fe80::2"), "protocol": 17},
            "::1 -> fe80::2 UDP 22->53030",
        ),
        # on a bridge and at a device the packet itself tells what it is
        (
            {"pf": 7, "ethertype": 0x86DD, "saddr": v6("::1"), "daddr": v6("::1"), "protocol": 58}
            | {"icmp_type": 128},
            "::1 -> ::1 ICMPv6 request",
        ),
        (
            {"pf": 3, "ethertype": 0x0806, "arp_operation": 1},
            "192.168.1.138 -> 192.168.1.12 ARP request",
        ),
        (
            {"pf": 7, "ethertype": 0x0806, "arp_operation": 2},
            "192.168.1.138 -> 192.168.1.12 ARP reply",
        ),
        ({"pf": 3, "ethertype": 0x0806, "arp_operation": 9}, "192.168.1.138 -> 192.168.1.12 ARP 9"),
        ({"pf": 5, "ethertype": 0x88CC}, "ethertype LLDP(0x88cc)"),
        ({"pf": 5, "ethertype": 0x88B5}, "ethertype 0x88b5"),
    ],
)
def test_packet_at_a_netfilter_hook(changes: dict[str, Any], packet: str) -> None:
    assert packet_text(record(kind=Kind.PACKET, **changes)) == packet


EXIT = {"kind": Kind.EXIT, "cost": 77425, "rules": 3, "flags": EventFlag.COUNTED}


@pytest.mark.parametrize(
    ("changes", "tables"),
    [
        (
            {},
            "ipttrace=[pf=PF_INET in= out=enp0s8 table=filter chain=OUTPUT hook=3 rulenum=1]",
        ),
        (
            {"kind": Kind.RETURN, "chain": b"deep", "rulenum": 4},
            (
                "ipttrace=[pf=PF_INET in= out=enp0s8 table=filter chain=deep hook=3 rulenum=4 "
                "kind=return]"
            ),
        ),
        (
            {"kind": Kind.POLICY, "pf": 10, "in_name": b"eth0"},
            (
                "ipttrace=[pf=PF_INET6 in=eth0 out=enp0s8 table=filter chain=OUTPUT hook=3 "
                "rulenum=1 kind=policy]"
            ),
        ),
        (
            {**EXIT, "verdict": 1},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=ACCEPT cost=77.425µs rules=3]",
        ),
        (
            {**EXIT, "hook": 1, "cost": 900},
            "iptables=[pf=PF_INET table=filter hook=INPUT verdict=DROP cost=0.900µs rules=3]",
        ),
        (
            {**EXIT, "verdict_data": 1},
            (
                "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=DROP(EPERM) cost=77.425µs "
                "rules=3]"
            ),
        ),
        (
            {**EXIT, "verdict": 3, "verdict_data": 5},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=QUEUE(5) cost=77.425µs rules=3]",
        ),
        (
            {**EXIT, "verdict": 3, "flags": EventFlag.QUEUE_BYPASS | EventFlag.COUNTED},
            (
                "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=QUEUE(0,bypass) "
                "cost=77.425µs rules=3]"
            ),
        ),
        (
            {"in_name": b"br0", "physin_name": b"eth0", "physout_name": b"eth 1"},
            (
                "ipttrace=[pf=PF_INET in=br0 out=enp0s8 physin=eth0 physout=eth\\x201 table=filter "
                "chain=OUTPUT hook=3 rulenum=1]"
            ),
        ),
        (
            {**EXIT, "verdict": 1, "physin_name": b"eth0"},
            (
                "iptables=[pf=PF_INET table=filter hook=OUTPUT physin=eth0 verdict=ACCEPT "
                "cost=77.425µs rules=3]"
            ),
        ),
        (
            {**EXIT, "verdict": 2},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=STOLEN cost=77.425µs rules=3]",
        ),
        (
            {**EXIT, "verdict": 4},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=REPEAT cost=77.425µs rules=3]",
        ),
        (
            {**EXIT, "verdict": 1, "flags": 0},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=ACCEPT cost=77.425µs]",
        ),
        (
            {"kind": Kind.PACKET, "verdict": 1, "priority": -300},
            "nf=[hook=nf:inet4/output@raw in= out=enp0s8 verdict=ACCEPT]",
        ),
        (
            {"kind": Kind.PACKET, "pf": 3, "hook": 0, "priority": 7, "in_name": b"eth0"},
            "nf=[hook=nf:arp/in@7 in=eth0 out=enp0s8 verdict=DROP]",
        ),
    ],
)
def test_tables(changes: dict[str, Any], tables: str) -> None:
    assert EventText().tables(record(**changes)) == tables


def fields(text: EventText, **changes: Any) -> dict[str, str]:
    """A line's fields by column."""
    names = text.header().split()
    return dict(
        zip(names, text.line(record(**changes)).split(maxsplit=len(names) - 1), strict=True)
    )


def test_columns_are_those_of_the_manual() -> None:
    assert EventText().header().split() == [
        "TIME",
        "SKB",
        "NETWORK_NS",
        "PID",
        "CPU",
        "INTERFACE",
        "DEST_MAC",
        "IP_LEN",
        "PKT_INFO",
        "IPTABLES_INFO",
    ]


def test_fields() -> None:
    found = fields(EventText(), flags=EventFlag.PID | EventFlag.DMAC)
    assert found == {
        "TIME": "01:46:45.000000",
        "SKB": "0xffff888012345678",
        "NETWORK_NS": "4026531840",
        "PID": "4321",
        "CPU": "1",
        "INTERFACE": "enp0s8(2)",
        "DEST_MAC": "0a:0b:0c:0d:0e:0f",
        "IP_LEN": "60",
        "PKT_INFO": "T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030",
        "IPTABLES_INFO": (
            "ipttrace=[pf=PF_INET in= out=enp0s8 table=filter chain=OUTPUT hook=3 rulenum=1]"
        ),
    }


def test_what_is_not_known_is_a_dash() -> None:
    found = fields(EventText(), hook=0)
    assert (found["PID"], found["DEST_MAC"], found["INTERFACE"]) == ("-", "-", "-")


@pytest.mark.parametrize("hook", [0, 1, 2])
def test_interface_of_incoming_hooks_is_where_it_came_in(hook: int) -> None:
    found = fields(EventText(), hook=hook, in_name=b"eth0", in_ifindex=7)
    assert found["INTERFACE"] == "eth0(7)"


@pytest.mark.parametrize(
    ("pf", "hook", "interface"),
    [(3, 0, "eth0(7)"), (3, 1, "enp0s8(2)"), (5, 0, "eth0(7)"), (7, 4, "enp0s8(2)")],
)
def test_interface_of_other_families(pf: int, hook: int, interface: str) -> None:
    at = {"kind": Kind.PACKET, "pf": pf, "hook": hook, "ethertype": 0x88CC}
    line = EventText().line(record(**at, in_name=b"eth0", in_ifindex=7))
    assert f" {interface} " in line


def test_payload() -> None:
    payload = batch_payload([event(flags=EventFlag.PAYLOAD)], payloads={0: b"\x01\xff"})
    [found] = decode(parse_batch(payload))
    assert EventText().line(found).endswith("rulenum=1] payload=01ff")
    text = EventText(payload=lambda _: {"why": "it is", "n": [1, 2]})
    assert text.line(found).endswith(r' payload={"why":"it\u0020is","n":[1,2]}')
    assert EventText(payload=lambda _: None).line(found).endswith(" payload=01ff")


def test_time_formats() -> None:
    moment = {"time": 5_123_456_789}
    clock, precise = EventText(), EventText(time_format=TimeFormat.NANOSECONDS)
    assert fields(clock, **moment)["TIME"] == "01:46:45.123456"
    assert fields(precise, **moment)["TIME"] == "01:46:45.123456789"
    relative = EventText(time_format=TimeFormat.RELATIVE)
    assert fields(relative, **moment)["TIME"] == "0.000000"
    assert fields(relative, time=7_123_457_800)["TIME"] == "2.000001"


def test_namespace_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = NamespaceNames(())
    monkeypatch.setattr(names, "name", {4026532201: "blue"}.get)
    text = EventText(names=names)
    assert fields(text, netns=4026532201)["NETWORK_NS"] == "4026532201(blue)"
    assert fields(text, netns=4026531840)["NETWORK_NS"] == "4026531840"


def test_lines_stay_aligned_and_nothing_is_cut() -> None:
    text = EventText()
    header = text.header()
    long = {"pf": 10, "saddr": v6("2001:db8:1111:2222:3333:4444:5555:6666")}
    lines = [text.line(record(**changes)) for changes in ({}, long, {})]
    assert lines[0].index("ipttrace=") == header.index("IPTABLES_INFO")
    assert lines[2].index("ipttrace=") == lines[1].index("ipttrace=")
    assert "[2001:db8:1111:2222:3333:4444:5555:6666]:22" in lines[1]


def test_unaligned_lines_have_single_spaces() -> None:
    text = EventText(align=False)
    line = text.line(record())
    assert "->192.168.1.12:53030 ipttrace=" in line


def test_link_is_told_once_there_is_more_than_one() -> None:
    text = EventText()
    assert "link=" not in text.line(record(link=3, generation=1))
    assert text.line(record(link=3, generation=2)).endswith("] link=3 gen=2")
    assert text.line(record(link=3, generation=1)).endswith("] link=3 gen=1")


def test_link_columns() -> None:
    text = EventText(link_columns=True)
    found = fields(text, link=3, generation=2)
    assert (found["LINK"], found["GEN"]) == ("3", "2")
    assert "link=" not in text.line(record(link=9))


def test_colour_only_when_asked_for_and_only_around_the_decision() -> None:
    dropped = {**EXIT, "verdict": 0}
    plain = EventText().line(record(**dropped))
    coloured = EventText(colour=True).line(record(**dropped))
    assert "\033" not in plain
    assert coloured.replace("\033[31m", "").replace("\033[0m", "") == plain


def test_link_line() -> None:
    assert link_line(Link.from_attributes(link())) == (
        "link=3 gen=2 hook=table family=any entry=12(trace_entry) entry.tag=0001020304050607 "
        "exit=13 exit.tag=0000000000000000 filter=4 cookie=0x5 owner=1234(ipttctl) armed=4 "
        "packets=9 selected=5 events=20 nested=1"
    )
    other = link(flags=1, family=10, armed=0, stats={}, programs={})
    assert link_line(Link.from_attributes(other)) == (
        "link=3 gen=2 hook=table family=6 owner=persistent armed=none packets=0 selected=0 events=0"
    )


def test_link_line_of_a_netfilter_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    names = NamespaceNames(())
    monkeypatch.setattr(names, "name", {4026532201: "blue"}.get)
    value = Link.from_attributes(nf_link())
    assert link_line(value, names) == (
        "link=4 gen=1 hook=nf:netdev/ingress@-10 netns=4026532201(blue) device=eth0(2) mode=filter "
        "report-drops packet=21(drop) packet.tag=0001020304050607 packet.runs=9 packet.ns=900 "
        "payload=33(16) owner=1234(ipttctl) rollback-in=1.500s packets=10 selected=9 events=3 "
        "drops=3 lost=1"
    )
    gone = Link.from_attributes(nf_link(gone=1, armed=0, netns=7))
    assert " netns=7 device=eth0(2) mode=filter report-drops gone=netns " in link_line(gone, names)
    assert "gone=99" in link_line(Link.from_attributes(nf_link(gone=99)))


def test_link_line_with_a_measurement() -> None:
    before = Link.from_attributes(nf_link())
    slots = [{"slot": Slot.PACKET, "runs": 12, "run-time": 1350}]
    after = Link.from_attributes(nf_link(stats={"slot": slots}))
    line = link_line(after, measured=Measurement.between(before, after, 2.0))
    assert "packet.runs=12 packet.ns=1350 packet.measured-runs=3 packet.ns-per-run=150 " in line
    idle = link_line(after, measured=Measurement.between(after, after, 2.0))
    assert "packet.measured-runs=0 payload=" in idle
    new = Measurement.between(None, after, 2.0)
    assert new.slots[Slot.PACKET] == SlotStats(12, 1350)


ENTRY = {
    "generation": 2,
    "action": Action.SWAP,
    "time": 1_000_000_005_123_456_789,
    "pid": 77,
    "uid": 1000,
    "comm": "ipttctl",
    "program": [{"slot": 4, "id": 21, "tag": bytes(range(8)), "name": "drop"}],
}


def test_history_line() -> None:
    assert history_line(HistoryEntry.from_attributes(ENTRY)) == (
        "gen=2 action=swap time=2001-09-09T01:46:45.123456 by=77(ipttctl) uid=1000 "
        "packet=21(drop) packet.tag=0001020304050607"
    )
    back = ENTRY | {"action": Action.ROLLBACK, "pid": 0, "uid": 0, "comm": "", "program": []}
    assert history_line(HistoryEntry.from_attributes(back)) == (
        "gen=2 action=rollback time=2001-09-09T01:46:45.123456 by=module"
    )


def test_change_line() -> None:
    change = LinkChange.from_message(Command.LINK_DETACHED, link(reason=2))
    assert change is not None
    assert change_line(change).startswith("detached reason=owner link=3 gen=2 ")
    swapped = LinkChange.from_message(Command.LINK_SWAPPED, link())
    assert swapped is not None
    assert change_line(swapped).startswith("swapped link=3 gen=2 ")
    made = HistoryEntry.from_attributes(ENTRY)
    line = change_line(swapped, made=made)
    assert line.startswith("swapped action=swap by=77(ipttctl) uid=1000 link=3 gen=2 ")


def test_cpu_table_lines_up() -> None:
    heading, line = cpu_table([status(7, (1, 2, 3))])
    assert line.split() == ["0", "7", "1", "2", "3"]
    assert len(heading) == len(line)


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        (Losses(), "12 events, 3 packets, lost 0"),
        (
            Losses(observer=4, ring=2, memory=1),
            "12 events, 3 packets, lost 7 (4 by this observer, 2 ring full, 1 no memory)",
        ),
        (Losses(nested=1), "12 events, 3 packets, lost 0, 1 nested program run left out"),
    ],
)
def test_totals(losses: Losses, line: str) -> None:
    assert totals_line(12, 3, losses) == line


def test_totals_of_one() -> None:
    assert totals_line(1, 1, Losses()) == "1 event, 1 packet, lost 0"
