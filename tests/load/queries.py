# SPDX-License-Identifier: GPL-2.0
"""The time of queries: recordings of many stories, read, exported and asked.

Needs neither root nor the module:

    python -m tests.load.queries [STORIES]
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ipttctl.cli.query import since_condition
from ipttctl.recordings.extra import arrow, duckdb
from ipttctl.recordings.query import Database
from ipttctl.recordings.reader import Recording
from ipttctl.recordings.ready import READY
from ipttctl.recordings.statements import named_in
from ipttctl.recordings.tables import tables_of, write_parquet
from ipttctl.recordings.writer import VERSION, RecordingWriter
from ipttctl.show.story_json import story_object
from tests.unit.ctl.stories.packets import flood, one_story, to_docker

STORIES: Final = 1_000_000
_RULES: Final = 40
_SHARE: Final = 8
"""One story of so many is of a drop."""


@contextmanager
def _timed(what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begin:.2f} s", flush=True)


def _stories(count: int) -> Iterator[str]:
    """Stories of flows by random addresses, some of which one of many rules drops."""
    chance = random.Random(17)
    [packet] = flood(1, 7)
    kinds: list[dict[str, Any]] = [story_object(one_story(to_docker()))]
    kinds += [story_object(one_story(packet))] * (_SHARE - 1)
    for number in range(count):
        story = kinds[number % _SHARE]
        story["packet"] = number + 1
        story["time_ns"] += 1000
        story["headers"]["source"] = f"10.{chance.randrange(4)}.0.{chance.randrange(250)}"
        if story["end"]["dropped"]:
            story["end"]["rule"]["rulenum"] = chance.randrange(_RULES)
        yield json.dumps(story, separators=(",", ":"))


def _write(path: Path, count: int) -> None:
    with RecordingWriter(path, "bench", "boot", 1 << 40, replace=False) as writer:
        begin = {"version": VERSION, "stories": True, "links": [], "patience_ns": 1}
        writer.note({"about": "recording", **begin})
        for line in _stories(count):
            writer.story(line)
        writer.end({"about": "end"})


def _ask(path: Path) -> None:
    """Run the whole command, and print its time, and that of CPUs, which others do not change."""
    command = [sys.executable, "-m", "ipttctl", "query", READY[0].option, str(path)]
    with _timed(" ".join(command[2:5])):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"of CPUs: {used.ru_utime + used.ru_stime:.2f} s")


def main(count: int) -> None:
    """Print the times for so many stories."""
    ready = READY[0].sql.format(since=since_condition(None))
    with _timed("libraries imported"):
        arrow()
        duckdb()
    with tempfile.TemporaryDirectory() as directory:
        path, tables = Path(directory, "file.ipr"), Path(directory, "tables")
        with _timed(f"{count} stories written"):
            _write(path, count)
        print(f"recording: {path.stat().st_size / 1e6:.0f} MB")
        _ask(path)
        with _timed("drops of the recording read"):
            database = Database(tables_of([path], named_in(ready)))
        with _timed("top drops asked"):
            rows = next(database.ask(ready).blocks)
        database.close()
        assert rows
        with _timed("recording exported to Parquet"):
            write_parquet(Recording.open(path), tables, replace=False)
        size = sum(one.stat().st_size for one in tables.iterdir())
        print(f"Parquet: {size / 1e6:.0f} MB")
        for one in READY:
            statement = one.sql.format(since=since_condition(None))
            with _timed(f"{one.option} of Parquet: tables read"):
                database = Database(tables_of([tables], named_in(statement)))
            with _timed(f"{one.option} of Parquet: asked"):
                again = next(database.ask(statement).blocks)
            database.close()
            assert one is not READY[0] or again == rows


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else STORIES)
