# SPDX-License-Identifier: GPL-2.0
"""Lines of the module, from the counters that the kernel kept."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.coverage.lines import FileLines
from tests.coverage.runs import Run


def _gcov(counters: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["gcov", "--json-format", "--stdout", counters.name],
        cwd=counters.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    # counting may go on with every counter at 0
    assert done.returncode == 0, done.stderr
    assert "mismatch" not in done.stderr, done.stderr
    files: list[dict[str, Any]] = json.loads(done.stdout)["files"]
    return files


def _counts(run: Run) -> Iterator[tuple[str, int, int]]:
    """File below the module's directory, line, number of runs; a line may come more than once."""
    prefix = run.module_directory + "/"
    for counters in sorted(run.module_data.glob("*.gcda")):
        for file in _gcov(counters):
            # the kernel's own headers need no coverage here
            if file["file"].startswith(prefix):
                name = file["file"].removeprefix(prefix)
                for line in file["lines"]:
                    yield name, line["line_number"], line["count"]


def module_lines(runs: Iterable[Run]) -> list[FileLines]:
    """Lines of the module that ran in any of the runs, headers' functions included."""
    found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for run in runs:
        for name, line, count in _counts(run):
            found[name][line] += count
    return [
        FileLines(
            f"kmod_netlink/{name}",
            ran=frozenset(line for line, count in counts.items() if count),
            missed=frozenset(line for line, count in counts.items() if not count),
        )
        for name, counts in found.items()
    ]
