# SPDX-License-Identifier: GPL-2.0
"""Rules of iptables-nft, told apart from those that iptables could not say."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.rules.messages import BaseHook, RawChain, RawRule
from ipttctl.rules.netlink import Asking, Snapshot
from ipttctl.rules.origin import Syntax, of_iptables, syntaxes
from tests.unit.ctl.rules.support import Net, attribute, counter, expression, u32

INPUT = RawChain(2, "filter", "INPUT", 1, BaseHook(1, 0), "filter")
USER = RawChain(2, "filter", "mine", 2, None, "")


@pytest.mark.parametrize(
    ("family", "table", "chains", "expected"),
    [
        (2, "filter", [INPUT, USER], True),
        (10, "filter", [INPUT], True),
        (1, "filter", [INPUT], False),
        (2, "other", [INPUT], False),
        (2, "filter", [USER], False),
        (2, "filter", [], False),
        (2, "filter", [INPUT, INPUT._replace(name="input")], False),
        (2, "filter", [INPUT._replace(hook=BaseHook(1, 5))], False),
        (2, "raw", [INPUT._replace(name="PREROUTING", hook=BaseHook(0, -300))], True),
    ],
)
def test_tables(family: int, table: str, chains: list[RawChain], expected: bool) -> None:
    assert of_iptables(family, table, chains) is expected


def snapshot(net: Net) -> Snapshot:
    with Asking(net.fd) as asking:
        return asking.snapshot()


def best(net: Net, raw: RawRule) -> Syntax:
    chains = [c for c in snapshot(net).chains if (c.family, c.table) == (raw.family, raw.table)]
    iptables = of_iptables(raw.family, raw.table, chains)
    return syntaxes(raw.family, raw.expressions, of_iptables=iptables)[0]


IPTABLES = [
    "-j ACCEPT",
    "-i eth+",
    "-s 10.1.2.3 ! -d 10.0.0.0/9 -j DROP",
    "-s 10.0.0.0/8 -p tcp --dport 22 ! --sport 1:5 -j ACCEPT",
    "-p tcp --syn -j REJECT",
    "! -p udp -j RETURN",
    "-p udp --dport 53 -m comment --comment x -j ACCEPT",
    "-p icmp --icmp-type 8 -m limit --limit 3/sec -j LOG",
    "-f -j DROP",
    "-m mark --mark 1/3 -j NFLOG --nflog-group 3",
    "-m conntrack --ctstate NEW -m addrtype --dst-type LOCAL -g other",
    "-i v+x -p tcp --dport 5:1024",
    "-m limit --limit 7/day",
    "-m limit --limit 9999/day",
    "-m limit --limit 100/hour",
    "-m limit --limit 7/min",
    "-m limit --limit 3333/sec",
    "-m limit --limit 6000/sec",
    "-m limit --limit 10000/sec --limit-burst 9",
    "! -f -j DROP",
    "-p tcp -m multiport --dports 1,2 -m tos --tos 4 -j other",
]
NFT = [
    "counter ip length 100 accept",
    "counter tcp dport { 22, 80 } accept",
    "tcp dport 22 accept",
    "th dport 22 counter accept",
    "ip frag-off & 0x4000 != 0 counter drop",
    "ip saddr 10.0.0.1 ip saddr 10.0.0.2 counter drop",
    "meta mark > 5 counter drop",
    "meta mark 1-5 counter drop",
    "tcp dport & 0xff == 1 counter drop",
    'counter log prefix "x"',
    'counter accept comment "more" ',
    "ct state new counter accept",
    "meta length 5 counter accept",
    "limit rate over 3/second counter drop",
    "limit rate 3 kbytes/second counter drop",
    "counter counter drop",
    "counter meta mark set 5",
    "counter meta l4proto != 6 tcp flags syn",
    "counter jump other",
    "sctp dport 5 counter",
    "counter reject",
    "ip protocol 0 counter accept",
    "ip protocol != 0 counter accept",
    "ip frag-off & 0x1fff == 5 counter accept",
    "ip frag-off & 0x1fff != 5 counter accept",
    "ip protocol tcp tcp dport != 0-65535 counter accept",
    "ip protocol tcp tcp dport 0-65535 counter accept",
    "ip saddr & 255.0.0.0 == 10.1.0.0 counter accept",
    "limit rate 1001/second counter accept",
    "limit rate 6000/second counter accept",
    "limit rate 20000/second counter accept",
    "limit rate 3/week counter accept",
    'iifname "v+" counter accept',
    'iifname != "v+" counter accept',
    'iifname "v -j DROP" counter accept',
]
NFT_OF_ARP = ["arp htype != 1", "arp hlen != 6", "arp plen != 4", "arp hlen 7", "arp htype 0"]


def test_rules_of_iptables(net: Net) -> None:
    net.iptables("-N other")
    for rule in IPTABLES:
        net.iptables(f"-A INPUT {rule}")
    found = [rule for rule in snapshot(net).rules if rule.chain == "INPUT"]
    assert [best(net, rule) for rule in found] == [Syntax.IPTABLES] * len(IPTABLES)
    # they are listed as they were given, in other words here and there
    listed = net.run("iptables-nft", "-S", "INPUT").splitlines()[1:]
    assert len(listed) == len(IPTABLES)


def test_rules_that_iptables_cannot_say(net: Net) -> None:
    net.iptables("-N other")
    net.iptables("-P OUTPUT ACCEPT")
    for rule in NFT:
        net.nft(f"add rule ip filter OUTPUT {rule}")
    best_of = {text: best(net, raw) for text, raw in zip(NFT, snapshot(net).rules, strict=True)}
    sayable = {text for text, syntax in best_of.items() if syntax is Syntax.IPTABLES}
    # the same as iptables itself would have written it
    assert sayable == {"counter jump other", 'counter accept comment "more" '}


def test_rules_that_arptables_cannot_say(net: Net) -> None:
    net.iptables("-P OUTPUT ACCEPT", "arptables-nft")
    for rule in NFT_OF_ARP:
        net.nft(f"add rule arp filter OUTPUT {rule} counter accept")
    assert [best(net, rule) for rule in snapshot(net).rules] == [Syntax.NFT] * len(NFT_OF_ARP)


def comparison(operator: int, value: bytes) -> bytes:
    return expression("cmp", {1: u32(1), 2: u32(operator), 3: attribute(1, value)})


@pytest.mark.parametrize(
    ("name", "sayable"),
    [
        (b"lo\0", True),
        (b"lo".ljust(16, b"\0"), True),
        (b"v", True),
        (b"v+", True),
        (b"v+\0", False),
        (b"v\0x", False),
        (b"v" * 17, False),
        (b"\0", False),
    ],
)
def test_names_of_devices(name: bytes, sayable: bool) -> None:
    load = expression("meta", {1: u32(1), 2: u32(6)})
    data = load + comparison(0, name) + counter(0)
    assert (syntaxes(2, data, of_iptables=True)[0] is Syntax.IPTABLES) is sayable


@pytest.mark.parametrize(
    ("low", "high", "sayable"),
    [(5, 9, True), (5, 5, True), (9, 5, False), (0, 65535, False), (0, 65534, True)],
)
def test_ranges_of_ports(low: int, high: int, sayable: bool) -> None:
    tcp = expression("meta", {1: u32(1), 2: u32(16)}) + comparison(0, b"\x06")
    port = expression("payload", {1: u32(1), 2: u32(2), 3: u32(2), 4: u32(2)})
    ends = low.to_bytes(2, "big"), high.to_bytes(2, "big")
    between = expression("range", {2: u32(0), 3: attribute(1, ends[0]), 4: attribute(1, ends[1])})
    for compared in (comparison(5, ends[0]) + comparison(3, ends[1]), between):
        data = tcp + port + compared + counter(0)
        assert (syntaxes(2, data, of_iptables=True)[0] is Syntax.IPTABLES) is sayable


def test_a_comparison_of_fewer_bytes_than_were_loaded() -> None:
    address = expression("payload", {1: u32(1), 2: u32(1), 3: u32(12), 4: u32(4)})
    for value, best_syntax in ((bytes(4), Syntax.IPTABLES), (bytes(2), Syntax.NFT)):
        data = address + comparison(0, value) + counter(0)
        assert syntaxes(2, data, of_iptables=True)[0] is best_syntax


def test_kin(net: Net) -> None:
    net.iptables("-A FORWARD -p ipv4 -s 02:00:00:00:00:01 -i eth0 -j DROP", "ebtables-nft")
    net.iptables("-A INPUT -s 10.0.0.1 -j DROP", "arptables-nft")
    net.iptables("-A INPUT -s fe80::/10 -p tcp --dport 22 -j ACCEPT", "ip6tables-nft")
    assert [best(net, rule) for rule in snapshot(net).rules] == [Syntax.IPTABLES] * 3


def test_extensions_have_no_words_in_nft(net: Net) -> None:
    net.iptables("-A INPUT -m tos --tos 4 -j ACCEPT")
    (raw,) = snapshot(net).rules
    assert syntaxes(2, raw.expressions, of_iptables=False) == (Syntax.RAW,)


@given(st.binary(max_size=60), st.sampled_from(["meta", "payload", "cmp", "bitwise", "immediate"]))
def test_any_bytes(data: bytes, name: str) -> None:
    rule = attribute(1, attribute(1, name.encode()) + attribute(2, data)) + counter(0)
    assert syntaxes(2, rule, of_iptables=True)[-1] is Syntax.RAW
    with suppress(AssertionError):
        assert syntaxes(2, data, of_iptables=True)[-1] is Syntax.RAW
    assert syntaxes(2, expression("unknown", {}), of_iptables=True) == (Syntax.NFT, Syntax.RAW)
