# SPDX-License-Identifier: GPL-2.0
"""Owners of rules: real rulesets of each program, the look-up, and what is learnt from jumps."""

from __future__ import annotations

import timeit
from collections.abc import Iterable
from pathlib import Path

import pytest

from ipttctl.rules import owners as owners_module
from ipttctl.rules.owners import Owner, Owners, Place
from tests.unit.ctl.rules.owners_support import EXAMPLES, read_examples


@pytest.fixture(scope="module")
def owners() -> Owners:
    return Owners.load()


def learnt_from(owners: Owners, rules: Iterable[Place]) -> Owners:
    """The owners of a ruleset, which is learnt in the order of its rules."""
    made = owners.of_ruleset()
    made.learn(rules)
    return made


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.stem))
def test_real_rulesets_are_named(file: Path, owners: Owners) -> None:
    for ruleset in read_examples(file):
        learnt = learnt_from(owners, (example.place for example in ruleset))
        for example in ruleset:
            assert str(learnt.of(example.place) or "none") == example.expected, example.place


def test_there_are_examples_of_every_owner(owners: Owners) -> None:
    named = {
        example.expected.split(":")[0]
        for file in EXAMPLES
        for ruleset in read_examples(file)
        for example in ruleset
    }
    assert {entry.owner for entry in owners._entries} == named - {"none"}


def endpoint(text: str = "-A KUBE-SEP-SXIVWICOYRO3J4NJ -p tcp -j DNAT") -> Place:
    return Place("legacy", "ip", "nat", "KUBE-SEP-SXIVWICOYRO3J4NJ", text)


def jump(comment: str = "ns/web -> 10.0.0.1:80", **changes: str) -> Place:
    fields = {
        "backend": "legacy",
        "family": "ip",
        "table": "nat",
        "chain": "KUBE-SVC-AAAAAAAAAAAAAAAA",
    }
    return Place(**fields | {"comment": comment, "jump": endpoint().chain} | changes)


def test_a_chain_is_about_what_the_rule_says_that_jumps_there(owners: Owners) -> None:
    assert owners.of(endpoint()) == Owner("kube-proxy", "an endpoint of a service")
    learnt = learnt_from(owners, [jump(comment=""), jump()])
    assert learnt.of(endpoint()) == Owner("kube-proxy", "service ns/web, endpoint 10.0.0.1:80")
    assert owners.of(endpoint()) == Owner("kube-proxy", "an endpoint of a service")


@pytest.mark.parametrize("other", [{"table": "filter"}, {"family": "ip6"}, {"backend": "nft"}])
def test_what_was_learnt_is_of_one_table(owners: Owners, other: dict[str, str]) -> None:
    learnt = learnt_from(owners, [jump(**other)])
    assert learnt.of(endpoint()) == Owner("kube-proxy", "an endpoint of a service")


def test_what_is_learnt_later_changes_the_answer(owners: Owners) -> None:
    learnt = owners.of_ruleset()
    assert learnt.of(endpoint()) == Owner("kube-proxy", "an endpoint of a service")
    learnt.learn([jump()])
    assert learnt.of(endpoint()) == Owner("kube-proxy", "service ns/web, endpoint 10.0.0.1:80")
    learnt.learn([jump(comment="ns/other -> 10.0.0.2:80")])
    assert learnt.of(endpoint()) == Owner("kube-proxy", "service ns/web, endpoint 10.0.0.1:80")
    assert owners.of_ruleset().of(endpoint()) == Owner("kube-proxy", "an endpoint of a service")


def test_a_chain_of_chains_is_followed(owners: Owners) -> None:
    rules = [
        Place("legacy", "ip", "nat", f"KUBE-SVC-{n:016}", jump=f"KUBE-SVC-{n + 1:016}")
        for n in range(6)
    ]
    first = Place("legacy", "ip", "nat", "KUBE-SERVICES", "", "ns/web cluster IP", rules[0].chain)
    assert learnt_from(owners, [*rules, first]).of(rules[-1]) == Owner(
        "kube-proxy", "service ns/web"
    )


