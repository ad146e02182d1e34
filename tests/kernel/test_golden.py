# SPDX-License-Identifier: GPL-2.0
"""The module takes the requests of each earlier minor version as that version's module did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.recording import files
from tests.kernel.support.kernel import COMMAND_TIMEOUT


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_recorded_requests(path: Path) -> None:
    played = subprocess.run(
        [sys.executable, "-m", "tests.golden", str(path)],
        capture_output=True,
        text=True,
        timeout=3 * COMMAND_TIMEOUT,
        check=False,
    )
    assert (played.returncode, played.stdout) == (0, ""), played.stdout + played.stderr
