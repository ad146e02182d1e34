# SPDX-License-Identifier: GPL-2.0
"""Netfilter hooks by name."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from ipttctl.errors import UsageError
from ipttctl.families import (
    BRIDGE_PRIORITIES,
    FAMILY_NAMES,
    HOOKS,
    PRIORITIES,
    NfFamily,
    family_name,
    hook_name,
    nft_family_name,
    parse_priority,
    priority_name,
)
from ipttctl.hooks.nf import NfHook
from ipttproto import Hook, LinkFlag, NfMode

UAPI = Path("/usr/include/linux")


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("nf:inet4/local_out", NfHook(NfFamily.IPV4, 3)),
        ("nf:ip/output@raw", NfHook(NfFamily.IPV4, 3, -300)),
        ("nf:ipv6/pre_routing@-7", NfHook(NfFamily.IPV6, 0, -7)),
        ("nf:inet/ingress@last", NfHook(NfFamily.INET, 5, (1 << 31) - 1)),
        ("nf:netdev/ingress@first", NfHook(NfFamily.NETDEV, 0, -(1 << 31))),
        ("nf:arp/out", NfHook(NfFamily.ARP, 1)),
        ("nf:bridge/forward@filter", NfHook(NfFamily.BRIDGE, 2, -200)),
    ],
)
def test_names_become_numbers(text: str, hook: NfHook) -> None:
    assert NfHook.parse(text) == hook


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("table", "is not a netfilter hook; write nf:FAMILY/HOOK"),
        ("nf:ipv4", "is not a netfilter hook"),
        ("nf:ipx/output", "no family 'ipx'; use one of inet, inet4"),
        ("nf:arp/output", "family arp has no hook 'output'; use one of in, out, forward"),
        ("nf:netdev/egress", "has no hook 'egress'"),
        ("nf:ip/output@soon", "'soon' is not a priority; give a number"),
        ("nf:ip/output@2147483648", "is not a priority"),
        ("nf:bridge/output@raw", "'raw' is not a priority"),
        ("nf:ip/output@", "is not a netfilter hook"),
    ],
)
def test_names_that_mean_nothing(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=re.escape(sentence)):
        NfHook.parse(text)


def test_numbers_become_names() -> None:
    assert [family_name(family) for family in NfFamily] == [
        "inet", "inet4", "arp", "netdev", "bridge", "inet6",
    ]  # fmt: skip  # a line a list
    for family in HOOKS:
        for name, number in HOOKS[family].items():
            assert hook_name(family, number) == name
            without = NfHook.parse(f"nf:{family_name(family)}/{name}")
            assert without == NfHook(family, number, parse_priority(family, "filter"))
    assert (family_name(99), hook_name(2, 99), hook_name(99, 1)) == ("99", "99", "1")
    # hooks at which only chains of nftables are
    assert (hook_name(5, 1), hook_name(2, 5), hook_name(10, 5)) == ("egress", "ingress", "ingress")
    assert [nft_family_name(family) for family in (*NfFamily, 99)] == [
        "inet", "ip", "arp", "netdev", "bridge", "ip6", "99",
    ]  # fmt: skip  # a line a list
    assert (priority_name(2, -300), priority_name(7, -300)) == ("raw", "dstnat")
    assert priority_name(2, -299) == "-299"


def header_enum(header: str, prefix: str) -> dict[str, int]:
    """The members of an enumeration of the kernel's headers, by their names after ``prefix``."""
    text = (UAPI / header).read_text()
    numbers = {"INT_MIN": -(1 << 31), "INT_MAX": (1 << 31) - 1}
    found = {}
    for name, value in re.findall(rf"\b{prefix}(\w+)\s*=\s*(-?\w+)", text):
        found[name.lower()] = numbers[value] if value in numbers else int(value)
    return found


def test_priorities_are_the_kernels() -> None:
    ipv4 = header_enum("netfilter_ipv4.h", "NF_IP_PRI_")
    ipv4 |= {"dstnat": ipv4.pop("nat_dst"), "srcnat": ipv4.pop("nat_src")}
    assert ipv4 == PRIORITIES
    bridge = header_enum("netfilter_bridge.h", "NF_BR_PRI_")
    assert dict(BRIDGE_PRIORITIES) == {
        "first": bridge["first"],
        "dstnat": bridge["nat_dst_bridged"],
        "filter": bridge["filter_bridged"],
        "brnf": bridge["brnf"],
        "out": bridge["nat_dst_other"],
        "srcnat": bridge["nat_src"],
        "last": bridge["last"],
    }


def test_request_says_where() -> None:
    hook = NfHook(NfFamily.ARP, 1, -5, mode=NfMode.FILTER, report_drops=True)
    with ExitStack() as opened:
        asked = hook.request(opened)
        assert "flags" not in NfHook(NfFamily.ARP, 1).request(opened)
    assert asked == {
        "hook": Hook.NF,
        "family": 3,
        "hooknum": 1,
        "priority": -5,
        "mode": NfMode.FILTER,
        "flags": LinkFlag.REPORT_DROPS,
    }


def test_namespaces_by_path_and_descriptor() -> None:
    own = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - as below

    def opened(netns: int | str | None) -> int | None:
        request = NfHook(NfFamily.IPV4, 0, netns=netns).request(stack)
        return request.get("netns-fd")

    with ExitStack() as stack:
        first = opened("/proc/self/ns/net")
        assert first is not None
        again = opened(first)
        assert again is not None
        assert again != first
        assert os.fstat(first).st_ino == os.fstat(again).st_ino == own
        assert opened(None) is None
        with pytest.raises(UsageError, match="namespace /nowhere cannot be opened"):
            opened("/nowhere")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)


def test_every_family_has_a_name_and_hooks() -> None:
    assert set(FAMILY_NAMES.values()) == set(NfFamily) == set(HOOKS)
