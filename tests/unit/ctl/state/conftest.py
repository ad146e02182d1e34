# SPDX-License-Identifier: GPL-2.0
"""The machine, and where apply keeps its record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from ipttctl import state
from ipttctl.bpf import syscalls
from ipttctl.link.wire import Connection
from ipttctl.state import host_plan
from ipttctl.state.watch import StateWatch
from tests.unit.ctl.support import FakeModule

if TYPE_CHECKING:
    pass

from tests.unit.ctl.state.support import Machine


@pytest.fixture
def machine(module: FakeModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    """The fake module's links; programs are given as --fd N, and N is their id."""
    monkeypatch.setattr(Connection, "open", module.connect)
    monkeypatch.setattr(
        syscalls, "program_info", lambda fd: syscalls.LoadedProgram(fd, "0" * 16, "x", "kprobe")
    )
    monkeypatch.setattr("ipttctl.state.apply.check_types", lambda _: None)
    functions = (
        *(getattr(state, name) for name in ("apply_state", "diff_state", "save_state")),
        host_plan.plan_state,
        host_plan.apply_plan,
        StateWatch.__init__,
    )
    for function in functions:
        defaults = cast(Any, function).__kwdefaults__
        monkeypatch.setitem(defaults, "record", tmp_path / "record" / "declared.json")
    return Machine(module)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "record" / "declared.json"
