# SPDX-License-Identifier: GPL-2.0
"""The differential test without links: it finds no difference where there is none, and any other.

These tests need root, and a kernel with nf_tables.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest

from ipttctl.errors import IpttctlError
from ipttctl.verify.laboratory import Namespaces
from ipttctl.verify.nftables import Nftables
from ipttctl.verify.outcome import Outcome
from ipttctl.verify.packets import TAGGED
from ipttctl.verify.run import Case, Result, Runner, cases
from ipttctl.verify.words import Vocabulary

SEED = 7
CASES = 100


@pytest.fixture(scope="module", params=list(Vocabulary), ids=lambda vocabulary: vocabulary.value)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    if os.geteuid():
        pytest.skip("needs root: it makes network namespaces")
    try:
        made = Runner(request.param)
    except IpttctlError as error:
        pytest.skip(f"cannot run here: {error}")
    with made:
        yield made


@pytest.fixture(scope="module")
def results(runner: Runner) -> list[Result]:
    """Cases that are run twice in the same way."""
    return [runner.run(case, unobserved) for case in cases(runner.vocabulary, SEED, CASES)]


def unobserved(_: Namespaces) -> AbstractContextManager[object]:
    return nullcontext()


def hits(outcomes: list[Outcome]) -> Counter[str]:
    """How many rules with an expression of each kind counted packets."""
    return Counter(
        name
        for outcome in outcomes
        for rule in outcome.rules
        if rule.packets
        for name in {name for name, _ in rule.expressions}
    )


def test_the_same_twice(results: list[Result]) -> None:
    assert not [result.report() for result in results if result.differences]


def test_packets_arrive_everywhere(results: list[Result]) -> None:
    places: Counter[str] = Counter()
    for result in results:
        places.update({name: len(items) for name, items in result.without.lists.items()})
    arrivals = {name: count for name, count in places.items() if name.startswith("arrived")}
    assert len(arrivals) >= 6
    assert all(arrivals.values()), arrivals
    assert places["trace messages"] > 1000


def test_every_kind_of_expression_is_evaluated(runner: Runner, results: list[Result]) -> None:
    """Those of a rule up to its counter were evaluated for as many packets as it shows."""
    expected = {"bitwise", "byteorder", "cmp", "counter", "dynset", "exthdr", "immediate"}
    expected |= {"lookup", "meta", "objref", "payload", "range", "rt"}
    if runner.vocabulary is Vocabulary.FULL:
        expected |= {"ct", "dup", "fib", "hash", "limit", "log", "nat", "notrack", "numgen"}
        expected |= {"quota", "redir", "reject", "synproxy", "match", "target"}
    missing = expected - hits([result.without for result in results]).keys()
    # a kernel may lack some
    assert not {name for name in missing if name not in str(runner.grammar.lacking)}


def test_every_verdict_and_hook_is_met(runner: Runner, results: list[Result]) -> None:
    met: Counter[str] = Counter()
    for result in results:
        for fact, value in result.without.facts.items():
            words = fact.partition("(")[2]
            if value.startswith("0 packets") or " 0 packets" in value or not words:
                continue
            met.update(words.split(" counter")[-1].strip(" )").split())
            chain = fact.split(" of ")[1].split(" (")[0].split(" ")
            for made in result.ruleset.chains:
                if [made.family, made.table, made.name] == chain and made.base:
                    met[f"{made.family} {made.base.split()[3]}"] += 1
    verdicts = {"accept", "drop", "continue", "return", "jump", "goto", "vmap"}
    assert verdicts <= met.keys()
    places = {f"{family} {hook}" for family, hook in runner.grammar.places}
    assert places <= met.keys(), places - met.keys()


def test_chains_are_as_deep_as_can_be(results: list[Result]) -> None:
    """Packets get to the last chain of the longest ladder."""
    deepest = [
        value
        for result in results
        for fact, value in result.without.facts.items()
        if fact.startswith("rule 1 of ") and " c15 " in fact
    ]
    assert any("0 packets" not in value for value in deepest)


def test_the_ruleset_changes_meanwhile(results: list[Result]) -> None:
    changed = [r for r in results if r.case.commits]
    assert len(changed) == CASES // 5
    for result in changed:
        assert min(result.without.commits, result.with_links.commits) >= 6


def test_changes_leave_nothing_behind(results: list[Result]) -> None:
    for result in results:
        for outcome in (result.without, result.with_links):
            found = Counter(rule.place for rule in outcome.rules)
            for chain in result.ruleset.chains:
                place = f"{chain.family} {chain.table} {chain.name}"
                assert found[place] == len(chain.rules)
            assert not any(" commits " in fact for fact in outcome.facts)


def test_tagged_packets_are_sent_where_none_is_forwarded(runner: Runner) -> None:
    found: Counter[tuple[bool, bool]] = Counter()
    for case in cases(runner.vocabulary, SEED, CASES):
        ruleset, sent = case.made(runner.grammar, 1, bridges=False)
        forwards = ' to "' in ruleset.text
        found[forwards, any(packet.label == TAGGED for packet in sent)] += 1
    assert found[False, True]
    assert not found[True, True]
    if runner.vocabulary is Vocabulary.FULL and "fwd" not in str(runner.grammar.lacking):
        assert found[True, False]


def test_a_case_is_made_again_from_its_name(runner: Runner) -> None:
    case = Case(runner.vocabulary, 3, 5)
    assert case.made(runner.grammar, 1, bridges=False) == case.made(
        runner.grammar, 1, bridges=False
    )
    other = Case(runner.vocabulary, 3, 6)
    assert case.made(runner.grammar, 1, bridges=False) != other.made(
        runner.grammar, 1, bridges=False
    )


Change = Callable[[Result], str]


def policy(result: Result) -> str:
    place = met_chain(result)
    base = next(c.base for c in result.ruleset.chains if f"{c.family} {c.table} {c.name}" == place)
    return f"chain {place} {{ policy {'drop' if 'policy accept' in base else 'accept'}; }}"


def another_rule(result: Result) -> str:
    return f"insert rule {met_chain(result)} counter drop"


def mark(result: Result) -> str:
    return f"insert rule {met_chain(result)} meta mark set 0x77"


def trace(result: Result) -> str:
    return f"insert rule {met_chain(result)} meta nftrace set 1"


def flush(result: Result) -> str:
    return f"flush chain {met_chain(result)}"


def met_chain(result: Result) -> str:
    """A chain at a hook whose first rule counted packets."""
    for chain in result.ruleset.chains:
        place = f"{chain.family} {chain.table} {chain.name}"
        first = [rule for rule in result.without.rules if rule.place == place][:1]
        if chain.base and " hook prerouting " in chain.base and first and first[0].packets:
            return place
    return ""


@pytest.mark.parametrize("change", [policy, another_rule, mark, trace, flush])
def test_a_planted_difference_is_noticed(
    runner: Runner, results: list[Result], change: Change
) -> None:
    chosen = [result for result in results if met_chain(result) and not result.case.commits][:8]
    assert chosen
    noticed = 0
    for result in chosen:

        @contextmanager
        def changed(namespaces: Namespaces, command: str = change(result)) -> Iterator[None]:
            with Nftables(namespaces.router) as nftables:
                nftables.load(
                    command if "rule" in command or "flush" in command else f"add {command}"
                )
            yield

        again = runner.run(result.case, changed)
        assert again.without == result.without
        noticed += bool(again.differences)
    assert noticed == len(chosen)
