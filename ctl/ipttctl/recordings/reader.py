# SPDX-License-Identifier: GPL-2.0
"""A recording that is there: its beginning, its end, its names, and what happened in order."""

from __future__ import annotations

import json
import os
import stat
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from ipttctl.errors import os_reason
from ipttctl.frames.bodies import events_of, json_lines, json_of
from ipttctl.frames.head import DROPS, EVENTS, NAMES, RULESETS, STORIES, FrameError, FrameHead
from ipttctl.frames.reader import FrameReader
from ipttctl.numbers import U32_MAX, counted
from ipttctl.recordings.answers import Answers
from ipttctl.recordings.drop_columns import Drops, drops_of
from ipttctl.recordings.values import from_object, member
from ipttctl.recordings.writer import VERSION, RecordingError
from ipttctl.stories.gaps import Gap
from ipttproto import EventBatch


@dataclass(frozen=True)
class Events:
    """Events that were read together; before them nothing was due until ``due``."""

    batches: list[EventBatch]
    due: int
    head: FrameHead


@dataclass(frozen=True)
class Due:
    """Stories were told because their time had come."""

    moment: int


@dataclass(frozen=True)
class Stories:
    """Stories as lines of JSON."""

    lines: list[bytes]

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The stories as objects; those that are none are left out."""
        return [one for line in self.lines if (one := story_of(line)) is not None]


@dataclass(frozen=True)
class RecordedRuleset:
    """The rules of a back end in a network namespace, as its program listed them.

    ``table`` is the program and the table of legacy rules. It was listed between ``began`` and
    ``ended`` (CLOCK_MONOTONIC, ns); ``time`` is the end on CLOCK_REALTIME. Without a text ``why``
    says why.
    """

    netns_cookie: int
    netns: int
    backend: str
    table: str
    time: int
    began: int
    ended: int
    text: str
    why: str


Item: TypeAlias = Events | Due | Gap | Stories | Drops


@dataclass
class Damage:
    """The parts of a recording that could not be read; ``others`` are frames of other ones."""

    frames: int = 0
    size: int = 0
    torn: bool = False
    finished: bool = True
    others: int = 0
    _known: set[tuple[str, int]] = field(default_factory=set)

    def note(self, head: FrameHead, body: bytes) -> None:
        """Count a frame that cannot be read, once however often it is tried."""
        key = head.kind, head.sequence
        if key not in self._known:
            self._known.add(key)
            self.frames += 1
            self.size += len(body)

    def sentences(self, path: Path) -> Iterator[str]:
        """A sentence on each kind of damage."""
        if self.frames:
            yield f"{path}: {counted(self.frames, 'damaged frame')} ({self.size} bytes) passed over"
        if self.others:
            yield f"{path}: {counted(self.others, 'frame')} of another recording passed over"
        if self.torn or not self.finished:
            yield f"{path}: the recording was not finished; the end is missing"


@dataclass
class Recording:
    """A recording, opened: its first pass has read the names and the end.

    ``begin`` and ``end`` are the objects that were written first and last; ``end`` is empty if the
    writer was killed. ``lost`` are events lost, by cause. ``later`` are the objects on links that
    were attached after the beginning.
    """

    path: Path
    begin: dict[str, Any]
    head: FrameHead
    end: dict[str, Any]
    answers: Answers
    lost: Counter[str] = field(default_factory=Counter)
    damage: Damage = field(default_factory=Damage)
    later: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Read what is needed before the events.

        Raises:
            RecordingError: there is no recording at ``path``.
        """
        answers, lost = Answers(), Counter[str]()
        begin: dict[str, Any] | None = None
        first: FrameHead | None = None
        end: dict[str, Any] = {}
        damage = Damage()
        later: list[dict[str, Any]] = []
        with opened(path) as file:
            for head, body in _frames(file, damage, _of_answers):
                if first is not None and head.run != first.run:
                    damage.others += 1
                    continue
                if head.kind == EVENTS:
                    lost.update(head.lost)
                if head.kind not in {NAMES, RULESETS}:
                    continue
                for value in _objects(head, body, damage):
                    try:
                        answers.take(value)
                    except FrameError as error:
                        raise RecordingError(f"{path}: {error}") from error
                    if value.get("about") == "recording" and begin is None:
                        begin, first = value, head
                    elif value.get("about") == "end":
                        end = value
                    elif value.get("about") == "links":
                        later.append(value)
        if begin is None or first is None:
            raise RecordingError(f"{path} is no recording, or its beginning is damaged")
        damage.finished = bool(end)
        answers.whole = damage.finished and not damage.frames
        found = cls(path, begin, first, end, answers, lost, damage, later)
        found.check()
        return found

    def check(self) -> None:
        """Check the beginning.

        Raises:
            RecordingError: it is of another version, or makes no sense.
        """
        version = self.begin.get("version")
        if version != VERSION:
            raise RecordingError(
                f"{self.path} is of version {version!r} of recordings", f"{VERSION} is known here"
            )
        try:
            _ = self.stories, self.links, self.patience, self.count, self.snaplen
        except FrameError as error:
            raise RecordingError(f"{self.path}: {error}") from error

    @property
    def stories(self) -> bool:
        """Whether the events make stories."""
        return bool(member(bool, self.begin, "stories"))

    @property
    def links(self) -> set[int]:
        """The ids of the links that the events are of."""
        values = (self.begin, *self.later)
        return {link for one in values for link in member(tuple[int, ...], one, "links")}

    @property
    def link_objects(self) -> list[dict[str, Any]]:
        """The links as objects; those that are none are left out."""
        found = [one.get("link_objects") for one in (self.begin, *self.later)]
        every = [link for links in found if isinstance(links, list) for link in links]
        return [link for link in every if isinstance(link, dict)]

    @property
    def patience(self) -> int:
        """The patience (ns) with which stories were told."""
        return int(member(int, self.begin, "patience_ns"))

    @property
    def count(self) -> int | None:
        """The number of stories, or of events, at which it was to end; None: none."""
        return member(int | None, self.begin, "count") if "count" in self.begin else None

    @property
    def snaplen(self) -> int:
        """Most bytes of packets that were kept; 0: none."""
        found = int(member(int, self.begin, "snaplen")) if "snaplen" in self.begin else 0
        if not 0 <= found <= U32_MAX:
            raise FrameError("a recorded snaplen is out of bounds")
        return found

    def items(self, *, events: bool = True, stories: bool = False) -> Iterator[Item]:
        """All that happened, in order."""
        damage = Damage()
        kinds = {EVENTS: events, NAMES: events, STORIES: stories}
        wanted = {kind for kind, one in kinds.items() if one}
        with opened(self.path) as file:
            for head, body in _frames(file, damage, lambda head: head.kind in wanted):
                if not self._has(head):
                    continue
                if head.kind == EVENTS and events and head.count:
                    try:
                        yield Events(events_of(head, body), head.format.get("due", 0), head)
                    except FrameError:
                        self.damage.note(head, body)
                elif head.kind == STORIES and stories:
                    yield from self._stories(head, body)
                elif head.kind == NAMES and events and (b'"due"' in body or b'"gap"' in body):
                    for value in _objects(head, body, damage):
                        match value.get("about"):
                            case "due":
                                yield from _due(value)
                            case "gap":
                                yield from _gap(value)

    def dropped(self) -> Iterator[Stories | Drops]:
        """The drops that the recording has in columns, and the stories of which it has not."""
        kept, left = self._kept_drops()
        if left:
            with opened(self.path) as file:
                for head, body in _frames(
                    file, Damage(), lambda head: head.kind == STORIES and head.sequence in left
                ):
                    if head.kind == STORIES and self._has(head) and head.sequence in left:
                        while kept and kept[0].first < head.sequence:
                            yield kept.popleft()
                        yield from self._stories(head, body)
        yield from kept

    def _kept_drops(self) -> tuple[deque[Drops], set[int]]:
        """The drops in columns, in order, and the first story of each frame that they are not of.

        Where frames are damaged, stories have other numbers than the writer gave them: no columns.
        """
        found: dict[int, Drops] = {}
        stories: list[int] = []
        with opened(self.path) as file:
            for head, body in _frames(file, Damage(), lambda head: head.kind == DROPS):
                if not self._has(head):
                    continue
                if head.kind == STORIES:
                    stories.append(head.sequence)
                elif head.kind == DROPS and not self.damage.frames:
                    with suppress(FrameError):
                        drops = drops_of(head, body)
                        found[drops.first] = drops
        firsts = sorted(found)

        def covered(number: int) -> bool:
            at = bisect_right(firsts, number)
            return at > 0 and number < found[firsts[at - 1]].end

        return deque(found[first] for first in firsts), {n for n in stories if not covered(n)}

    def _has(self, head: FrameHead) -> bool:
        """Whether a frame is of this recording."""
        return head.run == self.head.run

    def _stories(self, head: FrameHead, body: bytes) -> Iterator[Stories]:
        try:
            yield Stories(json_lines(head, body))
        except FrameError:
            self.damage.note(head, body)

    def rulesets(self) -> Iterator[RecordedRuleset]:
        """The whole rulesets, in the order in which they were listed."""
        with opened(self.path) as file:
            for head, body in _frames(file, Damage(), lambda head: head.kind == RULESETS):
                if not self._has(head) or head.kind != RULESETS or b'"ruleset"' not in body:
                    continue
                for value in _objects(head, body, self.damage):
                    if value.get("about") == "ruleset":
                        try:
                            yield from_object(RecordedRuleset, value)
                        except FrameError:
                            self.damage.note(head, body)


