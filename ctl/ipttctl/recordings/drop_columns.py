# SPDX-License-Identifier: GPL-2.0
"""The table of drops as a recording keeps it, in columns, besides its stories.

Whoever asks what was dropped reads these alone: stories of a million packets take most of a minute.
A frame of them has a line for each column, and says in its head which stories they are of.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any, Final, NamedTuple, Self, TypeAlias

from ipttctl.frames.bodies import JSON_FORMAT, json_of
from ipttctl.frames.head import FrameError, FrameHead
from ipttctl.numbers import S64_MAX, U64_MAX
from ipttctl.recordings.columns import BOOL, NUMBER, TABLES, TEXT, TIME, UNSIGNED, WHERE, Column
from ipttctl.recordings.rows import NOT_A_STORY, Row, StoryRows

ENOUGH_ROWS: Final = 8192
"""Drops that are worth a frame."""

ENOUGH_STORIES: Final = 1 << 16
"""Stories after which a frame says that few of them, or none, are of drops."""

_MOST_ROWS: Final = 1 << 18
_MOST_NUMBERS: Final = 1 << 40
_COLUMNS: Final = TABLES["drops"][len(WHERE) :]
_STORY: Final = _COLUMNS[0]

Values: TypeAlias = list[Any]


@dataclass(frozen=True)
class Coded:
    """The values of a column: each row has the one whose place it says, or all have one."""

    values: Values
    places: list[int] | None = None


@dataclass(frozen=True)
class Drops:
    """The drops of the stories that have the numbers ``first`` to ``end`` (excluded) in the file.

    ``numbers`` is how many stories and branches they are in the tables; the rows' are from 0.
    """

    first: int
    end: int
    numbers: int
    rows: int
    stories: list[int]
    columns: dict[str, Values | Coded]

    def columns_from(self, base: int) -> dict[str, Values | Coded]:
        """The columns, in which stories are numbered from ``base``."""
        return {**self.columns, _STORY.name: [number + base for number in self.stories]}


class StoryDrops(NamedTuple):
    """The rows of the drops of some stories, which have ``numbers`` from 0 in the tables."""

    numbers: int
    rows: list[Row]

    @classmethod
    def of(cls, lines: Sequence[str]) -> Self | None:
        """The drops of stories, as lines of JSON; None if one of them is none."""
        rows: list[Row] = []
        stories = StoryRows(lambda _, row: rows.append(row), frozenset({"drops"}))
        try:
            for line in lines:
                stories.take(line.encode())
        except NOT_A_STORY:
            return None
        return cls(stories.numbers, rows)


class DropCollector:
    """Collects the drops of stories that were written, until they are worth a frame."""

    def __init__(self) -> None:
        """Begin with none."""
        self._rows: list[Row] = []
        self._first = 0
        self._end = 0
        self._numbers = 0

    @property
    def enough(self) -> bool:
        """Whether there is enough for a frame."""
        stories = self._end - self._first
        return len(self._rows) >= ENOUGH_ROWS or stories >= ENOUGH_STORIES

    def take(self, first: int, count: int, drops: StoryDrops) -> None:
        """Take the drops of stories that were written, numbered from ``first``."""
        if not self._end:
            self._first = first
        self._end = first + count
        self._rows += [(number + self._numbers, *rest) for number, *rest in drops.rows]
        self._numbers += drops.numbers

    def frame(self) -> tuple[dict[str, int], list[str]] | None:
        """The format and the lines of a frame; None: no story was taken."""
        if not self._end:
            return None
        form = {
            **JSON_FORMAT,
            "first": self._first,
            "end": self._end,
            "numbers": self._numbers,
            "rows": len(self._rows),
        }
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(_COLUMNS)
        lines = [
            json.dumps({"column": column.name, **_coded(values)}, separators=(",", ":"))
            for column, values in zip(_COLUMNS, columns, strict=True)
        ]
        return form, lines


def _coded(values: Iterable[Any]) -> dict[str, list[Any]]:
    """A column: with each value once where values repeat, with one where all are alike."""
    every = list(values)
    places: dict[tuple[type, Any], int] = {}
    coded = [places.setdefault((type(value), value), len(places)) for value in every]
    if 2 * len(places) > len(every):
        return {"values": every}
    once = {"values": [value for _, value in places]}
    return once if len(places) == 1 else {**once, "places": coded}


def drops_of(head: FrameHead, body: bytes) -> Drops:
    """The drops of a frame.

    Raises:
        FrameError: they are not as they should be.
    """
    form = head.format
    first, end, numbers, rows = (form.get(name, -1) for name in ("first", "end", "numbers", "rows"))
    if not 0 <= first < end or not 0 <= numbers <= _MOST_NUMBERS or not 0 <= rows <= _MOST_ROWS:
        raise FrameError("a frame says that it has drops which none can have")
    lines = json_of(head, body)
    found = {name: one for one in lines if isinstance(name := one.get("column"), str)}
    columns = {
        column.name: _checked(column, found.get(column.name, {}), rows) for column in _COLUMNS
    }
    # a story is of one packet, which is dropped once: so it is the frame's length that bounds rows
    stories = found.get(_STORY.name, {}).get("values", [])
    rising = len(stories) == rows and all(map(lt, stories, stories[1:]))
    if not rising or (stories and not 0 <= stories[0] <= stories[-1] < numbers):
        raise FrameError("a frame has drops of other stories than it says")
    return Drops(first, end, numbers, rows, stories, columns)


def _checked(column: Column, found: dict[str, Any], rows: int) -> Values | Coded:
    values, places = found.get("values"), found.get("places")
    if not isinstance(values, list) or not _fit(column.type, values):
        raise FrameError(f"a frame has no column {column.name} of drops")
    if places is None and len(values) == 1:
        return Coded(values)
    if places is None:
        if len(values) != rows:
            raise FrameError(f"a frame has too few or too many values of {column.name}")
        return values
    if not isinstance(places, list) or len(places) != rows:
        raise FrameError(f"a frame has too few or too many places of {column.name}")
    if not _within(places, 0, len(values) - 1):
        raise FrameError(f"a frame has places of {column.name} that have no values")
    return Coded(values, places)


def _fit(kind: str, values: Values) -> bool:
    """Whether all values are of the type of a column, or null."""
    known = [value for value in values if value is not None]
    if kind in {NUMBER, TIME}:
        return _within(known, -S64_MAX, S64_MAX)
    if kind == UNSIGNED:
        return _within(known, 0, U64_MAX)
    return set(map(type, known)) <= {{TEXT: str, BOOL: bool}[kind]}


def _within(values: Values, least: int, most: int) -> bool:
    """Whether all values are numbers within bounds."""
    return set(map(type, values)) <= {int} and (
        not values or (least <= min(values) and max(values) <= most)
    )
