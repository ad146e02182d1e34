# SPDX-License-Identifier: GPL-2.0
"""Words of random rules: matches and statements in nft's syntax, and where each may stand.

Values are those of our packets, so that a match often holds. Nothing depends on time, chance or
what the kernel chooses: no IPv4 identifiers, no checksums, no random numbers; limits allow so many
packets a day.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Final

from ipttctl.verify.packets import (
    BROADCAST,
    CLIENTS,
    CLIENTS6,
    MAC,
    PORTS,
    ROUTERS,
    ROUTERS6,
    SERVERS,
    SERVERS6,
)


class Vocabulary(Enum):
    """The words that rulesets are made of."""

    BUILTIN = "builtin"
    """Those that load no kernel module: expressions that are part of nf_tables."""

    FULL = "full"
    """All, and rules of iptables-nft too."""


class WordKind(Enum):
    """The part of a rule that a word can be."""

    MATCH = "match"
    STATEMENT = "statement"
    FINAL = "final"
    """A statement that decides over the packet."""


IP4: Final = frozenset({"ip", "inet", "netdev", "bridge"})
IP6: Final = frozenset({"ip6", "inet", "netdev", "bridge"})
IP: Final = IP4 | IP6
INET: Final = frozenset({"ip", "ip6", "inet"})
ALL: Final = IP | {"arp"}

PREROUTING: Final = frozenset({"prerouting"})
RECEIVING: Final = frozenset({"prerouting", "input", "forward", "ingress"})
EVERYWHERE: Final = frozenset(
    {"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}
)

_VALUES: Final = {
    "client": CLIENTS,
    "client6": CLIENTS6,
    "server": SERVERS,
    "server6": SERVERS6,
    "address": CLIENTS + SERVERS + ROUTERS,
    "address6": CLIENTS6 + SERVERS6 + ROUTERS6,
    "port": tuple(map(str, PORTS)),
    "mark": tuple(map(str, range(4))),
    "device": ("r1", "r1", "r2"),
    "group": ("1", "2"),
    "protocol": ("tcp", "udp", "icmp", "ipv6-icmp"),
    "mac": (MAC["c0"], MAC["s0"], MAC["r1"], BROADCAST),
    "op": ("", "", "!= "),
    "compare": ("<", ">", "<=", ">=", "!="),
    "few": ("0", "1"),
    "small": ("1", "2", "3", "5"),
    "size": ("28", "60", "100", "400"),
}


_LAYERS: Final = {
    "IPv4": re.compile(r"\bip |\bicmp (type|code)|@nh,(64|72)|ipv4|10\.77"),
    "IPv6": re.compile(r"ip6 |icmpv6 (type|code)|exthdr|frag more|hbh |^dst |@nh,48|fd77|6>"),
    "nfproto": re.compile(r"nfproto"),
    "TCP": re.compile(r"\btcp (dport|flags|doff|window|option)"),
    "UDP": re.compile(r"\budp (dport|sport|length)"),
    "SCTP": re.compile(r"\bsctp dport"),
    "ICMP": re.compile(r"\bicmp (type|code)"),
    "ICMPv6": re.compile(r"\bicmpv6 (type|code)"),
    "transport": re.compile(r"@th|\bth |l4proto|ip protocol|nexthdr|ct protocol|ct original proto"),
    "link": re.compile(r"\bether "),
    "VLAN": re.compile(r"\bvlan "),
}

_SETS_OF_LAYERS: Final = (
    frozenset({"IPv4", "IPv6", "nfproto", "link", "VLAN"}),
    frozenset({"TCP", "UDP", "SCTP", "ICMP", "ICMPv6", "transport", "link", "VLAN"}),
)


def excluded(layers: frozenset[str]) -> frozenset[str]:
    """The protocols that a rule which speaks of some cannot speak of as well."""
    others = (among - layers for among in _SETS_OF_LAYERS if layers & among)
    return frozenset[str]().union(*others)


@dataclass(frozen=True)
class Word:
    """A match or statement: a template, the tables' families and the hooks where it may stand."""

    template: str
    families: frozenset[str]
    kind: WordKind = WordKind.MATCH
    vocabulary: Vocabulary = Vocabulary.BUILTIN
    hooks: frozenset[str] = EVERYWHERE
    chain_type: str = ""
    """The only type of chains that takes it; without one, all but NAT chains."""

    @cached_property
    def layers(self) -> frozenset[str]:
        """The protocols that it speaks of: a rule cannot speak of two of one layer."""
        return frozenset(name for name, found in _LAYERS.items() if found.search(self.template))

    def chosen(self, chance: random.Random) -> Word:
        """The word with values; ``<address>`` in the template is one of our addresses."""
        return replace(self, template=fill(self.template, chance))


