# SPDX-License-Identifier: GPL-2.0
"""The Python code in the documents and the examples is right, as far as types tell."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import ipttctl
from ipttctl import Controller

ROOT = Path(__file__).parents[3]


def blocks(document: Path) -> list[str]:
    """The Python code in a document."""
    found = re.findall(r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def test_code_in_documents_is_well_typed(tmp_path: Path) -> None:
    """Each block is a program of its own."""
    files = []
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, block in enumerate(blocks(document)):
            file = tmp_path / f"{document.stem.lower().replace('-', '_')}_{number}.py"
            file.write_text(block)
            files.append(file)
    assert len(files) > 8
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from ipttctl import Controller\n\nController().swap(1)\n")
    options = ["--strict", "--no-error-summary", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *files, wrong],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("wrong.py")] == [], done.stderr
    assert len(lines) == 1


def test_every_verb_is_in_the_table() -> None:
    text = (ROOT / "docs" / "python.md").read_text()
    table = text.partition("## Verbs")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", table))
    verbs = {name for name in vars(Controller) if not name.startswith("_")} - {"close"}
    # of the rules' readers and of the verifier
    others = {"ruleset", "try_walk", "end_verification", "namespaces_going"}
    assert verbs - others <= named


def test_names_in_the_page_are_public() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)
    names = set(re.findall(r"`([A-Z]\w+|\w+_object)\b[^`]*`", text)) - {"CancelledError"}
    assert len(names) > 20
    assert names <= set(dir(ipttctl))
