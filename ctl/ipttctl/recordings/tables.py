# SPDX-License-Identifier: GPL-2.0
"""The tables of recordings, as Arrow's tables in memory or as files of Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ipttctl.errors import UsageError, os_reason
from ipttctl.recordings.columns import TABLES
from ipttctl.recordings.drop_columns import Drops
from ipttctl.recordings.extra import arrow, parquet
from ipttctl.recordings.new_file import check_target, new_files
from ipttctl.recordings.parquet_files import runs_in, scanned, together
from ipttctl.recordings.reader import Events, Recording, Stories
from ipttctl.recordings.rows import Row
from ipttctl.recordings.runs import ENDLESS, Run, Runs
from ipttctl.recordings.table_maker import OF_STORIES, Sink, TableMaker, schema
from ipttctl.recordings.writer import RecordingError

Write = Callable[[Sink, frozenset[str]], None]
"""Gives the rows of tables to a sink."""


def tables_of(
    paths: Iterable[Path], wanted: Iterable[str], tell: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The wanted tables of recordings, in memory, and of directories of Parquet, which are scanned.

    ``tell`` takes sentences on what could not be read.

    Raises:
        RecordingError: one of them is neither.
        UsageError: two of them have the same.
    """
    names = frozenset(wanted)
    scans: dict[str, list[Any]] = {name: [] for name in names}
    recordings = []
    paths = list(paths)
    runs = Runs()
    for path in paths:
        if path.is_dir():
            if len(paths) > 1:
                runs.add(path, runs_in(path))
            for name in names:
                scans[name].append(scanned(path / f"{name}.parquet", name))
        else:
            recordings.append(path)

    def write(sink: Sink, names: frozenset[str]) -> None:
        for path in recordings:
            recording = Recording.open(path)
            head = recording.head
            runs.add(path, [Run(head.host, head.boot, head.run, head.time, ENDLESS)])
            write_tables(recording, sink, names)
            for sentence in recording.damage.sentences(path):
                tell(sentence)

    made = in_memory(write, names)
    return {name: together(scans[name], made[name]) for name in names}


def in_memory(write: Write, names: frozenset[str]) -> dict[str, Any]:
    """The tables of the rows that somebody writes, in memory."""
    pa = arrow()
    batches: dict[str, list[Any]] = {name: [] for name in names}
    write(lambda name, batch: batches[name].append(batch), names)
    return {name: pa.Table.from_batches(batches[name], schema(name)) for name in names}


def without_rows(names: Iterable[str]) -> dict[str, Any]:
    """Tables that have their columns only."""
    return {name: schema(name).empty_table() for name in names}


def write_parquet(recording: Recording, directory: Path, *, replace: bool) -> dict[str, int]:
    """Write a file of Parquet for each table of a recording; returns the numbers of their rows.

    Raises:
        UsageError: there is a file already; none is made then.
        RecordingError: a file cannot be written.
    """

    def write(sink: Sink, names: frozenset[str]) -> None:
        write_tables(recording, sink, names)

    return parquet_of(write, directory, replace=replace, read=recording.path)


def parquet_of(
    write: Write, directory: Path, *, replace: bool, read: Path | None = None
) -> dict[str, int]:
    """Write a file of Parquet for each table; returns the numbers of their rows.

    What is ``read`` for it is not replaced. The files have their names once all rows are written.

    Raises:
        UsageError: there is a file already; none is made then.
        RecordingError: a file cannot be written.
    """
    check_parquet(directory, replace=replace, read=read)
    pq = parquet()
    rows = dict.fromkeys(TABLES, 0)
    try:
        with ExitStack() as stack:
            stack.enter_context(_directory(directory))
            files = stack.enter_context(new_files(_paths(directory), replace=replace, read=read))
            writers = {}
            for name, file in zip(TABLES, files, strict=True):
                # stories of the same way have the same texts
                made = pq.ParquetWriter(file, schema(name), compression="zstd")
                writers[name] = stack.enter_context(made)

            def add(name: str, batch: Any) -> None:
                rows[name] += batch.num_rows
                writers[name].write_batch(batch)

            write(add, frozenset(TABLES))
    except OSError as error:
        raise RecordingError(f"{directory}: {os_reason(error)}") from error
    return rows


def check_parquet(directory: Path, *, replace: bool, read: Path | None) -> None:
    """Check that files of Parquet may be made in a directory.

    Raises:
        MissingExtraError: the library is not installed.
        UsageError: it is none, or there is a file already.
        RecordingError: no file can be there.
    """
    parquet()
    try:
        if os.path.lexists(directory) and not directory.is_dir():
            raise UsageError(f"{directory} is not a directory", "choose another")
        for path in _paths(directory):
            check_target(path, replace=replace, read=read)
    except OSError as error:
        raise RecordingError(f"{directory}: {os_reason(error)}") from error


def _paths(directory: Path) -> list[Path]:
    return [directory / f"{name}.parquet" for name in TABLES]


@contextmanager
def _directory(path: Path) -> Iterator[None]:
    """A directory for its owner only, which goes again if we made it and the block fails."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        yield
        return
    try:
        yield
    except BaseException:
        # others may have put something there
        with suppress(OSError):
            path.rmdir()
        raise


def write_tables(recording: Recording, sink: Sink, wanted: frozenset[str]) -> None:
    """Make the rows of a recording.

    Raises:
        RecordingError: it has values of other types than it should.
    """
    pa = arrow()
    try:
        _make(recording, sink, wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise RecordingError(
            f"{recording.path}: an event or a story has a value that none can have"
        ) from error


def _make(recording: Recording, sink: Sink, wanted: frozenset[str]) -> None:
    head = recording.head
    last = head.time
    damage = recording.damage

    def unread(size: int) -> None:
        damage.frames += 1
        damage.size += size

    where = head.host, head.boot, head.run
    maker = TableMaker(where, recording.answers.names, sink, wanted, unread)
    of_events = bool(wanted & {"events", "hosts"})
    of_stories = bool(wanted & {*OF_STORIES, "hosts"})
    # most of the time goes to stories, and a question about drops is answered without
    drops_only = not of_events and not wanted & {"stories", "steps"} and "drops" in wanted
    for item in (
        recording.dropped() if drops_only else recording.items(events=of_events, stories=of_stories)
    ):
        match item:
            case Drops():
                maker.take_drops(item)
            case Stories(lines):
                maker.take_stories(lines)
            case Events(batches, _, frame):
                last = max(last, frame.time)
                maker.take_events(batches)
    maker.flush()
    maker.put_rows("links", list(_links(recording)))
    maker.put_rows("hosts", [_host(recording, maker, last)])


def _links(recording: Recording) -> Iterator[Row]:
    for link in recording.link_objects:
        yield tuple(link.get(name) for name in ("link", "name", "hook", "generation"))


def _host(recording: Recording, maker: TableMaker, last: int) -> Row:
    stream = recording.begin.get("stream")
    known = stream if isinstance(stream, dict) else {}
    lost = sum(count for cause, count in recording.lost.items() if cause != "size")
    return (
        *(known.get("module_version"), known.get("fingerprint")),
        *(recording.head.time, last, bool(recording.end)),
        *(maker.events, maker.stories, lost, recording.lost["size"]),
        recording.damage.frames,
    )
