# SPDX-License-Identifier: GPL-2.0
"""Random packets: a seed and a number make the same ones each time.

Addresses and ports are few, so that rules match them often. Each flow has a source port (or ICMP
identifier) of its own: connections do not clash, which the kernel would solve by chance. Fragments
have identifiers of their run: none meets one of another run, and nothing else depends on that.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ipttctl.verify.frames import (
    ETH_ARP,
    ETH_IP,
    ETH_VLAN,
    IP_OPTIONS,
    TCP_OPTIONS,
    Ends,
    address,
    checksum,
    ethernet,
    ethertype,
    mac,
    pseudo_header,
)

MAC: Final = {
    "c0": "02:00:00:00:01:02",
    "r1": "02:00:00:00:01:01",
    "r2": "02:00:00:00:02:01",
    "s0": "02:00:00:00:02:02",
    "c1": "02:00:00:00:03:02",
    "b1": "02:00:00:00:03:01",
    "b2": "02:00:00:00:04:01",
    "s1": "02:00:00:00:04:02",
    "br0": "02:00:00:00:05:01",
}
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"

CLIENTS: Final = tuple(f"10.77.1.{host}" for host in (2, 3, 4))
SERVERS: Final = tuple(f"10.77.2.{host}" for host in (2, 3, 4))
ROUTERS: Final = ("10.77.1.1", "10.77.2.1")
BRIDGED: Final = ("10.77.3.1", "10.77.3.2")
"""The address of a bridge, and a neighbour there."""

CLIENTS6: Final = tuple(f"fd77:1::{host}" for host in (2, 3, 4))
SERVERS6: Final = tuple(f"fd77:2::{host}" for host in (2, 3, 4))
ROUTERS6: Final = ("fd77:1::1", "fd77:2::1")
BACK: Final = "UDP, back"
"""The label of answers in a conversation."""

TAGGED: Final = "VLAN"
"""The label of packets of a VLAN."""

UNKNOWN: Final = ("192.0.2.9", "2001:db8::9")
"""Addresses without a route."""

PORTS: Final = (53, 443, 80, 1000, 1001, 1002, 5000)
"""Destination ports; at the first two the router listens for datagrams."""

FLOWS: Final = 20000
"""The lowest source port, and ICMP identifier."""

SYN, ACK, FIN, RST, PSH = 0x02, 0x10, 0x01, 0x04, 0x08
_TCP_FLAGS: Final = (SYN, SYN, SYN, ACK, RST, FIN | ACK, SYN | ACK, PSH | ACK, 0, 0x3F)
_TOS: Final = (0, 0, 0x20, 0xB8)
_TTLS: Final = (64, 64, 64, 1, 2, 255)
_TCP, _UDP, _ICMP, _ICMP6, _SCTP, _GRE = 6, 17, 1, 58, 132, 47
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60


class Origin(Enum):
    """The place that sends a packet."""

    CLIENT = "client"
    SERVER = "server"
    ROUTER = "router"
    BRIDGE_CLIENT = "client of the bridge"
    BRIDGE_SERVER = "server of the bridge"


@dataclass(frozen=True)
class Packet:
    """One packet: a frame with its Ethernet header, or the router's own, which begins with IP."""

    origin: Origin
    label: str
    frame: bytes


def packets(chance: random.Random, run: int, count: int, *, bridges: bool = False) -> list[Packet]:
    """Random packets, at least one of each kind, at least ``count`` of them."""
    return list(_Generator(chance, run, bridges=bridges).packets(count))


