# SPDX-License-Identifier: GPL-2.0
"""Chains as text of 80 columns, and as JSON."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import pytest

from ipttctl.escape import escape
from ipttctl.frames.head import FrameError
from ipttctl.joins.chains import StoryChain
from ipttctl.joins.joiner import HOLD, Joiner
from ipttctl.joins.marks import Mark, Way
from ipttctl.show.chain_summary import MOST_CHAIN_GROUPS, ChainSummary
from ipttctl.show.chain_text import chain_json, chain_lines, is_dropped
from tests.unit.ctl.joins.telling import DATAGRAM, MARK, A, B, add

HEADERS = {
    "family": 4,
    "protocol": "tcp",
    "source": "10.1.0.1",
    "destination": "10.2.0.1",
    "source_port": 4000,
    "destination_port": 443,
}


def story(
    number: int, at: int, way: Way, mark: Mark, kind: str, text: str, **more: Any
) -> dict[str, Any]:
    """A story as agents publish it, of the members that are shown."""
    values = mark._replace(way=way).values()
    return {
        "packet": number,
        "in_device": None if way is Way.DEPARTURE else "eth0",
        "time_ns": 1_700_000_000_000_000_000,
        "monotonic_ns": at,
        "duration_ns": 85_000,
        "netns": 4026531840,
        "netns_name": None,
        "sender": {"comm": "curl", "pid": 12} if way is Way.DEPARTURE else None,
        "headers": HEADERS,
        "steps": [],
        "end": {"kind": kind, "text": text, "dropped": kind.startswith("dropped")},
        "join": [{**values, "packet": number, "after_ns": 0, "device": "eth0"}],
        **more,
    }


def chains(mark: Mark, *, twice: bool = False, arrives: bool = True) -> list[StoryChain]:
    joiner = Joiner()
    for life in (A, B):
        joiner.clocks.asked(life, 0, 50_000, 100_000)
    left = "left by eth0 as 10.1.0.1:4000"
    why = 'dropped by filter INPUT 1 "-A INPUT -p tcp -m tcp --dport 443 -j DROP"'
    add(joiner, A, story(1, 0, Way.DEPARTURE, mark, "left", left), 0)
    if twice:
        add(joiner, A, story(2, 1000, Way.DEPARTURE, mark, "left", left), 0)
    if arrives:
        came = story(3, 400_000, Way.ARRIVAL, mark, "dropped_by_rule", why)
        add(joiner, B, came, 0)
    return joiner.due(HOLD)


def test_each_host_has_its_part_and_wires_are_between() -> None:
    [chain] = chains(MARK)
    lines = chain_lines(chain)
    assert lines[0].startswith("a  ")
    assert lines[0].endswith("tcp 10.1.0.1:4000 > 10.2.0.1:443  from curl (pid 12) in")
    assert lines[1:4] == [
        "      4026531840",
        "  left by eth0 as 10.1.0.1:4000, 85 us after it began",
        # 400 us, by clocks that are known within 50 us each, which have drifted a little since
        "  wire: a eth0 > b eth0, 299 us to 500 us",
    ]
    assert lines[4].startswith("b  ")
    assert lines[5:] == [
        '  dropped by filter INPUT 1 "-A INPUT -p tcp -m tcp --dport 443 -j DROP", 85 us',
        "        after it began",
        "",
    ]
    assert max(map(len, lines)) <= 80
    assert is_dropped(chain)
    found = json.loads(chain_json(chain))
    assert [one["host"] for one in found["stories"]] == ["a", "b"]
    [wire] = found["wires"]
    assert 299_000 < wire.pop("least_ns") <= 300_000
    assert 500_000 <= wire.pop("most_ns") < 501_000
    assert wire == {"from": 0, "to": 1, "out_device": "eth0", "in_device": "eth0"}
    assert found["open"] == []
    assert found["answers"] == [
        'b: dropped by filter INPUT 1 "-A INPUT -p tcp -m tcp --dport 443 -j DROP"'
    ]


def test_what_is_not_seen_elsewhere_is_said() -> None:
    [chain] = chains(MARK, arrives=False)
    assert chain_lines(chain)[-2] == "  not seen on any other traced host"
    assert not is_dropped(chain)
    answers = json.loads(chain_json(chain))["answers"]
    assert answers == ["a: left by eth0 as 10.1.0.1:4000; not seen on any other traced host"]


def test_what_is_ambiguous_is_said() -> None:
    found = chains(DATAGRAM, twice=True)
    texts = [chain_lines(chain)[-2] for chain in found]
    assert texts == [
        "  ambiguous: 1 arrival could be this packet",
        "  ambiguous: 1 arrival could be this packet",
        "  ambiguous: 2 departures could be this packet",
    ]


def test_a_story_that_makes_no_sense_is_said_to_be_that() -> None:
    joiner = Joiner()
    add(joiner, A, {"packet": 5}, 0)
    [chain] = joiner.due(HOLD)
    assert chain_lines(chain) == ["a  a story that makes no sense", ""]
    assert json.loads(chain_json(chain))["answers"] == []


# --- what hosts that were taken over tell ---------------------------------------------------------


def made_up(**more: Any) -> StoryChain:
    """A chain of a story of one's own invention."""
    joiner = Joiner()
    text = "left by eth0 as 10.1.0.1:4000"
    add(joiner, A, {**story(1, 0, Way.DEPARTURE, MARK, "left", text), **more}, 0)
    [chain] = joiner.due(HOLD)
    return chain


