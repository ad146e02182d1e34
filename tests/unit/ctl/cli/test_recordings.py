# SPDX-License-Identifier: GPL-2.0
"""``ipttctl record`` and ``ipttctl show``: what is shown is what the trace had printed."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipttctl.cli import run
from ipttctl.cli.record_view import Recorded
from ipttctl.errors import IpttctlError
from ipttctl.frames.codec import encode
from ipttctl.frames.head import RULESETS
from ipttctl.frames.reader import FrameReader
from ipttctl.link.losses import Losses
from ipttctl.link.model import Link
from ipttctl.recordings.reader import Recording
from ipttctl.recordings.tables import tables_of
from ipttctl.recordings.writer import VERSION, RecordingWriter
from ipttctl.stories.assemble import SETTLE
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Command, Kind, parse_batch
from tests.unit.ctl.cli.test_trace_stories import delivered, message, when_traced
from tests.unit.ctl.stories.packets import START, Traveller, flood, to_docker
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    batch_payload,
    event,
    events_message,
    link,
    when_attached,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering", "programs")

STORIES = [["-v"], [], ["-o", "json"], ["--drops"], ["--summary"], ["-T"], ["-t"], ["-c", "1"]]
LINES = [["--lines"], ["--lines", "-o", "json"], ["--lines", "-v"], ["--lines", "--no-rules"]]


def packets() -> list[Traveller]:
    """A packet that is dropped, and some that are delivered."""
    return [to_docker(), *flood(3, 20)]


@pytest.fixture
def recording(module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A recording of packets."""
    path = tmp_path / "file.ipr"
    when_traced(module, message(*packets()))
    assert run(["record", str(path), "-c", "4", "--stop-after", "20"]) == 0
    capsys.readouterr()
    return path


def totals(text: str) -> list[str]:
    """The lines behind the one that names the links."""
    found = text.splitlines()
    places = [place for place, line in enumerate(found) if line.startswith("tracing:")]
    return found[places[-1] + 1 :] if places else found