class _Generator:
    def __init__(self, chance: random.Random, run: int, *, bridges: bool) -> None:
        self._chance = chance
        self._flow = 0
        self._run = run
        self._fragments = 0
        self._identifiers = 0
        self._bridges = bridges
        self._origins = [Origin.CLIENT] * 6 + [Origin.SERVER] * 2 + [Origin.ROUTER] * 2
        if bridges:
            self._origins += [Origin.BRIDGE_CLIENT] * 2 + [Origin.BRIDGE_SERVER]

    def packets(self, count: int) -> Iterator[Packet]:
        kinds: list[Callable[[], list[Packet]]] = [
            self._udp,
            self._tcp,
            self._ping,
            self._fragmented,
            self._with_options,
            self._with_extensions,
            self._short,
            self._other_protocol,
            self._arp,
            self._vlan,
            self._icmp_error,
            self._conversation,
        ]
        self._chance.shuffle(kinds)
        made = 0
        for number, kind in enumerate(iter(lambda: self._chance.choice(kinds), None)):
            if number >= len(kinds) and made >= count:
                return
            new = (kinds[number] if number < len(kinds) else kind)()
            made += len(new)
            yield from new

    # one or more packets of a kind

    def _udp(self) -> list[Packet]:
        ends = self._ends(origin := self._origin())
        return self._sent(origin, "UDP", ends, _UDP, self._datagram(ends))

    def _tcp(self) -> list[Packet]:
        ends = self._ends(origin := self._origin())
        return self._sent(origin, "TCP", ends, _TCP, self._segment(ends))

    def _conversation(self) -> list[Packet]:
        """Datagrams there and back: to connection tracking a connection."""
        there = self._ends(Origin.CLIENT, through=True)
        back = Ends(there.target, there.source)
        port, dport = self._port(), self._chance.choice(PORTS)
        one = self._datagram(there, port, dport)
        two = self._datagram(back, dport, port)
        return [
            packet
            for _ in range(2)
            for packet in (
                *self._sent(Origin.CLIENT, "UDP, there", there, _UDP, one),
                *self._sent(Origin.SERVER, BACK, back, _UDP, two),
            )
        ]

    def _ping(self) -> list[Packet]:
        ends = self._ends(origin := self._origin())
        return self._sent(origin, "echo request", ends, *self._echo(ends))

    def _icmp_error(self) -> list[Packet]:
        """An ICMP error about a packet that was never sent."""
        ends = self._ends(origin := self._origin())
        inner = Ends(ends.target, ends.source)
        about = self._ip(inner, _UDP, self._datagram(inner))[:64]
        kind, code = (1, 4) if ends.version == 6 else (3, self._chance.choice((1, 3)))
        body = struct.pack("!BBHI", kind, code, 0, 0) + about
        return self._sent(origin, "ICMP error", ends, *self._icmp(ends, body))

    def _fragmented(self) -> list[Packet]:
        ends = self._ends(origin := self._origin_with_frames())
        payload = self._datagram(ends, size=self._chance.choice((100, 600)))
        parts = self._fragments_of(ends, _UDP, payload)
        if self._chance.random() < 0.3:
            del parts[self._chance.randrange(len(parts))]
        elif self._chance.random() < 0.3:
            parts.reverse()
        return [Packet(origin, "fragment", self._framed(origin, ends, part)) for part in parts]

    def _with_options(self) -> list[Packet]:
        ends = self._ends(origin := self._origin_with_frames(), version=4)
        options = self._chance.choice(IP_OPTIONS)
        options += bytes(-len(options) % 4)
        packet = self._ip4(ends, _UDP, self._datagram(ends), options=options)
        return [Packet(origin, "IP options", self._framed(origin, ends, packet))]

    def _with_extensions(self) -> list[Packet]:
        ends = self._ends(origin := self._origin_with_frames(), version=6)
        chosen = self._chance.sample(
            (_HOP_BY_HOP, _DESTINATION, _ROUTING, _FRAGMENT), self._chance.randint(1, 3)
        )
        chosen.sort(key=lambda kind: kind != _HOP_BY_HOP)
        payload = self._datagram(ends)
        following = _UDP
        for kind in reversed(chosen):
            if kind == _FRAGMENT:
                payload = struct.pack("!BBHI", following, 0, 0, self._identifier()) + payload
            elif kind == _ROUTING:
                payload = struct.pack("!BBBBI", following, 0, 2, 0, 0) + payload
            else:
                payload = struct.pack("!BBBB4x", following, 0, 1, 4) + payload
            following = kind
        packet = self._ip6(ends, following, payload)
        return [Packet(origin, "IPv6 extensions", self._framed(origin, ends, packet))]

    def _short(self) -> list[Packet]:
        """A packet that ends within a header."""
        ends = self._ends(origin := self._origin_with_frames())
        if self._chance.random() < 0.5:
            protocol, payload = _TCP, self._segment(ends)[: self._chance.randrange(20)]
        else:
            protocol, payload = _UDP, self._datagram(ends)[: self._chance.randrange(8)]
        packet = self._ip(ends, protocol, payload)
        if self._chance.random() < 0.3:
            packet = packet[: self._chance.randrange(8, len(packet))]
        return [Packet(origin, "truncated", self._framed(origin, ends, packet))]

    def _other_protocol(self) -> list[Packet]:
        ends = self._ends(origin := self._origin())
        if self._chance.random() < 0.5:
            payload = struct.pack("!HHII", self._port(), self._chance.choice(PORTS), 1, 0)
            return self._sent(origin, "SCTP", ends, _SCTP, payload + bytes((3, 0, 0, 4)))
        return self._sent(origin, "GRE", ends, _GRE, struct.pack("!HH", 0, ETH_IP) + bytes(20))

    def _arp(self) -> list[Packet]:
        source, target = self._chance.choice(CLIENTS), self._chance.choice((*ROUTERS, *SERVERS))
        body = struct.pack("!HHBBH", 1, ETH_IP, 6, 4, self._chance.choice((1, 1, 2)))
        body += mac(MAC["c0"]) + address(source) + bytes(6) + address(target)
        to = self._chance.choice((BROADCAST, MAC["r1"]))
        return [Packet(Origin.CLIENT, "ARP", ethernet(to, MAC["c0"], ETH_ARP, body))]

    def _vlan(self) -> list[Packet]:
        ends = self._ends(Origin.CLIENT)
        tag = struct.pack("!HH", self._chance.choice((5, 7, 0x2005)), ethertype(ends))
        packet = self._ip(ends, _UDP, self._datagram(ends))
        frame = ethernet(MAC["r1"], MAC["c0"], ETH_VLAN, tag + packet)
        return [Packet(Origin.CLIENT, TAGGED, frame)]

    # parts of packets

    def _origin(self) -> Origin:
        return self._chance.choice(self._origins)

    def _origin_with_frames(self) -> Origin:
        return self._chance.choice([o for o in self._origins if o is not Origin.ROUTER])

    def _ends(self, origin: Origin, version: int = 0, *, through: bool = False) -> Ends:
        version = version or self._chance.choice((4, 4, 6))
        clients, servers, routers = (
            (CLIENTS6, SERVERS6, ROUTERS6) if version == 6 else (CLIENTS, SERVERS, ROUTERS)
        )
        pick = self._chance.choice
        if origin is Origin.ROUTER:
            if self._bridges and version == 4 and self._chance.random() < 0.3:
                return Ends(*BRIDGED)
            target = pick(pick((clients, servers, routers)))
            return Ends(routers[0] if target in clients else routers[1], target)
        source = pick(clients if origin in {Origin.CLIENT, Origin.BRIDGE_CLIENT} else servers)
        far = servers if origin in {Origin.CLIENT, Origin.BRIDGE_CLIENT} else clients
        if not through and self._chance.random() < 0.05:
            # what cannot be answered, or not be sent on
            unknown = UNKNOWN[version == 6]
            return Ends(unknown, pick(far)) if pick((True, False)) else Ends(source, unknown)
        return Ends(source, pick(far if through else (*far, *far, *routers)))

    def _port(self) -> int:
        self._flow += 1
        return FLOWS + self._flow

    def _identifier(self) -> int:
        self._identifiers += 1
        return self._identifiers

    def _datagram(self, ends: Ends, sport: int = 0, dport: int = 0, size: int = -1) -> bytes:
        size = self._chance.choice((0, 1, 20, 120)) if size < 0 else size
        ports = (sport or self._port(), dport or self._chance.choice(PORTS))
        payload = self._chance.randbytes(size)
        length = 8 + size
        without = struct.pack("!HHHH", *ports, length, 0) + payload
        if ends.version == 4 and self._chance.random() < 0.1:
            return without
        found = checksum(pseudo_header(ends, _UDP, length) + without) or 0xFFFF
        return without[:6] + found.to_bytes(2, "big") + payload

    def _segment(self, ends: Ends) -> bytes:
        flags = self._chance.choice(_TCP_FLAGS)
        options = self._chance.choice(TCP_OPTIONS)
        payload = b"" if flags & SYN else self._chance.randbytes(self._chance.choice((0, 12)))
        header = struct.pack(
            "!HHIIBBHHH",
            self._port(),
            self._chance.choice(PORTS),
            self._chance.getrandbits(32),
            self._chance.getrandbits(32) if flags & ACK else 0,
            (20 + len(options)) // 4 << 4,
            flags,
            self._chance.choice((512, 65535)),
            0,
            0,
        )
        segment = header + options + payload
        found = checksum(pseudo_header(ends, _TCP, len(segment)) + segment)
        return segment[:16] + found.to_bytes(2, "big") + segment[18:]

    def _echo(self, ends: Ends) -> tuple[int, bytes]:
        kind = 128 if ends.version == 6 else 8
        body = struct.pack("!BBHHH", kind, 0, 0, self._port(), 1)
        return self._icmp(ends, body + self._chance.randbytes(self._chance.choice((0, 16, 500))))

    def _icmp(self, ends: Ends, body: bytes) -> tuple[int, bytes]:
        protocol = _ICMP6 if ends.version == 6 else _ICMP
        pseudo = pseudo_header(ends, protocol, len(body)) if ends.version == 6 else b""
        return protocol, body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]

    def _ip(self, ends: Ends, protocol: int, payload: bytes) -> bytes:
        if ends.version == 6:
            return self._ip6(ends, protocol, payload)
        return self._ip4(ends, protocol, payload)

    def _ip4(
        self,
        ends: Ends,
        protocol: int,
        payload: bytes,
        *,
        options: bytes = b"",
        identifier: int = 0,
        offset: int = 0,
    ) -> bytes:
        offset = offset or self._chance.choice((0, 0x4000))
        header = struct.pack(
            "!BBHHHBBH4s4s",
            0x45 + len(options) // 4,
            self._chance.choice(_TOS),
            20 + len(options) + len(payload),
            identifier or self._identifier(),
            offset,
            self._chance.choice(_TTLS),
            protocol,
            0,
            address(ends.source),
            address(ends.target),
        )
        header += options
        return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload

    def _ip6(self, ends: Ends, following: int, payload: bytes) -> bytes:
        word = 6 << 28 | self._chance.choice(_TOS) << 20 | self._chance.choice((0, 0, 0x12345))
        header = struct.pack("!IHBB", word, len(payload), following, self._chance.choice(_TTLS))
        return header + address(ends.source) + address(ends.target) + payload

    def _fragments_of(self, ends: Ends, protocol: int, payload: bytes) -> list[bytes]:
        size = -(-len(payload) // self._chance.randint(2, 3) // 8) * 8
        self._fragments += 1
        identifier = ((self._run * 31 + self._fragments) & 0xFFFF) or 1
        parts = []
        for start in range(0, len(payload), size):
            more = start + size < len(payload)
            part = payload[start : start + size]
            if ends.version == 6:
                word = start | more
                extension = struct.pack("!BBHI", protocol, 0, word, identifier)
                parts.append(self._ip6(ends, _FRAGMENT, extension + part))
            else:
                word = start // 8 | (0x2000 if more else 0)
                parts.append(self._ip4(ends, protocol, part, identifier=identifier, offset=word))
        return parts

    def _sent(
        self, origin: Origin, label: str, ends: Ends, protocol: int, payload: bytes
    ) -> list[Packet]:
        packet = self._ip(ends, protocol, payload)
        if origin is Origin.ROUTER:
            return [Packet(origin, label, packet)]
        return [Packet(origin, label, self._framed(origin, ends, packet))]

    def _framed(self, origin: Origin, ends: Ends, packet: bytes) -> bytes:
        devices = {
            Origin.CLIENT: ("c0", "r1"),
            Origin.SERVER: ("s0", "r2"),
            Origin.BRIDGE_CLIENT: ("c1", self._chance.choice(("s1", "s1", "br0"))),
            Origin.BRIDGE_SERVER: ("s1", self._chance.choice(("c1", "c1", "br0"))),
        }
        source, target = devices[origin]
        to = BROADCAST if self._chance.random() < 0.03 else MAC[target]
        return ethernet(to, MAC[source], ethertype(ends), packet)
