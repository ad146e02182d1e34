# SPDX-License-Identifier: GPL-2.0
"""Chains: the stories of one packet on several hosts, in the order of its way."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from ipttctl.joins.clocks import Life
from ipttctl.joins.marks import Mark, Way, mark_of

StoryObject: TypeAlias = Mapping[str, Any]
"""A story as JSON has it, with the member ``join``."""

_MOST_MARKS: Final = 256
_MOST_TIME: Final = 2**62


class WireState(enum.StrEnum):
    """Whether it is known where a packet went, or came from."""

    OPEN = "open"
    """Not yet."""
    JOINED = "joined"
    UNSEEN = "unseen"
    """No traced host has the other end."""
    AMBIGUOUS = "ambiguous"
    """More than one packet could be the one."""
    GIVEN_UP = "given_up"
    """There was no room to wait for the other end."""


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

    def __post_init__(self) -> None:
        """Keep what is asked for often."""
        self.key = self.mark.key or ()
        self.leaves = self.mark.way is Way.DEPARTURE


@dataclass(eq=False, slots=True)
class HostStory:
    """A story that a host told. Compared by identity."""

    life: Life
    story: StoryObject
    received: int
    sightings: list[Sighting] = field(default_factory=list)
    number: int = 0
    """Stories that came before it."""

    @property
    def began_here(self) -> bool:
        """Whether the packet is one of this host, and did not come in."""
        return self.story.get("in_device") is None

    @property
    def is_settled(self) -> bool:
        """Whether nothing more is to be found out."""
        return all(one.state is not WireState.OPEN for one in self.sightings)

    def neighbours(self) -> list[HostStory]:
        """The stories that this one is joined with."""
        return [other.told for one in self.sightings for other in one.partners]


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


def told_of(life: Life, story: StoryObject, received: int) -> HostStory:
    """A story with its marks, as far as these tell of wires.

    A packet that is handed from one network namespace of a host to another leaves a device and
    comes in, too. That is inside the story: neither tells of a wire.
    """
    told = HostStory(life, story, received)
    began = story.get("monotonic_ns")
    if not isinstance(began, int):
        return told
    found: list[Sighting] = []
    marks = story.get("join")
    for value in list(marks)[:_MOST_MARKS] if isinstance(marks, list) else ():
        one = _sighting(told, value, began)
        if one is None:
            continue
        alike = [other for other in found if _alike(one, other)]
        if one.leaves:
            # the last device is the one on the wire
            for other in alike:
                if other.leaves:
                    one.copies += other.packet != one.packet
                    found.remove(other)
            found.append(one)
        elif not alike:
            found.append(one)
        else:
            for other in alike:
                if other.leaves:
                    found.remove(other)
    told.sightings = found
    return told


def _sighting(told: HostStory, value: object, began: int) -> Sighting | None:
    if not isinstance(value, Mapping):
        return None
    mark = mark_of(value)
    after, packet, device = value.get("after_ns"), value.get("packet"), value.get("device")
    good = isinstance(after, int) and isinstance(packet, int) and abs(after) < _MOST_TIME
    if mark is None or not good:
        return None
    name = device if isinstance(device, str) else ""
    sighting = Sighting(told, mark, began + int(str(after)), name, int(str(packet)))
    return sighting if sighting.key else None


def _alike(one: Sighting, other: Sighting) -> bool:
    return one.key == other.key and overlap(one.mark, other.mark)


def overlap(one: Mark, other: Mark) -> bool:
    """Whether two marks of the same key are of some of the same bytes, if they are of bytes."""
    if not one.has_data:
        return True
    ahead = (other.sequence - one.sequence + (1 << 31)) % (1 << 32) - (1 << 31)
    return -other.payload < ahead < one.payload