@pytest.mark.parametrize("options", STORIES, ids=" ".join)
def test_stories_are_shown_as_the_trace_had(
    options: list[str],
    recording: Path,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    when_traced(module, message(*packets()))
    count = [] if "-c" in options or "--drops" in options else ["-c", "4"]
    count = ["-c", "1"] if "--drops" in options else count
    assert run(["trace", "--stop-after", "20", *count, *options]) == 0
    live = capsys.readouterr()
    assert run(["show", str(recording), *count, *options]) == 0
    shown = capsys.readouterr()
    assert shown.out == live.out
    assert len(shown.out.splitlines()) >= 1
    if "-c" not in options:
        assert totals(shown.err) == totals(live.err)


def test_losses_are_shown_in_the_stories_that_they_were_in(
    module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.ipr"
    first = delivered(20)
    others = [Traveller(20 + place, START + 2 * place * SETTLE) for place in (1, 2)]
    for one in others:
        one.received("eth0")
        one.dropped(3, "udp_queue_rcv")
    # the last three of the first one are lost
    later = message(*others, sequence=len(first.events))
    del first.events[-3:]
    for command in (["trace", "-o", "json"], ["record", str(path)]):
        when_traced(module, message(first), later)
        assert run([*command, "-c", "3"]) == 0
    live = capsys.readouterr().out
    assert run(["show", str(path), "-o", "json"]) == 0
    shown = capsys.readouterr().out
    assert shown == live
    told = [json.loads(line) for line in shown.splitlines()]
    # the second one may have been on its way when they were lost
    ends = {one["packet"]: one["end"]["events_lost"] for one in told if "end" in one}
    assert ends == {20: True, 21: True, 22: False}


@pytest.mark.parametrize("options", LINES, ids=" ".join)
def test_lines_are_shown_as_the_trace_had(
    options: list[str],
    module: FakeModule,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file.ipr"
    events = [event(rulenum=n) for n in range(1, 4)]
    events.insert(1, event(kind=Kind.LEFT_OUT, table_handle=0, chain_handle=2, rule_handle=3))
    made = events_message(events), events_message([event(link=9)], sequence=9)
    live: Any = None
    for verb in (["trace"], ["record", str(path)]):
        when_attached(module, *made)
        asked = ["--lines", "--backend", "legacy", "-c", "3"]
        assert run([*verb, *asked, *(options[1:] if verb == ["trace"] else [])]) == 0
        live = live or capsys.readouterr()
    capsys.readouterr()
    assert run(["show", str(path), *options]) == 0
    shown = capsys.readouterr()
    assert shown.out == live.out
    told = totals(shown.err)
    assert told == totals(live.err)[-len(told) :]
    assert told[-1].startswith("3 events")


def test_links_that_are_attached_later_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one is when the namespace of -N is made anew; whether or not the recording was killed."""
    path = tmp_path / "file"
    links: Any = SimpleNamespace(ids={3}, there={3: Link.from_attributes(link())}, taken=[])
    begin = {"version": VERSION, "stories": False, "patience_ns": 5}
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=False) as writer:
        recorded = Recorded(writer, Losses, links, NamespaceNames())
        recorded.begin({"about": "recording", **begin})
        recorded.write_events([parse_batch(batch_payload([event(link=3)]))], links.ids)
        links.ids.add(9)
        links.there = {9: Link.from_attributes(link(link=9))}
        made = [parse_batch(batch_payload([event(link=9)], sequence=number)) for number in (8, 9)]
        for batch in made:
            recorded.write_events([batch], links.ids)
    assert run(["show", str(path), "--lines", "-o", "json"]) == 0
    shown = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["link"] for one in shown if "link" in one] == [3, 9, 9]
    assert tables_of([path], ["links"])["links"].column("link").to_pylist() == [3, 9]


def test_stories_can_be_shown_as_lines_and_chosen(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording), "--lines", "-o", "json"]) == 0
    every = capsys.readouterr().out.splitlines()
    assert run(["show", str(recording), "--lines", "-o", "json", "--verdict", "drop"]) == 0
    drops = capsys.readouterr().out.splitlines()
    assert 1 < len(drops) < len(every)
    assert {json.loads(line)["verdict"] for line in drops[1:]} == {"DROP"}
    assert run(["show", str(recording), "--lines", "-o", "json", "--link", "9999"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 30, "\u00b2", "web"])
def test_a_namespace_that_is_not_there_is_one_sentence(
    text: str, recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(recording), "--netns", text]) == 2
    said = capsys.readouterr().err
    assert said.startswith("ipttctl: --netns: the recording has no namespace '")


def test_a_recording_is_for_its_owner_and_is_not_replaced(
    recording: Path, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stat.S_IMODE(recording.stat().st_mode) == 0o600
    before = recording.read_bytes()
    when_traced(module, message(*packets()))
    assert run(["record", str(recording), "--stop-after", "1"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert recording.read_bytes() == before
    assert run(["record", str(recording), "--stop-after", "20", "-c", "1", "--force"]) == 0
    assert recording.read_bytes() != before


def test_a_trace_that_cannot_begin_leaves_no_file(
    module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"

    def refuse(*_: object) -> list[Any]:
        raise RefusalError(errno.EPERM)

    module.handlers[Command.ATTACH] = refuse
    assert run(["record", str(path)]) != 0
    assert "ipttctl: " in capsys.readouterr().err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-size", "much"], "is no number of bytes"),
        (["--max-size", "5"], "is too little"),
        (["-4", "-6"], "exclude each other"),
    ],
)
def test_command_lines_without_sense(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "file.ipr"
    assert run(["record", str(path), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not path.exists()


def test_a_file_that_is_no_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    for content in (b"", b"text\n" * 1000, bytes(10_000)):
        path.write_bytes(content)
        assert run(["show", str(path)]) == 1
        assert "is no recording" in capsys.readouterr().err
    assert run(["show", str(tmp_path)]) == 1
    assert run(["show", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_recording_without_its_end_is_shown(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = recording.read_bytes()
    recording.write_bytes(data[:-40])
    assert run(["show", str(recording)]) == 0
    captured = capsys.readouterr()
    assert "dropped by filter DOCKER-USER 1" in captured.out
    assert "was not finished" in captured.err


def test_rules_that_damage_took_are_told(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recording.open("rb") as file:
        frames = [encode(head, body) for head, body in FrameReader(file)]
        file.seek(0)
        kinds = [head.kind for head, _ in FrameReader(file)]
    hurt = [
        frame[:-1] + bytes([frame[-1] ^ 1]) if kind == RULESETS else frame
        for kind, frame in zip(kinds, frames, strict=True)
    ]
    assert kinds.count(RULESETS)
    recording.write_bytes(b"".join(hurt))
    assert run(["show", str(recording), "--lines", "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert "damaged frame" in captured.err
    events = [json.loads(line) for line in captured.out.splitlines()][1:]
    notes = {one["kind"]: one["rule_note"] for one in events}
    assert notes["rule"] == "the recording lacks it"
    assert run(["show", str(recording)]) == 0
    assert "(rule uncertain: the recording lacks it)" in capsys.readouterr().out


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damage_is_told_in_sentences(
    recording: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    whole = recording.read_bytes()
    hurt = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(hurt) - 1))
        hurt[place] ^= data.draw(st.integers(1, 255))
    del hurt[len(hurt) - data.draw(st.integers(0, len(hurt))) :]
    path = recording.with_name("hurt")
    path.write_bytes(hurt)
    status = run(["show", str(path), *data.draw(st.sampled_from([*STORIES, *LINES]))])
    said = capsys.readouterr().err
    assert status in {0, 1}
    assert "Traceback" not in said
    if hurt != whole:
        assert "damaged" in said or "no recording" in said or "not finished" in said


def test_the_first_pass_ends_at_names_that_are_too_many(recording: Path) -> None:
    found = Recording.open(recording)
    found.begin["version"] = 99
    with pytest.raises(IpttctlError, match="version 99"):
        found.check()
