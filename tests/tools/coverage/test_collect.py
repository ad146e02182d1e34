# SPDX-License-Identifier: GPL-2.0
"""Measurements in processes of every kind, and the validity of the data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.coverage.runs import ROOT, Run, complete, fingerprint, runs

#: processes that end by themselves in each possible way, each in another function of the project
WAYS = """
import os, subprocess, sys

def child(ending):
    pid = os.fork()
    if pid == 0:
        ending()
    assert os.waitpid(pid, 0)[1] == 0

def leaves():
    from ipttproto.naming import kebab
    kebab("A_B")
    os._exit(0)

child(leaves)
subprocess.run([sys.executable, "-c", "import ipttproto.errors"], check=True, cwd="/")
compiler = "ctl/ipttctl/bpf/bpfcc_compiler.py"
subprocess.run([sys.executable, "-P", compiler], input="{", text=True, stderr=subprocess.DEVNULL)
sys.exit(3)
"""


def collect(command: Sequence[str], into: Path) -> subprocess.CompletedProcess[str]:
    """Collect in a process of its own: one that uses coverage.py is not measured itself."""
    collecting = [sys.executable, "-m", "tests.coverage.collect", "--into", str(into), "--"]
    return subprocess.run(
        [*collecting, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def report(*runs: Run) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.coverage.report", *(str(r.directory) for r in runs)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_forks_and_children_are_measured(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    assert collect([sys.executable, "-c", WAYS], run.directory).returncode == 3
    assert run.sources == fingerprint()
    assert run.command[-1] == WAYS
    rows = (line.split() for line in report(run).stdout.splitlines())
    missed = {row[0]: (int(row[1]), int(row[2])) for row in rows if row and row[0].endswith(".py")}
    lines, not_run = missed["proto/ipttproto/naming.py"]
    assert not_run < lines
    assert missed["proto/ipttproto/errors.py"][1] == 0
    # a script has no package
    lines, not_run = missed["ctl/ipttctl/bpf/bpfcc_compiler.py"]
    assert 0 < not_run < lines
    # never imported: all its lines are missed, and the file is not left out
    lines, not_run = missed["ctl/ipttctl/link/losses.py"]
    assert not_run == lines > 0


@pytest.mark.parametrize("command", ["true", "false"])
def test_a_command_that_measures_nothing_fails(tmp_path: Path, command: str) -> None:
    done = collect([command], tmp_path / "run")
    assert done.returncode == 1
    assert f"{command} is not of the virtual environment" in done.stderr
    assert Run(tmp_path / "run").sources == ""


def test_data_that_vanishes_does_not_take_the_rest_along(tmp_path: Path) -> None:
    vanished = "os.symlink('/nowhere', os.environ['COVERAGE_FILE'] + '.vanished')"
    command = [sys.executable, "-c", f"import os, ipttproto.errors; {vanished}"]
    run = Run(tmp_path / "run")
    assert collect(command, run.directory).returncode == 0
    assert "proto/ipttproto/errors.py" in report(run).stdout


def test_a_killed_command_fails(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert collect(command, tmp_path / "run").returncode == 128 + 9


def _project(root: Path) -> Path:
    for name in ("kmod_netlink/a.c", "ctl/b.py", "tests/kernel/test_c.py", "docs/d.md"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("1\n")
    return root


@pytest.mark.parametrize("name", ["kmod_netlink/a.c", "ctl/b.py", "tests/kernel/test_c.py"])
def test_data_of_other_sources_does_not_count(tmp_path: Path, name: str) -> None:
    root = _project(tmp_path / "project")
    build = tmp_path / "build"
    for place in ("guest/1/coverage", "coverage/unit", "guest/unfinished/coverage"):
        (build / place).mkdir(parents=True)
    for place in ("guest/1/coverage", "coverage/unit"):
        Run(build / place).describe(["true"], fingerprint(root), None)
    assert len(runs(build, root)) == 2
    (root / "docs/d.md").write_text("2\n")
    assert len(runs(build, root)) == 2
    (root / name).write_text("2\n")
    assert runs(build, root) == []


@pytest.mark.parametrize(
    ("command", "every"),
    [
        (["python", "-m", "pytest", "tests/kernel"], True),
        (["python", "-m", "pytest", "tests/kernel/test_links.py"], False),
        (["python", "-m", "pytest", "tests/kernel", "-k", "swap"], False),
    ],
)
def test_narrowed_runs_are_told_apart(tmp_path: Path, command: list[str], every: bool) -> None:
    run = Run(tmp_path)
    run.describe(command, "", None)
    assert run.of_every_kernel_test is every


def test_guests_that_share_a_run_have_to_end_all(tmp_path: Path) -> None:
    def ended(name: str, **shared: Any) -> Run:
        run = Run(tmp_path / name)
        run.module_data.mkdir(parents=True)
        run.describe(["tests/kernel"], "", None, **shared)
        return run

    first = ended("1", shared="a", sharers=2)
    other = ended("2", shared="b", sharers=2)
    assert not complete([])
    assert not complete([first, other])
    assert complete([first, other, ended("3", shared="a", sharers=2)])
    alone = ended("4")
    assert complete([alone])
    (alone.module_data).rmdir()
    assert not complete([alone])


def test_a_report_says_what_is_wanting(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    collect([sys.executable, "-c", "import ipttproto.errors"], run.directory)
    done = report(run)
    assert done.returncode == 1
    assert "module: 0.0 % of the lines ran; 90 % are wanted" in done.stderr
    assert "Python: " in done.stderr
    assert "proto/ipttproto/errors.py" in done.stdout
