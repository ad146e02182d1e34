# SPDX-License-Identifier: GPL-2.0
"""``make load`` in small: its programs run to their end, and nothing is lost in what they do."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

_SMALL: Final = {
    "tests.load.fleet_agent 1000 1": " 0 lost;",
    "tests.load.fleet_hub 4 100 2": " lost 0, ",
    "tests.load.fleet_waves 4": " undone on 4 of 4 hosts: ",
    "tests.load.queries 2000": "top drops",
}


@pytest.mark.parametrize("program", _SMALL)
def test_a_program_of_the_load_runs(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *program.split()],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert _SMALL[program] in done.stdout
