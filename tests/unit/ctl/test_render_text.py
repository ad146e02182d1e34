# SPDX-License-Identifier: GPL-2.0
"""What people read: the columns and their fields, character by character."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from ipttctl.losses import Losses
from ipttctl.netns import NamespaceNames
from ipttctl.objects import Link, LinkChange
from ipttctl.records import EventRecord, decode
from ipttctl.render_text import (
    EventText,
    TimeFormat,
    change_line,
    cpu_table,
    link_line,
    totals_line,
)
from ipttproto import Command, EventFlag, Kind, parse_batch
from tests.unit.ctl.support import batch_payload, event, link
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
        ({"protocol": 1, "icmp_type": 3, "icmp_code": 1}, "I_3/1:192.168.1.138->192.168.1.12"),
        ({"protocol": 47}, "P_47:192.168.1.138->192.168.1.12"),
        (
            {"pf": 10, "saddr": v6("::1"), "daddr": v6("fe80::2"), "tcp_flags": 2},
            "T_SYN:[::1]:22->[fe80::2]:53030",
        ),
        (
            {"pf": 10, "saddr": v6("::1"), "daddr": v6("::1"), "protocol": 58, "icmp_type": 128},
            "I_request:[::1]->[::1]",
        ),
        ({"flags": EventFlag.FRAGMENT}, "T_fragment:192.168.1.138->192.168.1.12"),
        (
            {"flags": EventFlag.TRUNCATED, "protocol": 47},
            "P_47_truncated:192.168.1.138->192.168.1.12",
        ),
    ],
)
def test_packet(changes: dict[str, Any], packet: str) -> None:
    assert EventText().packet(record(**changes)) == packet


EXIT = {"kind": Kind.EXIT, "cost": 77425, "rules": 3}


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
            {**EXIT, "verdict": 2},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=STOLEN cost=77.425µs rules=3]",
        ),
        (
            {**EXIT, "verdict": 4},
            "iptables=[pf=PF_INET table=filter hook=OUTPUT verdict=REPEAT cost=77.425µs rules=3]",
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
        "link=3 gen=2 hook=table family=any entry=12(trace_entry) exit=13 filter=4 cookie=0x5 "
        "owner=1234(ipttctl) armed=4 packets=9 selected=5 events=20 nested=1"
    )
    other = link(flags=1, family=10, armed=0, stats={}, programs={})
    assert link_line(Link.from_attributes(other)) == (
        "link=3 gen=2 hook=table family=6 owner=persistent armed=none packets=0 selected=0 events=0"
    )


def test_change_line() -> None:
    change = LinkChange.from_message(Command.LINK_DETACHED, link(reason=2))
    assert change is not None
    assert change_line(change).startswith("detached reason=owner link=3 gen=2 ")


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
