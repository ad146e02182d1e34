# SPDX-License-Identifier: GPL-2.0
"""Lines of the Python packages, from coverage.py's data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from coverage import Coverage

from tests.coverage.lines import FileLines
from tests.coverage.runs import ROOT, Run

PACKAGES = ("ctl/ipttctl", "proto/ipttproto")


def python_lines(runs: Iterable[Run], root: Path = ROOT) -> list[FileLines]:
    """Lines of the packages that ran in any of the runs; none of a file that was never imported."""
    with TemporaryDirectory(prefix="coverage-") as name:
        combined = Coverage(
            data_file=str(Path(name, "data")), config_file=str(root / "pyproject.toml")
        )
        combined.combine([str(run.python_data) for run in runs], strict=True, keep=True)
        found = []
        for package in PACKAGES:
            for path in sorted((root / package).rglob("*.py")):
                _, lines, _, missed, _ = combined.analysis2(str(path))
                ran = frozenset(lines) - frozenset(missed)
                found.append(FileLines(str(path.relative_to(root)), ran, frozenset(missed)))
        return found
