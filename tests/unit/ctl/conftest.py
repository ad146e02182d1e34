# SPDX-License-Identifier: GPL-2.0
"""Fixtures: a module in user space; an object file, compiled once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.system.inherited import Inherited
from tests.unit.ctl.support import FakeModule


@pytest.fixture
def module() -> Iterator[FakeModule]:
    fake = FakeModule()
    yield fake
    fake.close()


@pytest.fixture
def left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let descriptors 7, 8 and 9 count as open: a module in user space does not look at them."""
    real = Inherited.now
    monkeypatch.setattr(Inherited, "now", lambda: Inherited(real().numbers | {7, 8, 9}))


@pytest.fixture(scope="session")
def object_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of types.c."""
    source = Path(__file__).with_name("bpf") / "types.c"
    target = tmp_path_factory.mktemp("object") / "types.o"
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", include, "-c", str(source), "-o"]
    subprocess.run([*command, str(target)], check=True)
    return target
