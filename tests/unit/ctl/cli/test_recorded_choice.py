# SPDX-License-Identifier: GPL-2.0
"""The options of ``trace`` that choose, given to ``ipttctl show`` with a recording."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.recordings.writer import VERSION, RecordingWriter
from ipttproto import Conntrack, EventFlag, Kind, parse_batch
from tests.unit.ctl.stories.packets import (
    FORWARD,
    OUTPUT,
    POSTROUTING,
    PREROUTING,
    START,
    US,
    Traveller,
    flood,
    ip4,
    to_docker,
)
from tests.unit.ctl.support import batch_payload

WEB = {"netns": 4026532999, "netns_cookie": 77}
ALL = {1, 20, 21, 22, 30, 31, 40, 50, 60}


def received(number: int, **members: Any) -> Traveller:
    """A packet that a function sees as it comes in, and that is used up."""
    packet = Traveller(number, START + number * 1000 * US, in_name=b"eth0", **members)
    packet.now(pf=members.get("pf", 2), hook=PREROUTING)
    packet.function("ipv4_conntrack_in", 1, "nf_conntrack", flags=packet.members["flags"])
    packet.leave(flags=packet.members["flags"])
    packet.freed()
    return packet


def ping(number: int, kind: int, source: str, destination: str) -> Traveller:
    """A ping or its answer, in namespace web, where nothing tracks connections."""
    ends = {"saddr": ip4(source), "daddr": ip4(destination), "sport": 0, "dport": 0}
    icmp = {"protocol": 1, "icmp_type": kind, "icmp_id": 7, "tcp_flags": 0, "length": 84}
    return received(number, **ends, **icmp, **WEB)


def sent(number: int, pid: int) -> Traveller:
    """A datagram of IPv6 that a process sends."""
    packet = Traveller(
        number,
        START + number * 1000 * US,
        ethertype=0x86DD,
        saddr=socket.inet_pton(socket.AF_INET6, "2001:db8::1"),
        daddr=socket.inet_pton(socket.AF_INET6, "2001:db8::53"),
        protocol=17,
        sport=40000,
        dport=53,
        tcp_flags=0,
        pf=10,
        hook=OUTPUT,
    )
    packet.function("nf_conntrack_in", 1, "nf_conntrack", pid=pid, flags=EventFlag.PID)
    packet.leave(pid=pid, flags=EventFlag.PID)
    packet.freed()
    return packet


def answer() -> Traveller:
    """The answer of the server behind NAT, on the connection of ``to_docker``."""
    packet = Traveller(
        60,
        START + 60_000 * US,
        saddr=ip4("172.17.0.2"),
        daddr=ip4("192.0.2.7"),
        sport=80,
        dport=51324,
        tcp_flags=0x12,
    )
    packet.received("docker0")
    packet.now(pf=2, hook=PREROUTING)
    packet.function("ipv4_conntrack_in", 1, "nf_conntrack", ct_state=Conntrack.REPLY, ct_id=4021)
    packet.leave(ct_state=Conntrack.REPLY, ct_id=4021)
    packet.freed()
    return packet


def fragment() -> Traveller:
    """A later fragment of a datagram."""
    ends = {"saddr": ip4("198.51.100.1"), "daddr": ip4("198.51.100.2"), "sport": 0, "dport": 0}
    return received(50, **ends, protocol=17, tcp_flags=0, flags=EventFlag.FRAGMENT)


def travellers() -> list[Traveller]:
    return [
        to_docker(),
        *flood(3, 20),
        ping(30, 8, "10.0.0.1", "10.0.0.2"),
        ping(31, 0, "10.0.0.2", "10.0.0.1"),
        sent(40, 812),
        fragment(),
        answer(),
    ]


def behind_snat() -> Traveller:
    """A segment whose source the last hook of its way changes."""
    packet = Traveller(1, START, pf=2, hook=POSTROUTING)
    packet.function("ipv4_confirm", 1, "nf_conntrack")
    packet.legacy(Kind.RULE, "nat", "POSTROUTING", 1)
    packet.now(saddr=ip4("198.51.100.9"))
    packet.function("nf_nat_ipv4_out", 2, "nf_nat")
    packet.leave()
    packet.freed()
    return packet


def marked(kind: Kind = Kind.RULE) -> Traveller:
    """A segment whose TOS the first function sets, and that is forwarded."""
    packet = Traveller(1, START, pf=2, hook=PREROUTING)
    packet.legacy(kind, "mangle", "PREROUTING", 1)
    packet.function("iptable_mangle_hook", 1, "iptable_mangle", tos=0x10)
    packet.leave(tos=0x10)
    packet.now(hook=FORWARD)
    packet.legacy(Kind.RULE, "filter", "FORWARD", 1)
    packet.function("iptable_filter_hook", 1, "iptable_filter", tos=0x10, ttl=63)
    packet.leave(tos=0x10, ttl=63)
    packet.freed()
    return packet


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a recording of packets; payloads are bytes of them by the number of the packet."""

    def made(
        *packets: Traveller,
        stories: bool = True,
        payloads: Mapping[int, bytes] | None = None,
    ) -> Path:
        path = tmp_path / "file.ipr"
        events = [{**one, "link": 12} for packet in packets for one in packet.events]
        events.sort(key=lambda one: one["time"])
        begin = {"version": VERSION, "stories": stories, "links": [12], "patience_ns": 10**9}
        kept = payloads or {}
        of_events, seen = {}, set()
        for place, one in enumerate(events):
            number, hook = one["packet"], (one["packet"], one["hook"])
            # as bpf/capture.c does at the first function of each hook
            if number in kept and one["kind"] == Kind.SPINE_FUNCTION and hook not in seen:
                seen.add(hook)
                data = kept[number]
                of_events[place] = struct.pack("<II", one["length"], len(data)) + data
        batch = replace(parse_batch(batch_payload(events)), payloads=of_events)
        with RecordingWriter(path, "web", "boot", 1 << 30, replace=True) as writer:
            snaplen = {"snaplen": 64} if kept else {}
            writer.note({"about": "recording", **begin, **snaplen})
            writer.note({"about": "netns", "cookie": 77, "moment": 0, "name": "web"})
            writer.write_events([batch])
            writer.end({"about": "end"})
        return path

    return made


