# SPDX-License-Identifier: GPL-2.0
"""An object file, compiled once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("types.c")


@pytest.fixture(scope="session")
def object_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of types.c."""
    target = tmp_path_factory.mktemp("object") / "types.o"
    include = f"-I/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", include, "-c", str(SOURCE), "-o"]
    subprocess.run([*command, str(target)], check=True)
    return target
