# SPDX-License-Identifier: GPL-2.0
"""Journeys: the hook's one text, and what its events say."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from ipttctl.errors import UsageError
from ipttctl.events.filter import HookPattern
from ipttctl.hooks import (
    KINDS,
    HookOptions,
    check_slots,
    chosen,
    event_pattern,
    from_attributes,
    of_event,
)
from ipttctl.hooks.journey import JourneyHook
from ipttctl.link.model import Link
from ipttctl.show.event_text import decision
from ipttctl.show.render_json import event_object, link_object
from ipttctl.show.render_text import link_line
from ipttproto import EventFlag, Hook, Kind, Slot
from tests.unit.ctl.show.test_event_text import record
from tests.unit.ctl.support import event, link

NUMBERS = {
    "journey-ways": 2,
    "journey-followed": 7,
    "journey-unfollowed": 2,
    "journey-lost": 1,
    "journey-displaced": 3,
}
KEYS = ("copy_of", "joined", "whole", "socket_inode", "socket_cookie", "socket_uid", "drop_reason")


def step(kind: Kind, **changes: Any) -> dict[str, Any]:
    """The members of an event of a followed packet between hooks."""
    nowhere = {"pf": 0, "hook": 0, "table": b"", "chain": b"", "rulenum": 0, "traversal": 0}
    between = {**nowhere, "kind": kind, "packet": 12, "flags": EventFlag(0)}
    return event(**{**between, **changes})


def test_text_and_hook() -> None:
    hook = chosen(HookOptions(hook="journey"))
    assert hook == JourneyHook()
    assert str(hook) == "journey"
    assert hook.given() == {"hook": "journey"}
    assert hook.request(ExitStack()) == {"hook": Hook.JOURNEY}
    assert hook.identity() == (Hook.JOURNEY, 1)
    check_slots(hook, [Slot.STEP])
    with pytest.raises(UsageError, match="journey"):
        check_slots(hook, [Slot.STEP, Slot.ENTRY])


def test_both_ways() -> None:
    hook = chosen(HookOptions(hook="journey:both-ways"))
    assert hook == JourneyHook(both_ways=True)
    assert str(hook) == "journey:both-ways"
    assert hook.given() == {"hook": "journey:both-ways"}
    request = hook.request(ExitStack())
    assert request == {"hook": Hook.JOURNEY, "journey-ways": 2}
    assert from_attributes(request) == hook
    assert hook.identity() != JourneyHook().identity()


@pytest.mark.parametrize("text", ["journey:", "journey:inet4", "journey:1"])
def test_a_journey_has_no_place(text: str) -> None:
    with pytest.raises(
        UsageError, match=f"'{text}' is not a journey; write journey or journey:both-ways"
    ):
        chosen(HookOptions(hook=text))


def test_other_texts_mean_other_hooks() -> None:
    assert not JourneyHook.means("journeys")
    with pytest.raises(UsageError, match="'journeys' is not a hook"):
        chosen(HookOptions(hook="journeys"))


def test_links_as_reported() -> None:
    hook = from_attributes({"hook": Hook.JOURNEY, "armed": 32, **NUMBERS})
    assert hook == JourneyHook(True, True, 7, 2, 1, 3)
    assert list(hook.misses(7)) == []
    # the bit of another kind
    idle = from_attributes({"hook": Hook.JOURNEY, "armed": 16})
    assert idle == JourneyHook()
    assert list(idle.misses(7)) == ["steps of packets are not watched"]


def journey(**changes: Any) -> Link:
    programs = {"program": [{"slot": int(Slot.STEP), "id": 5, "tag": bytes(8), "name": "step"}]}
    made = link(hook=Hook.JOURNEY, programs=programs, armed=32, stats={}, **changes)
    return Link.from_attributes(made)


def test_a_journey_in_text() -> None:
    line = link_line(journey(**NUMBERS))
    assert line.startswith(
        "link=3 gen=2 hook=journey:both-ways step=5(step) step.tag=0000000000000000 "
    )
    assert (
        " armed=journeys journey.followed=7 journey.unfollowed=2 journey.lost=1 "
        "journey.displaced=3 packets=0" in line
    )
    assert " armed=journeys journey.followed=0 packets=0" in link_line(journey())
    idle = link_line(Link.from_attributes(link(hook=Hook.JOURNEY, armed=0)))
    assert " armed=none journey.followed=0 " in idle


def test_a_journey_in_json() -> None:
    found = link_object(journey(**NUMBERS))
    assert found["hook"] == "journey:both-ways"
    assert found["armed"] == ["journeys"]
    names = ("journey_followed", "journey_unfollowed", "journey_lost", "journey_displaced")
    assert [found[name] for name in names] == [7, 2, 1, 3]
    assert (found["journey_both_ways"], found["journey"]) == (True, None)
    other = link_object(Link.from_attributes(link()))
    assert [other[name] for name in names] == [None] * 4


def test_a_link_on_a_journey() -> None:
    on_one = Link.from_attributes(link(journey=9))
    assert on_one.journey == 9
    assert " journey=9 armed=4 " in link_line(on_one)
    assert link_object(on_one)["journey"] == 9
    # once the journey is gone, the module says nothing of it
    alone = Link.from_attributes(link())
    assert alone.journey is None
    assert "journey" not in link_line(alone)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (Kind.JOURNEY_COPY, {"rule_handle": 11}, "copy of=11 in= out=enp0s8"),
        (Kind.JOURNEY_SENT, {}, "sent in= out=enp0s8"),
        (Kind.JOURNEY_RECEIVED, {"in_name": b"et h", "out_name": b""}, r"received in=et\x20h out="),
        (
            Kind.JOURNEY_SOCKET,
            {"rule_handle": 4711, "table_handle": 9, "verdict_data": 1000},
            "socket inode=4711 uid=1000 in= out=enp0s8",
        ),
        (
            Kind.JOURNEY_DROPPED,
            {"verdict_data": 6, "chain": b"nf_hook_slow"},
            "dropped reason=6 function=nf_hook_slow in= out=enp0s8",
        ),
        (
            Kind.JOURNEY_DROPPED,
            {"verdict_data": 2, "chain": b"f", "table": b"mod"},
            "dropped reason=2 function=f module=mod in= out=enp0s8",
        ),
        (Kind.JOURNEY_JOINED, {"rule_handle": 11}, "joined into=11 in= out=enp0s8"),
        (Kind.JOURNEY_WAITS, {"rule_handle": 11}, "waits whole=11 in= out=enp0s8"),
        (Kind.JOURNEY_WHOLE, {"rule_handle": 11}, "whole whole=11 in= out=enp0s8"),
        (Kind.JOURNEY_FREED, {}, "freed in= out=enp0s8"),
        (Kind.JOURNEY_LOST, {}, "lost in= out=enp0s8"),
    ],
)
def test_events(kind: Kind, changes: dict[str, Any], words: str) -> None:
    one = record(**step(kind, **changes))
    assert of_event(kind) is JourneyHook
    assert decision(one) == f"journey=[{words}]"
    assert JourneyHook.heading(one) == "journey"
    assert words.startswith(" ".join(JourneyHook.outcome(one)))


def test_every_kind_of_step_is_its_event() -> None:
    assert {kind for kind in Kind if kind.name.startswith("JOURNEY_")} == JourneyHook.EVENTS


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Kind.JOURNEY_COPY, [4711, *[None] * 6]),
        (Kind.JOURNEY_JOINED, [None, 4711, *[None] * 5]),
        (Kind.JOURNEY_WAITS, [None, None, 4711, *[None] * 4]),
        (Kind.JOURNEY_WHOLE, [None, None, 4711, *[None] * 4]),
        (Kind.JOURNEY_SOCKET, [None, None, None, 4711, 9, 6, None]),
        (Kind.JOURNEY_DROPPED, [*[None] * 6, 6]),
        (Kind.JOURNEY_FREED, [None] * 7),
    ],
)
def test_json(kind: Kind, values: list[int | None]) -> None:
    members = {"rule_handle": 4711, "table_handle": 9, "verdict_data": 6}
    found = event_object(record(**step(kind, chain=b"f", table=b"m", **members)))
    assert [found[key] for key in KEYS] == values
    assert found["packet"] == 12
    dropped = kind == Kind.JOURNEY_DROPPED
    assert (found["function"], found["module"]) == (("f", "m") if dropped else (None, None))


def test_a_socket_without_numbers() -> None:
    found = event_object(record(**step(Kind.JOURNEY_SOCKET, rule_handle=0, table_handle=0)))
    assert (found["socket_inode"], found["socket_cookie"], found["socket_uid"]) == (None, None, 0)


def test_events_of_other_hooks_have_the_keys_and_the_number() -> None:
    found = event_object(record(packet=12))
    assert found["packet"] == 12
    assert [found[key] for key in KEYS] == [None] * len(KEYS)
    assert event_object(record())["packet"] is None


def test_patterns() -> None:
    assert event_pattern("journey") == HookPattern(JourneyHook.EVENTS)
    others = [hook for hook in KINDS if hook is not JourneyHook]
    assert not any(JourneyHook.EVENTS & hook.EVENTS for hook in others)
