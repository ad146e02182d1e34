# SPDX-License-Identifier: GPL-2.0
"""The first record of streams of JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ipttctl.cli import run
from ipttctl.link.wire import Connection
from ipttctl.show.stream_head import stream_head
from ipttctl.system.host_identity import HostIdentity
from ipttproto import FINGERPRINT, Command
from tests.unit.ctl.support import FakeModule, event, events_message, link, notification

HERE = HostIdentity("router", "b00t", 4711)


@pytest.mark.parametrize(
    ("line", "stream"), [("events --no-rules", "events"), ("events --links", "links")]
)
def test_it_says_where_the_others_come_from(
    line: str,
    stream: str,
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(HostIdentity, "now", classmethod(lambda _: HERE))
    monkeypatch.setattr(Connection, "open", module.connect)
    told = {
        "events": events_message([event()]),
        "links": notification(Command.LINK_CHANGED, link()),
    }
    module.when_connected(2, told[stream])
    assert run([*line.split(), "-c", "1", "-o", "json"]) == 0
    head, *others = map(json.loads, capsys.readouterr().out.splitlines())
    assert head == {
        "type": "stream",
        "stream": stream,
        "host": "router",
        "boot_id": "b00t",
        "module_life": 4711,
        "module_version": "0.1.0",
        "fingerprint": f"{FINGERPRINT:08x}",
    }
    assert others
    assert not [one for one in others if "type" in one]


def test_its_keys_are_documented() -> None:
    section = (Path(__file__).parents[4] / "docs/json.md").read_text().split("## Stream\n")[1]
    documented = re.findall(r"^\| `(\w+)` \|", section.split("\n## ")[0], re.MULTILINE)
    assert documented == list(stream_head("events", HERE, None))
