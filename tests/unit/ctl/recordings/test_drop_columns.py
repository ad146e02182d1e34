# SPDX-License-Identifier: GPL-2.0
"""The columns of drops say what the stories say, or are not looked at."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttctl.frames.bodies import json_body
from ipttctl.frames.codec import HEADER_SIZE, encode
from ipttctl.frames.head import DROPS, STORIES, FrameError, FrameHead
from ipttctl.frames.reader import FrameReader
from ipttctl.recordings import drop_columns, reader
from ipttctl.recordings.columns import TABLES
from ipttctl.recordings.drop_columns import drops_of
from ipttctl.recordings.reader import Recording
from ipttctl.recordings.tables import tables_of
from ipttctl.recordings.writer import LEAST_SIZE, VERSION, RecordingWriter
from ipttctl.show.story_json import story_object
from tests.unit.ctl.stories.packets import flood, in_parts, one_story, to_docker

BEGIN = {"about": "recording", "version": VERSION, "stories": True, "links": [], "patience_ns": 1}


def stories(count: int) -> list[str]:
    """Stories of which some are of drops, and some have branches."""
    chance = random.Random(3)
    dropped = story_object(one_story(to_docker()))
    assert dropped["end"]["dropped"]
    [packet] = flood(1, 7)
    delivered = story_object(one_story(packet))
    lines = []
    for number in range(count):
        story: dict[str, Any] = copy.deepcopy(chance.choice([dropped, delivered, delivered]))
        story["packet"] = number + 1
        story["time_ns"] += number
        story["in_device"] = chance.choice([None, "eth0", "bytes \udcff of a name", "0"])
        story["netns_cookie"] = chance.choice([1, (1 << 64) - 1])
        if chance.random() < 0.3:
            branch = copy.deepcopy(chance.choice([dropped, delivered]))
            step = {"step": "branch", "after_ns": 5, "folded": False, "story": branch}
            story["steps"].append(step)
        if story["end"]["dropped"]:
            story["end"]["rule"] = chance.choice([None, story["end"]["rule"]])
        lines.append(json.dumps(story, separators=(",", ":")))
    return lines


def written(path: Path, lines: list[str], *, most: int = 1 << 30, at_once: int = 5) -> Path:
    with RecordingWriter(path, "web", "boot", most, replace=False) as writer:
        writer.note(BEGIN)
        for number, line in enumerate(lines):
            writer.story(line)
            if number % at_once == 0:
                writer.flush()
        writer.end({"about": "end"})
    return path


def from_stories(path: Path) -> Any:
    """The drops as the stories have them: they are read if these are asked for as well."""
    return tables_of([path], ["drops", "stories"])["drops"]


def from_columns(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The drops where no story can be read."""
    with monkeypatch.context() as patched:
        patched.setattr(reader, "json_lines", lambda *_: pytest.fail("a story is read"))
        return tables_of([path], ["drops"])["drops"]


@pytest.mark.parametrize("enough", [1, 4, 8192])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_they_say_what_the_stories_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, enough: int
) -> None:
    monkeypatch.setattr(drop_columns, "ENOUGH_ROWS", enough)
    path = written(tmp_path / "file", stories(count))
    expected = from_stories(path)
    assert from_columns(path, monkeypatch).equals(expected)
    assert (expected.num_rows > 0) == (count > 0)


def test_parts_of_arrow_that_take_long_are_not_imported(tmp_path: Path) -> None:
    """They would take a sixth of the time of a query for the drops of a million stories."""
    path = written(tmp_path / "file", stories(100))
    script = (
        "import sys\nfrom ipttctl.cli import run\n"
        f"assert run(['query', '--drops-by-rule', {str(path)!r}]) == 0\n"
        "print([one for one in ('compute', 'dataset') if f'pyarrow.{one}' in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=True,
    )
    assert len(done.stdout.splitlines()) > 2
    assert done.stdout.splitlines()[-1] == "[]"


def test_clones_that_packet_sockets_drop_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``trace --drops``: parts that are dropped count, clones of a tap do not."""
    path = written(tmp_path / "file", [json.dumps(story_object(in_parts()), separators=(",", ":"))])
    drops = from_columns(path, monkeypatch)
    assert drops["function"].to_pylist() == ["__dev_queue_xmit", "tcf_action_exec"]
    assert drops.equals(from_stories(path))
    assert tables_of([path], ["stories"])["stories"].num_rows == 4


def test_few_drops_among_many_stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop_columns, "ENOUGH_STORIES", 10)
    lines = [line for line in stories(100) if '"dropped":true' not in line]
    path = written(tmp_path / "file", [*lines, *stories(1)])
    with path.open("rb") as file:
        assert sum(head.kind == DROPS for head, _ in FrameReader(file)) > 3
    assert from_columns(path, monkeypatch).equals(from_stories(path))


def test_a_recording_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it ends, its last stories are read."""
    monkeypatch.setattr(drop_columns, "ENOUGH_ROWS", 4)
    whole = written(tmp_path / "file", stories(60)).read_bytes()
    ends, at = [], 0
    with (tmp_path / "file").open("rb") as file:
        for head, body in FrameReader(file):
            at += len(encode(head, body))
            ends.append(at)
    assert at == len(whole)
    seen = 0
    for end in ends[1:]:
        for cut in (end, end - 1):
            path = tmp_path / "cut"
            path.write_bytes(whole[:cut])
            found = tables_of([path], ["drops"])["drops"]
            assert found.equals(from_stories(path))
            seen = max(seen, found.num_rows)
    assert seen > 20