@pytest.fixture
def recording(make: Make) -> Path:
    return make(*travellers())


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[Any], str]]:
    """Shows a recording; returns the objects behind the head, and standard error."""

    def objects(path: Path, *options: str) -> tuple[list[Any], str]:
        assert run(["show", str(path), "-o", "json", *options]) == 0, capsys.readouterr().err
        said = capsys.readouterr()
        return [json.loads(line) for line in said.out.splitlines()][1:], said.err

    return objects


@pytest.mark.parametrize(
    ("options", "packets"),
    [
        ("", ALL),
        ("tcp", {1, 20, 21, 22, 60}),
        ("tcp port 8080", {1, 20, 21, 22}),
        ("dst host 172.17.0.2 and dst port 80", {1}),
        ("src port 1045", {21}),
        ("udp port 53", {40}),
        ("ip6", {40}),
        ("icmp[icmptype] = icmp-echo", {30}),
        ("icmp and net 10.0.0.0/24", {30, 31}),
        ("tcp[tcpflags] & tcp-ack != 0", {60}),
        ("ip[6:2] & 0x1fff != 0", {50}),
        ("udp", {40, 50}),
        ("-H 203.0.113.0/24", {1, 20, 21, 22}),
        ("-H 2001:db8::53", {40}),
        ("-H 10.0.0.2", {30, 31}),
        ("-P 80", {1, 60}),
        ("-P 53 --proto udp", {40}),
        ("--proto icmp", {30, 31}),
        ("--icmpid 7", {30, 31}),
        ("--icmpid 0", set()),
        ("-p 812", {40}),
        ("-p 4321", set()),
        ("-4", ALL - {40}),
        ("-6", {40}),
        ("-N web", {30, 31}),
        ("-N 4026532999 icmp[0]=0", {31}),
        ("-N web tcp", set()),
        ("-N /run/netns/web", {30, 31}),
        ("-N /var/run/netns/web tcp", set()),
        ("--netns web --hook prerouting", {30, 31}),
        ("--rule filter/DOCKER-USER/1", {1}),
        ("--rule */input", {20, 21, 22}),
        ("--rule */input src port 1044", {20}),
        ("--rule filter -H 203.0.113.5", {1}),
        ("--verdict drop", {1}),
        ("--hook input --verdict drop", set()),
        ("--link 12 --drops", {1}),
        ("--link 13", set()),
        ("--drops tcp", {1}),
        ("--drops icmp", set()),
    ],
)
def test_stories_are_chosen(options: str, packets: set[int], recording: Path, shown: Any) -> None:
    found, said = shown(recording, *options.split())
    assert {one["packet"] for one in found} == packets
    assert "left out" not in said


