# SPDX-License-Identifier: GPL-2.0
"""Interfaces of rules by their index, whatever their names are while nft lists."""

from __future__ import annotations

import pytest

from ipttctl.escape import escape
from ipttctl.rules.interfaces import by_index
from ipttctl.rules.netlink import Asking
from ipttctl.rules.origin import Syntax
from ipttctl.rules.rulesets import Rulesets
from tests.unit.ctl.rules.support import ACCEPT, Net, attribute, expression, u32
from tests.unit.ctl.rules.test_rulesets import Followed

WITH_INDEX = {
    "iif lo accept": "iif 1 accept",
    'iif lo log prefix "iif " accept': 'iif 1 log prefix "iif " accept',
    'iif != lo oif lo accept comment "of iif"': 'iif != 1 oif 1 accept comment "of iif"',
    "iif 77 drop": "iif 77 drop",
    "fib daddr . iif oif lo accept": "fib daddr . iif oif 1 accept",
    "meta sdif lo accept": "meta sdif 1 accept",
    "fib saddr . iif oif missing drop": "fib saddr . iif oif missing drop",
    'iifname "lo" accept': 'iifname "lo" accept',
}
WITHOUT = [
    "iif { lo, 77 } accept",
    "iif vmap { lo : accept }",
    "iif . oif { lo . lo } accept",
    "iif > lo accept",
    'iif lo accept comment "x iif 7 y"',
]
IIF = expression("meta", {1: u32(1), 2: u32(4)})
OTHER_REGISTER = expression("cmp", {1: u32(2), 2: u32(0), 3: attribute(1, bytes(4))})


@pytest.fixture
def followed(net: Net, rulesets: Rulesets) -> Followed:
    return Followed(net, rulesets)


def test_real_rules(net: Net) -> None:
    rules = [*WITH_INDEX, *WITHOUT]
    net.nft("table inet t { chain c {\n" + "\n".join(rules) + "\n}; }")
    with Asking(net.fd) as asking:
        found = asking.snapshot().rules
    lines = net.run("nft", "-s", "list", "chain", "inet", "t", "c").splitlines()[2:-2]
    texts = [
        by_index(escape(line.strip()), rule.expressions)
        for line, rule in zip(lines, found, strict=True)
    ]
    assert texts == [*WITH_INDEX.values(), *[None] * len(WITHOUT)]


@pytest.mark.parametrize(
    "data",
    [
        IIF,
        IIF + ACCEPT,
        IIF + OTHER_REGISTER,
        expression("fwd", {1: u32(1)}),
        expression("dup", {2: u32(1)}),
        b"\x01\0\0\0",
    ],
)
def test_indexes_elsewhere(data: bytes) -> None:
    assert by_index(escape('iif "lo"'), data) is None


def test_a_name_that_another_interface_gets(followed: Followed) -> None:
    """No generation tells of it."""
    net = followed.net
    net.iptables("link add v0 type veth peer name v1", "ip")
    net.nft("table ip t { chain c { iif v0 accept; iif { v0, v1 } drop; }; }")
    first, second = followed.key(0), followed.key(1)
    index = net.run("ip", "-o", "link", "show", "v0").partition(":")[0]
    answer = followed.text(first)
    assert (answer.text, answer.syntax) == (f"iif {index} accept", Syntax.NFT)
    assert followed.text(second).syntax is Syntax.RAW
    assert "names of interfaces" in followed.text(second).why
    net.iptables("link set v0 name w0", "ip")
    net.iptables("link set v1 name v0", "ip")
    assert followed.text(first) == answer
