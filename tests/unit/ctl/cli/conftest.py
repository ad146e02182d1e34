# SPDX-License-Identifier: GPL-2.0
"""A module in user space that command lines find, programs that need no kernel, recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipttctl.link.wire import Connection
from ipttctl.programs import trace as trace_programs
from ipttctl.rules import backends
from ipttctl.rules.backends import Holders
from ipttctl.system import netns
from ipttproto import Command, Slot
from tests.unit.ctl.cli.captures import with_bytes, write_capture
from tests.unit.ctl.stories.packets import to_docker
from tests.unit.ctl.support import FakeModule, link


@pytest.fixture
def answering(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the module answer with a link whatever is asked of links."""
    monkeypatch.setattr(Connection, "open", module.connect)
    for command in (Command.ATTACH, Command.GET, Command.DETACH):
        module.handlers[command] = lambda *_: [link()]
    for command in (
        Command.SWAP,
        Command.CONFIRM,
        Command.ADOPT,
        Command.RENAME,
        Command.RELEASE,
    ):
        module.handlers[command] = lambda _, asked: [link(link=asked.get("link", 3))]
    module.handlers[Command.TRANSACT] = lambda _, asked: [
        link(link=change.get("link", 3), generation=3) for change in asked["change"]
    ]
    # those of this machine are nobody's concern
    monkeypatch.setattr(backends, "holders", lambda _: Holders(legacy=True, nft=True))
    monkeypatch.setattr(netns, "named", lambda: iter(()))


class FakeProgram:
    """A program that was loaded."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False

    def close(self) -> None:
        """Record it."""
        self.closed = True


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options with which programs were loaded."""
    asked: list[Any] = []

    def load(options: Any, *, on_compile: Callable[[], None] | None = None) -> Any:
        asked.append(options)
        if on_compile:
            on_compile()
        return {slot: FakeProgram(10 + slot) for slot in Slot if slot is not Slot.PACKET}

    monkeypatch.setattr(trace_programs, "load_trace_programs", load)
    return asked


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """A recording with bytes of packets."""
    return write_capture(tmp_path / "captured", with_bytes(to_docker()))
