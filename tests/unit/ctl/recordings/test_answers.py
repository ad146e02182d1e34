# SPDX-License-Identifier: GPL-2.0
"""The names of a recording at the moments at which they were others."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from ipttctl.frames.head import FrameError
from ipttctl.recordings.answers import Answers
from ipttctl.recordings.values import from_object, to_object
from ipttctl.system.containers import Container
from ipttctl.system.peers import Peer


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
