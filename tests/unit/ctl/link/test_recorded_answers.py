# SPDX-License-Identifier: GPL-2.0
"""Answers of modules of each version of the protocol: links, histories and statuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipttctl.events.records import decode_events
from ipttctl.link.controller import require_same_protocol
from ipttctl.link.model import HistoryEntry, Link, ModuleStatus
from ipttproto import Action, Feature, Kind, SwapOutcome, parse_batch
from ipttproto.family import Top
from tests.golden.recording import Answer, Recording, files

RECORDINGS = {path.stem: Recording.read(path) for path in files()}


@pytest.fixture(params=RECORDINGS)
def recorded(request: pytest.FixtureRequest) -> Recording:
    return RECORDINGS[request.param]


def replies(recording: Recording, command: str) -> Iterator[Answer]:
    for exchange in recording.exchanges:
        if exchange.command == command:
            yield from exchange.replies


def test_statuses(recorded: Recording) -> None:
    for answer in replies(recorded, "stats"):
        status = ModuleStatus.from_attributes([Top.parse(answer.data)])
        require_same_protocol(status)
        assert status.protocol_text.startswith(f"protocol {recorded.version}, ")
        features = Feature(sum(recorded.definition["enumerations"]["Feature"].values()))
        assert status.features == features
        assert status.cpus


def test_links(recorded: Recording) -> None:
    links = [Link.from_attributes(Top.parse(a.data)) for a in replies(recorded, "get")]
    kinds = {"NfHook", "TableHook", "ChainHook", "SpineHook", "JourneyHook"}
    assert {type(link.hook).__name__ for link in links} == kinds
    assert {link.name for link in links} == {"", "filter", "first"}
    assert all(link.programs and link.generation for link in links)
    assert any(link.shadow for link in links)
    assert any(link.guards for link in links)
    # the link that is on the journey, until that is gone
    assert {(link.id, link.journey) for link in links if link.id >= 6} == {
        (6, None),
        (7, 6),
        (7, None),
    }
    assert any(link.outcome is SwapOutcome.WAITING for link in links)
    for exchange in recorded.exchanges:
        for told in exchange.notifications:
            assert Link.from_attributes(Top.parse(told.data)).id in set(range(1, 8))


def test_histories(recorded: Recording) -> None:
    for answer in replies(recorded, "history"):
        entries = [HistoryEntry.from_attributes(e) for e in Top.parse(answer.data)["history"]]
        assert [entry.generation for entry in entries] == list(range(1, len(entries) + 1))
        actions = {entry.action for entry in entries}
        assert actions == {Action.ATTACH, Action.SWAP, Action.ROLLBACK_REQUEST}


def test_events(recorded: Recording) -> None:
    events = [event for data in recorded.batches for event in decode_events(parse_batch(data))]
    assert {event.kind for event in events} >= {
        *(Kind.PACKET, Kind.CHAIN_RULE, Kind.EXIT),
        *(Kind.JOURNEY_SENT, Kind.JOURNEY_RECEIVED),
    }
    assert {event.link for event in events} == set(range(2, 8))
    # the links that are on the journey, and the journey itself, say which packet it is
    assert {event.link for event in events if event.packet} >= {6, 7}
    # what the program of link 3 notes
    assert {event.payload for event in events if event.link == 3} == {b"\5".ljust(16, b"\0")}
