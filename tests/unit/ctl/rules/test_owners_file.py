# SPDX-License-Identifier: GPL-2.0
"""A user's file of owners: it comes first, and each mistake in it has a sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ipttctl.errors import UsageError
from ipttctl.rules import owners as owners_module
from ipttctl.rules.owners import Owner, Owners, Place
from ipttctl.rules.patterns import Pattern
from tests.unit.ctl.support import LAUGHS

PLACE = Place("nft", "inet", "office", "guests", 'ip saddr 192.0.2.1 drop comment "ticket 17"')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path / "owners.yaml"


def test_a_users_entries_come_first(file: Path) -> None:
    file.write_text(
        "- owner: office\n  table: office\n  comment: 'ticket (?P<number>\\d+)'\n"
        "  says: ticket {number}, {{sic}}\n"
        "- {owner: me, chain: DOCKER, says: mine}\n"
    )
    owners = Owners.load(file)
    assert owners.of(PLACE) == Owner("office", "ticket 17, {sic}")
    assert owners.of(Place("nft", "ip", "nat", "DOCKER")) == Owner("me", "mine")
    assert owners.of(Place("nft", "ip", "nat", "DOCKER-CT")) == Owner(
        "docker", "replies to containers"
    )


def test_the_usual_file_is_read_if_it_is_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners_module, "USER_FILE", file)
    assert Owners.load().of(PLACE) is None
    file.write_text("- {owner: office, table: office, says: guests}\n")
    assert Owners.load().of(PLACE) == Owner("office", "guests")


def test_an_empty_file_has_no_entries(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert Owners.load(file).of(PLACE) is None


def test_a_file_that_others_can_write_is_refused(file: Path) -> None:
    file.write_text("[]")
    file.chmod(0o666)
    with pytest.raises(UsageError, match=r"do not trust .*: .* can be written to by others; run"):
        Owners.load(file)


def test_a_file_that_is_named_has_to_be_there(file: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*owners\.yaml: No such file"):
        Owners.load(file)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a: [", "owners.yaml is no YAML: line 1"),
        ("owner: x", "owners.yaml is no list of entries; each begins with"),
        ("- x", "owners.yaml: entry 1 is no object"),
        (
            "- owner: x\n  table: t\n  says: s\n  owner: y",
            r"owners\.yaml, line 4, column 3: the key 'owner' is there twice in one object",
        ),
        ("&a [*a]", r"owners\.yaml, line 1, column 1: an alias in this names this itself"),
        (LAUGHS, "its aliases repeat more than"),
        (
            "- {owner: x, tabel: t, says: s}",
            r"entry 1 \(x\): there is no key 'tabel'; there are: owner",
        ),
        ("- {owner: x, table: [t], says: s}", r"entry 1 \(x\): table is no text"),
        ("- {table: t, says: s}", "entry 1: there is no owner"),
        ("- {owner: x, table: t}", r"entry 1 \(x\): there is no says"),
        ("- {owner: x, says: s}", r"entry 1 \(x\) matches every rule; give one of: backend"),
        ("- {owner: x, table: t, says: s, fallback: maybe}", "fallback is neither true nor false"),
        ("- {owner: x, table: '(', says: s}", r"\(x\): table: '\(' is no regular expression"),
        ("- {owner: x, table: '(?P<a>t)', says: '{b}'}", r"says has '\{b\}', .*; there are: a"),
        ("- {owner: x, table: '(?P<a>t)', says: '{a.b}'}", r"says has '\{a\.b\}'"),
        ("- {owner: x, table: '(?P<a>t)', says: '{a:>9}'}", "which is no group"),
        ("- {owner: x, table: t, says: '{'}", "says '{' is no template"),
        ("- {owner: x, table: '(?P<a>t)', chain: '(?P<a>t)', says: s}", "'a' is in two patterns"),
        ("- {owner: x, table: '(a+)+', says: s}", r"table: a repeat in it has a body of several"),
        ("\xff", "is no text in UTF-8"),
        ("[" * 100_000, "is nested too deeply|is no YAML"),
        ("#" * ((1 << 20) + 1), "is longer than"),
    ],
    ids=lambda value: value[:40],
)
def test_a_mistake_has_a_sentence(file: Path, content: str, sentence: str) -> None:
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=sentence) as caught:
        Owners.load(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a|b+)*x",
        "(a|aa)+",
        "(a?){30}a{30}",
        ".*.*.*.*x",
        r"(\w+) *\1",
        "[a-z]*" * 4 + "x",
        "(x+x+)+y",
        "(?:(?:a+)b?)*",
        "[^ ]+" * 5 + "y",
        "a?" * 30 + "a" * 30,
        "(?:a|ab?)" * 30 + "c",
        "a{0,60}" * 6 + "b",
        "(?:.*" * 4 + "x)" + ")" * 3,
        r"(a*)\1\1\1b",
        "(a)?(?(1)b|c)",
    ],
)
def test_a_pattern_that_can_take_too_long_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"too long|condition on a group"):
        Pattern(pattern).check()


@pytest.mark.parametrize(
    ("pattern", "anywhere"),
    [
        ("[a-z]*[a-z]*x", False),
        (".*(?:.*x)", False),
        (".*.*[^a]+", False),
        (".*[^x]*x", True),
        ("[^x]*x?[^y]*y", False),
        ("(?:[ab]{2})*c", True),
        ("(?=a*)b", True),
        ("[a-z]+(?::[a-z]+)?:? [a-z]*[a-z]*[a-z]*", False),
        ("a?" * 14 + "b", True),
        (r"(a*)\1b", False),
        (r"-i ([a-z]+) -o \1 ", True),
    ],
)
def test_what_is_taken_has_an_end(pattern: str, anywhere: bool) -> None:
    taken = Pattern(pattern, anywhere=anywhere)
    taken.check()
    start = time.process_time()
    assert not taken.match("a" * (1024 if anywhere else 256))
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("KUBE-SVC-[A-Z]+", "KUBE-SVC-AB"),
        ("docker0?", "docker"),
        ("ab{0,2}c", "ac"),
        ("ab*", "a"),
        ("ab+", "abb"),
        ("a|b", "b"),
        ("(?:a|b)c", "bc"),
        ("a.c", "abc"),
        (r"a\.c", "a.c"),
        ("(?i)ab", "AB"),
        ("", ""),
    ],
)
def test_what_a_pattern_begins_with_keeps_nothing_out(pattern: str, text: str) -> None:
    assert Pattern(pattern).match(text)


def test_a_pattern_is_compiled_for_a_text_that_begins_like_it() -> None:
    pattern = Pattern("KUBE-SVC-[A-Z]+")
    assert not pattern.match("DOCKER-USER")
    assert "compiled" not in vars(pattern)
    assert not pattern.match("KUBE-SVC-1")
    assert "compiled" in vars(pattern)
