# SPDX-License-Identifier: GPL-2.0
"""Sets, maps and named objects of a random table, and words that use them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ipttctl.verify.grammar import Grammar
from ipttctl.verify.words import ALL, Vocabulary, Word, WordKind


@dataclass(frozen=True)
class Objects:
    """A table's objects as lines, and the words that use them."""

    version: int
    lines: tuple[str, ...] = ()
    matches: tuple[Word, ...] = ()
    statements: tuple[Word, ...] = ()
    verdicts: tuple[Word, ...] = ()


@dataclass(frozen=True)
class _Object:
    """A set, map or named object, with ``A`` for an address's type or value."""

    line: str
    matches: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    vocabulary: Vocabulary = Vocabulary.BUILTIN


_OBJECTS: Final = (
    _Object(
        "set hosts { type TYPE; elements = { NET1:2, NET2:3, NET1:1 }; }",
        ("IP saddr @hosts", "IP daddr != @hosts"),
    ),
    _Object(
        "set nets { type TYPE; flags interval; elements = { NET1:/24, NET2:2-NET2:3 }; }",
        ("IP saddr @nets", "IP daddr @nets"),
    ),
    _Object(
        "set ports { type inet_service; flags interval; elements = { 53, 80-100, 1000-1001 }; }",
        ("tcp dport @ports", "udp dport != @ports"),
    ),
    _Object(
        "set pairs { type TYPE . inet_service; elements = { NET2:2 . 80, NET2:3 . 53 }; }",
        ("IP daddr . tcp dport @pairs", "IP daddr . udp dport @pairs"),
    ),
    _Object(
        "set ranges { type TYPE . inet_service; flags interval;"
        " elements = { NET2:/24 . 50-100, NET1:2-NET1:3 . 1000-5000 }; }",
        ("IP daddr . tcp dport @ranges", "IP saddr . udp dport @ranges"),
    ),
    _Object(
        "set marked { type mark . iface_index; elements = { 1 . r1, 2 . r2, 0 . r1 }; }",
        ("meta mark . iif @marked",),
    ),
    _Object(
        "set old { type TYPE; flags timeout; elements = { NET1:2 timeout 2h, NET2:3 }; }",
        ("IP saddr @old", "IP daddr @old"),
    ),
    _Object(
        "set seen { type TYPE; flags dynamic,timeout; timeout 1h; size 3; }",
        ("IP saddr @seen", "IP daddr @seen"),
        ("add @seen { IP saddr }", "update @seen { IP daddr timeout 2h }"),
    ),
    _Object(
        "set flows { type TYPE . inet_service; flags dynamic; size 20; }",
        ("IP saddr . udp sport @flows",),
        ("add @flows { IP saddr . udp sport }", "delete @flows { IP saddr . udp sport }"),
    ),
    _Object(
        "set counted { type TYPE; flags dynamic; counter; size 100; }",
        ("IP saddr @counted",),
        ("update @counted { IP saddr }", "add @counted { IP daddr counter }"),
    ),
    _Object(
        "map marks { type inet_service : mark; elements = { 53 : 1, 80 : 2, 1000 : 3 }; }",
        (),
        ("meta mark set udp dport map @marks", "meta mark set tcp dport map @marks"),
    ),
    _Object(
        "map zones { type TYPE : mark; flags interval;"
        " elements = { NET1:/24 : 1, NET2:/24 : 2 }; }",
        (),
        ("meta mark set IP saddr map @zones", "meta mark set IP daddr map @zones"),
    ),
    _Object(
        "map learned { type TYPE : mark; flags dynamic,timeout; timeout 1h; size 10; }",
        (),
        ("update @learned { IP saddr : meta mark }", "meta mark set IP saddr map @learned"),
    ),
    _Object(
        "counter one { }\ncounter two { }",
        (),
        ('counter name "one"', 'counter name udp dport map { 53 : "one", 80 : "two" }'),
    ),
    _Object(
        "counter three { }\nmap objects { type TYPE : counter;"
        ' elements = { NET1:2 : "three", NET2:2 : "three" }; }',
        (),
        ("counter name IP saddr map @objects",),
    ),
    _Object(
        "quota some { over 500 bytes }\nquota rest { until 700 bytes }",
        ('quota name "some"', 'quota name "rest"'),
        (),
        Vocabulary.FULL,
    ),
    _Object(
        "limit few { rate 1/day burst 3 packets }",
        ('limit name "few"',),
        (),
        Vocabulary.FULL,
    ),
    _Object(
        "set limited { type TYPE; flags dynamic; size 100; }",
        (
            "add @limited { IP saddr limit rate 1/day burst 2 packets }",
            "update @limited { IP saddr quota over 300 bytes }",
        ),
        (),
        Vocabulary.FULL,
    ),
)

_IPTABLES: Final = (
    "-p tcp -m tcp --dport 80 -j ACCEPT",
    "-m conntrack --ctstate NEW,RELATED -m comment --comment new -j one",
    "-p udp -m multiport --dports 53,80,1000:1002 -j two",
    "-m mark --mark 0x1/0x1 -j two",
    "-j MARK --set-xmark 0x2/0x3",
    "-j CONNMARK --set-xmark 0x1/0xff",
    "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff",
    "-m length --length 40:200 -g two",
    "-m pkttype --pkt-type unicast",
    "-m statistic --mode nth --every 3 --packet 0 -j one",
    "-m u32 --u32 0x0&0xff=0x0:0x40",
    "-m string --algo bm --string abc",
    "-p tcp -m tcpmss --mss 500:1460",
    "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1000",
    "-m limit --limit 1/day --limit-burst 3 -j one",
    "-m quota --quota 500 -j RETURN",
    "-m addrtype --dst-type LOCAL",
    "-m connbytes --connbytes 1: --connbytes-dir both --connbytes-mode packets",
    "-m cpu --cpu 1000 -j DROP",
    "-j NFLOG --nflog-group 1 --nflog-prefix xt",
    "-j CLASSIFY --set-class 1:2",
    "-m dscp --dscp 0x08",
    "-p tcp -m tcp --dport 443 -j REJECT --reject-with tcp-reset",
    "-p udp -m udp --dport 5000 -j DROP",
    "-m recent --name seen --set",
    "-j TRACE",
)
"""Rules for FORWARD, INPUT and OUTPUT, for both programs."""


