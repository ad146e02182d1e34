# SPDX-License-Identifier: GPL-2.0
"""The spine: hooks by name, and what their events say."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from ipttctl.errors import UsageError
from ipttctl.events import describe
from ipttctl.events.filter import HookPattern
from ipttctl.families import NfFamily
from ipttctl.hooks import HookOptions, chosen, event_pattern, from_attributes
from ipttctl.hooks.spine import SpineHook
from ipttctl.show.event_text import decision
from ipttctl.show.render_json import event_object
from ipttctl.system.netns import Identity
from ipttproto import ArpHook, Conntrack, EventFlag, Gone, Hook, InetHook, Kind, NetdevHook
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import spine_event

DROP, ACCEPT, STOLEN, QUEUE = range(4)
IPV4, IPV6 = NfFamily.IPV4, NfFamily.IPV6


@pytest.mark.parametrize(
    ("text", "hook"),
    [
        ("spine", SpineHook()),
        ("spine:inet", SpineHook(NfFamily.INET)),
        ("spine:inet/forward", SpineHook(NfFamily.INET, InetHook.FORWARD)),
        ("spine:inet4/prerouting", SpineHook(IPV4, InetHook.PREROUTING)),
        ("spine:inet6", SpineHook(IPV6)),
        ("spine:arp/out", SpineHook(NfFamily.ARP, ArpHook.OUT)),
        ("spine:netdev/ingress", SpineHook(NfFamily.NETDEV, NetdevHook.INGRESS)),
        ("spine:netdev/egress", SpineHook(NfFamily.NETDEV, NetdevHook.EGRESS)),
        ("spine:bridge/output", SpineHook(NfFamily.BRIDGE, InetHook.OUTPUT)),
    ],
)
def test_texts_and_hooks(text: str, hook: SpineHook) -> None:
    assert SpineHook.parse(text) == hook
    assert str(hook) == text
    # and as the module reports it
    request = hook.request(ExitStack())
    assert request["hook"] == Hook.SPINE
    assert from_attributes(request | {"armed": 16}) == SpineHook(hook.family, hook.hook, armed=True)


def test_other_names_of_hooks() -> None:
    assert SpineHook.parse("spine:ip/local_in") == SpineHook(IPV4, InetHook.INPUT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spine:", "does not name the spine"),
        ("spine:inet4/", "does not name the spine"),
        ("spine:inet4/output/x", "does not name the spine"),
        ("spine:ipx", "there is no family 'ipx'"),
        (
            "spine:inet4/ingress",
            "has no hook 'ingress' of family inet4; use one of prerouting,",
        ),
        ("spine:inet/ingress", "no hook 'ingress' of family inet;"),
        ("spine:bridge/prerouting", "no hook 'prerouting' of family bridge; use one of input,"),
        ("spine:arp/output", "no hook 'output' of family arp; use one of in, out, forward"),
    ],
)
def test_wrong_texts(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        chosen(HookOptions(hook=text))


def test_links_as_reported() -> None:
    hook = from_attributes(
        {
            "hook": Hook.SPINE,
            "family": 2,
            "hooknum": 3,
            "netns": 4026532201,
            "netns-cookie": 5,
            "gone": Gone.NETNS,
        }
    )
    assert hook == SpineHook(
        IPV4, InetHook.OUTPUT, Identity(4026532201, 5), armed=False, gone=Gone.NETNS
    )
    assert hook.identity() == (Hook.SPINE, 2, 3, 5)
    (why,) = hook.misses(7)
    assert why.startswith("link 7 sees no packets any more: its network namespace is gone")
    assert hook.values(None)["armed"] == []
    assert SpineHook().identity() == (Hook.SPINE, 0, -1, 0)
    assert list(SpineHook().misses(7)) == ["the spine is not watched"]
    # numbers that this build does not know
    strange = from_attributes({"hook": Hook.SPINE, "family": 9, "hooknum": 7, "armed": 16})
    assert strange == SpineHook(9, 7, armed=True)
    assert str(strange) == "spine:9/7"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "number=2 priority=conntrack verdict=ACCEPT ct=new ttl=64]"),
        ({"flags": EventFlag.COUNTED}, "number=2 verdict=ACCEPT ct=new ttl=64]"),
        (
            {"verdict": DROP, "verdict_data": 1, "ct_state": 0, "ttl": 0, "tos": 0},
            "verdict=DROP(EPERM)]",
        ),
        # NF_DROP_REASON: the function freed the packet itself
        ({"verdict": STOLEN, "verdict_data": 1, "ct_state": 0, "ttl": 0}, "verdict=DROP(EPERM)]"),
        ({"verdict": STOLEN, "ct_state": 0, "ttl": 0}, "verdict=STOLEN]"),
        (
            {"verdict": QUEUE, "verdict_data": 3, "flags": EventFlag.QUEUE_BYPASS, "ttl": 0},
            "number=2 verdict=QUEUE(3,bypass) ct=new]",
        ),
        (
            {"ct_state": Conntrack.REPLY, "ct_mark": 5, "ct_zone": 2, "mark": 7, "tos": 0xB8},
            "ct=reply ct-mark=0x5 ct-zone=2 mark=0x7 ttl=64 tos=0xb8]",
        ),
        ({"skb_priority": 6, "ct_mark": 5, "ct_state": 0}, "ACCEPT skb-priority=6 ttl=64]"),
    ],
)
def test_functions(changes: dict[str, Any], words: str) -> None:
    text = decision(record(**spine_event(**changes)))
    start = "spine=[hook=inet4/output in= out=enp0s8 function=ipv4_conntrack_local"
    assert text.startswith(f"{start} module=nf_conntrack number=2")
    assert text.endswith(words)


def test_a_function_without_name_is_a_number() -> None:
    event = record(**spine_event(chain=b"", table=b""))
    assert "function=#12 number=2" in decision(event)
    assert event_object(event)["function"] is None
    assert "function=#? number=2" in decision(
        record(**spine_event(chain=b"", table=b"", rule_handle=0))
    )


def test_exits() -> None:
    left = {"kind": Kind.SPINE_EXIT, "rules": 5, "cost": 1500, "chain": b"", "table": b""}
    text = decision(record(**spine_event(**left)))
    assert text.replace(describe.COST, "C") == (
        "spine=[hook=inet4/output in= out=enp0s8 verdict=ACCEPT cost=C functions=5]"
    )


def test_json() -> None:
    found = event_object(record(**spine_event(tos=4)))
    assert {key: found[key] for key in ("function", "module", "function_id", "functions")} == {
        "function": "ipv4_conntrack_local",
        "module": "nf_conntrack",
        "function_id": 12,
        "functions": 2,
    }
    assert (found["priority"], found["function_number"], found["verdict"]) == (-200, 2, "ACCEPT")
    assert (found["ct_state"], found["ct_mark"], found["ct_zone"]) == ("new", 0, 0)
    assert (found["ttl"], found["tos"], found["skb_priority"]) == (64, 4, 0)
    assert found["table"] is None
    assert found["cost_ns"] is None
    freed = event_object(record(**spine_event(verdict=STOLEN, verdict_data=1, ct_state=0)))
    assert (freed["verdict"], freed["errno"], freed["ct_mark"]) == ("DROP", "EPERM", None)


def test_patterns() -> None:
    kinds = SpineHook.EVENTS
    assert event_pattern("spine") == HookPattern(kinds)
    assert event_pattern("spine:arp/in") == HookPattern(kinds, [(NfFamily.ARP, ArpHook.IN)])
    assert event_pattern("spine:inet/input") == HookPattern(
        kinds, [(IPV4, InetHook.INPUT), (IPV6, InetHook.INPUT)]
    )
    assert event_pattern("spine:netdev") == HookPattern(
        kinds, [(NfFamily.NETDEV, NetdevHook.INGRESS), (NfFamily.NETDEV, NetdevHook.EGRESS)]
    )