def story_of(line: bytes) -> dict[str, Any] | None:
    """A story of its line; None if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def opened(path: Path) -> BinaryIO:
    """A file to read.

    Raises:
        RecordingError: it cannot be read, or is not a file.
    """
    try:
        # a FIFO would have us wait for a writer
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise RecordingError(f"{path} is not a file")
    except OSError as error:
        raise RecordingError(f"{path}: {os_reason(error)}") from error
    return file


def _due(value: dict[str, Any]) -> Iterator[Due]:
    try:
        yield Due(member(int, value, "monotonic"))
    except FrameError:
        return


def _gap(value: dict[str, Any]) -> Iterator[Gap]:
    try:
        yield Gap(member(int, value, "since"), member(int, value, "until"))
    except FrameError:
        return


def _of_answers(head: FrameHead) -> bool:
    return head.kind in {NAMES, RULESETS}


def _frames(
    file: BinaryIO, damage: Damage, wanted: Callable[[FrameHead], bool]
) -> Iterator[tuple[FrameHead, bytes]]:
    """The frames of a file; bodies that are not ``wanted`` are left out."""
    reader = FrameReader(file, wanted)
    yield from reader
    damage.frames += reader.damaged
    damage.size += reader.skipped
    damage.torn |= reader.torn


def _objects(head: FrameHead, body: bytes, damage: Damage) -> list[dict[str, Any]]:
    """The objects of a frame; none if they cannot be read."""
    try:
        return json_of(head, body)
    except FrameError:
        damage.note(head, body)
        return []
