# SPDX-License-Identifier: GPL-2.0
"""A packet's story: its steps, its branches and its end.

Most packets take a way that others took before. What these have in common is a ``Plot``; it names
its events by their index in the story, which has their times and the headers of the packet.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ipttctl.events.records import EventRecord
from ipttctl.stories.occurrences import Headers, Named, Occurrence, whole_record
from ipttproto import Kind


class PacketField(enum.StrEnum):
    """A field of a packet that can change on its way."""

    SOURCE = "source"
    DESTINATION = "destination"
    MARK = "mark"
    PRIORITY = "priority"
    TTL = "ttl"
    TOS = "tos"
    CT_STATE = "ct_state"
    CT_MARK = "ct_mark"
    CT_ZONE = "ct_zone"


@dataclass(frozen=True, slots=True)
class PacketChange:
    """A change of a field that shows between two events at one hook.

    ``before`` and ``after`` are the indexes of these events. What came between changed the field:
    the function, chain or rule of the later one. ``initial``: connection tracking has only got to
    know the packet, and nobody chose the value.
    """

    field: PacketField
    before: int
    after: int
    initial: bool = False


@dataclass(frozen=True, slots=True)
class RuleStep:
    """A rule that matched, or the end of a chain, with the changes that show in its event."""

    at: int
    changes: tuple[PacketChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Consultation:
    """A passage through a legacy table or through a base chain of nftables.

    ``at`` is any event of it. ``end`` is that of its verdict, if it is known. ``known``: NAT did
    not ask it, since it knows the connection.
    """

    at: int
    rules: tuple[RuleStep, ...] = ()
    end: int | None = None
    known: bool = False


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function of a hook: the tables or chains that it consulted, and what it changed.

    ``at`` is the event of its return, None if there is none: the spine is not watched.
    """

    at: int | None
    consulted: tuple[Consultation, ...] = ()
    changes: tuple[PacketChange, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage through a netfilter hook.

    ``first`` is its first event, ``end`` that of its verdict. ``arrived`` are changes since the
    hook before, which somebody else made, or the first function.
    """

    first: int
    calls: tuple[FunctionCall, ...] = ()
    end: int | None = None
    arrived: tuple[PacketChange, ...] = ()

    @property
    def last(self) -> int:
        """The last event that tells of the passage itself: of its verdict, or of a function."""
        called = [call.at for call in self.calls if call.at is not None]
        return self.end if self.end is not None else called[-1] if called else self.first


@dataclass(frozen=True, slots=True)
class RouteStep:
    """The way that routing chose, known by the event ``at``.

    ``forwarded``: to the event's device out; otherwise to this host, or out by another device than
    before (``rerouted``). ``changes`` are those that forwarding makes of any packet.
    """

    at: int
    forwarded: bool = False
    rerouted: bool = False
    changes: tuple[PacketChange, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """The packet was handed to a device (``sent``), or came in by one.

    ``crossed``: it is in another network namespace than before.
    """

    at: int
    sent: bool
    crossed: bool = False
    changes: tuple[PacketChange, ...] = ()


@dataclass(frozen=True, slots=True)
class SocketStep:
    """The packet came to a socket."""

    at: int


@dataclass(frozen=True, slots=True)
class TunnelStep:
    """The packet got another outer header, or lost it (``removed``), between two events."""

    before: int
    after: int
    removed: bool = False


@dataclass(frozen=True, slots=True)
class BranchStep:
    """A copy or a part of the packet goes its own way from here: ``branches[index]``."""

    index: int


StoryStep: TypeAlias = Passage | RouteStep | DeviceStep | SocketStep | TunnelStep | BranchStep


class EndKind(enum.StrEnum):
    """The end of a story."""

    RULE = "dropped_by_rule"
    """A rule, or the policy of a chain, dropped the packet."""
    FUNCTION = "dropped_by_function"
    """A function of a hook did: a BPF program, synproxy, connection tracking..."""
    KERNEL = "dropped_by_kernel"
    """The kernel did, elsewhere."""
    DELIVERED = "delivered"
    """A socket took it."""
    LEFT = "left"
    """It left by a device."""
    JOINED = "joined"
    """It became a part of another packet, as fragments do that are put together."""
    CONSUMED = "consumed"
    """The kernel used it up."""
    KEPT = "kept"
    """A function of a hook kept it (NF_STOLEN)."""
    QUEUED = "queued"
    """It waits in a queue for a program."""
    LOST = "lost"
    """It came by nowhere for a long time."""
    OPEN = "open"
    """It has not ended; nothing was heard of it for a while."""
    UNFINISHED = "unfinished"
    """The story was closed before its end: too many were open, or the stream ended."""

    @property
    def is_drop(self) -> bool:
        """Whether the packet was dropped."""
        return self in {EndKind.RULE, EndKind.FUNCTION, EndKind.KERNEL}


@dataclass(frozen=True, slots=True)
class StoryEnd:
    """The end of a story. ``at`` is the event that says so, or the last one heard of.

    ``blame`` is the event of the rule, policy or function that dropped or kept the packet.
    ``device`` is that of the device by which it left, ``socket`` that of the socket that it was at.
    ``place`` is the last event at a hook. ``why`` is a sentence on stories that were closed early.
    ``events_lost``: events were lost on the packet's way; they may have been its own.
    """

    kind: EndKind
    at: int
    blame: int | None = None
    device: int | None = None
    socket: int | None = None
    place: int | None = None
    why: str = ""
    events_lost: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """The way that packets took: what happened, in order, without addresses and times.

    Packets of the same way have the same object. ``branches`` are the plots of copies. ``cookies``
    are those of the network namespaces, each once, in order.
    """

    occurrences: tuple[Occurrence, ...]
    steps: tuple[StoryStep, ...]
    end: StoryEnd
    branches: tuple[Plot, ...] = ()
    cookies: tuple[int, ...] = ()
    folded: frozenset[int] = field(default_factory=frozenset)
    """Branches that nobody cares about: clones for taps, which met no hook, socket or device."""
    handed_on: frozenset[int] = field(default_factory=frozenset)
    """Events of functions that took the packet and handed it on, to another hook or a device.

    They come after what happened to the packet meanwhile.
    """

    def cut(self, at: int) -> int:
        """The flags of an event that say that there is no transport header, as a number.

        One that does not show the packet has those of the event whose headers it has.
        """
        happened = self.occurrences
        places = (*range(at, -1, -1), *range(at + 1, len(happened)))
        return next((happened[one].cut for one in places if happened[one].shows_packet), 0)

    def record(self, at: int) -> EventRecord:
        """An event without its moment and headers."""
        return self.occurrences[at].record


@dataclass(frozen=True, slots=True, eq=False)
class Story:
    """All that happened to one packet.

    ``number`` is the packet's. ``times`` (CLOCK_MONOTONIC, ns) and ``headers`` are those of its
    events; an event that does not tell the headers has those of the one before. Adding
    ``clock_offset`` to a time gives CLOCK_REALTIME. ``copy_of`` is the number of the packet that
    this one is a copy or a part of, or 0.
    """

    number: int
    plot: Plot
    times: tuple[int, ...]
    headers: tuple[Headers, ...]
    clock_offset: int
    branches: tuple[Story, ...] = ()
    copy_of: int = 0
    named: Mapping[int, Named] = field(default_factory=dict)
    """The numbers that events name, by the index of the event."""
    connections: tuple[int, ...] = ()
    """The id of its connection in each event, 0 where none is told; empty if it never is."""

    @property
    def steps(self) -> tuple[StoryStep, ...]:
        """Steps of the packet's way, in order."""
        return self.plot.steps

    @property
    def end(self) -> StoryEnd:
        """How it ended."""
        return self.plot.end

    @property
    def began(self) -> int:
        """The time of the first event."""
        return self.times[0]

    @property
    def ended(self) -> int:
        """The time of the event that tells the end."""
        return self.times[self.plot.end.at]

    @property
    def first(self) -> EventRecord:
        """The first event."""
        return self.record(0)

    def record(self, at: int) -> EventRecord:
        """An event, but for its CPU, sequence, passage, cost and address of its skb."""
        happened = self.plot.occurrences[at]
        entry = self.times[at], happened, self.headers[at], self.named.get(at)
        record = whole_record(self.number, self.clock_offset, entry)
        return record._replace(ct_id=self.connection(at))

    def connection(self, at: int) -> int:
        """The id of the packet's connection in an event, as ``conntrack -o id`` prints it, or 0."""
        return self.connections[at] if self.connections else 0

    def shown_branches(self) -> tuple[Story, ...]:
        """The branches that met a hook, a socket or a device, or were dropped before."""
        folded = self.plot.folded
        return tuple(one for place, one in enumerate(self.branches) if place not in folded)


def has_ended(story: Story) -> bool:
    """Whether it is known what became of a packet, and of each copy or part that is told."""
    end = story.end
    unknown = end.kind in {EndKind.OPEN, EndKind.UNFINISHED, EndKind.QUEUED, EndKind.LOST}
    kept = end.kind is EndKind.KEPT and story.record(end.at).kind != Kind.JOURNEY_FREED
    return not unknown and not kept and all(map(has_ended, story.shown_branches()))


def is_drop(story: Story) -> bool:
    """Whether the packet was dropped, or a copy or part of it that is told."""
    return story.end.kind.is_drop or any(map(is_drop, story.shown_branches()))
