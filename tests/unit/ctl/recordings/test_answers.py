# SPDX-License-Identifier: GPL-2.0
"""The names of a recording at the moments at which they were others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ipttctl.events.records import EventRecord
from ipttctl.frames.head import FrameError
from ipttctl.recordings.answers import Answers, Recorder
from ipttctl.recordings.values import from_object, to_object
from ipttctl.show.rule import Rule
from ipttctl.show.story_words import StorySources
from ipttctl.system.containers import Container
from ipttctl.system.peers import Peer
from ipttproto import Kind
from tests.unit.ctl.stories.packets import records
from tests.unit.ctl.support import event


def netns(moment: int, name: str | None) -> dict[str, Any]:
    """A name of a namespace, as it is recorded."""
    return {"about": "netns", "cookie": 1, "moment": moment, "name": name}


def test_the_answer_is_the_last_one_before_a_moment_in_whatever_order_they_come() -> None:
    chance = random.Random(5)
    for _ in range(50):
        moments = [chance.randrange(20) for _ in range(chance.randint(1, 12))]
        answers = Answers()
        for number, moment in enumerate(moments):
            answers.take(netns(moment, str(number)))
            # asked meanwhile, too
            if chance.random() < 0.3:
                answers.name(1, chance.randrange(20))
        for asked in range(21):
            before = [(at, number) for number, at in enumerate(moments) if at <= asked]
            first = min((at, number) for number, at in enumerate(moments))
            assert answers.name(1, asked) == str(max(before, default=first)[1])


def test_names_that_come_from_the_last_to_the_first_take_no_time() -> None:
    """A place for each of them would take minutes; who made the file up had a second for it."""
    answers, count = Answers(), 1 << 19
    for moment in range(count, 0, -1):
        answers.take(netns(moment, str(moment)))
    assert [answers.name(1, one) for one in (0, 7, count + 1)] == ["1", "7", str(count)]


def test_a_peer_of_an_older_recording_has_no_container() -> None:
    container = Container("docker", "ab" * 32, "web")
    peer = Peer(b"eth\xff", 2, 5, 6, None, elsewhere=True, container=container)
    recorded = to_object(peer)
    assert from_object(Peer, recorded) == peer
    del recorded["container"]
    assert from_object(Peer, recorded) == replace(peer, container=None)
    del recorded["device"]
    with pytest.raises(FrameError, match="device"):
        from_object(Peer, recorded)


def test_a_rule_that_is_missing_is_told_and_one_that_is_none_is_not() -> None:
    kinds = (
        Kind.RULE,
        Kind.CHAIN_RULE,
        Kind.RETURN,
        Kind.POLICY,
        Kind.CHAIN_END,
        Kind.CHAIN_POLICY,
    )
    events = records([event(kind=kind, rulenum=number) for number, kind in enumerate(kinds)])
    written: list[dict[str, Any]] = []

    def rules(asked: Sequence[EventRecord]) -> list[Rule | None]:
        return [Rule("-j DROP") if one.kind == Kind.RULE else None for one in asked]

    host = Recorder(StorySources(rules=rules), written.append, written.append)
    assert host.sources.rules
    live = host.sources.rules(events)
    answers = Answers()
    # nobody asked for rules
    assert answers.rules(events) == [None] * len(kinds)
    # whoever asked has lost the answers
    answers.whole = False
    lost = answers.rules(events)
    assert [rule and rule.why for rule in lost] == [*["the recording lacks it"] * 4, None, None]
    answers.whole = True
    for value in written:
        answers.take(value)
    assert answers.rules(events) == live
    [other] = records([event(kind=Kind.RULE, rulenum=77)])
    [found] = answers.rules([other])
    assert str(found) == "rule uncertain (the recording lacks it)"
