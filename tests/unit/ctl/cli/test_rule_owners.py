# SPDX-License-Identifier: GPL-2.0
"""Owners of the rules of events: a packet's jumps name the chains that it comes to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.cli import rule_texts
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.escape import escape
from ipttctl.link.controller import Controller
from ipttctl.rules.origin import Syntax
from ipttctl.rules.rulesets import RuleKey, RuleText
from ipttctl.show.rule import Rule
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Kind
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import NFT_JUMP, FakeModule, chain_event

SERVICE = "KUBE-SVC-AAAAAAAAAAAAAAAA"
ENDPOINT = "KUBE-SEP-SXIVWICOYRO3J4NJ"
#: rules by their handles
RULES = {
    1: (SERVICE, f'-A {SERVICE} -m comment --comment "ns/web -> 10.0.0.1:80" -j {ENDPOINT}'),
    2: (ENDPOINT, f"-A {ENDPOINT} -p tcp -j DNAT --to-destination 10.0.0.1:80"),
    3: ("input", "-A input -j DROP"),
}
#: the whole name of the table of rule 3
LONG_TABLE = "nm-shared-" + "x" * 30


class FakeRulesets:
    """The rules above, in every generation of every namespace."""

    def start(self) -> None:
        """Do nothing: all is known."""

    def follow(self, cookie: int, namespace: int, count: object) -> None:
        """Do nothing: all are known."""

    def followed(self, cookie: int) -> bool:
        """All are."""
        return cookie > 0

    def text(self, key: RuleKey) -> RuleText:
        """The rule of a handle."""
        chain, text = RULES[key.rule]
        table = LONG_TABLE if key.rule == 3 else ""
        return RuleText(
            escape(text), certain=True, syntax=Syntax.IPTABLES, chain=chain, table=table
        )

    def lost_name(self, cookie: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def texts(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuleTexts]:
    monkeypatch.setattr(rule_texts, "Rulesets", FakeRulesets)
    with Controller(module.connect) as controller:
        yield RuleTexts(controller, NamespaceNames([]))


def rule(texts: RuleTexts, handle: int, **changes: Any) -> Rule | None:
    """The rule of an event: 1 jumps to the chain of 2."""
    target = {"verdict": NFT_JUMP, "target": ENDPOINT.encode()} if handle == 1 else {"target": b""}
    fields = {"family": 2, "table": b"nat", "rule_handle": handle, **target, **changes}
    [found] = texts.of([record(**chain_event(**fields))])
    return found


def about(texts: RuleTexts, **changes: Any) -> str | None:
    found = rule(texts, 2, **changes)
    assert found is not None
    assert found.owner == "kube-proxy"
    return found.about


def test_a_chain_is_about_what_the_jump_of_a_packet_says(texts: RuleTexts) -> None:
    assert about(texts) == "an endpoint of a service"
    rule(texts, 1)
    assert about(texts) == "service ns/web, endpoint 10.0.0.1:80"
    # elsewhere, and in another ruleset, the chain may be about something else
    for other in ({"netns_cookie": 9}, {"ruleset": 8}, {"table": b"other"}):
        assert about(texts, **other) == "an endpoint of a service"
    assert about(texts) == "service ns/web, endpoint 10.0.0.1:80"


def test_the_name_of_a_table_that_events_cut(texts: RuleTexts) -> None:
    found = rule(texts, 3, table=LONG_TABLE[:31].encode(), chain=b"input")
    assert found is not None
    assert found.table == LONG_TABLE
    assert found.about == f"shared connection of {'x' * 30}"
    # those that are whole are in the event
    short = rule(texts, 1)
    assert short is not None
    assert short.table is None


def test_other_events_have_no_rule(texts: RuleTexts) -> None:
    for kind in (Kind.CHAIN_KNOWN, Kind.CHAIN_END, Kind.CHAIN_EXIT, Kind.KNOWN):
        assert rule(texts, 0, kind=kind) is None
