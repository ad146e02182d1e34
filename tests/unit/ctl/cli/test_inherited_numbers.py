# SPDX-License-Identifier: GPL-2.0
"""Command lines and files that name a descriptor which nobody left open."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ipttctl.cli import run
from ipttctl.link.wire import Connection
from ipttctl.system.inherited import Inherited
from tests.unit.ctl.support import FakeModule


@pytest.fixture(autouse=True)
def _module(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "open", module.connect)


@pytest.mark.parametrize(
    "line",
    [
        "attach --fd packet={fd} --hook nf:inet4/output",
        "attach --fd packet=0 --hook nf:inet4/output --netns /proc/self/fd/{fd}",
        "attach --id entry=12 --fd exit={fd}",
        "attach --pid exit={pid}:{fd}",
        "attach --object rule=/dev/fd/{fd}:x",
        "attach --pinned rule=/proc/self/fd/{fd}",
        "run --fd rule={fd} -- true",
        "swap 3 --fd rule={fd}",
        "swap --txn {txn}",
        "apply {state}",
        "diff {state}",
        "events --netns /proc/self/ns/net --netns /dev/fd/{fd}",
    ],
)
def test_what_we_opened_ourselves_is_not_inherited(
    line: str, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number that was free when the command started, and is open when it is looked for."""
    before = Inherited.now()
    with tempfile.TemporaryFile() as later:
        fd = later.fileno()
        (txn := tmp_path / "txn").write_text(
            f"[{{link: 3, id: rule=1}}, {{link: 4, fd: rule={fd}}}]"
        )
        (state := tmp_path / "state").write_text(f"links: {{a: {{fd: {{rule: {fd}}}}}}}")
        words = line.format(fd=fd, pid=os.getpid(), txn=txn, state=state).split()
        assert run(words, before) == 4
    assert f"fd {fd} is not open in this process; leave it open" in capsys.readouterr().err
    assert not module.requests