def deepest() -> StoryChain:
    """A chain of a story that is as deep as one can be read."""
    text = json.dumps(story(1, 0, Way.DEPARTURE, MARK, "left", "left"))
    for depth in range(sys.getrecursionlimit(), 0, -1):
        line = f'{text[:-1]},"more":{"[" * depth}{"]" * depth}}}'.encode()
        joiner = Joiner()
        with suppress(FrameError):
            joiner.add(A, line, 0)
            [chain] = joiner.due(HOLD)
            return chain
    raise AssertionError


@pytest.mark.parametrize("time", [2**56, 2**60, 10**30, -(10**30), 1e300, "now", None, [], True])
def test_a_time_that_is_none_is_said_to_make_no_sense(time: object) -> None:
    assert chain_lines(made_up(time_ns=time))[0].startswith("a  ")


def test_stories_that_are_nested_deeply_end_nothing() -> None:
    branch: Any = made_up().stories[0].story
    for _ in range(250):
        step = {"step": "branch", "folded": False, "story": branch}
        branch = {**branch, "steps": [step]}
    chain = made_up(steps=branch["steps"])
    assert chain_lines(chain)
    assert is_dropped(chain) in {True, False}
    assert json.loads(chain_json(chain))["type"] == "chain"
    deep = deepest()
    found = json.loads(chain_json(deep))
    assert found["stories"] == [{"host": "a", "boot": "1", "story": None}]
    summary = ChainSummary()
    for one in (chain, deep, deep):
        summary.add(one)
    assert [json.loads(line)["count"] for line in summary.json_lines()] == [2, 1]


def test_long_texts_and_many_steps_are_cut() -> None:
    long = made_up(netns_name="x" * 5_000_000, end={"kind": "left", "text": "y" * 5_000_000})
    assert sum(map(len, chain_lines(long))) < 20_000
    step = {"step": "route", "device": "eth0", "changes": []}
    many = chain_lines(made_up(steps=[step] * 100_000))
    assert len(many) < 1100
    assert "  ... the rest is left out" in many


def test_a_line_of_json_is_one_of_printable_ascii() -> None:
    line = chain_json(made_up(in_device="\x7f\x1b[2J\u202e\ud800\udcff"))
    assert line.isascii()
    assert line.isprintable()
    json.loads(line)
    assert escape(line) == line


# --- the summary ----------------------------------------------------------------------------------


def test_equal_chains_are_counted_and_told_once() -> None:
    summary = ChainSummary()
    for number in range(5):
        port = MARK._replace(source_port=4000 + number)
        for chain in chains(port):
            summary.add(chain)
    for chain in chains(MARK, arrives=False):
        summary.add(chain)
    lines = summary.lines()
    assert [line for line in lines if not line.startswith(" ") and line] == [
        "5 packets, for example",
        "1 packet",
        "6 packets, 2 ways",
    ]
    assert max(map(len, lines)) <= 80
    [first, second] = map(json.loads, summary.json_lines())
    assert (first["type"], first["format"], first["count"]) == ("chain_group", 1, 5)
    assert [one["host"] for one in first["example"]["stories"]] == ["a", "b"]
    assert second["count"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"end": {"kind": "dropped_by_rule", "text": "", "dropped": True}},
        {"end": {"kind": "left", "text": "", "rule": {"rulenum": 2}}},
        {"steps": [{"step": "sent", "device": "eth1", "netns": 1}]},
        {"in_device": "eth1"},
        {"steps": 5},
    ],
)
def test_chains_that_differ_are_told_apart(changes: dict[str, Any]) -> None:
    summary = ChainSummary()
    for one in ({}, {"duration_ns": 5, "packet": 9}, changes):
        summary.add(made_up(**one))
    assert [group.count for group in summary.groups()] == [2, 1]


def test_groups_have_bounds() -> None:
    summary = ChainSummary()
    for number in range(MOST_CHAIN_GROUPS + 5):
        summary.add(made_up(in_device=f"eth{number}"))
    assert len(summary.groups()) == MOST_CHAIN_GROUPS
    assert summary.left_out == 5
    last = f"{summary.count} packets, 1024 ways, 5 of ways for which there was no room"
    assert summary.lines()[-1] == last
