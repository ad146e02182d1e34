# SPDX-License-Identifier: GPL-2.0
"""Chains: the stories of one packet on several hosts, in the order of its way."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ipttctl.frames.bodies import json_object
from ipttctl.frames.head import STORIES
from ipttctl.joins.clocks import Life
from ipttctl.joins.marks import Mark, Way, mark_of

_MOST_MARKS: Final = 256
_MOST_TIME: Final = 2**62
_MOST_DEVICE: Final = 255
"""Most characters of the name of a device; the kernel's have 15 at most."""


class WireState(enum.StrEnum):
    """Whether it is known where a packet went, or came from."""

    OPEN = "open"
    """Not yet."""
    JOINED = "joined"
    UNSEEN = "unseen"
    """No traced host has the other end."""
    AMBIGUOUS = "ambiguous"
    """More than one packet could be the one."""
    CUT = "cut"
    """GSO may have cut the packet into others on its way, or GRO have merged such; what these are
    of is not known, but for TCP."""
    GIVEN_UP = "given_up"
    """There was no room to wait for the other end."""
    WRAPPED = "wrapped"
    """The packet went through a tunnel; another mark tells of it, as it was inside, or around."""


@dataclass(eq=False, slots=True)
class Sighting:
    """A mark of a story, and what is known of its other end. Compared by identity."""

    told: HostStory
    mark: Mark
    time: int
    """On the clock of the host."""
    device: str
    packet: int
    """The number of the packet, or of its copy."""
    state: WireState = WireState.OPEN
    partners: list[Sighting] = field(default_factory=list)
    """The other ends, if they are known."""
    rivals: int = 0
    """The number of those that could be one."""
    copies: int = 1
    """Packets of the story that are alike and left."""
    key: tuple[object, ...] = ()
    """That of the mark."""
    leaves: bool = False
    """Whether the packet leaves here."""

    @property
    def is_known(self) -> bool:
        """Whether it is known where the packet went, or came from; or another mark tells that."""
        return self.state in {WireState.JOINED, WireState.WRAPPED}

    def __post_init__(self) -> None:
        """Keep what is asked for often."""
        self.key = self.mark.key or ()
        self.leaves = self.mark.way is Way.DEPARTURE


@dataclass(eq=False, slots=True)
class Together:
    """Stories that are joined, and the number of their sightings that are open."""

    stories: list[HostStory]
    open: int

    def take(self, other: Together) -> None:
        """Take the stories of another one, which has none then."""
        for told in other.stories:
            told.together = self
        self.stories += other.stories
        self.open += other.open
        other.stories, other.open = [], 0


@dataclass(eq=False, slots=True)
class HostStory:
    """A story that a host told, with the member ``join``. Compared by identity.

    It waits as its line of JSON: as objects it takes many times the room.
    """

    life: Life
    line: bytes
    received: int
    began_here: bool
    """Whether the packet is one of this host, and did not come in."""
    has_left: bool
    """Whether the story ends by the packet leaving the host."""
    sightings: list[Sighting] = field(default_factory=list)
    cut: set[tuple[object, ...]] = field(default_factory=set)
    """Flows of packets here that are to be cut, or are merged."""
    number: int = 0
    """Stories that came before it."""
    cost: int = 0
    """Bytes that it takes, about."""
    together: Together = field(init=False)
    """This story and those that it is joined with."""

    def __post_init__(self) -> None:
        """Begin alone."""
        self.together = Together([self], 0)

    @property
    def story(self) -> Any:
        """The story as an object; None if it is nested too deeply to be read here."""
        try:
            return json.loads(self.line)
        except RecursionError:
            return None


@dataclass(frozen=True)
class Wire:
    """The way of a packet from one story of a chain to another, by their indexes.

    ``least`` and ``most`` bound the time (ns) that it took; None where the clocks' difference is
    not known well enough.
    """

    begin: int
    end: int
    left: Sighting
    came: Sighting
    least: int | None = None
    most: int | None = None


@dataclass(frozen=True)
class StoryChain:
    """The stories of one packet."""

    stories: Sequence[HostStory]
    wires: Sequence[Wire]


def told_of(life: Life, line: bytes, received: int) -> HostStory:
    """A story, which is a line of JSON, with its marks, as far as these tell of wires.

    A packet that is handed from one network namespace of a host to another leaves a device and
    comes in, too. That is inside the story: neither tells of a wire.

    Raises:
        FrameError: the line is no object.
    """
    story = json_object(STORIES, line)
    end = story.get("end")
    has_left = isinstance(end, dict) and end.get("kind") == "left"
    told = HostStory(life, line, received, story.get("in_device") is None, has_left)
    began = story.get("monotonic_ns")
    if not isinstance(began, int) or not 0 <= began < _MOST_TIME:
        return told
    #: of each key, in order
    found: dict[tuple[object, ...], list[Sighting]] = {}
    marks = story.get("join")
    for value in marks[:_MOST_MARKS] if isinstance(marks, list) else ():
        one = _sighting(told, value, began)
        if one is None:
            continue
        if one.mark.segment:
            told.cut.add(one.mark.flow)
        if not one.key:
            continue
        there = found.setdefault(one.key, [])
        alike = [other for other in there if overlap(one.mark, other.mark)]
        for other in alike:
            # the last device is the one on the wire
            if other.leaves:
                one.copies += one.leaves and other.packet != one.packet
                there.remove(other)
        if one.leaves or not alike:
            there.append(one)
    kept = (one for there in found.values() for one in there)
    told.sightings = sorted(kept, key=lambda one: one.time)
    told.together = Together([told], len(told.sightings))
    return told


def _sighting(told: HostStory, value: object, began: int) -> Sighting | None:
    if not isinstance(value, Mapping):
        return None
    mark = mark_of(value)
    after, packet, device = value.get("after_ns"), value.get("packet"), value.get("device")
    if mark is None or not isinstance(after, int) or not isinstance(packet, int):
        return None
    if abs(after) >= _MOST_TIME:
        return None
    # what is longer would take room that nobody counts
    name = device[:_MOST_DEVICE] if isinstance(device, str) else ""
    return Sighting(told, mark, began + after, name, packet)


def overlap(one: Mark, other: Mark) -> bool:
    """Whether two marks of the same key are of some of the same bytes, if they are of bytes."""
    if not one.has_data:
        return True
    ahead = (other.sequence - one.sequence + (1 << 31)) % (1 << 32) - (1 << 31)
    return -other.payload < ahead < one.payload
