# SPDX-License-Identifier: GPL-2.0
"""Stories as JSON have the keys that docs/stories.md says, and values of their types."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ipttctl.show.rule import Rule
from ipttctl.show.story_json import StoryJson, story_object
from ipttctl.show.story_summary import StorySummary
from ipttctl.show.story_words import StorySources
from ipttctl.stories.model import EndKind, PacketField, Story
from ipttctl.system.containers import Container
from ipttctl.system.peers import Peer
from ipttctl.system.processes import Process
from ipttctl.system.who import Participant, Receiver
from ipttproto import Conntrack, EventFlag, Kind, Verdict
from tests.unit.ctl.stories.packets import (
    FORWARD,
    INPUT,
    OUTPUT,
    START,
    Traveller,
    flood,
    ip4,
    one_story,
    to_docker,
    told,
)

PAGE = Path(__file__).parents[4] / "docs" / "stories.md"

SCHEMA: Final = PAGE.with_name("story.schema.json")


def all_kinds() -> list[Story]:
    """Stories with every kind of step."""
    packet = Traveller(50, pf=2, hook=OUTPUT, out_name=b"gre1", length=60, netns_cookie=4)
    packet.function("f", 1, mark=1)
    packet.function("g", 2, mark=2, verdict=Verdict.ACCEPT, ttl=63)
    packet.leave(mark=2)
    packet.sent("gre1")
    packet.now(saddr=ip4("10.0.0.1"), daddr=ip4("10.0.0.2"), protocol=47, length=84)
    packet.now(hook=OUTPUT, out_name=b"eth0")
    packet.function("f", 1)
    packet.leave()
    packet.sent("eth0")
    packet.now(netns_cookie=8, protocol=6, length=60, saddr=ip4("10.0.0.7"))
    packet.received("gre1")
    packet.now(pf=2, hook=INPUT)
    packet.nft(Kind.CHAIN_RULE, "input", 2, Verdict.DROP)
    packet.nft(Kind.CHAIN_EXIT, "input", verdict=Verdict.DROP)
    packet.function("nft_do_chain", 1, verdict=Verdict.STOLEN, verdict_data=1)
    packet.leave(Verdict.STOLEN, verdict_data=1)
    copy = Traveller(51, packet.time - 3000)
    copy.copied(50)
    copy.sent("eth1")
    copy.freed()
    return [*told(packet, copy), one_story(to_docker()), *told(*flood(1))]


CURL = Participant(Process(812, 0, "curl", 1000, "/a"), "a.service", user="alice")
NGINX = Participant(
    Process(31, 0, "nginx", 0, ""), container=Container("cri-o", "ab", "app", "web-0", "prod", "u")
)
PEER = Peer(b"eth\xff", 2, 4026532300, 8, None, elsewhere=True)
WEB = Peer(b"eth0", 3, 4026532301, 9, None, elsewhere=True, container=NGINX.container)
SOURCES = StorySources(
    rules=lambda records: [Rule("-A X -p tcp -j REJECT", "", "nft", "me", "mine") for _ in records],
    reason=lambda _: "NO_SOCKET",
    sender=lambda *_: CURL,
    peer=lambda device, _: {b"gre0": WEB, b"gre1": PEER}.get(device.name),
    socket=lambda inode, _, uid: Receiver(inode, uid, (CURL, NGINX), 2, True),
)


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    """The published schema, but that no other keys are allowed."""
    published = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(published)
    return Draft202012Validator(_closed(published))


def _closed(value: Any) -> Any:
    if isinstance(value, list):
        return [_closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _closed(one) for key, one in value.items()}
    return {**found, "additionalProperties": False} if "required" in found else found


@pytest.mark.parametrize("sources", [None, SOURCES])
def test_objects_have_the_schema(
    schema: Draft202012Validator, sources: StorySources | None
) -> None:
    objects = [story_object(story, sources) for story in all_kinds()]
    for one in objects:
        schema.validate(one)
    assert {step["step"] for one in objects for step in one["steps"]} == step_kinds()


def step_kinds() -> set[str]:
    """The kinds of steps that the schema has."""
    kinds: set[str] = set()
    for one in json.loads(SCHEMA.read_text())["$defs"]["step"]["oneOf"]:
        kind = one["properties"]["step"]
        kinds.update(kind.get("enum", [kind.get("const")]))
    return kinds


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("sender",), "curl (pid 812)"),
        (("steps", 0, "step"), "hop"),
        (("end", "kind"), "eaten"),
        (("headers", "source_port"), "80"),
        (("format",), 1),
        (("new",), 0),
    ],
)
def test_the_schema_refuses_what_it_does_not_say(
    schema: Draft202012Validator, where: tuple[str | int, ...], value: object
) -> None:
    whole: Any = story_object(one_story(to_docker()), SOURCES)
    inner = whole
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert not schema.is_valid(whole)


NAMES = st.binary(max_size=15).map(lambda name: name.replace(b"\0", b"x"))
EVENT = st.fixed_dictionaries(
    {"kind": st.sampled_from([kind for kind in Kind if kind != Kind.LEFT_OUT])},
    optional={
        "pf": st.sampled_from([0, 2, 3, 5, 7, 10]),
        "hook": st.integers(0, 5),
        "family": st.sampled_from([0, 1, 2, 5, 10]),
        "verdict": st.sampled_from(list(Verdict)),
        "verdict_data": st.integers(0, 200),
        "protocol": st.sampled_from([0, 1, 6, 17, 47, 58, 255]),
        "ethertype": st.sampled_from([0, 0x0800, 0x86DD, 0x0806, 0x88CC]),
        "flags": st.sampled_from(
            [0, *EventFlag, EventFlag.FRAGMENT | EventFlag.PID, EventFlag.TRUNCATED]
        ).map(EventFlag),
        "pid": st.integers(0, 70_000),
        "tcp_flags": st.integers(0, 255),
        "saddr": st.binary(min_size=16, max_size=16),
        "length": st.integers(0, 65_535),
        "rulenum": st.integers(0, 9),
        "rule_handle": st.integers(0, 9),
        "netns_cookie": st.integers(0, 2),
        "mark": st.integers(0, 2),
        "ct_state": st.sampled_from(list(Conntrack)),
        **dict.fromkeys(["table", "chain", "in_name", "out_name"], NAMES),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), EVENT), min_size=1, max_size=12))
def test_any_story_has_the_schema(
    schema: Draft202012Validator, made: list[tuple[int, dict[str, Any]]]
) -> None:
    """Of whatever events, in whatever order, with copies of packets and without."""
    packets = {number: Traveller(number, START + number) for number, _ in made}
    for number, members in made:
        packets[number].add(members.pop("kind"), **members)
    stories = told(*packets.values())
    assert stories
    for sources in (None, SOURCES):
        for line in StoryJson(sources).lines(stories):
            assert line.isascii()
            schema.validate(json.loads(line))


def test_peers_stand_beside_their_devices() -> None:
    packet = Traveller(pf=2, hook=FORWARD, in_name=b"gre0", in_ifindex=3)
    packet.function("f", 1)
    packet.leave()
    packet.sent("eth0")
    packet.sent("gre1")
    packet.freed()
    one = story_object(one_story(packet), SOURCES)
    peer = {
        "device": r"eth\xff",
        "ifindex": 2,
        "netns": 4026532300,
        "netns_cookie": 8,
        "netns_name": None,
        "container": None,
        "pod": None,
    }
    assert one["in_peer"]["container"] == {"engine": "cri-o", "id": "ab", "name": "app"}
    assert one["in_peer"]["pod"] == {"namespace": "prod", "name": "web-0", "uid": "u"}
    devices = [(s["device"], s["peer"]) for s in one["steps"] if s["step"] == "sent"]
    assert devices == [("eth0", None), ("gre1", peer)]
    assert (one["end"]["device"], one["end"]["peer"]) == ("gre1", peer)
    assert one["end"]["text"].startswith(r"left by gre1 (peer of eth\xff, namespace 4026532300)")
    without = story_object(one_story(packet))
    assert (without["in_peer"], without["end"]["peer"]) == (None, None)


def test_values() -> None:
    [one] = [story_object(story, SOURCES) for story in [one_story(to_docker())]]
    assert (one["packet"], one["in_device"], one["format"]) == (1, "eth0", 2)
    received, prerouting, route, forward = one["steps"]
    assert received["step"] == "received"
    assert route == {
        "step": "route",
        "after_ns": 13000,
        "device": "docker0",
        "rerouted": False,
        "changes": [],
    }
    assert (prerouting["ct_id"], forward["ct_id"]) == (4021, 4021)
    nat = prerouting["functions"][3]
    assert nat["changes"] == [
        {
            "field": "destination",
            "before": "203.0.113.5:8080",
            "after": "172.17.0.2:80",
            "initial": False,
        }
    ]
    assert forward["verdict"] == "DROP"
    end = one["end"]
    assert (end["kind"], end["dropped"], end["rejected"]) == ("dropped_by_rule", True, True)
    assert (end["rule"]["chain"], end["rule"]["rulenum"]) == ("DOCKER-USER", 1)
    assert end["drop_function"] == "nf_hook_slow"
    assert one["duration_ns"] == 18000


def test_a_line_is_an_object() -> None:
    story = one_story(to_docker())
    [line] = StoryJson(SOURCES).lines([story])
    assert json.loads(line) == story_object(story, SOURCES)
    packet = Traveller(in_name=b"\x1b\xff")
    packet.now(pf=2, hook=FORWARD)
    packet.function("\n", 1)
    [line] = StoryJson().lines([one_story(packet)])
    assert line.isprintable()
    assert line.isascii()


def test_senders_and_sockets_are_objects() -> None:
    packet = Traveller(50, pf=2, hook=OUTPUT, flags=EventFlag.PID, pid=812)
    packet.function("f", 1, flags=EventFlag.PID)
    packet.socket(4711, 9, uid=33)
    packet.freed()
    one = story_object(one_story(packet), SOURCES)
    assert one["pid"] == 812
    assert one["sender"] == CURL.values()
    at_socket = one["steps"][-1]
    assert at_socket["socket"] == one["end"]["socket"]
    assert at_socket["socket"] == {
        "text": "curl (pid 812, user alice, a.service) and 3 more",
        "inode": 4711,
        "cookie": 9,
        "uid": 33,
        "holders": [CURL.values(), NGINX.values()],
        "holders_left_out": 2,
        "holders_complete": True,
    }
    assert at_socket["headers"]["destination_port"] == 8080
    # nothing is known of processes: the numbers are those of the events
    one = story_object(one_story(packet))
    assert (one["pid"], one["sender"]) == (812, None)
    socket = one["end"]["socket"]
    assert (socket["text"], socket["holders"]) == ("socket 4711 (uid 33)", [])


def test_the_page_has_every_key() -> None:
    """And names no other in the tables of keys."""
    page = PAGE.read_text().partition("## JSON")[2]
    documented = set(re.findall(r"`([a-z_]+)`", page))
    keys: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            keys.update(value.get("properties", {}))
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)

    collect(json.loads(SCHEMA.read_text())["$defs"])
    assert keys - documented == set()
    values = {
        *step_kinds(),
        *(field.value for field in PacketField),
        *(kind.value for kind in EndKind),
    }
    assert documented - keys - values == {*("legacy", "nft", "story_group", "arrival", "departure")}


def test_the_schema_has_every_end_and_field() -> None:
    defs = json.loads(SCHEMA.read_text())["$defs"]
    assert set(defs["end"]["properties"]["kind"]["enum"]) == set(EndKind)
    assert set(defs["change"]["properties"]["field"]["enum"]) == set(PacketField)


def test_the_page_has_every_end() -> None:
    table = PAGE.read_text().partition("## Ends")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)`", table, re.MULTILINE)) == set(EndKind)


def test_groups_have_the_schema(schema: Draft202012Validator) -> None:
    summary = StorySummary()
    summary.add(told(*flood(2)))
    [group] = summary.objects()
    schema.validate(group)
