# SPDX-License-Identifier: GPL-2.0
"""Guests that share a run execute every test, each once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from guest.matrix import CLOSED, NOT_BEGUN
from tests.kernel.support.sharing import taken

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Named:
    """A test with the attributes needed here."""

    nodeid: str


TESTS = [Named(f"{file}::test_{n}") for file in ("a.py", "d/a.py", "b.py") for n in range(2)]


def test_files_are_taken_as_they_come(tmp_path: Path) -> None:
    one, other = taken(TESTS, tmp_path), taken(TESTS, tmp_path)
    assert next(one).nodeid == "a.py::test_0"
    assert next(other).nodeid == "d/a.py::test_0"
    assert [test.nodeid for test in one] == ["a.py::test_1", "b.py::test_0", "b.py::test_1"]
    assert [test.nodeid for test in other] == ["d/a.py::test_1"]
    assert list(taken(TESTS, tmp_path)) == []


def test_no_file_is_begun_when_the_time_is_up(tmp_path: Path) -> None:
    one, other = taken(TESTS, tmp_path), taken(TESTS, tmp_path)
    next(one)
    (tmp_path / CLOSED).touch()
    assert [test.nodeid for test in one] == ["a.py::test_1"]
    assert list(other) == []
    assert (tmp_path / NOT_BEGUN).read_text().split() == ["d/a.py", "b.py"]


CONFTEST = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.kernel.conftest import pytest_runtestloop
import pytest

@pytest.fixture(scope="session", autouse=True)
def session():
    yield
    print("the session ends")

@pytest.fixture(scope="module", autouse=True)
def module(request):
    yield
    print("end of", request.node.name)
"""


def test_what_is_left_runs_with_all_its_fixtures(tmp_path: Path) -> None:
    """The last test of this guest tears down the fixtures of its file and of the session."""
    project, shared = tmp_path / "project", tmp_path / "shared"
    project.mkdir()
    shared.mkdir()
    (project / "conftest.py").write_text(CONFTEST)
    for name in "abc":
        (project / f"test_{name}.py").write_text(
            f"def test_1(): pass\ndef test_2(): assert {name!r} != 'b'\n"
        )

    def run() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-s", "-v", "-p", "no:cacheprovider", "."],
            cwd=project, env={**os.environ, "IPTT_SHARED": str(shared)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip  # pairs together
        return done.returncode, done.stdout

    (shared / "test_c.py").touch()
    status, said = run()
    assert status == 1
    assert "1 failed, 3 passed" in said
    assert said.index("end of test_a.py") < said.index("test_b.py::test_1")
    assert said.index("end of test_b.py") < said.index("the session ends")
    assert "test_c.py::" not in said
    status, said = run()
    assert status == 0
    assert "no tests ran" in said
