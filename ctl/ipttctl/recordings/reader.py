# SPDX-License-Identifier: GPL-2.0
"""A recording that is there: its beginning, its end, its names, and what happened in order."""

from __future__ import annotations

import json
import os
import stat
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self, TypeAlias

from ipttctl.errors import os_reason
from ipttctl.frames.bodies import events_of, json_lines, json_of
from ipttctl.frames.head import DROPS, EVENTS, NAMES, RULESETS, STORIES, FrameError, FrameHead
from ipttctl.frames.reader import FrameReader
from ipttctl.frames.seen import Seen
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


class DropsPlace(NamedTuple):
    """A frame of drops: of the stories ``first`` to ``end`` (excluded), ``begin`` in the file."""

    first: int
    end: int
    begin: int

    @classmethod
    def of(cls, head: FrameHead, begin: int) -> Self:
        """The place that the head of a frame says, which begins at ``begin``."""
        return cls(head.format.get("first", 0), head.format.get("end", 0), begin)


class DropsPlaces:
    """The frames of drops of a recording."""

    def __init__(self) -> None:
        """Begin with none."""
        self.places: list[DropsPlace] = []
        self.left: list[int] = []
        """The first stories of frames that none of them is of, in order."""

    def take(self, head: FrameHead, begin: int) -> None:
        """Take the next frame, which begins there in the file."""
        if head.kind == STORIES:
            insort(self.left, head.sequence)
        elif head.kind == DROPS:
            place = DropsPlace.of(head, begin)
            self.places.append(place)
            begin_of, end_of = (bisect_left(self.left, at) for at in (place.first, place.end))
            del self.left[begin_of:end_of]


Item: TypeAlias = Events | Due | Gap | Stories | Drops


@dataclass
class Damage:
    """The parts of a recording that could not be read.

    ``others`` are frames of other recordings, ``again`` those that come once more.
    """

    frames: int = 0
    size: int = 0
    torn: bool = False
    finished: bool = True
    others: int = 0
    again: int = 0
    _known: set[tuple[str, int]] = field(default_factory=set)

    def note(self, head: FrameHead, size: int) -> None:
        """Count a frame that cannot be read, once however often it is tried."""
        key = head.kind, head.sequence
        if key not in self._known:
            self._known.add(key)
            self.frames += 1
            self.size += size

    def passed_over(self, reader: FrameReader) -> None:
        """Count what the reader of a file had to pass over."""
        self.frames += reader.damaged
        self.size += reader.skipped
        self.torn |= reader.torn

    def sentences(self, path: Path) -> Iterator[str]:
        """A sentence on each kind of damage."""
        if self.frames:
            yield f"{path}: {counted(self.frames, 'damaged frame')} ({self.size} bytes) passed over"
        if self.others:
            yield f"{path}: {counted(self.others, 'frame')} of another recording passed over"
        if self.again:
            yield f"{path}: {counted(self.again, 'frame')} that came before passed over"
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
    drops: DropsPlaces = field(default_factory=DropsPlaces)

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
        drops = DropsPlaces()
        seen = Seen()
        with opened(path) as file:
            reader = FrameReader(file, _of_answers, damage.note)
            for head, body in reader:
                if first is not None and head.run != first.run:
                    damage.others += 1
                    continue
                if not seen.first(head):
                    continue
                drops.take(head, reader.begin)
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
        damage.passed_over(reader)
        damage.again = seen.again
        answers.whole = damage.finished and not damage.frames
        found = cls(path, begin, first, end, answers, lost, damage, later, drops)
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
        kinds = {EVENTS: events, NAMES: events, STORIES: stories}
        for head, body in self._frames({kind for kind, one in kinds.items() if one}):
            if head.kind == EVENTS and head.count:
                try:
                    yield Events(events_of(head, body), head.format.get("due", 0), head)
                except FrameError:
                    self.damage.note(head, len(body))
            elif head.kind == STORIES:
                yield from self._stories(head, body)
            elif head.kind == NAMES and (b'"due"' in body or b'"gap"' in body):
                for value in _objects(head, body, Damage()):
                    match value.get("about"):
                        case "due":
                            yield from _due(value)
                        case "gap":
                            yield from _gap(value)

    def dropped(self) -> Iterator[Stories | Drops]:
        """The drops that the recording has in columns, and the stories of which it has not.

        Where frames are damaged, stories have other numbers than the writer gave them: no columns.
        """
        if not self.damage.frames and not self.drops.left:
            for place in self.drops.places:
                with opened(self.path) as file:
                    file.seek(place.begin)
                    yield from self._drops(*next(iter(FrameReader(file))))
            return
        ends = {} if self.damage.frames else {one.first: one.end for one in self.drops.places}
        firsts = sorted(ends)

        def in_columns(head: FrameHead) -> bool:
            at = bisect_right(firsts, head.sequence)
            return at > 0 and head.sequence < ends[firsts[at - 1]]

        def wanted(head: FrameHead) -> bool:
            return bool(ends) if head.kind == DROPS else not in_columns(head)

        for head, body in self._frames({DROPS, STORIES}, wanted):
            yield from (self._stories if head.kind == STORIES else self._drops)(head, body)

    def _drops(self, head: FrameHead, body: bytes) -> Iterator[Stories | Drops]:
        """The drops of a frame, or else the stories that it is of."""
        try:
            yield drops_of(head, body)
        except FrameError:
            place = DropsPlace.of(head, 0)
            for other, found in self._frames(
                {STORIES}, lambda one: place.first <= one.sequence < place.end
            ):
                yield from self._stories(other, found)

    def _frames(
        self, kinds: Collection[str], wanted: Callable[[FrameHead], bool] = lambda _: True
    ) -> Iterator[tuple[FrameHead, bytes]]:
        """The frames of these kinds that are wanted."""

        def ours(head: FrameHead) -> bool:
            return head.kind in kinds and head.run == self.head.run and wanted(head)

        seen = Seen()
        with opened(self.path) as file:
            for head, body in FrameReader(file, ours, self.damage.note):
                if ours(head) and seen.first(head):
                    yield head, body

    def _stories(self, head: FrameHead, body: bytes) -> Iterator[Stories]:
        try:
            yield Stories(json_lines(head, body))
        except FrameError:
            self.damage.note(head, len(body))

    def rulesets(self) -> Iterator[RecordedRuleset]:
        """The whole rulesets, in the order in which they were listed."""
        for head, body in self._frames({RULESETS}):
            if b'"ruleset"' not in body:
                continue
            for value in _objects(head, body, self.damage):
                if value.get("about") == "ruleset":
                    try:
                        yield from_object(RecordedRuleset, value)
                    except FrameError:
                        self.damage.note(head, len(body))


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


def _objects(head: FrameHead, body: bytes, damage: Damage) -> list[dict[str, Any]]:
    """The objects of a frame; none if they cannot be read."""
    try:
        return json_of(head, body)
    except FrameError:
        damage.note(head, len(body))
        return []
