# SPDX-License-Identifier: GPL-2.0
"""Everything at once, for a short time; ``make storm`` runs it for longer.

IPTT_STORM_SECONDS, IPTT_STORM_ROUND and IPTT_SEED choose its length, that of its rounds and its
decisions.
"""

from __future__ import annotations

import os
import subprocess
import sys

SECONDS = os.environ.get("IPTT_STORM_SECONDS", "15")
ROUND = os.environ.get("IPTT_STORM_ROUND", "12")
SEED = os.environ.get("IPTT_SEED", "1")


def test_storm() -> None:
    """The storm runs in a process of its own: it forks its actors before anything else."""
    # hundreds of processes, each of which would write down its coverage: on an emulated debug
    # kernel that keeps them from ending for minutes
    environment = {n: value for n, value in os.environ.items() if not n.startswith("COVERAGE_")}
    # no timeout: a storm that hangs ends by itself, and names the actor that hangs
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.storm",
            "--seconds", SECONDS, "--round", ROUND, "--seed", SEED,
        ],
        env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip  # plain options together
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    assert f"blown over, seed {SEED}" in done.stdout
