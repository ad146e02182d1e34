# SPDX-License-Identifier: GPL-2.0
"""Generated command lines that make no sense end with one sentence: see ``tests.command_lines``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ipttctl
from tests.command_lines import Case, Place, cases, faults
from tests.command_lines.running import run
from tests.kernel.support.cli import Server

CASES = cases()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server("tests.command_lines.server")
    yield started
    started.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_ends_in_one_sentence(server: Server, case: Case) -> None:
    try:
        outcome = run(server, case, [str(case.signal)])
    except subprocess.TimeoutExpired:
        pytest.fail("it does not end")
    assert not faults(case, outcome), outcome


WHY = {
    Place.FULL: "No space left on device",
    Place.CLOSED: "it is closed",
    Place.READ_ONLY: "Bad file descriptor",
}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("--help", Place.FULL),
        ("trace --help", Place.CLOSED),
        ("--version", Place.READ_ONLY),
        ("module", Place.FULL),
        ("stats", Place.FULL),
        ("stats -o json", Place.CLOSED),
        ("links", Place.FULL),
        ("links", Place.READ_ONLY),
        ("detach 3", Place.CLOSED),
        ("history 3", Place.FULL),
        ("swap 3 --fd entry=0", Place.FULL),
        ("attach --fd entry=0", Place.FULL),
        ("adopt 3", Place.CLOSED),
        ("trace --lines", Place.FULL),
        ("events", Place.CLOSED),
        ("save", Place.FULL),
        ("doctor", Place.FULL),
    ],
)
def test_output_that_goes_nowhere_is_told(server: Server, line: str, place: Place) -> None:
    outcome = run(server, Case(tuple(line.split()), stdout=place), ["0"])
    assert outcome.status == 1
    last = outcome.err.splitlines()[-1]
    assert last == f"ipttctl: cannot write to standard output: {WHY[place]}"


def test_nobody_reads_any_more(server: Server) -> None:
    for line in ("--help", "stats", "links", "trace", "events"):
        outcome = run(server, Case((line,), stdout=Place.NO_READER), ["0"])
        assert (outcome.status, "ipttctl: " in outcome.err) == (0, False), outcome


@pytest.mark.parametrize("place", [Place.FULL, Place.CLOSED, Place.NO_READER], ids=str)
def test_messages_that_go_nowhere_change_nothing(server: Server, place: Place) -> None:
    good = run(server, Case(("links",), stderr=place), ["0"])
    assert (good.status, good.out.count("link=")) == (0, 2)
    assert run(server, Case(("links", "3x"), stderr=place), ["0"]).status == 2
    ran = ("run", "--fd", "entry=0", "--", "sh", "-c", "exit 42")
    assert run(server, Case(ran, stderr=place), ["0"]).status == 42


def test_a_closed_standard_file_gives_its_number_to_nothing(server: Server) -> None:
    look = "test ! -L /proc/$$/fd/0 && test ! -L /proc/$$/fd/1"
    case = Case(("run", "--fd", "entry=2", "--", "sh", "-c", look), Place.CLOSED, Place.CLOSED)
    outcome = run(server, case, ["0"])
    assert outcome.status == 0, outcome


@pytest.mark.parametrize(
    ("arguments", "err", "status"), [(["--version"], None, 1), (["bogus"], "/dev/full", 2)]
)
def test_the_interpreter_has_nothing_to_add(
    arguments: list[str], err: str | None, status: int
) -> None:
    """The process is a new one, in which unflushed buffers fail at exit."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ipttctl", *arguments],
            stdout=full,
            stderr=full if err else subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == status
    if not err:
        assert done.stderr == (
            "ipttctl: cannot write to standard output: No space left on device\n"
        )


def test_one_function_makes_text_of_errors_of_the_system() -> None:
    """``str(error)`` contains Python's number and object, which the sentences state themselves."""
    package = Path(ipttctl.__file__).parent
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ExceptHandler) and node.type and node.name:
                caught = ast.unparse(node.type)
                if "OSError" in caught or "FileNotFoundError" in caught:
                    body = "\n".join(map(ast.unparse, node.body))
                    assert f"{{{node.name}}}" not in body, file
                    assert f"str({node.name})" not in body, file
            if isinstance(node, ast.Attribute) and node.attr == "strerror":
                named = isinstance(node.value, ast.Name) and node.value.id in {"os", "errors"}
                assert named or file.name == "errors.py", file
