# SPDX-License-Identifier: GPL-2.0
"""``python -m tests.coverage.report``: coverage of the module and of the Python packages.

Prints the lines that did not run, and exits 1 if there are too many of them. Uses all runs of the
current sources, or the runs in the directories given. With --ready it only exits 0 if every
kernel test has run on a kernel with gcov, with the current sources.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.coverage.lines import FileLines, percentage, table
from tests.coverage.module import module_lines
from tests.coverage.python import python_lines
from tests.coverage.runs import Run, complete, runs

#: percentage of the lines
MODULE_THRESHOLD = 90
PYTHON_THRESHOLD = 95


def _enough(what: str, files: Sequence[FileLines], threshold: float) -> bool:
    print(table(what, files), end="\n\n", flush=True)
    share = percentage(files)
    if share < threshold:
        print(f"{what}: {share:.1f} % of the lines ran; {threshold} % are wanted", file=sys.stderr)
    return share >= threshold


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ready", action="store_true", help="only say whether there is data")
    parser.add_argument("directories", metavar="DIRECTORY", nargs="*", type=Path)
    arguments = parser.parse_args()
    found = [Run(directory) for directory in arguments.directories] or runs()
    if arguments.ready:
        return 0 if complete(found) else 1
    if not found:
        print("coverage: no run of the sources as they are; run: make coverage", file=sys.stderr)
        return 1
    module = module_lines(run for run in found if run.of_the_module)
    enough = [
        _enough("module", module, MODULE_THRESHOLD),
        _enough("Python", python_lines(found), PYTHON_THRESHOLD),
    ]
    return 0 if all(enough) else 1


if __name__ == "__main__":
    sys.exit(main())
