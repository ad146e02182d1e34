# SPDX-License-Identifier: GPL-2.0
"""``make`` alone lists every target, and targets that are named elsewhere exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from guest import kernel_list

ROOT = Path(__file__).resolve().parents[3]
MAKEFILES = (
    ROOT / "Makefile",
    ROOT / "installer" / "install.mk",
    ROOT / "tests" / "long-runs.mk",
)
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
STEPS = {"analyze", "apt", "bytecode", "help", "module-kasan", "module-kcsan", "tests-bytecode"}
"""Targets that only other targets need."""


def targets() -> set[str]:
    """Every phony target."""
    lines = (line for path in MAKEFILES for line in path.read_text().splitlines())
    return {
        name
        for line in lines
        if line.startswith(".PHONY:")
        for name in line.removeprefix(".PHONY:").split()
    }


@pytest.fixture(scope="module")
def listing() -> str:
    # `make test-unit` runs this one, which must not inherit its options
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    command = ["make", "-C", str(ROOT), "--no-print-directory"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_every_target_is_listed(listing: str) -> None:
    first_columns = re.findall(r"^  (.+?)  ", listing, re.MULTILINE)
    assert {name for names in first_columns for name in names.split()} == targets() - STEPS


def test_targets_that_documents_name_are_there() -> None:
    command = re.compile(r"(?:^    |`)make ([a-z][a-z-]*)", re.MULTILINE)
    named = {name for path in DOCUMENTS for name in command.findall(path.read_text())}
    assert {"demo", "test", "test-all", "kernel-kasan"} <= named <= targets()


def test_targets_that_run_kernels_are_there() -> None:
    assert {name for kernel in kernel_list.load() for name in kernel.targets} <= targets()
