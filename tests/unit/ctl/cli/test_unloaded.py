# SPDX-License-Identifier: GPL-2.0
"""Observers whose module is unloaded, and perhaps loaded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.link.wire import Connection
from ipttproto import Command
from tests.unit.ctl.support import FAMILY_ID, FakeModule, event, events_message, link


@pytest.fixture(autouse=True)
def _module(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "open", module.connect)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("events", "listening\n1 event, 1 packet, lost 0\n"),
        ("events --links", "listening\n"),
        ("events -o json --netns /proc/self/ns/net", "listening\n0 events, 0 packets, lost 0\n"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_observers_tell_that_the_module_was_unloaded(
    line: str, told: str, again: bool, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def unload(*_: Any) -> Sequence[Mapping[str, Any]]:
        module.multicast(events_message([event()]))
        module.reload(FAMILY_ID + 1 if again else 0)
        return [link()]

    # events asks for the links, to know their payloads, after it has subscribed
    module.handlers[Command.GET] = unload
    assert run(line.split()) == 3
    rest = " and loaded again" if again else "; run `ipttctl module load`"
    assert capsys.readouterr().err.startswith(
        f"{told}ipttctl: the ipttrace module was unloaded{rest}"
    )
