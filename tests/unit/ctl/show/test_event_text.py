# SPDX-License-Identifier: GPL-2.0
"""Events as text for users: columns, fields and blocks, character by character."""

from __future__ import annotations

import re
import socket
import time
from typing import Any

import pytest

from ipttctl.errors import UsageError
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.show.event_blocks import EventBlocks
from ipttctl.show.event_table import EventTable, parse_columns
from ipttctl.show.event_text import TimeFormat
from ipttctl.show.packet_text import packet_text
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import EventFlag, Kind, parse_batch
from tests.unit.ctl.support import batch_payload, event, joined


def record(**changes: Any) -> EventRecord:
    """An event of CPU 1, number 40, at 1970-01-01 plus 1e9 s plus what ``time`` says."""
    payload = batch_payload([event(**changes)], cpu=1, sequence=40)
    [found] = decode_events(parse_batch(payload))
    return found


def line(text: EventTable, found: EventRecord) -> str:
    """The line of an event in a table."""
    [only] = text.lines(joined(found))
    return only


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
        # on a bridge and at a device the packet's own type decides
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
            {"kind": Kind.KNOWN, "table": b"nat", "rulenum": 0},
            (
                "ipttrace=[pf=PF_INET in= out=enp0s8 table=nat chain=OUTPUT hook=3 kind=known not "
                "consulted: connection known]"
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
    assert line(EventTable(["IPTABLES_INFO"]), record(**changes)) == tables


def fields(text: EventTable, **changes: Any) -> dict[str, str]:
    """A line's fields by column."""
    names = text.header()[0].split()
    return dict(
        zip(names, line(text, record(**changes)).split(maxsplit=len(names) - 1), strict=True)
    )


def test_columns_are_those_of_the_manual() -> None:
    assert EventTable().header()[0].split() == [
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
    found = fields(EventTable(), flags=EventFlag.PID | EventFlag.DMAC)
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
    found = fields(EventTable(), hook=0)
    assert (found["PID"], found["DEST_MAC"], found["INTERFACE"]) == ("-", "-", "-")


@pytest.mark.parametrize("hook", [0, 1, 2])
def test_interface_of_incoming_hooks_is_where_it_came_in(hook: int) -> None:
    found = fields(EventTable(), hook=hook, in_name=b"eth0", in_ifindex=7)
    assert found["INTERFACE"] == "eth0(7)"


@pytest.mark.parametrize(
    ("pf", "hook", "interface"),
    [(3, 0, "eth0(7)"), (3, 1, "enp0s8(2)"), (5, 0, "eth0(7)"), (7, 4, "enp0s8(2)")],
)
def test_interface_of_other_families(pf: int, hook: int, interface: str) -> None:
    at = {"kind": Kind.PACKET, "pf": pf, "hook": hook, "ethertype": 0x88CC}
    assert f" {interface} " in line(EventTable(), record(**at, in_name=b"eth0", in_ifindex=7))


def test_payload() -> None:
    payload = batch_payload([event(flags=EventFlag.PAYLOAD)], payloads={0: b"\x01\xff"})
    [found] = decode_events(parse_batch(payload))
    assert line(EventTable(), found).endswith("rulenum=1] payload=01ff")
    text = EventTable(payload=lambda _: {"why": "it is", "n": [1, 2]})
    assert line(text, found).endswith(r' payload={"why":"it\u0020is","n":[1,2]}')
    assert line(EventTable(payload=lambda _: None), found).endswith(" payload=01ff")


def test_time_formats() -> None:
    moment = {"time": 5_123_456_789}
    clock, precise = EventTable(), EventTable(time_format=TimeFormat.NANOSECONDS)
    assert fields(clock, **moment)["TIME"] == "01:46:45.123456"
    assert fields(precise, **moment)["TIME"] == "01:46:45.123456789"
    relative = EventTable(time_format=TimeFormat.RELATIVE)
    assert fields(relative, **moment)["TIME"] == "0.000000"
    assert fields(relative, time=7_123_457_800)["TIME"] == "2.000001"


def test_namespace_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = NamespaceNames(())
    known = {(5, 7): "blue"}
    monkeypatch.setattr(names, "name", lambda cookie, moment: known.get((cookie, moment)))
    text = EventTable(names=names)
    shown = [
        fields(text, netns=4026532201, netns_cookie=cookie, time=time)["NETWORK_NS"]
        for cookie, time in ((5, 7), (5, 8), (6, 7))
    ]
    assert shown == ["4026532201(blue)", "4026532201", "4026532201"]


def test_lines_stay_aligned_and_nothing_is_cut() -> None:
    text = EventTable()
    header = text.header()[0]
    long = {"pf": 10, "saddr": v6("2001:db8:1111:2222:3333:4444:5555:6666")}
    lines = [line(text, record(**changes)) for changes in ({}, long, {})]
    assert lines[0].index("ipttrace=") == header.index("IPTABLES_INFO")
    assert lines[2].index("ipttrace=") == lines[1].index("ipttrace=")
    assert "[2001:db8:1111:2222:3333:4444:5555:6666]:22" in lines[1]


def test_link_is_told_once_there_is_more_than_one() -> None:
    text = EventTable()
    assert "link=" not in line(text, record(link=3, generation=1))
    assert line(text, record(link=3, generation=2)).endswith("] link=3 gen=2")
    assert line(text, record(link=3, generation=1)).endswith("] link=3 gen=1")


def test_link_columns() -> None:
    text = EventTable(link_columns=True)
    found = fields(text, link=3, generation=2)
    assert (found["LINK"], found["GEN"]) == ("3", "2")
    assert "link=" not in line(text, record(link=9))


def test_colour_only_when_asked_for_and_only_around_the_decision() -> None:
    dropped = {**EXIT, "verdict": 0}
    plain = line(EventTable(), record(**dropped))
    coloured = line(EventTable(colour=True), record(**dropped))
    assert "\033" not in plain
    assert coloured.replace("\033[31m", "").replace("\033[0m", "") == plain


def test_chosen_columns_in_their_order() -> None:
    text = EventTable(parse_columns("iptables_info, Time,GEN"), colour=True)
    assert text.header() == ["\033[1mIPTABLES_INFO TIME            GEN\033[0m"]
    [found] = text.lines(joined(record(**EXIT, verdict=1)))
    assert found == (
        "\033[32miptables=[pf=PF_INET table=filter hook=OUTPUT verdict=ACCEPT cost=77.425µs "
        "rules=3]\033[0m 01:46:45.000000 1"
    )
    # the link has columns of its own
    assert "link=" not in line(text, record(link=9))


def test_columns_that_are_none() -> None:
    known = "they are time, skb, network_ns, pid, cpu, link, gen, interface, dest_mac, ip_len"
    with pytest.raises(UsageError, match=f"there is no column 'verdict'; {known}"):
        parse_columns("time,verdict")
    with pytest.raises(UsageError, match="there is no column ''"):
        parse_columns("time,")
    with pytest.raises(UsageError, match="'time' is given twice"):
        parse_columns("time,cpu,TIME")


def block(text: EventBlocks, **changes: Any) -> list[str]:
    return list(text.lines(joined(record(**changes))))


def test_blocks() -> None:
    """An event has two lines, or one if the event above is of the same packet."""
    text = EventBlocks(80)
    assert text.header() == []
    assert block(text, flags=EventFlag.PID) == [
        "OUTPUT T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030 len=60 out=enp0s8(2)",
        "    pid=4321 cpu=1 netns=4026531840 skb=0xffff888012345678",
        "  01:46:45.000000 filter/OUTPUT/1",
    ]
    assert block(text, **EXIT | {"flags": EventFlag.PID | EventFlag.COUNTED}, verdict=1) == [
        "  01:46:45.000000 filter ACCEPT cost=77.425µs rules=3",
    ]
    assert block(text, kind=Kind.RETURN, chain=b"a b", rulenum=4, flags=EventFlag.PID) == [
        r"  01:46:45.000000 filter/a\x20b/4 return",
    ]
    assert block(text, kind=Kind.KNOWN, table=b"nat", rulenum=0, flags=EventFlag.PID) == [
        "  01:46:45.000000 nat/OUTPUT not consulted: connection known",
    ]
    heading, *rest = block(text, hook=1, in_name=b"br0", in_ifindex=5, physin_name=b"p1")
    assert heading == "INPUT T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030 len=60 in=br0(5)"
    assert "physin=p1(0)" in rest[0]


def test_blocks_of_a_netfilter_hook() -> None:
    text = EventBlocks(80, link_columns=True)
    at = {"kind": Kind.PACKET, "pf": 5, "hook": 0, "priority": -10, "in_name": b"eth0"}
    assert block(text, **at, in_ifindex=3, verdict=1, flags=EventFlag.DMAC) == [
        "nf:netdev/ingress@-10 192.168.1.138 -> 192.168.1.12 TCP 22->53030 ACK,PSH len=60",
        "    in=eth0(3) out=enp0s8(2) mac=0a:0b:0c:0d:0e:0f cpu=1 netns=4026531840",
        "    skb=0xffff888012345678",
        "  01:46:45.000000 ACCEPT link=3 gen=1",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132])
def test_blocks_fit_and_hold_what_the_table_does(width: int) -> None:
    payload = batch_payload(
        [event(flags=EventFlag.PAYLOAD | EventFlag.DMAC, in_name=b"lo", in_ifindex=1)],
        payloads={0: bytes(60)},
    )
    [found] = decode_events(parse_batch(payload))
    text = EventBlocks(width, payload=lambda _: {"a": "x" * 10}, link_columns=True)
    lines = text.lines(joined(found))
    packet = "T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030"
    # a longer word has a line of its own
    assert all(len(one) <= max(width, len(f"    {packet}")) for one in lines)
    words = {word for one in lines for word in one.split()}
    assert words == {
        "OUTPUT", packet, "len=60", "in=lo(1)", "out=enp0s8(2)", "mac=0a:0b:0c:0d:0e:0f", "cpu=0",
        "netns=4026531840", "skb=0xffff888012345678", "01:46:45.000000", "filter/OUTPUT/1",
        'payload={"a":"xxxxxxxxxx"}', "link=3", "gen=1",
    }  # fmt: skip  # pairs together


def test_blocks_in_colour() -> None:
    text = EventBlocks(60, colour=True)
    lines = block(text, **EXIT, verdict=0, verdict_data=1)
    assert lines[0].startswith("\033[1mOUTPUT ")
    assert lines[-1] == (
        "  01:46:45.000000\033[31m filter DROP(EPERM) cost=77.425µs rules=3\033[0m"
    )
    plain = block(EventBlocks(60), **EXIT, verdict=0, verdict_data=1)
    assert [re.sub(r"\033\[\d+m", "", one) for one in lines] == plain


def test_blocks_tell_the_link_once_there_is_more_than_one() -> None:
    text = EventBlocks(80)
    assert block(text)[-1].endswith("filter/OUTPUT/1")
    assert block(text, generation=2)[-1].endswith("filter/OUTPUT/1 link=3 gen=2")
