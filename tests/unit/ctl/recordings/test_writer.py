# SPDX-License-Identifier: GPL-2.0
"""Recordings that are written: their bound, their owner, and what they say of losses."""

from __future__ import annotations

import os
import random
import resource
import stat
from pathlib import Path

import pytest

from ipttctl.errors import UsageError
from ipttctl.frames.bodies import MOST_OBJECTS
from ipttctl.frames.codec import MOST_BODY
from ipttctl.recordings.reader import Due, Events, Recording, Stories
from ipttctl.recordings.writer import LEAST_SIZE, VERSION, RecordingError, RecordingWriter
from ipttctl.stories.gaps import Gap
from ipttproto import EventBatch, parse_batch
from tests.unit.ctl.support import batch_payload, event

BEGIN = {
    "about": "recording",
    "version": VERSION,
    "stories": True,
    "links": [3],
    "patience_ns": 5,
    "stream": {},
}


def noise(chance: random.Random, count: int, sequence: int) -> EventBatch:
    """Events that cannot be compressed well."""
    made = [
        event(saddr=chance.randbytes(16), daddr=chance.randbytes(16), time=chance.getrandbits(60))
        for _ in range(count)
    ]
    return parse_batch(batch_payload(made, sequence=sequence))


def test_the_bound_is_kept_and_what_it_throws_away_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    chance = random.Random(7)
    with RecordingWriter(path, "web", "boot", LEAST_SIZE, replace=False) as writer:
        writer.note(BEGIN)
        writer.lose({"ring": 4, "memory": 0})
        for n in range(60):
            writer.write_events([noise(chance, 50, 50 * n)])
            writer.story(f'{{"number":{n}}}')
            writer.flush()
        assert writer.full
        writer.end({"about": "end"})
    assert path.stat().st_size == writer.size <= LEAST_SIZE
    found = Recording.open(path)
    items = list(found.items(stories=True))
    events = sum(len(b) for one in items if isinstance(one, Events) for b in one.batches)
    stories = sum(len(one.objects) for one in items if isinstance(one, Stories))
    away = found.end["thrown_away"]
    assert 0 < events < 3000
    assert events + away["events"] == 3000
    assert stories + away["stories"] == 60
    assert found.lost == {"ring": 4, "size": away["events"]}
    assert not list(found.damage.sentences(path))


def test_what_happened_comes_in_order(tmp_path: Path) -> None:
    path = tmp_path / "file"
    chance = random.Random(1)
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=False) as writer:
        writer.note(BEGIN)
        writer.seen_until(90)
        writer.write_events([noise(chance, 5000, 0), noise(chance, 5000, 5000)])
        writer.due(100)
        writer.lost_within(Gap(95, 120))
        writer.write_events([noise(chance, 1, 10_000)])
        writer.end({"about": "end"})
    shown = [
        (len(item.batches[0]), item.due) if isinstance(item, Events) else item
        for item in Recording.open(path).items()
    ]
    # those that were too many for one frame are two
    assert shown == [(5000, 90), (5000, 90), Due(100), Gap(95, 120), (1, 100)]


def test_what_no_frame_has_room_for_does_not_end_the_recording(tmp_path: Path) -> None:
    """As the story of a packet that a bridge floods to a thousand ports."""
    path = tmp_path / "file"
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=False) as writer:
        writer.note(BEGIN)
        for length in (10, MOST_BODY, 20, MOST_BODY - 10, 30):
            writer.story(f'"{"x" * (length - 2)}"')
        for number in range(MOST_OBJECTS + 5):
            writer.note({"about": "else", "number": number})
        writer.end({"about": "end"})
    assert not writer.full
    found = Recording.open(path)
    lines = [len(line) for one in found.items(stories=True) for line in getattr(one, "lines", ())]
    assert lines == [10, 20, MOST_BODY - 10, 30]
    assert (found.end["too_long"], found.end["thrown_away"]) == ({"stories": 1}, {})
    assert not list(found.damage.sentences(path))


def test_a_file_is_for_its_owner_and_no_link_is_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    before = os.umask(0)
    try:
        RecordingWriter(path, "web", "boot", LEAST_SIZE, replace=False).__exit__()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other.write_text("kept")
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(UsageError, match="is there already"):
        RecordingWriter(path, "web", "boot", LEAST_SIZE, replace=False)
    RecordingWriter(path, "web", "boot", LEAST_SIZE, replace=True).__exit__()
    assert other.read_text() == "kept"
    assert not path.is_symlink()
    for place in (tmp_path, Path("/dev/full")):
        with pytest.raises(UsageError, match="is not a file"):
            RecordingWriter(place, "web", "boot", LEAST_SIZE, replace=True)
        assert place.exists()
    with pytest.raises(RecordingError, match="No such file"):
        RecordingWriter(tmp_path / "no" / "file", "web", "boot", LEAST_SIZE, replace=False)


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with (
        RecordingWriter(path, "web", "boot", 1 << 30, replace=False) as writer,
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        monkeypatch.setattr(writer, "_file", full)
        writer.note(BEGIN)
        with pytest.raises(RecordingError, match="file: No space left on device"):
            writer.flush()


def test_a_write_that_takes_a_part_only_is_not_taken_for_whole(tmp_path: Path) -> None:
    """As on a disk that gets full within a frame; here within the size that files may have."""
    path = tmp_path / "file"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RecordingWriter(path, "web", "boot", 1 << 30, replace=False) as writer:
        writer.note(BEGIN)
        writer.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (writer.size + 100, before[1]))
        try:
            with pytest.raises(RecordingError, match="File too large"):
                writer.write_events([noise(random.Random(3), 50, 0)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.stat().st_size == writer.size + 100
    assert "not finished" in " ".join(Recording.open(path).damage.sentences(path))
