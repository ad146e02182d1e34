# SPDX-License-Identifier: GPL-2.0
"""The text of rules of legacy tables, by the generation of their table."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

from ipttctl.errors import KernelError
from ipttctl.rules import namespace
from ipttctl.rules.legacy import Count, LegacyRules
from ipttctl.rules.origin import Syntax
from ipttctl.rules.rulesets import LegacyKey, RuleKey, Rulesets, RuleText
from tests.unit.ctl.rules.support import Net
from tests.unit.ctl.rules.test_rulesets import PATIENCE, Followed, certain

FILTER = 2, "filter"


class Tables:
    """The legacy tables of a namespace, with the generation that the module would count."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.generation = 1
        self.replacing = False
        self.before: Callable[[], None] = lambda: None
        """Called before each listing."""
        self.after: Callable[[], None] = lambda: None
        """Called after each listing."""
        self.listings = 0

    def change(self, arguments: str) -> int:
        """Replace a table; returns the generation of its rules."""
        self.net.iptables(arguments, "iptables-legacy")
        self.generation += 1
        return self.generation

    def count(self, where: int, family: int, table: str) -> Count:
        """The generation of all tables."""
        assert where
        if (family, table) != FILTER:
            raise KernelError("asking", errno.ENOENT, "no such table")
        return Count(self.generation, self.replacing)

    def run(self, program: str, arguments: Sequence[str]) -> bytes:
        """List rules."""
        self.listings += 1
        self.before()
        output = self.net.run(program, *arguments)
        self.after()
        return output.encode()

    def read(self, rules: LegacyRules) -> None:
        """Read the table of filters."""
        rules.read(self.net.fd, self.run, FILTER)


@pytest.fixture
def tables(net: Net) -> Tables:
    made = Tables(net)
    made.change("-A INPUT -p tcp -j ACCEPT")
    return made


def shown(rules: LegacyRules, generation: int, chain: str = "INPUT") -> tuple[str, ...]:
    """The rules of a chain."""
    found = rules.find(FILTER, generation)
    assert found is not None
    return found[chain]


# --- reading --------------------------------------------------------------------------------------


def test_each_generation_has_its_rules(tables: Tables) -> None:
    rules = LegacyRules(tables.count)
    tables.read(rules)
    first = tables.generation
    second = tables.change("-R INPUT 1 -p udp -j DROP")
    tables.read(rules)
    third = tables.change("-Z")
    tables.read(rules)
    assert shown(rules, first) == ("-A INPUT -p tcp -j ACCEPT",)
    assert shown(rules, second) == shown(rules, third) == ("-A INPUT -p udp -j DROP",)
    # what did not change is kept once
    assert shown(rules, second) is shown(rules, third)
    assert rules.find(FILTER, third + 1) is None
    assert rules.early(FILTER, first - 1)
    assert not rules.early(FILTER, first)
    assert not rules.missed(FILTER, third + 1)


def test_a_generation_that_is_known_is_not_read_again(tables: Tables) -> None:
    rules = LegacyRules(tables.count)
    tables.read(rules)
    tables.read(rules)
    assert tables.listings == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_table_that_changes_while_it_is_read(tables: Tables, moment: str) -> None:
    rules = LegacyRules(tables.count)
    first = tables.generation

    def change() -> None:
        setattr(tables, moment, lambda: None)
        tables.change("-I INPUT -p udp -j DROP")

    setattr(tables, moment, change)
    tables.read(rules)
    assert rules.find(FILTER, first) is None
    assert shown(rules, first + 1) == ("-A INPUT -p udp -j DROP", "-A INPUT -p tcp -j ACCEPT")
    assert rules.early(FILTER, first)
    assert rules.missed(FILTER, first)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_table_that_is_being_replaced(tables: Tables, moment: str) -> None:
    """While it is, nobody knows which rules are listed."""
    rules = LegacyRules(tables.count)
    if moment == "before":
        tables.replacing = True
        tables.after = lambda: setattr(tables, "replacing", False)
    else:
        tables.after = lambda: setattr(tables, "replacing", tables.listings < 2)
    tables.read(rules)
    if moment == "before":
        # it ended without another generation: then the rules were those of this one
        assert tables.listings == 1
    else:
        assert tables.listings == 2
    assert shown(rules, tables.generation) == ("-A INPUT -p tcp -j ACCEPT",)


def test_a_table_that_is_replaced_all_the_time(tables: Tables) -> None:
    rules = LegacyRules(tables.count)
    first = tables.generation

    def change() -> None:
        tables.change("-Z")

    tables.before = change
    tables.read(rules)
    assert rules.find(FILTER, first) is None
    last = tables.generation
    assert rules.failure(FILTER, last) == "the table is replaced faster than it can be read"
    # for later generations it has not been tried
    assert rules.failure(FILTER, last + 1) == ""


def test_a_table_without_a_generation(tables: Tables) -> None:
    def refuse(*_: object) -> Count:
        raise KernelError("asking", errno.ENODATA, "nobody counts")

    rules = LegacyRules(refuse)
    tables.read(rules)
    assert "nobody counts" in rules.failure(FILTER, 7)
    assert tables.listings == 0


def test_memory_is_bounded(tables: Tables) -> None:
    rules = LegacyRules(tables.count, most_bytes=1000)
    generations = []
    for port in range(1, 20):
        generations.append(tables.change(f"-R INPUT 1 -p tcp --dport {port} -j ACCEPT"))
        tables.read(rules)
        assert rules.size <= 1000
    kept = [rules.find(FILTER, generation) is not None for generation in generations]
    assert kept == sorted(kept)
    assert 5 < sum(kept) < 15
    # the last ones stay, however large
    tables.change(f"-A INPUT -m comment --comment {'x' * 250}")
    for port in range(20, 24):
        tables.change(f"-A INPUT -p tcp --dport {port} -m comment --comment {'y' * 250}")
    tables.read(rules)
    assert rules.size > 1000
    assert len(shown(rules, tables.generation)) == 6
    assert [generation for generation in generations if rules.find(FILTER, generation)] == []