def test_jumps_in_a_circle_have_an_end(owners: Owners) -> None:
    one = Place(
        "legacy", "ip", "nat", "KUBE-SVC-AAAAAAAAAAAAAAAA", jump="KUBE-SVC-BBBBBBBBBBBBBBBB"
    )
    two = Place("legacy", "ip", "nat", one.jump, jump=one.chain)
    assert learnt_from(owners, [one, two]).of(one) == Owner("kube-proxy", "a service")


def test_somebody_elses_jump_tells_nothing(owners: Owners) -> None:
    stranger = jump(comment="cilium: mine", chain="PREROUTING")
    assert learnt_from(owners, [stranger]).of(endpoint()) == Owner(
        "kube-proxy", "an endpoint of a service"
    )


def test_a_name_that_others_may_use_needs_a_jump_of_the_same_owner(owners: Owners) -> None:
    place = Place("legacy", "ip", "filter", "IN_web_allow", "-A IN_web_allow -j ACCEPT")
    assert owners.of(place) is None
    own = Place("legacy", "ip", "filter", "INPUT", "-A INPUT -j IN_web_allow")
    assert learnt_from(owners, [own]).of(place) is None
    circle = Place("legacy", "ip", "filter", place.chain, f"-A {place.chain} -j {place.chain}")
    assert learnt_from(owners, [circle]).of(place) is None
    zones = Place("legacy", "ip", "filter", "INPUT_ZONES", "-A INPUT_ZONES -i eth0 -g IN_web")
    zone = Place("legacy", "ip", "filter", "IN_web", "-A IN_web -j IN_web_allow")
    learnt = learnt_from(owners, [zones, zone])
    assert learnt.of(place) == Owner("firewalld", "zone or policy web, allow")


def test_what_is_learnt_is_bounded(owners: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "_MOST_CHAINS", 1)
    learnt = learnt_from(owners, [jump(jump="KUBE-SEP-BBBBBBBBBBBBBBBB"), jump()])
    assert learnt.of(endpoint()) == Owner("kube-proxy", "an endpoint of a service")


def test_one_of_several_comments_is_enough(owners: Owners) -> None:
    place = Place("nft", "ip", "filter", "FORWARD", "accept", "mine\ncilium: x")
    assert owners.of(place) == Owner("cilium", "x")


def test_a_long_rule_is_looked_at_from_its_beginning(owners: Owners) -> None:
    place = Place(
        "legacy", "ip", "nat", "DOCKER", "-A DOCKER " + "-m tcp " * 200 + "--dport 80 -j DNAT"
    )
    assert owners.of(place) == Owner("docker", "published ports")
    assert owners.of(Place("legacy", "ip", "x" * 100_000, "y" * 100_000, "z" * 100_000)) is None


def test_a_comment_that_is_cut_tells_of_no_jump(owners: Owners) -> None:
    text = 'accept comment "' + "x" * 900 + " jump f2b-sshd " + "x" * 900 + '"'
    assert owners.of(Place("nft", "ip", "filter", "input", text)) is None


def test_nothing_is_learnt_from_a_comment(owners: Owners) -> None:
    chain = endpoint().chain
    text = f'accept comment "ns/web -> 10.0.0.1:80" comment "jump {chain} "'
    place = Place("legacy", "ip", "nat", "KUBE-SVC-AAAAAAAAAAAAAAAA", text)
    assert not owners.of_ruleset().learn([place])


def test_a_known_place_takes_microseconds(owners: Owners) -> None:
    places = [endpoint(f"-A KUBE-SEP-SXIVWICOYRO3J4NJ -p tcp --dport {n}") for n in range(1000)]
    for place in places:
        owners.of(place)
    taken = min(timeit.repeat(lambda: [owners.of(p) for p in places], number=1, repeat=5))
    assert taken / len(places) < 20e-6
