# SPDX-License-Identifier: GPL-2.0
"""A recording that is being written.

Events are written as they come, one frame for all that were read together. Stories, rules and names
are collected and written behind them; behind stories comes the table of their drops. Once the bound
is reached nothing more is written but the end, which counts what was thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.errors import IpttctlError, UsageError, os_reason
from ipttctl.frames.bodies import JSON_FORMAT, MOST_OBJECTS, events_body, json_body
from ipttctl.frames.codec import MOST_BODY, encode
from ipttctl.frames.head import DROPS, EVENTS, NAMES, RULESETS, STORIES, FrameHead
from ipttctl.frames.writer import FrameNumbers
from ipttctl.recordings.drop_columns import DropCollector, StoryDrops
from ipttctl.show.render_json import dumps
from ipttctl.stories.gaps import Gap
from ipttproto import EventBatch

VERSION: Final = 1
"""Version of the objects in a recording."""

_RESERVED: Final = 1 << 16
"""Bytes of the bound that are left for the end."""

LEAST_SIZE: Final = 2 * _RESERVED
"""The least bound."""

_MOST_AT_ONCE: Final = 8192
_ENOUGH: Final = 1 << 20
"""Bytes of stories from which on they are written."""

_MODE: Final = 0o600


class RecordingError(IpttctlError):
    """A recording cannot be written or read."""


class RecordingWriter:
    """Writes a recording; ``full`` tells whether its bound is reached."""

    def __init__(self, path: Path, host: str, boot: str, most: int, *, replace: bool) -> None:
        """Make the file, for its owner only, of at most ``most`` bytes.

        Raises:
            UsageError: there is one, which is not to be replaced.
            RecordingError: it cannot be made.
        """
        self.path = path
        self._file = _made(path, replace=replace)
        self._numbers = FrameNumbers(host, boot)
        self._left = most - _RESERVED
        self._stories: list[str] = []
        self._waiting = 0
        self._drops = DropCollector()
        self._others: dict[str, list[str]] = {RULESETS: [], NAMES: []}
        self._due = 0
        self.full = False
        self.thrown_away: dict[str, int] = {}
        """Items that the bound threw away, by the kind of their frame."""
        self.too_long: dict[str, int] = {}
        """Items that no frame has room for, by the kind."""
        self.size = 0
        """Bytes that were written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def lose(self, causes: dict[str, int]) -> None:
        """Count events that were lost since the last ones that were written."""
        for cause, number in causes.items():
            if number:
                self._numbers.lose(EVENTS, cause, number)

    def write_events(self, batches: Sequence[EventBatch]) -> None:
        """Write events that were read together."""
        batch: list[EventBatch] = []
        count = 0
        for one in batches:
            if batch and count + len(one) > _MOST_AT_ONCE:
                self._write_events(batch, count)
                batch, count = [], 0
            batch.append(one)
            count += len(one)
        if count:
            self._write_events(batch, count)

    def due(self, moment: int) -> None:
        """Note that stories were told because their time had come."""
        self.flush()
        self._due = moment
        self.note({"about": "due", "monotonic": moment})
        self._write_others()

    def lost_within(self, gap: Gap) -> None:
        """Note when events were lost, before what comes next."""
        self.note({"about": "gap", **gap._asdict()})
        self._write_others()

    def seen_until(self, moment: int) -> None:
        """Note the moment at which nothing was due."""
        self._due = moment

    def story(self, line: str) -> None:
        """Write a story, a line of JSON, some time."""
        self._stories.append(line)
        self._waiting += len(line)
        if self._waiting >= _ENOUGH:
            self.flush()

    def note(self, value: dict[str, Any]) -> None:
        """Write a name or another object some time."""
        self._others[NAMES].append(dumps(value))

    def note_rule(self, value: dict[str, Any]) -> None:
        """Write a rule some time."""
        self._others[RULESETS].append(dumps(value))

    def flush_names(self) -> None:
        """Write the rules and names that wait."""
        self._write_others()

    def flush(self) -> None:
        """Write what waits."""
        self._write_others()
        if self._stories:
            self._write_lines(STORIES, self._stories)
            self._stories, self._waiting = [], 0

    def end(self, value: dict[str, Any]) -> None:
        """Write the end, with what was thrown away, for which room was left."""
        self.flush()
        self._write_drops()
        self._left = _RESERVED + max(0, self._left)
        self.full = False
        self._write(EVENTS, 0, {}, b"")
        away = {"thrown_away": dict(self.thrown_away), "too_long": dict(self.too_long)}
        self.note({**value, **away})
        self._write_others()
        self._sync()

    def _write_events(self, batches: list[EventBatch], count: int) -> None:
        form, body = events_body(batches)
        self._write(EVENTS, count, {**form, "due": self._due}, body)

    def _write_others(self) -> None:
        for kind, found in self._others.items():
            if found:
                self._write_lines(kind, found)
                found.clear()

    def _write_lines(self, kind: str, lines: Sequence[str]) -> None:
        """Write lines of JSON, in as many frames as they need."""
        part: list[str] = []
        size = 0
        for line in lines:
            if part and (size + len(line) >= MOST_BODY or len(part) == MOST_OBJECTS):
                self._write_json(kind, part)
                part, size = [], 0
            part.append(line)
            # they are ASCII
            size += len(line) + 1
        self._write_json(kind, part)

    def _write_json(self, kind: str, lines: Sequence[str]) -> None:
        drops = StoryDrops.of(lines) if kind == STORIES else None
        if kind == STORIES and drops is None:
            # their readers have to look at these themselves, behind those before
            self._write_drops()
        first = self._numbers.next(kind)
        written = self._write(kind, len(lines), dict(JSON_FORMAT), json_body(lines))
        if written and drops is not None:
            self._drops.take(first, len(lines), drops)
            if self._drops.enough:
                self._write_drops()

    def _write_drops(self) -> None:
        """Write the drops of the stories that are written, where there is room.

        Readers find them in the stories too.
        """
        found = self._drops.frame()
        self._drops = DropCollector()
        if found is None or self.full:
            return
        form, lines = found
        body = json_body(lines)
        if len(body) <= MOST_BODY:
            data = encode(self._numbers.head(DROPS, len(lines), form), body)
            if len(data) <= self._left:
                self._put(data)

    def _write(self, kind: str, count: int, form: dict[str, int], body: bytes) -> bool:
        """Write a frame, or count what is in it; returns whether it is written."""
        head = self._numbers.head(kind, count, form)
        if len(body) > MOST_BODY:
            self._numbers.throw_away(head, "size")
            self.too_long[kind] = self.too_long.get(kind, 0) + count
            return False
        if not self.full:
            data = encode(head, body)
            if len(data) <= self._left:
                self._put(data)
                return True
            # what comes later, however small, would be without what it needs
            self.full = True
        self._throw_away(head)
        return False

    def _throw_away(self, head: FrameHead) -> None:
        self._numbers.throw_away(head, "size")
        self.thrown_away[head.kind] = self.thrown_away.get(head.kind, 0) + head.count

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            # a full disk takes a part first, and refuses the next one
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise RecordingError(f"{self.path}: {os_reason(error)}") from error
        self._left -= len(data)
        self.size += len(data)

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RecordingError(f"{self.path}: {os_reason(error)}") from error


def check_new(path: Path, *, replace: bool) -> None:
    """Check that there is no file yet, or that it is to be replaced.

    Raises:
        UsageError: there is one, or something that is no file.
    """
    if not os.path.lexists(path):
        return
    if not replace:
        raise UsageError(f"{path} is there already", "choose another file, or --force")
    # a device or a directory is never replaced; of a link, the link is
    if not path.is_symlink() and not path.is_file():
        raise UsageError(f"{path} is not a file", "choose another file")


def _made(path: Path, *, replace: bool) -> Any:
    """A new file, written without a buffer: what was written is there if we are killed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        if replace:
            check_new(path, replace=replace)
            # another name's file stays, and so does what others have open
            path.unlink(missing_ok=True)
        return os.fdopen(os.open(path, flags, _MODE), "wb", buffering=0)
    except FileExistsError as error:
        raise UsageError(f"{path} is there already", "choose another file, or --force") from error
    except OSError as error:
        raise RecordingError(f"{path}: {os_reason(error)}") from error
