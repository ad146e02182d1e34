# SPDX-License-Identifier: GPL-2.0
"""The rows of one run of a host: made of its events and stories, given on as Arrow's batches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

from ipttctl.recordings.columns import SCHEMA, TABLES
from ipttctl.recordings.drop_columns import Coded, Drops
from ipttctl.recordings.event_rows import EventColumns
from ipttctl.recordings.extra import arrow
from ipttctl.recordings.rows import NOT_A_STORY, Row, StoryRows
from ipttctl.system.namespace_names import NameAt
from ipttproto import EventBatch, JoinedBatches

_AT_ONCE: Final = 1 << 15
"""Rows that are made a batch of."""

OF_STORIES: Final = ("stories", "steps", "drops")
"""The tables that are made of stories."""

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


class TableMaker:
    """Makes the rows of one run: takes its events and stories in order, until ``flush``."""

    def __init__(
        self,
        where: tuple[str, str, str],
        names: NameAt,
        sink: Sink,
        wanted: frozenset[str],
        unread: Callable[[int], None],
    ) -> None:
        """Make the rows of the tables in ``wanted``, of host, boot and run as ``where`` says.

        ``unread`` is called with the size of each story that is none.
        """
        self._where = where
        self._sink = sink
        self._wanted = wanted
        self._unread = unread
        self._rows: dict[str, list[Row]] = {name: [] for name in OF_STORIES}
        self._stories = StoryRows(self._add, wanted)
        self._columns = EventColumns(names)
        self.events = 0
        """Events that were taken."""

    @property
    def stories(self) -> int:
        """Stories that were taken, without branches."""
        return self._stories.stories

    @property
    def waiting(self) -> int:
        """Rows that are not given on yet."""
        return sum(map(len, self._rows.values()))

    def take_events(self, batches: Sequence[EventBatch]) -> None:
        """Make the rows of events."""
        events = JoinedBatches.of(batches)
        self.events += len(events)
        if "events" in self._wanted:
            self._put("events", self._columns.of(events), len(events))

    def take_stories(self, lines: Sequence[bytes]) -> None:
        """Make the rows of stories, as lines of JSON."""
        for line in lines:
            try:
                self._stories.take(line)
            except NOT_A_STORY:
                self._unread(len(line))

    def take_drops(self, drops: Drops) -> None:
        """Give on the rows of drops that are in columns; their stories have been passed over."""
        self._flush("drops")
        if drops.rows:
            self._put("drops", drops.columns_from(self._stories.numbers), drops.rows)
        self._stories.pass_over(drops.numbers, drops.end - drops.first)

    def flush(self) -> None:
        """Give on the rows that wait."""
        for name in OF_STORIES:
            self._flush(name)

    def drop(self) -> None:
        """Forget the rows that wait, which cannot be given on."""
        self._rows = {name: [] for name in OF_STORIES}

    def put_rows(self, table: str, rows: Sequence[Row]) -> None:
        """Give on rows of a table, if it is wanted."""
        if not rows or table not in self._wanted:
            return
        names = [column.name for column in TABLES[table][len(self._where) :]]
        self._put(table, dict(zip(names, zip(*rows, strict=True), strict=True)), len(rows))

    def _add(self, table: str, row: Row) -> None:
        rows = self._rows[table]
        rows.append(row)
        if len(rows) >= _AT_ONCE:
            self._flush(table)

    def _flush(self, table: str) -> None:
        self.put_rows(table, self._rows[table])
        self._rows[table] = []

    def _put(self, table: str, columns: dict[str, Any], count: int) -> None:
        pa = arrow()
        made = schema(table)
        arrays = [pa.repeat(one, count) for one in self._where]
        arrays += [
            _array(columns[column.name], field.type, count)
            for column, field in itertools.islice(
                zip(TABLES[table], made, strict=True), len(self._where), None
            )
        ]
        self._sink(table, pa.record_batch(arrays, schema=made))


def _array(values: Any, kind: Any, count: int) -> Any:
    """The ``count`` values of a column; names may hold bytes that are not UTF-8."""
    pa = arrow()
    if isinstance(values, Coded):
        if values.places is None:
            return pa.repeat(_array(values.values, kind, 1)[0], count)
        # Arrow's take() would have its module of functions imported, which takes longer
        values = [values.values[place] for place in values.places]
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