# --- answers --------------------------------------------------------------------------------------


def asked(rulesets: Rulesets, key: LegacyKey) -> RuleText:
    """The answer, once it is one."""
    assert rulesets.settle(PATIENCE, lambda: not rulesets.legacy_text(key).pending)
    return rulesets.legacy_text(key)


def test_answers(tables: Tables, rulesets: Rulesets) -> None:
    net = tables.net
    first = tables.change("-A INPUT -j DROP")
    rulesets.follow(net.cookie, net.fd, tables.count)
    key = LegacyKey(net.cookie, 2, "filter", "INPUT", 2, first)
    expected = certain("-A INPUT -j DROP", Syntax.IPTABLES)._replace(chain="INPUT")
    assert asked(rulesets, key) == expected
    later = key._replace(generation=tables.change("-R INPUT 2 -j ACCEPT"))
    assert rulesets.legacy_text(later).pending
    assert asked(rulesets, later).text == "-A INPUT -j ACCEPT"
    assert rulesets.legacy_text(key) == expected
    # the policy
    assert rulesets.legacy_text(key._replace(number=3)) == RuleText(None, certain=True)
    for other, why in (
        (key._replace(generation=0), "not counted"),
        (key._replace(uncertain=True), "was replaced while the packet passed"),
        (key._replace(generation=first - 1), "before the ruleset was read"),
        (key._replace(number=4), "no such rule"),
        (key._replace(number=0), "no such rule"),
        (key._replace(chain="NONE", number=1), "no such rule"),
        (key._replace(cookie=1), "not followed"),
    ):
        answer = rulesets.legacy_text(other)
        assert answer.text is None
        assert not answer.certain
        assert why in answer.why
    missed = tables.change("-Z")
    newest = key._replace(generation=tables.change("-Z"))
    asked(rulesets, newest)
    assert "not known, or not kept" in rulesets.legacy_text(key._replace(generation=missed)).why
    nat = key._replace(table="nat")
    rulesets.legacy_text(nat)
    assert rulesets.settle(PATIENCE)
    assert rulesets.legacy_text(nat).why == "there is no such table any more"
    # and asking made none
    names = net.run("cat", "/proc/thread-self/net/ip_tables_names")
    assert names == "filter\n"


def test_a_counter_that_fails(tables: Tables, rulesets: Rulesets) -> None:
    """It costs the texts of its legacy tables, and nothing else."""
    net = tables.net
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    rulesets.follow(net.cookie, net.fd, lambda *_: Count(1 // 0, replacing=False))
    followed = Followed(net, rulesets)
    assert followed.text(followed.key(0)).text == "tcp dport 1 accept"
    key = LegacyKey(net.cookie, 2, "filter", "INPUT", 1, 5)
    rulesets.legacy_text(key)
    assert rulesets.settle(PATIENCE)
    assert "ZeroDivisionError" in rulesets.legacy_text(key).why


def test_without_a_counter(tables: Tables, rulesets: Rulesets) -> None:
    rulesets.follow(tables.net.cookie, tables.net.fd)
    answer = rulesets.legacy_text(LegacyKey(tables.net.cookie, 2, "filter", "INPUT", 1, 4))
    assert answer.text is None
    assert "not counted" in answer.why


def test_a_ruleset_of_nftables_that_cannot_be_read(
    tables: Tables, rulesets: Rulesets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not cost the texts of legacy tables."""

    def fail(*_: object) -> None:
        raise KernelError("reading the ruleset", errno.EIO)

    monkeypatch.setattr(namespace, "Listening", fail)
    net = tables.net
    rulesets.follow(net.cookie, net.fd, tables.count)
    key = LegacyKey(net.cookie, 2, "filter", "INPUT", 1, tables.generation)
    assert asked(rulesets, key).text == "-A INPUT -p tcp -j ACCEPT"
    assert "reading the ruleset" in rulesets.text(RuleKey(net.cookie, 1, 1, 5)).why
    later = key._replace(generation=tables.change("-R INPUT 1 -j DROP"))
    assert asked(rulesets, later).text == "-A INPUT -j DROP"


def test_where_nf_tables_is_not_loaded(
    tables: Tables, rulesets: Rulesets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked that would load it; once it is there, it is followed."""
    present = False
    monkeypatch.setattr(namespace, "nft_present", lambda: present)
    net = tables.net
    rulesets.follow(net.cookie, net.fd, tables.count)
    assert rulesets.settle(PATIENCE)
    key = LegacyKey(net.cookie, 2, "filter", "INPUT", 1, tables.generation)
    assert rulesets.legacy_text(key).text == "-A INPUT -p tcp -j ACCEPT"
    answer = rulesets.text(RuleKey(net.cookie, 1, 2, 5))
    assert (answer.pending, answer.why) == (False, "nf_tables is not loaded")
    present = True
    net.nft("table ip t { chain c { tcp dport 1 accept; }; }")
    followed = Followed(net, rulesets)
    first = followed.key(0)
    assert rulesets.settle(PATIENCE, lambda: bool(rulesets.text(first).text))
    # it is unloaded: the same handles mean other rules
    present = False
    net.nft("add rule ip t c drop")
    gone = "nf_tables is not loaded"
    assert rulesets.settle(PATIENCE, lambda: rulesets.text(first).why == gone)
