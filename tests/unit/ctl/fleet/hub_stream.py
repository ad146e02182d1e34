# SPDX-License-Identifier: GPL-2.0
"""A hub whose stream has frames that a test makes, and the settings of somebody who asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamConfig

from ipttctl.cli import run
from ipttctl.frames.bodies import JSON_FORMAT, events_body, json_body
from ipttctl.frames.codec import encode
from ipttctl.frames.head import EVENTS, STORIES
from ipttctl.frames.writer import FrameNumbers
from ipttproto import parse_batch
from tests.unit.ctl.fleet.support import (
    Key,
    Server,
    client,
)
from tests.unit.ctl.fleet.test_metrics import by_rule, told
from tests.unit.ctl.stories.packets import one_story
from tests.unit.ctl.support import batch_payload, event

Message = tuple[str, bytes]


def dropped(number: int) -> str:
    return told(one_story(by_rule(number))).line


def stories(numbers: FrameNumbers, lines: Sequence[str]) -> Message:
    """A message with stories."""
    head = numbers.head(STORIES, len(lines), JSON_FORMAT)
    return f"ipttctl.story.{numbers.host}", encode(head, json_body(lines))


def events(numbers: FrameNumbers, count: int) -> Message:
    """A message with events."""
    batch = parse_batch(batch_payload([event(rulenum=n) for n in range(count)]))
    form, body = events_body([batch])
    return f"ipttctl.ev.{numbers.host}", encode(numbers.head(EVENTS, count, form), body)


@pytest.fixture
def settings(tmp_path: Path, leaf: Server, reader_key: Key) -> str:
    """The settings of somebody who asks; the server of the tests of agents is the hub here."""
    file = tmp_path / "hub.yaml"
    file.write_text(f"url: {leaf.url}\nnkey: {reader_key.seed}\n")
    return str(file)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the test sends heartbeats."""
    monkeypatch.setattr("ipttctl.fleet.asker.WAIT", 0.5)


def keep(server: Server, key: Key, messages: Sequence[Message], **config: Any) -> None:
    """Have the hub's stream keep messages."""

    async def put() -> None:
        async with client(server, key) as user:
            js = user.jetstream()
            names = ["ipttctl.ev.*", "ipttctl.story.*"]
            await js.add_stream(StreamConfig(name="ipttctl", subjects=names, **config))
            for subject, data in messages:
                await js.publish(subject, data)

    asyncio.run(put())


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The rows that a query prints."""
    assert run(["query", "--hub", "-o", "json", *arguments]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
