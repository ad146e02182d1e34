# SPDX-License-Identifier: GPL-2.0
"""The rules that events name, of every back end, with their owners."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.cli import rule_texts
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.link.controller import Controller
from ipttctl.rules import budget
from ipttctl.rules.rulesets import RuleText
from ipttctl.show.rule import Rule
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.netns import within
from ipttproto import Command, EventFlag, Kind, parse_batch
from tests.unit.ctl.rules.support import Net
from tests.unit.ctl.support import FakeModule, batch_payload, event

GENERATION = 5


@pytest.fixture
def net() -> Iterator[Net]:
    """A namespace that can be found, since a process is in it."""
    made = Net()
    inside = within(made.fd, lambda: subprocess.Popen(["sleep", "600"]))
    try:
        yield made
    finally:
        inside.kill()
        inside.wait()
        made.close()


@pytest.fixture
def texts(module: FakeModule) -> Iterator[RuleTexts]:
    module.handlers[Command.RULESET] = lambda *_: [{"ruleset": GENERATION, "replacing": 0}]
    with (
        Controller(module.connect) as controller,
        RuleTexts(controller, NamespaceNames([])) as made,
    ):
        yield made


def record(net: Net, **changes: Any) -> EventRecord:
    """A rule of a legacy table in a namespace."""
    inode = os.fstat(net.fd).st_ino
    members = event(netns=inode, netns_cookie=net.cookie, ruleset=GENERATION, **changes)
    [found] = decode_events(parse_batch(batch_payload([members])))
    return found


def test_rules_of_legacy_tables(net: Net, texts: RuleTexts) -> None:
    net.iptables("-t nat -N DOCKER", "iptables-legacy")
    line = "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80"
    net.iptables(f"-t nat {line}", "iptables-legacy")
    net.iptables("-A INPUT -j DROP", "ip6tables-legacy")
    docker = record(net, table=b"nat", chain=b"DOCKER")
    # the kernel calls a rule that matches all packets the policy
    drop = record(net, pf=10, table=b"filter", chain=b"INPUT", kind=Kind.POLICY)
    policy = drop._replace(rulenum=2)
    raced = docker._replace(flags=EventFlag.UNCERTAIN)
    ends = docker._replace(kind=Kind.EXIT)
    found = texts.of([docker, drop, policy, raced, ends])
    assert found[0] == Rule(line, "", "iptables", "docker", "published port 8080")
    assert found[1] == Rule("-A INPUT -j DROP", "", "iptables")
    assert found[2] is found[4] is None
    assert str(found[3]) == "rule uncertain (the table was replaced while the packet passed)"


def test_the_module_does_not_count(net: Net, module: FakeModule, texts: RuleTexts) -> None:
    """Then no text is certain."""
    module.handlers[Command.RULESET] = lambda *_: []
    net.iptables("-A INPUT -j DROP", "iptables-legacy")
    one = record(net, table=b"filter", chain=b"INPUT")
    found = texts.of([one, one._replace(ruleset=0)])
    assert str(found[0]).startswith("rule uncertain (asking for the generation of table filter")
    why = "replacements of legacy tables were not counted"
    assert str(found[1]) == f"rule uncertain ({why})"


def test_patience_with_a_namespace_has_an_end(
    net: Net, texts: RuleTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "PATIENCE_BURST", 0.2)
    pending = RuleText(None, certain=False, why="not yet", pending=True)
    monkeypatch.setattr(texts._rulesets, "legacy_text", lambda _: pending)
    one = record(net, table=b"filter", chain=b"INPUT")
    start = time.monotonic()
    for _ in range(20):
        assert texts.of([one]) == [Rule(None, "not yet")]
    assert 0.2 <= time.monotonic() - start < 2.0
    # others are waited for
    assert texts._patience.left(net.cookie + 1) == 0.2


def test_what_is_known_of_a_namespace_that_has_gone(net: Net, texts: RuleTexts) -> None:
    net.iptables("-A INPUT -j DROP", "iptables-legacy")
    one = record(net, table=b"filter", chain=b"INPUT")
    found = texts.of([one])
    assert found == [Rule("-A INPUT -j DROP", "", "iptables")]
    other = one._replace(netns_cookie=net.cookie + 1_000_000)
    assert str(texts.of([other])[0]).endswith("its network namespace cannot be found any more)")
    # let go, and not found again
    texts._rulesets.release(net.cookie)
    texts._rulesets.settle(5.0, lambda: not texts._rulesets.followed(net.cookie))
    texts._missing[net.cookie] = time.monotonic() + 60.0
    assert texts.of([one]) == found


def test_missing_namespaces_are_few(
    net: Net, texts: RuleTexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule_texts, "_MOST_MISSING", 3)
    one = record(net, table=b"filter", chain=b"INPUT")
    cookies = [net.cookie + 1_000_000 + n for n in range(5)]
    for cookie in cookies:
        texts.of([one._replace(netns_cookie=cookie)])
    assert [*texts._missing] == cookies[2:]
