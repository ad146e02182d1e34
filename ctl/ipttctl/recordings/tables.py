# SPDX-License-Identifier: GPL-2.0
"""The tables of recordings, as Arrow's tables in memory or as files of Parquet."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from ipttctl.errors import UsageError, os_reason
from ipttctl.recordings.columns import SCHEMA, TABLES
from ipttctl.recordings.event_rows import EventColumns
from ipttctl.recordings.extra import arrow, parquet
from ipttctl.recordings.new_file import new_file
from ipttctl.recordings.reader import Events, Recording, Stories, opened
from ipttctl.recordings.rows import Row, StoryRows
from ipttctl.recordings.writer import RecordingError
from ipttproto import JoinedBatches

_AT_ONCE: Final = 1 << 15
"""Rows that are made a batch of."""

_DROPPED: Final = b'"dropped":true'
_STORY: Final = b'"type":"story"'
"""Texts that a story has as it is written; in a string the quotation marks would be escaped."""

_STORED: Final = ("stories", "steps", "drops")

Sink = Callable[[str, Any], None]
"""Takes the name of a table and a batch of its rows."""


@functools.cache
def schema(table: str) -> Any:
    """Arrow's schema of a table, with the meaning of its columns."""
    pa = arrow()
    types = {"string": pa.string(), "int64": pa.int64(), "uint64": pa.uint64()}
    types |= {"bool": pa.bool_(), "binary": pa.binary(), "timestamp[ns]": pa.timestamp("ns")}
    fields = [
        pa.field(one.name, types[one.type], metadata={"meaning": one.meaning})
        for one in TABLES[table]
    ]
    metadata = {"ipttctl.table": table, "ipttctl.schema": str(SCHEMA)}
    return pa.schema(fields, metadata=metadata)


