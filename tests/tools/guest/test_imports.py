# SPDX-License-Identifier: GPL-2.0
"""Guests without the tests: ``make demo`` and ``make shell`` need them too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import guest

ROOT = Path(guest.__file__).parents[1]
#: packages of the project that the runner does not use
OTHERS = {"installer", "ipttctl", "ipttproto", "tests"}
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "guest").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path} imports relatively"
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_the_runner_imports_nothing_else_of_the_project(file: Path) -> None:
    assert not OTHERS & set(imported(ROOT / file))


def test_imports_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "runner.py"
    file.write_text("import os, tests\ndef run():\n    from ipttctl.netns import resolve\n")
    assert set(imported(file)) == {"os", "tests", "ipttctl"}
