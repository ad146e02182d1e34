# SPDX-License-Identifier: GPL-2.0
"""``ipttctl export`` and ``ipttctl query``: tables of recordings."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ipttctl.cli import run
from ipttctl.frames.codec import encode
from ipttctl.frames.head import EVENTS
from ipttctl.frames.reader import FrameReader
from ipttctl.recordings import extra, query, statements
from ipttctl.recordings.columns import TABLES
from ipttctl.recordings.reader import Recording, Stories
from ipttctl.recordings.ready import READY
from ipttctl.recordings.tables import tables_of
from ipttctl.recordings.writer import VERSION, RecordingWriter
from tests.unit.ctl.cli.test_trace_stories import IDS, message, when_traced
from tests.unit.ctl.stories.packets import flood, to_docker
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open", "answering", "programs")


@pytest.fixture
def recording(module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A recording of a packet that is dropped, and of three that are delivered."""
    path = tmp_path / "file.ipr"
    when_traced(module, message(to_docker(), *flood(3, 20)))
    assert run(["record", str(path), "-c", "4", "--stop-after", "20"]) == 0
    capsys.readouterr()
    return path


@pytest.fixture
def ask(recording: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Asks the recording, or another; returns the rows."""

    def rows(statement: str, *more: str, of: Path = recording) -> list[dict[str, Any]]:
        assert run(["query", statement, str(of), "-o", "json", *more]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return rows


def test_the_views_say_what_the_stories_say(
    recording: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording), "-o", "json"]) == 0
    stories = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    rows = ask('SELECT packet, "end", dropped, steps, epoch_ns(time) AS t FROM stories')
    assert rows == [
        {
            "packet": one["packet"],
            "end": one["end"]["kind"],
            "dropped": one["end"]["dropped"],
            "steps": len(one["steps"]),
            "t": one["time_ns"],
        }
        for one in stories
    ]
    [drop] = ask("SELECT * FROM drops")
    assert ask("SELECT drops.story FROM drops, stories WHERE stories.story = drops.story") == [
        {"story": drop["story"]}
    ]
    [dropped] = [one for one in stories if one["end"]["dropped"]]
    assert (drop["table"], drop["chain"], drop["rulenum"]) == ("filter", "DOCKER-USER", 1)
    assert (drop["backend"], drop["cause"], drop["hook"]) == ("legacy", "rule", "FORWARD")
    assert drop["source"] == dropped["headers"]["source"]
    # stories that are passed over have numbers too
    [joined] = ask("SELECT packet FROM drops JOIN stories USING (host, run, story)")
    assert joined["packet"] == dropped["packet"]
    rules = [
        rule
        for one in stories
        for step in one["steps"]
        for call in step.get("functions", ())
        for consulted in call["consulted"]
        for rule in consulted["rules"]
    ]
    assert ask("SELECT count(*) AS n FROM steps WHERE kind = 'rule'") == [{"n": len(rules)}]
    assert ask("SELECT changes FROM steps WHERE changes LIKE 'dest%'") == [
        {"changes": "destination 203.0.113.5:8080 > 172.17.0.2:80"}
    ]


def test_the_view_of_events_says_what_lines_say(
    recording: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording), "--lines", "-o", "json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()][1:]
    rows = ask("SELECT *, epoch_ns(time) AS time_ns FROM events")
    assert len(rows) == len(events) > 20
    same = {"kind", "hook", "verdict", "table", "chain", "rulenum", "packet", "source", "time_ns"}
    same |= {"source_port", "length", "cpu", "sequence", "function", "module", "mark", "cost_ns"}
    for row, made in zip(rows, events, strict=True):
        assert {name: row[name] for name in same} == {name: made[name] for name in same}
        assert row["in_device"] == made["in_name"]
        assert row["protocol"] == made["protocol_name"]


def test_links_and_hosts(recording: Path, ask: Any) -> None:
    links = ask("SELECT link, hook FROM links ORDER BY link")
    assert [one["link"] for one in links] == sorted(IDS.values())
    [host] = ask("SELECT * FROM hosts")
    found = Recording.open(recording)
    assert (host["run"], host["stories"], host["finished"]) == (found.head.run, 4, True)
    assert (host["lost"], host["thrown_away"], host["damaged"]) == (0, 0, 0)
    assert host["began"] <= host["ended"]


@pytest.mark.parametrize("ready", READY, ids=lambda one: one.option)
def test_ready_queries(ready: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ask(ready.option)
    assert rows
    assert sum(next(iter(row.values())) for row in rows) >= 1
    # these packets are of long ago
    assert ask(ready.option, "--since", "1h") == []
    [last] = ask("SELECT max(epoch_ns(time)) / 1e9 AS time FROM stories")
    monkeypatch.setattr("ipttctl.cli.query.time.time", lambda: last["time"] + 1800)
    assert ask(ready.option, "--since", "1h") == rows


def test_forms_of_output(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "'a,\n\"b' AS odd, ['x', 'y'] AS list"
    statement = (
        f"SELECT dropped, count(*) AS n, NULL AS nothing, {odd} FROM stories "
        "GROUP BY dropped ORDER BY n"
    )
    assert run(["query", statement, str(recording)]) == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split() == ["dropped", "n", "nothing", "odd", "list"]
    assert [row.split()[:2] for row in rows] == [["true", "1"], ["false", "3"]]
    assert run(["query", statement, str(recording), "-o", "csv"]) == 0
    out = capsys.readouterr().out
    table = list(csv.reader(io.StringIO(out)))
    assert [row[:3] for row in table] == [
        ["dropped", "n", "nothing"],
        ["true", "1", ""],
        ["false", "3", ""],
    ]
    # no value ends a line
    assert len(out.splitlines()) == 3


def test_columns_of_the_same_name_have_a_key_each(ask: Any) -> None:
    statement = "SELECT 1 AS n, 2 AS n_1, 3 AS n, 4 AS n, 5 AS m"
    assert ask(statement) == [{"n": 1, "n_1": 2, "n_2": 3, "n_3": 4, "m": 5}]
    [row] = ask("SELECT * FROM drops d JOIN stories s ON d.story = s.story")
    assert len(row) == len(TABLES["drops"]) + len(TABLES["stories"])


def test_values_that_python_has_not_are_one_sentence(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statement = "SELECT INTERVAL '100000000 years'"
    assert run(["query", statement, str(recording)]) == 2
    assert capsys.readouterr().err.startswith("ipttctl: the query fails: ")
    made = tmp_path / "tables"
    assert run(["export", str(recording), "--parquet", str(made)]) == 0
    path = made / "hosts.parquet"
    table = pq.read_table(path)
    text = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(table.set_column(0, table.schema.field(0), text), path)
    capsys.readouterr()
    assert run(["query", "SELECT host FROM hosts", str(made)]) == 2
    assert capsys.readouterr().err.startswith("ipttctl: the query fails: ")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY stories TO 'stolen.csv'",
        "ATTACH 'stolen.db'",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET memory_limit = '100GB'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE 'stolen'",
        "PRAGMA log_query_path = 'stolen'",
        "CALL enable_logging(storage = 'file', storage_config = {'path': 'stolen'})",
        "SELECT * FROM sys_path",
        "SELECT",
        "SELECT * FROM nonsense",
    ],
)
def test_queries_reach_nothing_else(
    statement: str,
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    # most of them are no questions, but DuckDB is not to do them in any case
    for refused in ("ipttctl: the query ", "ipttctl: the query fails: "):
        assert run(["query", f"{statement} -- stories", str(recording)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(refused)
        assert len(captured.err.splitlines()) == 1
        monkeypatch.setattr(statements, "_ANSWERED", frozenset(duckdb.StatementType.__members__))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("", "the query is empty; write one"),
        (" ; -- SELECT 1", "the query is empty; write one"),
        ("SELECT 1; SELECT 2", "the query has 2 statements; write one"),
        ("BEGIN", "is a statement of kind TRANSACTION, which asks nothing; write one"),
        ("VACUUM", "is a statement of kind VACUUM"),
        ("DROP VIEW stories", "is a statement of kind DROP"),
        ("CREATE TABLE stories AS SELECT 1", "is a statement of kind CREATE"),
        ("SELECT * FROM nonsense", "the views are events, stories, steps, drops, links, hosts"),
        ("SELECT", "the query fails: Parser Error"),
    ],
)
def test_what_is_no_question_is_one_sentence(
    statement: str, said: str, capsys: pytest.CaptureFixture[str], recording: Path
) -> None:
    # this one is not read for it, where the statement alone tells
    path = recording if "nonsense" in statement else Path("/nowhere")
    assert run(["query", statement, str(path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM stories;",
        "WITH a AS (FROM stories) SELECT 1 FROM a",
        "FROM stories",
        "TABLE stories",
        "DESCRIBE stories",
        "SUMMARIZE stories",
        "EXPLAIN FROM stories",
        "PIVOT stories ON dropped USING count(*) GROUP BY run",
        "VALUES (1)",
    ],
)
def test_all_kinds_of_questions_have_an_answer(statement: str, ask: Any) -> None:
    assert ask(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SHOW TABLES",
        " /* all */ show tables -- here",
        "SELECT view_name AS name FROM duckdb_views()",
        "SELECT '--' AS a, table_name AS name FROM information_schema.tables",
        "SELECT $$/*$$ AS a, table_name AS name FROM information_schema.tables",
    ],
)
def test_the_views_are_listed(statement: str, ask: Any) -> None:
    assert {one["name"] for one in ask(statement)} >= TABLES.keys()


def test_a_query_that_needs_more_memory_writes_nothing(
    recording: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With files for what does not fit it would have an answer, and leave none of them."""
    monkeypatch.setitem(query._CONFIG, "memory_limit", "60MB")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    statement = "SELECT count(*) FROM (SELECT DISTINCT md5(i::VARCHAR) FROM range(2000000) t(i))"
    assert run(["query", statement, str(recording)]) == 2
    assert "Out of Memory" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_parquet_has_the_same_tables(
    recording: Path, ask: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "tables"
    assert run(["export", str(recording), "--parquet", str(made)]) == 0
    assert "4 stories" in capsys.readouterr().err
    for name, columns in TABLES.items():
        path = made / f"{name}.parquet"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        schema = pq.read_schema(path)
        assert schema.names == [column.name for column in columns]
        assert schema.metadata[b"ipttctl.schema"] == b"1"
        assert schema.field(0).metadata == {b"meaning": columns[0].meaning.encode()}
        statement = f"SELECT * FROM {name}"
        assert ask(statement, of=made) == ask(statement)
    assert run(["export", str(recording), "--parquet", str(made)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert run(["export", str(recording), "--parquet", str(made), "--force"]) == 0


def test_files_that_are_no_tables_are_one_sentence(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "tables"
    assert run(["export", str(recording), "--parquet", str(made)]) == 0
    whole = (made / "stories.parquet").read_bytes()
    capsys.readouterr()
    for content in (b"", b"PAR1", whole[:-9], whole[: len(whole) // 2] + whole[-50:]):
        (made / "stories.parquet").write_bytes(content)
        assert run(["query", "SELECT * FROM stories", str(made)]) == 1
        assert "is no table of ipttctl" in capsys.readouterr().err
    shutil.copy(made / "hosts.parquet", made / "stories.parquet")
    assert run(["query", "SELECT * FROM stories", str(made)]) == 1
    assert run(["query", "SELECT * FROM stories", str(tmp_path)]) == 1


def test_names_of_directories_need_not_be_utf8(
    recording: Path, ask: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    assert run(["export", str(recording), "--parquet", str(made)]) == 0
    assert ask("SELECT stories FROM hosts", of=made) == [{"stories": 4}]
    (made / "hosts.parquet").unlink()
    os.mkfifo(made / "hosts.parquet")
    capsys.readouterr()
    assert run(["query", "SELECT * FROM hosts", str(made)]) == 1
    assert "hosts.parquet is not a file" in capsys.readouterr().err


def test_an_export_that_fails_leaves_no_files(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A part of the tables, or of one, would be taken for all."""
    made = tmp_path / "tables"
    made.mkdir()
    (made / "hosts.parquet").write_text("of somebody else")
    assert run(["export", str(recording), "--parquet", str(made)]) == 2
    assert "hosts.parquet is there already" in capsys.readouterr().err
    assert [one.name for one in made.iterdir()] == ["hosts.parquet"]
    assert run(["export", str(recording), "--parquet", str(recording), "--force"]) == 2
    assert "is not a directory; choose another" in capsys.readouterr().err
    path = tmp_path / "forged"
    item = next(one for one in Recording.open(recording).items(stories=True, events=False))
    assert isinstance(item, Stories)
    _forged(path, [json.dumps({**item.objects[0], "packet": "text"})])
    assert run(["export", str(path), "--parquet", str(tmp_path / "others")]) == 1
    assert "has a value that none can have" in capsys.readouterr().err
    assert not (tmp_path / "others").exists()


def test_several_recordings_are_asked_together(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    items = Recording.open(recording).items(stories=True, events=False)
    stories = [story for one in items if isinstance(one, Stories) for story in one.objects]
    _forged(other, [json.dumps(one) for one in stories])
    made = tmp_path / "tables"
    assert run(["export", str(other), "--parquet", str(made)]) == 0
    capsys.readouterr()
    statement = "SELECT count(*) AS n FROM stories"
    for source in (other, made):
        assert run(["query", statement, str(recording), str(source), "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"n": 8}


def test_nothing_counts_twice(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, made = tmp_path / "copy", tmp_path / "tables"
    shutil.copy(recording, copy)
    assert run(["export", str(recording), "--parquet", str(made)]) == 0
    capsys.readouterr()
    for other in (recording, copy, made):
        for pair in ([recording, other], [other, recording], [other, other]):
            assert run(["query", "--ends", *map(str, pair)]) == 2
            captured = capsys.readouterr()
            assert captured.out == ""
            assert re.search(r"both have run \w+ of host .*; ask one of them$", captured.err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query", "SELECT 1"], "no recording is given"),
        (["query", "--ends", "--top-talkers", "x"], "exclude each other"),
        (["query", "SELECT 1", "x", "--since", "1h"], "is of ready queries"),
        (["query", "--ends", "x", "--since", "soon"], "is not a time"),
        (["export", "x"], "nothing is to be made"),
        (["query", "SELECT 1", ""], "the name of a file is empty"),
        (["query", "SELECT 1", "x", ""], "the name of a file is empty"),
        (["query", "--ends", ""], "the name of a file is empty"),
        (["show", ""], "the name of a file is empty"),
        (["record", ""], "the name of a file is empty"),
        (["export", "", "--parquet", "x"], "the name of a file is empty"),
        (["export", "x", "--parquet", ""], "the name of a file is empty"),
        (["export", "x", "--pcapng", ""], "the name of a file is empty"),
    ],
)
def test_command_lines_without_sense(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["show"], ["query", "--ends"], ["export", "--parquet", "x"], ["show", "--rulesets"]],
)
def test_what_may_not_be_read_is_not_the_command_lines_fault(
    arguments: list[str],
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(path: Any, *more: Any, **others: Any) -> int:
        if path == recording:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *more, **others)

    real = os.open
    monkeypatch.setattr(os, "open", refused)
    # root may read all
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert run([*arguments, str(recording)]) == 1
    assert capsys.readouterr().err == f"ipttctl: {recording}: Permission denied\n"


@pytest.mark.parametrize("missing", ["pyarrow", "duckdb"])
def test_without_the_extra_it_says_what_to_install(
    missing: str,
    recording: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert run(["query", "SELECT * FROM hosts", str(recording)]) == 1
    assert (
        f"this needs the Python package {missing}; run: pip install 'ipttctl[fleet]'"
        in capsys.readouterr().err
    )
    with pytest.raises(extra.MissingExtraError):
        extra.arrow() if missing == "pyarrow" else extra.duckdb()


def _forged(path: Path, stories: list[str]) -> None:
    """A recording of stories that nobody told."""
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=True) as writer:
        begin = {"version": VERSION, "stories": True, "links": [], "patience_ns": 1}
        writer.note({"about": "recording", **begin})
        for story in stories:
            writer.story(story)
        writer.end({"about": "end"})


def test_stories_that_are_none_are_passed_over(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "forged"
    found = next(
        one.objects
        for one in Recording.open(recording).items(stories=True)
        if isinstance(one, Stories)
    )
    good = found[0]
    bad: list[Any] = [{}, {**good, "end": None}, {**good, "steps": [1]}, {**good, "headers": []}]
    _forged(path, [json.dumps(one) for one in [good, *bad, good]])
    tables = tables_of([path], ["stories", "steps", "drops", "hosts"])
    assert tables["stories"].num_rows >= 2
    assert tables["hosts"].column("damaged").to_pylist() == [len(bad)]
    others: list[Any] = ["text", 2**70, [], {"a": 1}]
    for wrong in others:
        _forged(path, [json.dumps({**good, "packet": wrong})])
        assert run(["query", "SELECT * FROM stories", str(path)]) == 1
        assert "has a value that none can have" in capsys.readouterr().err


def _with_bad_events(recording: Path, path: Path) -> Path:
    """The recording with a frame of events that are of another version of the protocol."""
    with recording.open("rb") as file:
        frames = list(FrameReader(file))
    place = next(n for n, (head, _) in enumerate(frames) if head.kind == EVENTS)
    head, body = frames[place]
    frames[place] = replace(head, format={**head.format, "version": 99}), body
    path.write_bytes(b"".join(encode(*frame) for frame in frames))
    return path


def test_queries_and_exports_tell_of_damage_once(
    recording: Path, captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _with_bad_events(recording, tmp_path / "hurt")
    assert run(["query", "SELECT count(*) FROM events", str(path)]) == 0
    assert "1 damaged frame (" in capsys.readouterr().err
    assert run(["query", "SELECT count(*) FROM events", str(recording)]) == 0
    assert capsys.readouterr().err == ""
    path = _with_bad_events(captured, tmp_path / "both")
    made = ["--parquet", str(tmp_path / "tables"), "--pcapng", str(tmp_path / "packets")]
    assert run(["export", str(path), *made]) == 0
    assert "1 damaged frame (" in capsys.readouterr().err


def test_another_recording_behind_it_is_told(
    recording: Path, captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording)]) == 0
    alone = capsys.readouterr()
    path = tmp_path / "both"
    path.write_bytes(recording.read_bytes() + captured.read_bytes())
    assert run(["show", str(path)]) == 0
    shown = capsys.readouterr()
    assert shown.out == alone.out
    *same, last = shown.err.splitlines()
    assert same == alone.err.splitlines()
    assert re.search(r"/both: \d+ frames of another recording passed over$", last)


def test_the_documentation_has_all_columns() -> None:
    text = Path("docs/recordings.md").read_text()
    for name, columns in TABLES.items():
        [section] = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", section, re.MULTILINE)
        assert rows == [tuple(column) for column in columns]
    for ready in READY:
        assert ready.option in text
