# SPDX-License-Identifier: GPL-2.0
"""Queries: they end when they are to, and take no more than they may."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.cli import run
from ipttctl.errors import UsageError
from ipttctl.recordings import query
from ipttctl.recordings.interruptible import interruptible
from ipttctl.recordings.memory_bound import bounded_memory
from ipttctl.recordings.query import Database
from ipttctl.recordings.writer import VERSION, RecordingWriter

LONG = "SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(1000000) b(i)"
"""A query that takes hours."""


@pytest.fixture
def database() -> Iterator[Database]:
    found = Database({})
    yield found
    found.close()


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """A recording of nothing."""
    path = tmp_path / "file.ipr"
    begin = {"version": VERSION, "stories": True, "links": [], "patience_ns": 1}
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=False) as writer:
        writer.note({"about": "recording", **begin})
        writer.end({"about": "end"})
    return str(path)


def interrupt_soon() -> None:
    """Send Ctrl-C to this process in a while."""
    threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()


def test_a_query_ends_at_ctrl_c(database: Database) -> None:
    interrupt_soon()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        database.ask(LONG)
    assert time.monotonic() - begin < 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    # nothing is under way any more
    assert next(database.ask("SELECT 1").blocks) == [(1,)]


def test_a_call_that_has_not_begun_is_interrupted_again() -> None:
    """An interrupt before a query begins is forgotten."""
    told: list[int] = []
    ended = threading.Event()

    def interrupt() -> None:
        told.append(1)
        if len(told) == 3:
            ended.set()

    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        interruptible(lambda: ended.wait(30), interrupt)
    assert len(told) == 3


def test_rows_come_in_blocks(database: Database) -> None:
    blocks = database.ask("SELECT i FROM range(25000) t(i)").blocks
    sizes = [len(block) for block in blocks]
    assert sum(sizes) == 25_000
    assert max(sizes) == 10_000


def test_all_blocks_are_printed(
    recording: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = "SELECT i, repeat('x', i::INT % 7) AS x FROM range(1000) t(i)"
    printed = []
    # in many blocks, and in one
    for size in (100, 2000):
        monkeypatch.setattr(query, "_AT_ONCE", size)
        found = []
        for form in ("json", "csv", "text"):
            assert run(["query", statement, recording, "-o", form]) == 0
            found.append(capsys.readouterr().out.splitlines())
        printed.append(found)
    assert printed[0][:2] == printed[1][:2]
    assert [json.loads(line)["i"] for line in printed[0][0]] == list(range(1000))
    # the columns of text are as wide as those so far need
    assert [one.split() for one in printed[0][2]] == [one.split() for one in printed[1][2]]
    assert printed[0][2][:3] == [" i  x", " 0", " 1  x"]


def test_what_fails_late_has_printed_what_came_before(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # DuckDB runs ahead of who fetches by a megabyte: rows of numbers would be few enough to fit
    late = (
        "SELECT CASE WHEN i = 200000 THEN error('late') ELSE repeat('x', 100) END "
        "FROM range(250000) t(i)"
    )
    assert run(["query", late, recording, "-o", "csv"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("ipttctl: the query fails: ")
    assert 1 < len(said.out.splitlines()) <= 200_001


def test_a_block_of_code_takes_no_more_memory_than_it_may() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with (
        pytest.raises(UsageError, match="fails: it needs more than 1 GB; ask for"),
        bounded_memory(1 << 30),
    ):
        bytearray(2 << 30)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_long_value_is_one_sentence(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    """DuckDB's own bound is not for it."""
    assert run(["query", "SELECT repeat('x', 3000000000)", recording]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"ipttctl: the query fails: .*; ask for fewer rows.*\n", said.err)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("SELECT " + "(" * 30_000, "more than 200 brackets within each other"),
        ("SELECT " + "[{" * 101, "more than 200 brackets within each other"),
        ("SELECT $$'$$, " + "[" * 201 + "$$'$$", "more than 200 brackets within each other"),
        ("SELECT $t$ ' $$ $t$, " + "[" * 201 + "'", "more than 200 brackets within each other"),
        ("SELECT " + "'(' || " * 200_000 + "''", "characters, of at most 1048576"),
    ],
)
def test_statements_that_no_parser_takes(
    statement: str, said: str, recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["query", statement, recording]) == 2
    assert said in capsys.readouterr().err


def test_brackets_in_texts_and_behind_each_other_do_not_count(database: Database) -> None:
    text = "(" * 1000
    statement = (
        f"SELECT '{text}' AS \"{text}\" /* {text} */ WHERE 1 IN ({'(1), ' * 300}1) -- {text}"
    )
    assert next(database.ask(statement).blocks) == [(text,)]