def fill(template: str, chance: random.Random) -> str:
    """Replace the names of values in a template by values; a name twice may be two values."""
    parts = template.split("<")
    text = parts[0]
    for part in parts[1:]:
        name, found, rest = part.partition(">")
        values = _VALUES.get(name) if found else None
        # a comparison sign
        text += f"<{part}" if values is None else chance.choice(values) + rest
    return text


def _words(families: frozenset[str], *templates: str, **more: object) -> tuple[Word, ...]:
    made = (Word(template, families, **more) for template in templates)  # type: ignore[arg-type]  # Word
    return tuple(made)


_MATCHES: Final = (
    *_words(
        IP4,
        "ip saddr <op><address>",
        "ip daddr <op><address>",
        "ip saddr 10.77.1.0/24",
        "ip daddr 10.77.2.0/25",
        "ip saddr 10.77.1.2-10.77.2.3",
        "ip saddr != 10.77.1.3-10.77.1.4",
        "ip daddr & 0.0.0.3 == 2",
        "ip daddr { <address>, <address>, 10.9.9.9 }",
        "ip saddr { 10.77.1.0/31, 10.77.2.2-10.77.2.3 }",
        "ip saddr . ip daddr { <client> . <server>, <server> . <client> }",
        "ip saddr . udp dport { 10.77.1.0/24 . 1-100, <server> . <port> }",
        "ip ttl <compare> 64",
        "ip length <compare> <size>",
        "ip protocol { tcp, udp }",
        "ip protocol != icmp",
        "ip dscp { cs0, cs1 }",
        "ip dscp != ef",
        "ip hdrlength > 5",
        "ip frag-off & 0x1fff != 0",
        "ip frag-off & 0x4000 == 0x4000",
        "ip option rr exists",
        "ip option ra exists",
        "ip option lsrr missing",
        "icmp type echo-request",
        "icmp type { echo-request, echo-reply, destination-unreachable }",
        "icmp code != 0",
        "@nh,72,8 17",
        "@nh,64,8 != 0x40",
    ),
    *_words(
        IP6,
        "ip6 saddr <op><address6>",
        "ip6 daddr <op><address6>",
        "ip6 daddr fd77:2::/64",
        "ip6 saddr fd77:1::2-fd77:1::3",
        "ip6 saddr != fd77:1::3-fd77:1::4",
        "ip6 daddr & ::3 == ::2",
        "ip6 daddr { <address6>, <address6>, 2001:db8::1 }",
        "ip6 saddr { fd77:1::/126, fd77:2::2-fd77:2::3 }",
        "ip6 saddr . ip6 daddr { <client6> . <server6>, <server6> . <client6> }",
        "ip6 saddr . udp dport { fd77:1::/64 . 1-100, <server6> . <port> }",
        "ip6 hoplimit <compare> 64",
        "ip6 nexthdr { tcp, udp, ipv6-icmp }",
        "ip6 dscp != cs0",
        "ip6 flowlabel 0x12345",
        "ip6 length <compare> <size>",
        "exthdr hbh exists",
        "exthdr frag exists",
        "exthdr dst missing",
        "exthdr rt exists",
        "frag more-fragments 1",
        "hbh nexthdr != 6",
        "dst hdrlength 0",
        "icmpv6 type { echo-request, echo-reply, destination-unreachable }",
        "@nh,48,8 != 6",
    ),
    *_words(
        IP,
        "tcp dport <op><port>",
        "udp dport <op><port>",
        "th dport { <port>, <port> }",
        "tcp dport { 50-100, 1000-1002 }",
        "tcp dport != 100-999",
        "udp dport 53-999",
        "udp sport >= 20005",
        "udp length <compare> <size>",
        "tcp flags syn",
        "tcp flags & (syn | ack | rst) == syn",
        "tcp flags & (fin | rst) != 0",
        "tcp doff > 5",
        "tcp window 65535",
        "tcp option maxseg exists",
        "tcp option maxseg size > 500",
        "tcp option sack-perm missing",
        "tcp option window count 7",
        "sctp dport <port>",
        "meta l4proto <op><protocol>",
        "meta l4proto { tcp, udp }",
        "meta l4proto . th dport { tcp . <port>, udp . <port> }",
        "@th,16,16 <port>",
        "@th,0,32 & 0x0000ffff != 80",
        "meta mark <op><mark>",
        "meta mark <mark>-7",
        "meta mark != 2-3",
        "meta mark & 0x1 == 1",
        "meta mark and 0x6 != 0x2",
        "meta mark { 0, <mark>, 17 }",
        "meta length <compare> <size>",
        "meta length 40-200",
        "meta priority 0",
        'iifname "<device>"',
        'iifname { "<device>", "lo" }',
        'iifname "r*"',
        'iif "<device>"',
        "iiftype ether",
        "iifgroup 0",
        'meta iifkind "veth"',
        'oifname != "<device>"',
        'oif "<device>"',
        "oiftype ether",
        "pkttype host",
        "pkttype != broadcast",
        "meta skuid 0",
        "meta skgid >= 0",
    ),
    *_words(INET, "rt classid 0"),
    *_words(frozenset({"inet"}), "meta nfproto ipv4", "meta nfproto != ipv4"),
    *_words(
        frozenset({"ip"}),
        "rt nexthop <op><server>",
        "rt mtu > 100",
        hooks=frozenset({"forward", "output", "postrouting"}),
    ),
    *_words(
        frozenset({"ip6"}),
        "rt nexthop <op><server6>",
        hooks=frozenset({"forward", "output", "postrouting"}),
    ),
    *_words(
        frozenset({"netdev", "bridge"}),
        "ether saddr <op><mac>",
        "ether type { 0x0800, 0x86dd }",
        "ether daddr { <mac>, <mac> }",
        "vlan id { 5, 6 }",
        "vlan id != 7",
    ),
    *_words(
        frozenset({"inet", "ip", "ip6"}),
        "ether saddr <op><mac>",
        hooks=frozenset({"prerouting", "input", "forward"}),
    ),
    *_words(
        frozenset({"arp"}),
        "arp operation request",
        "arp operation != reply",
        "arp saddr ip <client>",
        "arp daddr ip { <address>, <address> }",
        "arp saddr ether != <mac>",
        "arp htype 1",
        "arp hlen 6",
        "meta mark <op><mark>",
    ),
)

