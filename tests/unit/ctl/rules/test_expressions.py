# SPDX-License-Identifier: GPL-2.0
"""Expressions: compared whatever they counted, and in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.rules import expressions
from ipttctl.rules.expressions import raw_text
from tests.unit.ctl.rules.support import (
    ACCEPT,
    DROP,
    Net,
    attribute,
    counter,
    expression,
    u32,
    verdict,
)

QUOTA = {1: (5).to_bytes(8, "big"), 2: u32(0)}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ACCEPT, ACCEPT, True),
        (ACCEPT, DROP, False),
        (counter(1) + ACCEPT, counter(2) + ACCEPT, True),
        (counter(1) + ACCEPT, counter(2) + DROP, False),
        (counter(1), counter(1) + ACCEPT, False),
        (verdict(-3, "a"), verdict(-3, "b"), False),
        (
            expression("quota", {**QUOTA, 4: bytes(8)}),
            expression("quota", {**QUOTA, 4: bytes(7) + b"x"}),
            True,
        ),
        (
            expression("quota", QUOTA),
            expression("quota", {**QUOTA, 1: (6).to_bytes(8, "big")}),
            False,
        ),
    ],
)
def test_same(one: bytes, other: bytes, same: bool) -> None:
    assert expressions.same(one, other) is same


def test_words() -> None:
    data = (
        expression("meta", {1: u32(1), 2: u32(6)})
        + expression("cmp", {1: u32(1), 2: u32(0), 3: attribute(1, b"lo\0")})
        + counter(5)
        + expression("fancy\x1b", {})
        + verdict(-3, "other chain")
    )
    comment = b'\0\x05a"\nb\0'
    assert raw_text(data, comment) == (
        r"meta iifname, cmp eq 0x6c6f00, counter, fancy\x1b, immediate jump other\x20chain"
        r' comment "a\"\nb"'
    )


def test_no_words() -> None:
    assert raw_text(b"") == "no expression"
    assert raw_text(b"\x01\0\0\0") == "expressions that cannot be read"


@given(st.binary(max_size=100), st.binary(max_size=30))
def test_any_bytes_have_words(data: bytes, userdata: bytes) -> None:
    for name in ("immediate", "cmp", "lookup", "nat", "log", "match", "payload", "dynset", "range"):
        text = raw_text(attribute(1, attribute(1, name.encode()) + attribute(2, data)), userdata)
        assert text.isprintable()
    assert raw_text(data, userdata).isprintable()


RULES = {
    "tcp dport 22 accept": "meta l4proto, cmp eq 0x06, payload 2b@transport+2, cmp eq 0x0016,"
    " immediate accept",
    "ip saddr 10.0.0.0/9 drop": "payload 4b@network+12, bitwise & 0xff800000, cmp eq 0x0a000000,"
    " immediate drop",
    'ct state new limit rate 3/second log prefix "a b" group 2': "ct state, bitwise & 0x08000000,"
    ' cmp neq 0x00000000, limit 3/1s, log prefix "a b" group 2',
    "ip daddr @known update @seen { ip saddr } drop": "payload 4b@network+16, lookup @known,"
    " payload 4b@network+12, dynset update @seen, immediate drop",
    "meta mark set 5 counter name hits return": "immediate 0x05000000, meta set mark,"
    " objref hits, immediate return",
    "quota over 5 bytes reject with tcp reset": "meta l4proto, cmp eq 0x06, quota over 5 bytes,"
    " reject tcp reset",
    "quota 5 bytes drop": "quota 5 bytes, immediate drop",
    "limit rate over 3/second drop": "limit over 3/1s, immediate drop",
    "limit rate 3/second burst 9 packets drop": "limit 3/1s burst 9, immediate drop",
    "limit rate 3 bytes/second drop": "limit 3 bytes/1s, immediate drop",
    "limit rate over 3 bytes/minute burst 7 bytes": "limit over 3 bytes/60s burst 7",
    "ct original bytes 5": "ct original bytes, cmp eq 0x0500000000000000",
    "ct reply bytes 5": "ct reply bytes, cmp eq 0x0500000000000000",
    "ct mark set ct mark << 3": "ct mark, bitwise << 0x03000000, ct set mark",
    "masquerade": "masq",
    "masquerade random": "masq ...",
    "snat to 10.0.0.1": "immediate 0x0a000001, nat snat",
    "snat to 10.0.0.1 random": "immediate 0x0a000001, nat snat ...",
    "log level err": "log ...",
    "log": "log",
    "reject with icmp type host-unreachable": "reject icmp code 1",
    "fib daddr type local": "fib ..., cmp eq 0x02000000",
    "ip option rr exists": "exthdr ..., cmp eq 0x01",
    "update @seen { ip saddr timeout 5s }": "payload 4b@network+12, dynset update @seen ...",
    "notrack": "notrack",
}


def test_what_the_words_do_not_tell() -> None:
    info = {1: b"tcp\0", 2: u32(0), 3: b"\0\x16"}
    assert raw_text(expression("match", info)) == "match tcp ..."
    assert raw_text(expression("target", {**info, 3: bytes(8)})) == "target tcp ..."
    assert raw_text(expression("target", {1: b"TRACE\0", 2: u32(0), 3: b""})) == "target TRACE"
    comment = {1: b"comment\0", 2: u32(0), 3: b"x\0"}
    assert raw_text(expression("match", comment)) == 'match comment "x"'
    queue = {1: b"\0\3", 2: b"\0\1", 3: b"\0\0"}
    assert raw_text(expression("queue", queue)) == "queue 3"
    assert raw_text(expression("queue", {**queue, 3: b"\0\1"})) == "queue 3 ..."
    assert raw_text(expression("queue", {**queue, 2: b"\0\4"})) == "queue 3 ..."
    assert raw_text(expression("fancy", {1: b"\1"})) == "fancy ..."
    assert raw_text(counter(5) + expression("connlimit", {1: u32(5), 2: u32(1)})) == (
        "counter, connlimit ..."
    )


def test_words_of_real_rules(net: Net) -> None:
    from ipttctl.rules.netlink import Asking  # noqa: PLC0415 - beside what it is for

    net.nft(
        "table ip t { set known { type ipv4_addr; }\n counter hits { }\n"
        "set seen { type ipv4_addr; flags dynamic, timeout; size 9; }\n"
        f"chain c {{\n{chr(10).join(RULES)}\n }}\n }}"
    )
    with Asking(net.fd) as asking:
        found = asking.snapshot().rules
    assert [raw_text(r.expressions, r.userdata) for r in found] == list(RULES.values())