@pytest.mark.parametrize("kind", [STORIES, DROPS])
def test_behind_damage_the_stories_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """They have other numbers there than their writer gave them."""
    monkeypatch.setattr(drop_columns, "ENOUGH_ROWS", 4)
    path = written(tmp_path / "file", stories(60))
    at, places = 0, []
    with path.open("rb") as file:
        for head, body in FrameReader(file):
            if head.kind == kind:
                places.append(at)
            at += len(encode(head, body))
    data = bytearray(path.read_bytes())
    data[places[1] + 200] ^= 1
    path.write_bytes(data)
    assert Recording.open(path).damage.frames == 1
    said: list[str] = []
    found = tables_of([path], ["drops"], said.append)["drops"]
    assert found.equals(from_stories(path))
    assert len(said) == 1


def test_columns_that_make_no_sense_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_columns, "ENOUGH_ROWS", 4)
    path = written(tmp_path / "file", stories(60))
    expected = from_stories(path)
    frames = []
    with path.open("rb") as file:
        for number, (head, body) in enumerate(FrameReader(file)):
            wrong = head.kind == DROPS and number % 2
            frames.append(encode(head, body.replace(b'"hook"', b'"hock"') if wrong else body))
    path.write_bytes(b"".join(frames))
    assert tables_of([path], ["drops"])["drops"].equals(expected)


def test_where_the_bound_leaves_no_room_for_them(tmp_path: Path) -> None:
    path = written(tmp_path / "file", stories(4000), most=LEAST_SIZE, at_once=50)
    found = Recording.open(path)
    assert 0 < found.end["thrown_away"]["stories"] < 4000
    assert set(found.end["thrown_away"]) == {"stories"}
    assert tables_of([path], ["drops"])["drops"].equals(from_stories(path))


def test_what_is_no_story_is_left_to_readers(tmp_path: Path) -> None:
    lines = stories(20)
    lines[7] = '{"type":"story","end":{"dropped":true}}'
    lines[9] = "{}"
    path = written(tmp_path / "file", lines)
    said: list[str] = []
    found = tables_of([path], ["drops"], said.append)["drops"]
    assert found.num_rows > 4
    assert said == [f"{path}: 2 damaged frames (41 bytes) passed over"]
    assert found.equals(from_stories(path))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70), st.text(max_size=3), st.floats()
)
LISTS: st.SearchStrategy[list[Any]] = st.lists(VALUES | st.just([]) | st.just({}), max_size=3)
LINES = st.builds(
    lambda column, values, places: {"column": column, "values": values, "places": places},
    st.sampled_from(["story", "time", "hook", "rejected", "netns_cookie"]) | VALUES | LISTS,
    LISTS | VALUES,
    LISTS | VALUES,
)


@given(
    st.lists(LINES, max_size=40),
    st.dictionaries(
        st.sampled_from(["version", "first", "end", "rows", "numbers"]), st.integers(0, 3)
    ),
)
def test_whatever_a_frame_has_is_an_error_in_words(lines: list[Any], form: dict[str, int]) -> None:
    head = FrameHead(
        kind=DROPS, host="h", boot="b", run="r", sequence=0, count=len(lines), time=0,
        monotonic=0, format=form,
    )  # fmt: skip  # a row of small things
    body = json_body(json.dumps(line) for line in lines)
    try:
        found = drops_of(head, body)
    except FrameError:
        return
    for one in found.columns.values():
        each = one if isinstance(one, list) else one.places
        assert each is None or len(each) == found.rows


def test_rows_that_a_frame_only_says_it_has_take_no_memory() -> None:
    lines = [{"column": column.name, "values": [1]} for column in TABLES["drops"][3:]]
    form = {"version": 1, "first": 0, "end": 1 << 18, "rows": 1 << 18, "numbers": 1 << 18}
    head = FrameHead(
        kind=DROPS, host="h", boot="b", run="r", sequence=0, count=len(lines), time=0,
        monotonic=0, format=form,
    )  # fmt: skip  # as above
    with pytest.raises(FrameError):
        drops_of(head, json_body(json.dumps(line) for line in lines))


def test_a_recording_that_is_there_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "file", stories(30))
    once = from_stories(path)
    path.write_bytes(2 * path.read_bytes())
    said: list[str] = []
    found = tables_of([path], ["drops"], said.append)["drops"]
    assert found.equals(once)
    assert from_stories(path).equals(once)
    assert len(said) == 1
    assert "that came before passed over" in said[0]


def test_stories_that_cannot_be_decompressed_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "file", stories(30))
    frames = []
    with path.open("rb") as file:
        for number, (head, body) in enumerate(FrameReader(file)):
            data = bytearray(encode(head, body))
            if head.kind == STORIES and number > 3:
                data[-1] ^= 1
                # the checksums, of a header whose flags and lengths stay
                first = HEADER_SIZE - 4
                data[20:24] = zlib.crc32(data[HEADER_SIZE:]).to_bytes(4, "little")
                data[first:HEADER_SIZE] = zlib.crc32(data[:first]).to_bytes(4, "little")
            frames.append(bytes(data))
    path.write_bytes(b"".join(frames))
    for _ in range(2):
        recording = Recording.open(path)
        assert not recording.damage.frames
        assert list(recording.items(stories=True))
        assert recording.damage.frames > 2
        frames_of_it = recording.damage.frames
        assert list(recording.items(stories=True))
        assert recording.damage.frames == frames_of_it
