# SPDX-License-Identifier: GPL-2.0
"""Command line of the storm: for a guest, as root (``make storm``).

Exit status: 0 if the storm ended and left nothing behind; 1 if something went wrong, after a
sentence that says why.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.storm.stage import StormError
from tests.storm.storm import run


def main() -> int:
    """Run the storm; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.storm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="at least (%(default)s)")
    # on a debug kernel most of a round is its begin and its end: more is to happen between
    parser.add_argument(
        "--round", type=float, default=12, help="seconds of a round at most (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all decisions (%(default)s)")
    arguments = parser.parse_args()
    if "IPTTRACE_KO" not in os.environ:
        print("the storm is for a guest: make storm", file=sys.stderr)
        return 1
    directory = Path(os.environ.get("IPTT_RUN_DIR") or tempfile.gettempdir())
    try:
        run(
            arguments.seed, arguments.seconds, arguments.round, directory,
            lambda line: print(line, flush=True),
        )  # fmt: skip  # the storm together
    except (StormError, AssertionError) as error:
        print(f"storm: FAILED with seed {arguments.seed}: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"storm: blown over, seed {arguments.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