def test_blocks_stay_as_they_are(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rule by which a story is chosen is not all that is shown of it."""
    assert run(["show", str(recording), "-v"]) == 0
    every = capsys.readouterr().out
    assert run(["show", str(recording), "-v", "--rule", "filter/DOCKER-USER/1"]) == 0
    block = capsys.readouterr().out
    assert block in every
    assert "raw PREROUTING" in block
    assert "dropped by filter DOCKER-USER 1" in block


def test_chosen_stories_are_summed_up(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(recording), "--summary", "--rule", "*/input", "tcp"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "3 packets, 1 way"


def test_a_copy_chooses_the_story_that_it_is_in(make: Make, shown: Any) -> None:
    packet, copy = received(1), received(2, daddr=ip4("10.9.9.9"))
    copy.events.insert(0, {**copy.events[0], "kind": Kind.JOURNEY_COPY, "rule_handle": 1})
    [found], _ = shown(make(packet, copy), "host 10.9.9.9")
    assert found["packet"] == 1


def test_a_copy_may_fit_the_one_and_its_original_the_other(make: Make, shown: Any) -> None:
    packet, copy = sent(1, 812), received(2, daddr=ip4("10.9.9.9"))
    copy.events.insert(0, {**copy.events[0], "kind": Kind.JOURNEY_COPY, "rule_handle": 1})
    back = received(3, saddr=ip4("10.9.9.9"), daddr=ip4("192.0.2.7"), sport=8080, dport=51324)
    path = make(packet, copy, back)
    for options, told in (
        (["-p", "812", "--hook", "prerouting"], {1}),
        (["-p", "812", "--hook", "input"], set()),
        (["dst host 10.9.9.9", "--hook", "output", "--both-ways"], {1, 3}),
        (["ip6[44:2] = 9", "--hook", "prerouting"], set()),
    ):
        found, said = shown(path, *options)
        assert {one["packet"] for one in found} == told
        assert ("1 story left out" in said) is ("ip6[44:2] = 9" in options)


@pytest.mark.parametrize(
    ("expression", "told", "untold"),
    [
        ("tcp[4:4] = 5", set(), 5),
        ("tcp[4:4] = 5 and dst port 9", set(), 0),
        ("tcp[4:4] = 5 or icmp", {30, 31}, 5),
        ("tcp[4:4] = 5 and dst host 172.17.0.2", set(), 1),
        ("tcp[4:4] = 5 and dst host 203.0.113.5", set(), 4),
        ("ip[4:2] = 0", set(), 8),
        ("ip[0] & 0xf != 5", set(), 8),
    ],
)
def test_what_the_recording_does_not_tell_is_counted(
    expression: str, told: set[int], untold: int, recording: Path, shown: Any
) -> None:
    found, said = shown(recording, expression)
    assert {one["packet"] for one in found} == told
    stories = "1 story" if untold == 1 else f"{untold} stories"
    sentence = f"{stories} left out: the recording does not tell whether FILTER fits"
    assert (sentence in said.splitlines()) is bool(untold)
    assert ("left out" in said) is bool(untold)


@pytest.mark.parametrize(
    ("packet", "expression", "untold"),
    [
        (behind_snat(), "src host 198.51.100.9 and tcp[4:4] = 5", 1),
        (behind_snat(), "src host 198.51.100.8 and tcp[4:4] = 5", 0),
        (behind_snat(), "src host 198.51.100.9 and ip[8] = 5", 0),
        # the function shows the packet as it left it
        (marked(), "ip[1] = 0", 1),
        (marked(), "ip[1] = 0 and udp", 0),
        (marked(Kind.POLICY), "ip[1] = 0", 0),
        (marked(), "ip[8] = 5", 1),
        # at the second hook it is as it left the first one
        (marked(Kind.POLICY), "ip[8] = 5", 0),
        (marked(Kind.POLICY), "ip[8] = 63 and tcp[4:4] = 5", 1),
    ],
)
def test_no_change_of_a_packet_hides_what_is_not_told(
    packet: Traveller, expression: str, untold: int, make: Make, shown: Any
) -> None:
    found, said = shown(make(packet), expression)
    assert found == []
    assert ("1 story left out: the recording does not tell" in said) is bool(untold)


def test_only_stories_that_are_asked_for_are_in_doubt(recording: Path, shown: Any) -> None:
    for options, more, told, untold in (
        (["--drops"], "", set(), "1 story left out"),
        (["--drops"], "or host 172.17.0.2", {1}, ""),
        (["-c", "1"], "or dst port 80", {1}, ""),
        (["-c", "1"], "or src port 1044", {20}, "1 story left out"),
        (["--lines", "-c", "1"], "or dst port 80", {1}, "10 events left out"),
    ):
        found, said = shown(recording, *options, f"tcp[4:4] = 5 {more}")
        assert {one["packet"] for one in found} == told
        assert untold in said if untold else "left out" not in said


SEGMENT = (
    "45000028 abcd 4000 40 06 0000 c0000207 cb007105"  # 192.0.2.7 > 203.0.113.5
    "c87c 1f90 00000005 00000000 5002 ffff 0000 0000"
)


def test_bytes_that_were_kept_are_asked(make: Make, shown: Any) -> None:
    data = bytes.fromhex(SEGMENT)
    path = make(to_docker(), *flood(2, 20), payloads={1: data, 20: data, 21: data[:22]})
    for expression, told in (("tcp[4:4] = 5", {1, 20}), ("ip[4:2] = 0xabcd", {1, 20, 21})):
        found, _ = shown(path, expression)
        assert {one["packet"] for one in found} == told
    # the bytes of one end before the number; NAT of the other is at no hook that was not asked
    _, said = shown(path, "tcp[4:4] = 6")
    assert "1 story left out: the recording does not tell" in said
    _, said = shown(path, "ip[4:2] = 6")
    assert "left out" not in said


def test_bytes_that_were_cut_off_may_be_in_the_event(make: Make, shown: Any) -> None:
    path = make(*flood(1, 20), payloads={20: bytes.fromhex(SEGMENT)[:20]})
    for expression, told in (("dst port 8080", {20}), ("dst port 9", set())):
        found, said = shown(path, "--lines", expression)
        assert {one["packet"] for one in found} == told
        assert "left out" not in said


def test_bytes_tell_of_the_packet_behind_nat(make: Make, shown: Any) -> None:
    """NAT leaves the rest as it is."""
    path = make(behind_snat(), payloads={1: bytes.fromhex(SEGMENT)})
    for number, untold in ((5, True), (6, False)):
        found, said = shown(path, f"src host 198.51.100.9 and tcp[4:4] = {number}")
        assert found == []
        assert ("1 story left out" in said) is untold


def test_lines_are_chosen_each_by_itself(recording: Path, shown: Any) -> None:
    found, said = shown(recording, "--lines", "dst host 172.17.0.2")
    assert {one["packet"] for one in found} == {1}
    assert {one["destination"] for one in found} == {"172.17.0.2"}
    assert "left out" not in said
    found, _ = shown(recording, "--lines", "--rule", "filter", "tcp")
    assert [one["kind"] for one in found] == ["rule", "rule", "exit"]
    found, said = shown(recording, "--lines", "ip[4:2] = 0", "-N", "web")
    assert found == []
    assert "4 events left out: the recording does not tell whether FILTER fits" in said


def test_lines_of_a_trace_of_lines_are_chosen(make: Make, shown: Any) -> None:
    path = make(*travellers(), stories=False)
    found, _ = shown(path, "-P", "8080", "--verdict", "drop", "--lines")
    assert found == []
    found, _ = shown(path, "-P", "53")
    assert {one["destination_port"] for one in found} == {53}
    assert run(["show", str(path), "tcp", "--both-ways"]) == 2


@pytest.mark.parametrize(("backend", "rule"), [("legacy", "filter"), ("nft", None)])
def test_rules_of_one_back_end(backend: str, rule: str | None, recording: Path, shown: Any) -> None:
    """As a trace of it had told, whose links at the other are not there."""
    found, _ = shown(recording, "--backend", backend)
    assert {one["packet"] for one in found} == ALL
    consulted = {
        (one["packet"], of["backend"])
        for one in found
        for step in one["steps"]
        for call in step.get("functions", ())
        for of in call["consulted"]
    }
    packets = {1} if backend == "legacy" else {20, 21, 22}
    assert consulted == {(packet, backend) for packet in packets}
    [dropped] = [one for one in found if one["end"]["dropped"]]
    assert (dropped["end"]["rule"] or {}).get("table") == rule
    other = "*/input" if backend == "legacy" else "filter"
    assert shown(recording, "--backend", backend, "--rule", other)[0] == []


def test_a_back_end_that_the_recording_has_nothing_of_is_told(make: Make, shown: Any) -> None:
    path = make(*flood(2, 20))
    _, said = shown(path, "--backend", "legacy")
    assert said.endswith(f"{path} has no events of rules of --backend legacy\n")
    _, said = shown(path, "--backend", "nft")
    assert "has no events of rules" not in said


def test_both_ways_of_a_connection_are_told(recording: Path, shown: Any) -> None:
    for options, packets in (
        (["dst", "port", "8080", "and", "src", "port", "51324"], {1, 60}),
        (["src", "host", "172.17.0.2"], {1, 60}),
        (["icmp[0]", "=", "8"], {30, 31}),
        (["--rule", "*/input", "src", "port", "1044"], {20}),
    ):
        found, _ = shown(recording, "--both-ways", *options)
        assert {one["packet"] for one in found} == packets


def test_tracking_of_another_namespace_hides_no_answer(make: Make, shown: Any) -> None:
    """The ping was seen by connection tracking elsewhere before it came to namespace web."""
    first, back = ping(30, 8, "10.0.0.1", "10.0.0.2"), ping(31, 0, "10.0.0.2", "10.0.0.1")
    tracked = {"netns": 4026531840, "netns_cookie": 1, "ct_state": Conntrack.NEW, "ct_id": 5}
    first.events.insert(0, {**first.events[0], **tracked, "time": first.events[0]["time"] - 9})
    found, _ = shown(make(first, back), "--both-ways", "icmp[0] = 8")
    assert {one["packet"] for one in found} == {30, 31}


def test_an_excerpt_ends_as_the_trace_had(
    make: Make, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = START - 10 * US
    monkeypatch.setattr(time, "monotonic_ns", lambda: begun)
    first = received(1)
    later = received(2000)
    path = make(first, later)
    whole, _ = shown(path)
    assert [one["packet"] for one in whole] == [1, 2000]
    found, said = shown(path, "--stop-after", "1")
    assert [one["packet"] for one in found] == [1]
    assert "3 events" in said
    # a part of the way of the second
    found, _ = shown(path, "--stop-after", str((later.events[1]["time"] - begun) / 1e9))
    assert [(one["packet"], one["end"]["kind"]) for one in found] == [
        (1, "consumed"),
        (2000, "unfinished"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cmd", "true"], "--cmd: nothing is watched any more while it would run"),
        (["--follow"], "--follow: whether packets were followed was decided"),
        (["--no-follow"], "--no-follow: whether packets were followed was decided"),
        (["--sample", "1/9"], "--sample: what a trace left out is not in its recording"),
        (["--limit-rate", "9/s"], "--limit-rate: what a trace left out"),
        (["--governor", "off"], "--governor: what a trace left out"),
        (["-4", "-6"], "exclude each other"),
        (["--columns", "time"], "--columns is of lines"),
        (["--lines", "--both-ways", "tcp"], "--both-ways is of stories"),
        (["--stop-after", "0"], "--stop-after: 0 is not a number of seconds"),
        (["--link", "web"], "--link: 'web' is no id of a link; a recording knows links by ids"),
        (["--link", "99999999999"], "'99999999999' is no id of a link; a recording knows links"),
        (["--link", "0"], "--link: '0' is no id of a link; a recording knows links by ids"),
        (["-N", "nowhere"], "--netns: the recording has no namespace 'nowhere'; give a name or"),
        (["-N", "/proc/1/ns/net"], "no namespace '/proc/1/ns/net'; give a name or an inode number"),
    ],
)
def test_options_without_sense_are_refused_with_a_reason(
    options: list[str], said: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording), *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("expression", ["tcp and", "ether host 1:2:3:4:5:6", "2,6 0 0 0,9 9 9 9"])
def test_a_filter_that_is_none_is_one_sentence(
    expression: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording), "-o", "json", expression]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ipttctl: ")
    assert captured.err.count("\n") == 1