def tables_of(
    paths: Iterable[Path], wanted: Iterable[str], tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The wanted tables of recordings, and of directories of Parquet, in memory.

    ``tell`` takes sentences on what could not be read.

    Raises:
        RecordingError: one of them is neither.
    """
    pa = arrow()
    names = frozenset(wanted)
    batches: dict[str, list[Any]] = {name: [] for name in names}
    whole: dict[str, list[Any]] = {name: [] for name in names}
    for path in paths:
        if path.is_dir():
            for name in names:
                whole[name].append(_read(path / f"{name}.parquet", name))
        else:
            recording = Recording.open(path)
            write_tables(recording, lambda name, batch: batches[name].append(batch), names)
            for sentence in recording.damage.sentences(path):
                tell(sentence)
    return {
        name: pa.concat_tables([*whole[name], pa.Table.from_batches(batches[name], schema(name))])
        for name in names
    }


def write_parquet(recording: Recording, directory: Path, *, replace: bool) -> dict[str, int]:
    """Write a file of Parquet for each table; returns the numbers of their rows.

    Raises:
        UsageError: there is a file already; none is made then.
        RecordingError: a file cannot be written.
    """
    pq = parquet()
    rows = dict.fromkeys(TABLES, 0)
    try:
        if os.path.lexists(directory) and not directory.is_dir():
            raise UsageError(f"{directory} is not a directory", "choose another")
        directory.mkdir(mode=0o700, exist_ok=True)
        with ExitStack() as stack:
            writers = {}
            for name in TABLES:
                path = directory / f"{name}.parquet"
                file = stack.enter_context(new_file(path, replace=replace, read=recording.path))
                # stories of the same way have the same texts
                made = pq.ParquetWriter(file, schema(name), compression="zstd")
                writers[name] = stack.enter_context(made)

            def add(name: str, batch: Any) -> None:
                rows[name] += batch.num_rows
                writers[name].write_batch(batch)

            write_tables(recording, add, frozenset(TABLES))
    except FileExistsError as error:
        raise UsageError(
            f"{error.filename} is there already", "choose another, or --force"
        ) from error
    except OSError as error:
        raise RecordingError(f"{directory}: {os_reason(error)}") from error
    return rows


def write_tables(recording: Recording, sink: Sink, wanted: frozenset[str]) -> None:
    """Make the rows of a recording.

    Raises:
        RecordingError: it has values of other types than it should.
    """
    pa = arrow()
    try:
        _Maker(recording, sink, wanted).make()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise RecordingError(
            f"{recording.path}: an event or a story has a value that none can have"
        ) from error


class _Maker:
    """Makes the rows of one recording."""

    def __init__(self, recording: Recording, sink: Sink, wanted: frozenset[str]) -> None:
        self._recording = recording
        self._sink = sink
        self._wanted = wanted
        head = recording.head
        self._where = head.host, head.boot, head.run
        self._rows: dict[str, list[Row]] = {name: [] for name in _STORED}
        self._stories = StoryRows(self._add, wanted)
        self._drops_only = not wanted & {"stories", "steps"}
        self._events = 0
        self._last = head.time

    def make(self) -> None:
        """Give all rows to the sink."""
        wanted = self._wanted
        columns = EventColumns(self._recording.answers.names)
        of_events = bool(wanted & {"events", "hosts"})
        of_stories = bool(wanted & {*_STORED, "hosts"})
        for item in self._recording.items(events=of_events, stories=of_stories):
            match item:
                case Stories(lines):
                    self._take(lines)
                case Events(batches, _, head):
                    self._last = max(self._last, head.time)
                    events = JoinedBatches.of(batches)
                    self._events += len(events)
                    if "events" in wanted:
                        self._put("events", columns.of(events), len(events))
        for name in _STORED:
            self._flush(name)
        self._put_rows("links", list(self._links()))
        self._put_rows("hosts", [self._host()])

    def _take(self, lines: list[bytes]) -> None:
        for line in lines:
            if self._drops_only and _DROPPED not in line:
                self._stories.pass_over(line.count(_STORY))
                continue
            try:
                self._stories.take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self._recording.damage.frames += 1
                self._recording.damage.size += len(line)

    def _add(self, table: str, row: Row) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= _AT_ONCE:
            self._flush(table)

    def _flush(self, table: str) -> None:
        self._put_rows(table, self._rows[table])
        self._rows[table] = []

    def _put_rows(self, table: str, rows: list[Row]) -> None:
        if not rows or table not in self._wanted:
            return
        names = [column.name for column in TABLES[table][len(self._where) :]]
        self._put(table, dict(zip(names, zip(*rows, strict=True), strict=True)), len(rows))

    def _put(self, table: str, columns: dict[str, Any], count: int) -> None:
        pa = arrow()
        made = schema(table)
        arrays = [pa.repeat(one, count) for one in self._where]
        arrays += [
            _array(columns[column.name], field.type)
            for column, field in itertools.islice(
                zip(TABLES[table], made, strict=True), len(self._where), None
            )
        ]
        self._sink(table, pa.record_batch(arrays, schema=made))

    def _links(self) -> Iterator[Row]:
        for link in self._recording.link_objects:
            yield tuple(link.get(name) for name in ("link", "name", "hook", "generation"))

    def _host(self) -> Row:
        recording = self._recording
        stream = recording.begin.get("stream")
        known = stream if isinstance(stream, dict) else {}
        lost = sum(count for cause, count in recording.lost.items() if cause != "size")
        return (
            *(known.get("module_version"), known.get("fingerprint")),
            *(recording.head.time, self._last, bool(recording.end)),
            *(self._events, self._stories.stories, lost, recording.lost["size"]),
            recording.damage.frames,
        )


def _array(values: Any, kind: Any) -> Any:
    """The values of a column; names may hold bytes that are not UTF-8."""
    pa = arrow()
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([_text(one) if isinstance(one, str) else one for one in values], kind)


def _text(value: str) -> str:
    r"""A text as other forms of output have it: a byte that is not UTF-8 is ``\xff``."""
    try:
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:
        return value.encode(errors="backslashreplace").decode()


def _read(path: Path, table: str) -> Any:
    """A table of a file of Parquet."""
    pa, pq = arrow(), parquet()
    try:
        # by its descriptor: it is a file, and the name need not be UTF-8
        with opened(path) as file:
            found = pq.read_table(f"/proc/self/fd/{file.fileno()}", memory_map=True)
        version = (
            (found.schema.metadata or {}).get(b"ipttctl.schema", b"?").decode(errors="replace")
        )
        if version != str(SCHEMA):
            raise RecordingError(
                f"{path} is of version {version} of the tables", f"{SCHEMA} is known here"
            )
        return found.select(schema(table).names).cast(schema(table))
    except OSError as error:
        raise RecordingError(f"{path}: {os_reason(error)}") from error
    except (pa.ArrowException, KeyError) as error:
        raise RecordingError(f"{path} is no table of ipttctl") from error