_LEAVING: Final = ("TCPMSS", "CLASSIFY")
"""Targets for packets that leave again."""


def objects(
    chance: random.Random, grammar: Grammar, family: str, version: int, regular: Sequence[str]
) -> Objects:
    """Random sets, maps and objects of a table."""
    if family == "arp":
        return Objects(version)
    known = [
        candidate
        for candidate in _OBJECTS
        if candidate.vocabulary is Vocabulary.BUILTIN or grammar.vocabulary is Vocabulary.FULL
    ]
    chosen = chance.sample(known, chance.randint(1, 7))
    lines = [_versioned(line, version) for c in chosen for line in c.line.split("\n")]
    verdicts: tuple[Word, ...] = ()
    if chance.random() < 0.7:
        target = f"jump {regular[-1]}" if regular else "continue"
        lines.append(
            "map ways { type inet_service : verdict; flags interval;"
            f" elements = {{ 53 : continue, 80-100 : {target}, 443 : return, 1001 : accept }}; }}"
        )
        verdicts = tuple(Word(f"{name} dport vmap @ways", ALL) for name in ("tcp", "udp", "th"))
    return Objects(
        version,
        tuple(lines),
        tuple(Word(_versioned(text, version), ALL) for c in chosen for text in c.matches),
        tuple(
            Word(_versioned(text, version), ALL, WordKind.STATEMENT)
            for c in chosen
            for text in c.statements
        ),
        verdicts,
    )


def _versioned(text: str, version: int) -> str:
    """A text for one IP version."""
    if version == 4:
        values = ("ipv4_addr", "ip", "10.77.1.0/24", "10.77.2.0/24", "10.77.1.", "10.77.2.")
    else:
        values = ("ipv6_addr", "ip6", "fd77:1::/64", "fd77:2::/64", "fd77:1::", "fd77:2::")
    names = ("TYPE", "IP", "NET1:/24", "NET2:/24", "NET1:", "NET2:")
    for name, value in zip(names, values, strict=True):
        text = text.replace(name, value)
    return text


def verdict_maps(
    chance: random.Random, family: str, version: int, later: Sequence[str]
) -> list[Word]:
    """Maps to verdicts within a rule, whose jumps lead to the chains ``later``."""
    targets = [f"{verb} {name}" for verb in ("jump", "goto") for name in later]

    def verdict() -> str:
        return chance.choice(("accept", "continue", "return", "continue", *targets))

    if family == "arp":
        maps = [f"arp operation vmap {{ request : {verdict()}, reply : {verdict()} }}"]
    else:
        protocol = chance.choice(("tcp", "udp", "th"))
        address = _versioned("IP saddr", version)
        one, two = (_versioned(text, version) for text in ("NET1:2", "NET2:/24"))
        maps = [
            f"{protocol} dport vmap {{ 80 : {verdict()}, 53 : {verdict()}, 1000 : {verdict()} }}",
            f"{protocol} dport vmap {{ 50-100 : {verdict()}, 443-1002 : {verdict()} }}",
            f"meta mark vmap {{ 0 : {verdict()}, 1 : {verdict()}, 2 : drop }}",
            f'iifname vmap {{ "r1" : {verdict()}, "r2" : {verdict()} }}',
            f"meta l4proto vmap {{ tcp : {verdict()}, udp : {verdict()} }}",
            f"{address} vmap {{ {one} : {verdict()}, {two} : {verdict()} }}",
            f"{address} . meta l4proto vmap {{ {one} . udp : {verdict()}, {one} . 6 : drop }}",
        ]
    return [Word(text, ALL) for text in maps]


def iptables_lines(chance: random.Random, grammar: Grammar) -> tuple[str, str]:
    """Input for iptables-nft-restore and ip6tables-nft-restore, mostly empty."""
    if not grammar.iptables or chance.random() < 0.7:
        return "", ""
    return _restored(chance, grammar), _restored(chance, grammar)


def _restored(chance: random.Random, grammar: Grammar) -> str:
    anywhere = [rule for rule in grammar.iptables if not any(name in rule for name in _LEAVING)]
    lines = ["*filter", ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", ":one -", ":two -"]
    for chain in ("FORWARD", "INPUT", "OUTPUT"):
        rules = grammar.iptables if chain == "FORWARD" else anywhere
        lines += (f"-A {chain} {chance.choice(rules)}" for _ in range(5))
    # nothing that jumps, which could be a loop
    plain = [rule for rule in anywhere if "one" not in rule and "two" not in rule]
    lines += (f"-A {chain} {chance.choice(plain)}" for chain in ("one", "two", "two"))
    return "\n".join((*lines, "COMMIT", ""))


def iptables_rules() -> tuple[str, ...]:
    """All rules that ``iptables_lines`` chooses from."""
    return _IPTABLES