_STATEMENTS: Final = (
    *_words(
        ALL,
        "meta mark set <mark>",
        "meta mark set meta mark or 0x2",
        "meta mark set meta mark and 0x5",
        "meta mark set meta mark xor 0x1",
        "meta priority set 1:<small>",
        "meta nftrace set 1",
        kind=WordKind.STATEMENT,
    ),
    *_words(
        IP,
        "meta mark set meta mark << 1",
        "meta mark set tcp dport map { 53 : 1, 80 : 2, 1000-1002 : 3 }",
        "meta mark set meta l4proto map { tcp : 1, udp : 2 }",
        "meta nftrace set 0",
        "tcp dport set <port>",
        "udp dport set <port>",
        "tcp option maxseg size set <size>",
        "@th,16,16 set 1001",
        kind=WordKind.STATEMENT,
    ),
    *_words(
        frozenset({"netdev"}),
        "meta pkttype set host",
        kind=WordKind.STATEMENT,
        hooks=frozenset({"ingress"}),
    ),
    *_words(INET | {"bridge"}, "meta pkttype set host", kind=WordKind.STATEMENT, hooks=PREROUTING),
    *_words(
        IP4,
        "ip dscp set cs1",
        "ip ttl set 60",
        "ip saddr set <client>",
        "meta mark set ip saddr map { 10.77.1.0/24 : 1, 10.77.2.0/24 : 2 }",
        kind=WordKind.STATEMENT,
    ),
    *_words(
        IP6,
        "ip6 hoplimit set 60",
        "ip6 dscp set af11",
        "ip6 saddr set <client6>",
        "meta mark set ip6 daddr map { <server6> : 1, <client6> : 2 }",
        kind=WordKind.STATEMENT,
    ),
    # elsewhere the kernel would ask for the neighbour on the wrong side
    *_words(
        frozenset({"ip", "inet"}),
        "ip daddr set <server>",
        kind=WordKind.STATEMENT,
        hooks=PREROUTING,
    ),
    *_words(
        frozenset({"ip6", "inet"}),
        "ip6 daddr set <server6>",
        kind=WordKind.STATEMENT,
        hooks=PREROUTING,
    ),
)

BUILTIN: Final = _MATCHES + _STATEMENTS


def supported(
    words: Sequence[Word], family: str, hooks: frozenset[str], chain_type: str, kind: WordKind
) -> list[Word]:
    """The words that may stand in a chain that packets reach from these hooks."""
    return [
        word
        for word in words
        if word.kind is kind
        and family in word.families
        and hooks <= word.hooks
        and word.chain_type in {"", chain_type}
    ]
