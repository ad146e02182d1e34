# SPDX-License-Identifier: GPL-2.0
"""Stories as JSON have the keys that docs/stories.md says, and values of their types."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from ipttctl.show.rule import Rule
from ipttctl.show.story_json import StoryJson, story_object
from ipttctl.show.story_summary import StorySummary
from ipttctl.show.story_words import StorySources
from ipttctl.stories.model import EndKind, PacketField, Story
from ipttproto import Kind, Verdict
from tests.unit.ctl.stories.packets import (
    FORWARD,
    INPUT,
    OUTPUT,
    Traveller,
    flood,
    ip4,
    one_story,
    to_docker,
    told,
)

PAGE = Path(__file__).parents[4] / "docs" / "stories.md"

#: a type of a value; a list has elements of one kind, an object has exactly these keys
Schema = Any
INT, TEXT, BOOL = (int,), (str,), (bool,)
MAYBE_INT, MAYBE_TEXT = (int, type(None)), (str, type(None))

NETNS: Final[dict[str, Schema]] = {
    "netns": MAYBE_INT,
    "netns_cookie": MAYBE_INT,
    "netns_name": MAYBE_TEXT,
}
VERDICT: Final[dict[str, Schema]] = {"verdict": MAYBE_TEXT, "errno": MAYBE_TEXT}
HEADERS: Final[dict[str, Schema]] = {
    "family": MAYBE_INT,
    "ethertype": INT,
    "protocol": MAYBE_TEXT,
    "source": MAYBE_TEXT,
    "destination": MAYBE_TEXT,
    "source_port": MAYBE_INT,
    "destination_port": MAYBE_INT,
    "tcp_flags": (list, type(None)),
    "icmp_type": MAYBE_INT,
    "icmp_code": MAYBE_INT,
    "fragment": BOOL,
    "length": INT,
}
CHANGES: Final[list[Schema]] = [
    {"field": TEXT, "before": (int, str), "after": (int, str), "initial": BOOL}
]
NAMED_RULE: Final[dict[str, Schema]] = {
    "kind": TEXT,
    "table_family": MAYBE_TEXT,
    "table": TEXT,
    "chain": TEXT,
    "rulenum": MAYBE_INT,
    "rule_handle": MAYBE_INT,
    "decision": MAYBE_TEXT,
    "target": MAYBE_TEXT,
    "uncertain": BOOL,
    "rule": MAYBE_TEXT,
    "rule_syntax": MAYBE_TEXT,
    "rule_note": MAYBE_TEXT,
    "owner": MAYBE_TEXT,
    "owner_about": MAYBE_TEXT,
}
CONSULTED: Final[dict[str, Schema]] = {
    "backend": TEXT,
    "table_family": MAYBE_TEXT,
    "table": TEXT,
    "chain": TEXT,
    "connection_known": BOOL,
    "rules": [{"after_ns": INT, **NAMED_RULE, "changes": CHANGES}],
    **VERDICT,
}
FUNCTION: Final[dict[str, Schema]] = {
    "function": MAYBE_TEXT,
    "module": MAYBE_TEXT,
    "priority": MAYBE_INT,
    "consulted": [CONSULTED],
    "changes": CHANGES,
    **VERDICT,
}
SOCKET: Final[dict[str, Schema]] = {
    "socket": MAYBE_TEXT,
    "inode": MAYBE_INT,
    "cookie": MAYBE_INT,
    "uid": INT,
}
DEVICE: Final[dict[str, Schema]] = {
    "device": MAYBE_TEXT,
    "crossed": BOOL,
    **NETNS,
    "changes": CHANGES,
}
STEPS: Final[dict[str, dict[str, Schema]]] = {
    "hook": {
        "hook": TEXT,
        "hook_family": TEXT,
        **NETNS,
        "in_device": MAYBE_TEXT,
        "out_device": MAYBE_TEXT,
        "arrived": CHANGES,
        "functions": [FUNCTION],
        **VERDICT,
    },
    "route": {"device": MAYBE_TEXT, "rerouted": BOOL, "changes": CHANGES},
    "sent": DEVICE,
    "received": DEVICE,
    "socket": SOCKET,
    "encapsulated": {"headers": HEADERS},
    "decapsulated": {"headers": HEADERS},
    "branch": {"folded": BOOL, "story": "story"},
}
END: Final[dict[str, Schema]] = {
    "kind": TEXT,
    "dropped": BOOL,
    "rejected": BOOL,
    "text": TEXT,
    "hook": MAYBE_TEXT,
    "rule": (None, NAMED_RULE),
    "function": MAYBE_TEXT,
    "module": MAYBE_TEXT,
    "drop_reason": MAYBE_TEXT,
    "drop_reason_number": MAYBE_INT,
    "drop_function": MAYBE_TEXT,
    "drop_module": MAYBE_TEXT,
    "device": MAYBE_TEXT,
    "queue": MAYBE_INT,
    "headers": HEADERS,
    "socket": (None, SOCKET),
    "why": MAYBE_TEXT,
}
STORY: Final[dict[str, Schema]] = {
    "type": TEXT,
    "format": INT,
    "packet": INT,
    "copy_of": MAYBE_INT,
    "time_ns": INT,
    "monotonic_ns": INT,
    "duration_ns": INT,
    **NETNS,
    "in_device": MAYBE_TEXT,
    "pid": MAYBE_INT,
    "sender": MAYBE_TEXT,
    "headers": HEADERS,
    "steps": ["step"],
    "folded_branches": INT,
    "end": END,
}


def check(value: object, schema: Schema, at: str = "story") -> None:
    """Compare a value with its schema."""
    match schema:
        case "story":
            check(value, STORY, at)
        case "step":
            assert isinstance(value, dict), at
            of_kind = STEPS[value["step"]]
            check(value, {"step": TEXT, "after_ns": INT, **of_kind}, f"{at}({value['step']})")
        case dict():
            assert isinstance(value, dict), at
            assert value.keys() == schema.keys(), at
            for key, one in schema.items():
                check(value[key], one, f"{at}.{key}")
        case list():
            [element] = schema
            assert isinstance(value, list), at
            for place, one in enumerate(value):
                check(one, element, f"{at}[{place}]")
        case (None, dict() as inner):
            if value is not None:
                check(value, inner, at)
        case _:
            assert isinstance(value, schema), (at, value)
            assert bool in schema or not isinstance(value, bool), at


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


SOURCES = StorySources(
    rules=lambda records: [Rule("tcp dport 1 reject", "", "nft", "me", "mine") for _ in records],
    reason=lambda _: "NO_SOCKET",
    socket=lambda _: "sshd",
)


@pytest.mark.parametrize("sources", [None, SOURCES])
def test_objects_have_the_schema(sources: StorySources | None) -> None:
    objects = [story_object(story, sources) for story in all_kinds()]
    for one in objects:
        check(one, "story")
    kinds = {step["step"] for one in objects for step in one["steps"]}
    assert kinds == STEPS.keys()


def test_values() -> None:
    [one] = [story_object(story, SOURCES) for story in [one_story(to_docker())]]
    assert (one["packet"], one["in_device"], one["format"]) == (1, "eth0", 1)
    received, prerouting, route, forward = one["steps"]
    assert received["step"] == "received"
    assert route == {
        "step": "route",
        "after_ns": 13000,
        "device": "docker0",
        "rerouted": False,
        "changes": [],
    }
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


def test_the_page_has_every_key() -> None:
    """And names no other in the tables of keys."""
    page = PAGE.read_text().partition("## JSON")[2]
    documented = set(re.findall(r"`([a-z_]+)`", page))
    keys: set[str] = set()

    def collect(schema: Schema) -> None:
        if isinstance(schema, dict):
            keys.update(schema)
            for one in schema.values():
                collect(one)
        elif isinstance(schema, list | tuple):
            for one in schema:
                collect(one)

    for schema in (STORY, *STEPS.values()):
        collect(schema)
    assert keys - documented == set()
    values = {*STEPS, *(field.value for field in PacketField), *(kind.value for kind in EndKind)}
    others = {"story", "legacy", "nft", "story_group", "count", "first_ns", "last_ns", "example"}
    assert documented - keys - values - others == {"step"}


def test_the_page_has_every_end() -> None:
    table = PAGE.read_text().partition("## Ends")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_]+)`", table, re.MULTILINE)) == set(EndKind)


def test_groups_are_documented() -> None:
    summary = StorySummary()
    summary.add(told(*flood(2)))
    [group] = summary.objects()
    page = PAGE.read_text().partition("`--summary` prints")[2]
    assert all(f"`{key}`" in page for key in group)
    check(group["example"], "story")
