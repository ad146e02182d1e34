# SPDX-License-Identifier: GPL-2.0
"""Events of followed packets, as the module sends them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any

from ipttctl.events.records import EventRecord, decode_event
from ipttctl.stories.assemble import StoryAssembler
from ipttctl.stories.model import Story
from ipttproto import Conntrack, EventFlag, JoinedBatches, Kind, Verdict, parse_batch
from tests.unit.ctl.support import batch_payload, event

MS = 1_000_000
US = 1_000
START = 5_000_000_000
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
CONTINUE, JUMP = Verdict.CONTINUE, Verdict.JUMP


def ip4(text: str) -> bytes:
    """An address as events have it."""
    return socket.inet_aton(text) + bytes(12)


class Traveller:
    """Makes the events of a packet, one after the other, a microsecond apart."""

    def __init__(self, number: int = 1, start: int = START, **members: Any) -> None:
        self.number = number
        self.time = start
        self.members: dict[str, Any] = {
            "out_name": b"",
            "out_ifindex": 0,
            "saddr": ip4("192.0.2.7"),
            "daddr": ip4("203.0.113.5"),
            "sport": 51324,
            "dport": 8080,
            "tcp_flags": 2,
            "flags": EventFlag(0),
            "table": b"",
            "chain": b"",
            "rulenum": 0,
            "rules": 0,
            "pid": 0,
            **members,
        }
        self.events: list[dict[str, Any]] = []

    def now(self, **members: Any) -> None:
        """From here on the packet is like this."""
        self.members.update(members)

    def add(self, kind: Kind, **members: Any) -> dict[str, Any]:
        """An event."""
        self.time += US
        made = event(
            **{**self.members, "kind": kind, "packet": self.number, "time": self.time, **members}
        )
        self.events.append(made)
        return made

    def function(self, name: str, number: int, module: str = "", **members: Any) -> None:
        """A function of the hook returned."""
        self.add(
            Kind.SPINE_FUNCTION,
            **{
                "chain": name.encode(),
                "table": module.encode(),
                "rulenum": number,
                "rules": number,
                "rule_handle": 100 + number,
                "verdict": Verdict.ACCEPT,
                "flags": EventFlag.PRIORITY | EventFlag.COUNTED,
                "ttl": 64,
                **members,
            },
        )

    def leave(self, verdict: Verdict = Verdict.ACCEPT, **members: Any) -> None:
        """The packet left the hook."""
        self.add(Kind.SPINE_EXIT, **{"verdict": verdict, "ttl": 64, **members})

    def legacy(self, kind: Kind, table: str, chain: str, number: int = 0, **members: Any) -> None:
        """An event of a table of iptables-legacy."""
        named = {"table": table.encode(), "chain": chain.encode(), "rulenum": number}
        self.add(kind, **{**named, **members})

    def nft(
        self,
        kind: Kind,
        chain: str,
        number: int = 0,
        verdict: Verdict = Verdict.ACCEPT,
        **members: Any,
    ) -> None:
        """An event of a chain of nftables, in table inet fw."""
        named = {
            "table": b"fw",
            "family": 1,
            "table_handle": 3,
            "chain": chain.encode(),
            "rulenum": number,
            "rule_handle": 10 + number if number else 0,
        }
        self.add(kind, **{**named, "verdict": verdict, **members})

    def received(self, device: str, **members: Any) -> None:
        """The packet came in by a device."""
        self.now(in_name=device.encode(), in_ifindex=2, out_name=b"", out_ifindex=0)
        self.add(Kind.JOURNEY_RECEIVED, **{"hook": 0, "pf": 0, "verdict": 0, **members})

    def sent(self, device: str, **members: Any) -> None:
        """The packet was handed to a device."""
        self.add(Kind.JOURNEY_SENT, **{"hook": 0, "pf": 0, "out_name": device.encode(), **members})

    def freed(self, **members: Any) -> None:
        """The packet was used up."""
        self.add(Kind.JOURNEY_FREED, **{"hook": 0, "pf": 0, **members})

    def socket(self, inode: int = 4711, cookie: int = 9, uid: int = 0, **members: Any) -> None:
        """The packet came to a socket."""
        named = {"rule_handle": inode, "table_handle": cookie, "verdict_data": uid}
        self.add(Kind.JOURNEY_SOCKET, **{"hook": 0, "pf": 0, **named, **members})

    def dropped(self, reason: int, function: str, module: str = "", **members: Any) -> None:
        """The kernel dropped the packet."""
        named = {"verdict_data": reason, "chain": function.encode(), "table": module.encode()}
        self.add(Kind.JOURNEY_DROPPED, **{"hook": 0, "pf": 0, **named, **members})

    def merged(self, into: int, **members: Any) -> None:
        """GRO merges the packet into another one."""
        self.add(Kind.JOURNEY_JOINED, **{"hook": 0, "pf": 0, "rule_handle": into, **members})

    def waits(self, whole: int, **members: Any) -> None:
        """The packet is a fragment, and waits for the others."""
        self.add(Kind.JOURNEY_WAITS, **{"hook": 0, "pf": 0, "rule_handle": whole, **members})

    def whole(self, awaited: int, **members: Any) -> None:
        """The packet is the whole that fragments have waited for."""
        self.add(Kind.JOURNEY_WHOLE, **{"hook": 0, "pf": 0, "rule_handle": awaited, **members})

    def copied(self, original: int, **members: Any) -> None:
        """The packet is a copy."""
        self.add(Kind.JOURNEY_COPY, **{"hook": 0, "pf": 0, "rule_handle": original, **members})


def joined(events: Sequence[dict[str, Any]], cpu: int = 0) -> JoinedBatches:
    """Events as they are read together."""
    return JoinedBatches.of([parse_batch(batch_payload(list(events), cpu=cpu))])


def records(events: Sequence[dict[str, Any]]) -> list[EventRecord]:
    """Events as records."""
    read = joined(events)
    return [decode_event(read, place) for place in range(len(read))]


def told(*travellers: Traveller, **options: Any) -> list[Story]:
    """The stories of packets, all told."""
    assembler = StoryAssembler(**options)
    events = sorted((e for one in travellers for e in one.events), key=lambda e: e["time"])
    stories = assembler.add(records(events))
    return [*stories, *assembler.flush()]


def one_story(*travellers: Traveller) -> Story:
    """The only story of packets."""
    [story] = told(*travellers)
    return story


def in_parts() -> Story:
    """A packet that was cut in parts: two are dropped, and a clone of which nobody cares."""
    packet = Traveller(1, pf=2, hook=OUTPUT)
    packet.function("f", 1)
    packet.leave()
    parts = []
    for number, function in enumerate(("__dev_queue_xmit", "tcf_action_exec", "packet_rcv"), 2):
        part = Traveller(number, packet.time + number)
        part.copied(1)
        part.dropped(6, function)
        parts.append(part)
    packet.time += 1 * MS
    packet.freed()
    return one_story(packet, *parts)


def to_docker() -> Traveller:
    """A segment to a published port, which a rule drops: the example of the questions."""
    packet = Traveller()
    packet.received("eth0")
    packet.now(pf=2, hook=PREROUTING)
    packet.legacy(Kind.POLICY, "raw", "PREROUTING", 1)
    packet.legacy(Kind.EXIT, "raw", "PREROUTING", verdict=1)
    packet.function("iptable_raw_hook", 1, "iptable_raw")
    tracked: dict[str, Any] = {"ct_state": Conntrack.NEW, "ct_id": 4021}
    packet.function("ipv4_conntrack_in", 2, "nf_conntrack", **tracked)
    packet.legacy(Kind.POLICY, "mangle", "PREROUTING", 1)
    packet.legacy(Kind.EXIT, "mangle", "PREROUTING", verdict=1)
    packet.function("iptable_mangle_hook", 3, "iptable_mangle", **tracked)
    packet.legacy(Kind.RULE, "nat", "PREROUTING", 2)
    packet.legacy(Kind.RULE, "nat", "DOCKER", 3)
    packet.legacy(Kind.EXIT, "nat", "PREROUTING", verdict=1)
    packet.now(daddr=ip4("172.17.0.2"), dport=80)
    packet.function("nf_nat_ipv4_pre_routing", 4, "nf_nat", **tracked)
    packet.leave(**tracked)
    packet.now(hook=FORWARD, out_name=b"docker0", out_ifindex=5)
    packet.legacy(Kind.RULE, "filter", "FORWARD", 1)
    packet.legacy(Kind.RULE, "filter", "DOCKER-USER", 1)
    packet.legacy(Kind.EXIT, "filter", "FORWARD", verdict=0)
    packet.function("iptable_filter_hook", 1, "iptable_filter", verdict=0, **tracked)
    packet.leave(Verdict.DROP, **tracked)
    packet.dropped(6, "nf_hook_slow")
    return packet


def flood(count: int, first: int = 1) -> Iterator[Traveller]:
    """Segments that a socket takes, from as many ports."""
    for number in range(first, first + count):
        packet = Traveller(number, START + number * 100 * US, sport=1024 + number % 60_000)
        tracked: dict[str, Any] = {"ct_state": Conntrack.NEW, "ct_id": 1000 + number}
        packet.received("eth0")
        packet.now(pf=2, hook=PREROUTING)
        packet.function("ipv4_conntrack_in", 1, "nf_conntrack", **tracked)
        packet.leave(**tracked)
        packet.now(hook=INPUT)
        packet.nft(Kind.CHAIN_RULE, "input", 2)
        packet.nft(Kind.CHAIN_EXIT, "input")
        packet.function("nft_do_chain_inet", 1, "nf_tables", **tracked)
        packet.leave(**tracked)
        packet.socket()
        packet.freed()
        yield packet
