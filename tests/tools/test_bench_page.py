# SPDX-License-Identifier: GPL-2.0
"""The page of measurements is made of what the benches print."""

from __future__ import annotations

import re
from pathlib import Path

from tests.bench.page import page

BENCH = Path(__file__).parents[1] / "bench"
DOCS = BENCH.parents[1] / "docs"


def test_each_bench_has_its_place() -> None:
    template = (BENCH / "page.md").read_text()
    benches = {file.stem for file in BENCH.glob("*.py")} - {"__init__", "measuring", "page"}
    assert sorted(re.findall(r"^<(\w+)>$", template, re.MULTILINE)) == sorted(benches)
    (wanted,) = re.findall(
        r"^bench: BENCHES \?= (.*)$", (BENCH.parent / "long-runs.mk").read_text(), re.MULTILINE
    )
    assert sorted(wanted.split()) == sorted(benches)


def test_kernels_are_in_their_order(tmp_path: Path) -> None:
    for kernel in ("6.12", "6.1"):
        (tmp_path / f"table.{kernel}").write_text(f"of {kernel}\n")
    text = page("# Cost\n\n<table>\n\nend\n", tmp_path)
    assert re.fullmatch(
        r"# Cost\n\n    of 6\.1\n    [\d-]+\n\n    of 6\.12\n    [\d-]+\n\nend\n", text
    )


def test_figures_beside_the_goals_are_those_of_the_tables() -> None:
    before, goals = (DOCS / "performance.md").read_text().split("\n## Goals\n")
    template = (BENCH / "page.md").read_text().split("\n## Goals\n")[1]
    assert goals == template
    tables = set(re.findall(r"[\d.,]+", re.sub(r"^(?! {4}).*$", "", before, flags=re.MULTILINE)))
    rows = re.findall(r"^\|[^|]+\|[^|]+\| ([\d.,]+(?: / [\d.,]+)?) \|", goals, re.MULTILINE)
    assert len(rows) == goals.count("\n| ") - 1
    assert {figure for row in rows for figure in row.split(" / ")} <= tables
