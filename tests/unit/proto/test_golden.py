# SPDX-License-Identifier: GPL-2.0
"""Recordings of each version of the protocol: we send the same requests, and read the answers."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipttproto import Command, EventFlag, Feature, build_request, parse_batch
from ipttproto.attributes import AttributeSet
from ipttproto.family import Event, Top
from ipttproto.layout import fields
from ipttproto.messages import MessageHeader
from ipttproto.operations import OPERATIONS
from tests.golden.recording import (
    Answer,
    Recording,
    changed,
    current_version,
    definition,
    files,
    missing,
    plain,
)

PROTOCOL = Path(__file__).parents[3] / "docs" / "protocol.md"
RECORDINGS = {path.stem: Recording.read(path) for path in files()}

UNRECORDED: dict[str, str] = {}
"""Attributes of requests that no recording has, by operation or set, and why."""


@pytest.fixture(params=RECORDINGS)
def recorded(request: pytest.FixtureRequest) -> Recording:
    return RECORDINGS[request.param]


def answers(recording: Recording) -> Iterator[Answer]:
    for exchange in recording.exchanges:
        yield from exchange.replies
        yield from exchange.notifications


def test_this_version_is_as_recorded() -> None:
    assert current_version() in RECORDINGS, "record it: make golden"
    now, then = definition(), RECORDINGS[current_version()].definition
    different = [*changed(then, now), *changed(now, then)]
    assert different == [], "this makes another version: docs/protocol.md, Versions"


def test_versions_are_what_their_files_are_named(recorded: Recording) -> None:
    assert RECORDINGS[recorded.version] is recorded


def test_what_a_version_defined_stays(recorded: Recording) -> None:
    """Numbers, types and places stay; records grow at their end, limits become larger."""
    now = definition()
    then = dict(recorded.definition)
    limits = then.pop("limits")
    assert list(changed(then, now)) == []
    assert [name for name, value in limits.items() if now["limits"][name] < value] == []


def test_requests_have_the_same_bytes(recorded: Recording) -> None:
    for exchange in recorded.exchanges:
        command = Command[exchange.command.upper()]
        built = build_request(0, command, exchange.attributes, sequence=0)
        assert built[MessageHeader.sizeof() :] == exchange.request, exchange.attributes


def test_answers_mean_the_same(recorded: Recording) -> None:
    for answer in answers(recorded):
        assert plain(Top.parse(answer.data)) == answer.parsed


def test_events_mean_the_same(recorded: Recording) -> None:
    then = [member[0] for member in recorded.definition["records"]["event"]]
    now = [member.name for member in fields(Event)]
    assert recorded.batches
    for data, rows in zip(recorded.batches, recorded.rows, strict=True):
        parsed = [dict(zip(now, plain(row), strict=True)) for row in parse_batch(data).rows()]
        assert parsed == [
            {**dict.fromkeys(now[len(then) :], 0), **dict(zip(then, row, strict=True))}
            for row in rows
        ]
        noted = [i for i, event in enumerate(parsed) if event["flags"] & EventFlag.PAYLOAD]
        assert list(parse_batch(data).payloads) == noted


# --- what the recordings cover --------------------------------------------------------------------


def used(space: AttributeSet, values: Mapping[str, Any]) -> Iterator[str]:
    """The attributes in values, those of nests with the names of their sets."""
    for name, value in values.items():
        attribute = space.by_name[name]
        yield f"{space.name}.{name}"
        if attribute.nested is not None:
            for one in value if attribute.multi else [value]:
                yield from used(attribute.nested, one)


def nests(names: Iterator[str] | tuple[str, ...], space: AttributeSet) -> Iterator[AttributeSet]:
    """The sets that attributes nest, and those that they nest."""
    for name in names:
        nested = space.by_name[name].nested
        if nested is not None:
            yield nested
            inside = tuple(a.name for a in nested.attributes if not a.reply)
            yield from nests(inside, nested)


def test_every_attribute_of_requests_is_recorded() -> None:
    possible: set[str] = set()
    for operation in OPERATIONS:
        possible |= {f"{operation.command.name.lower()}.{name}" for name in operation.request}
        for space in nests(operation.request, Top):
            possible |= {f"{space.name}.{a.name}" for a in space.attributes if not a.reply}
    found: set[str] = set()
    for recording in RECORDINGS.values():
        for exchange in recording.exchanges:
            found |= {f"{exchange.command}.{name}" for name in exchange.attributes}
            found |= set(used(Top, exchange.attributes))
    assert possible - found == UNRECORDED.keys()


def test_every_command_is_recorded() -> None:
    exchanges = [exchange for one in RECORDINGS.values() for exchange in one.exchanges]
    done = {exchange.command for exchange in exchanges if not exchange.errno}
    requests = [operation for operation in OPERATIONS if operation.group is None]
    assert done == {operation.command.name.lower() for operation in requests}
    assert any(exchange.dump for exchange in exchanges)
    told = {answer.command for exchange in exchanges for answer in exchange.notifications}
    # that one comes at its own time
    told.add(Command.LINK_ENDED.name.lower())
    assert told == {o.command.name.lower() for o in OPERATIONS if o.notify}


def test_features_are_documented() -> None:
    row = re.compile(r"^\| `([a-z-]+)` \| (\d+) \| (\d+\.\d+) \|", re.MULTILINE)
    rows = row.findall(PROTOCOL.read_text())
    assert {name: int(bit) for name, bit, _ in rows} == {
        str(feature.name).lower().replace("_", "-"): int(feature) for feature in Feature
    }
    for name, _, version in rows:
        features = RECORDINGS[version].definition["enumerations"]["Feature"]
        assert name.upper().replace("-", "_") in features


# --- the comparison itself ------------------------------------------------------------------------


def renumber(found: dict[str, Any]) -> None:
    found["attributes"]["ipttrace"]["link"][0] = 99


def retype(found: dict[str, Any]) -> None:
    found["attributes"]["ipttrace"]["link"][1] = "u64"


def insert(found: dict[str, Any]) -> None:
    found["records"]["event"].insert(3, ["new", 16, "__u32", 1])


def refuse(found: dict[str, Any]) -> None:
    del found["operations"]["SWAP"]["request"]["force"]


def rename(found: dict[str, Any]) -> None:
    kinds = found["enumerations"]["Kind"]
    kinds["OTHER"] = kinds.pop("RULE")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (renumber, ".attributes.ipttrace.link"),
        (retype, ".attributes.ipttrace.link"),
        (insert, ".records.event"),
        (refuse, ".operations.SWAP.request.force"),
        (rename, ".enumerations.Kind.RULE"),
    ],
)
def test_a_change_is_found(change: Callable[[dict[str, Any]], None], where: str) -> None:
    found = copy.deepcopy(definition())
    change(found)
    assert list(changed(definition(), found)) == [where]


def test_additions_change_nothing() -> None:
    found = copy.deepcopy(definition())
    found["records"]["event"].append(["new", 344, "__u64", 1])
    found["attributes"]["ipttrace"]["new"] = [200, "u32"]
    found["operations"]["SWAP"]["request"]["new"] = True
    found["enumerations"]["Kind"]["NEW"] = 200
    assert list(changed(definition(), found)) == []
    assert len(list(changed(found, definition()))) == 4


def test_attributes_that_went_are_found() -> None:
    before = {"link": 1, "stats": {"packets": 5}, "history": [{"reason": "a"}, {"pid": 1}]}
    now = {"link": 2, "stats": {}, "history": [{"reason": "b", "pid": 1}, {"pid": 1}], "new": 1}
    assert list(missing(before, now)) == [".stats.packets"]
    assert list(missing(before, {**before, "history": [{}, {"pid": 2}]})) == [".history.reason"]
