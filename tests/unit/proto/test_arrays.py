# SPDX-License-Identifier: GPL-2.0
"""numpy's threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

BLOCKED = """
import os, sys
from ipttproto import EVENT_DTYPE
assert "numpy" in sys.modules
for thread in sorted(map(int, os.listdir("/proc/self/task"))):
    status = open(f"/proc/self/task/{thread}/status").read()
    print(status.partition("SigBlk:")[2].split()[0])
"""


def test_they_take_no_signals() -> None:
    """A signal in one of these threads would not interrupt the main thread's wait."""
    command = [sys.executable, "-c", BLOCKED]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "3"}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    main, *others = (int(line, 16) for line in run.stdout.split())
    assert main == 0
    assert others
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        assert all(blocked >> number - 1 & 1 for blocked in others)
