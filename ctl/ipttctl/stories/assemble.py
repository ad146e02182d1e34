# SPDX-License-Identifier: GPL-2.0
"""Assembly of events into stories, as they come from several CPUs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from ipttctl.events.records import EventRecord
from ipttctl.stories.copies import is_drop_of_clone
from ipttctl.stories.gaps import Gap, Gaps
from ipttctl.stories.model import Story
from ipttctl.stories.occurrences import Arrival, Occurrence, Occurrences, Weight
from ipttctl.stories.plots import Entries, Plots, StoryClosing
from ipttctl.stories.used_up import may_be_used_up
from ipttctl.stories.wholes import Wholes
from ipttproto import JoinedBatches

PATIENCE: Final = 1_000_000_000
"""Time (ns) without an event after which a story is told although it has not ended."""

SETTLE: Final = 50_000_000
"""Time (ns) that a story which has ended waits for late events of other CPUs."""

MOST_OPEN: Final = 1 << 16
"""Most packets that are followed at a time."""

_MOST_EVENTS: Final = 1 << 21
"""Most events that open stories have together."""

_MOST_DEPTH: Final = 32
"""Most branches within each other: telling and reading a story go down into each."""

_MOST_CLOSED: Final = 1 << 17
"""Most numbers of told stories that are remembered, so that late events begin no story."""


class _Packet:
    """A packet whose story is not told yet, with the packets that are copies or parts of it."""

    __slots__ = (
        "clock_offset",
        "copies",
        "copy_of",
        "entries",
        "final",
        "fragment",
        "number",
        "parent",
        "weighty",
    )

    def __init__(self, number: int, clock_offset: int) -> None:
        self.number = number
        self.clock_offset = clock_offset
        self.entries = Entries()
        self.parent: _Packet | None = None
        self.copies: list[_Packet] = []
        self.copy_of = 0
        self.final = False
        """Whether the last event has come."""
        self.weighty = False
        """Whether an event that may be the last one has come."""
        self.fragment = False
        """Whether it has waited for other fragments, or is their whole."""

    def root(self) -> _Packet:
        """The packet that all began with."""
        packet = self
        while packet.parent is not None:
            packet = packet.parent
        return packet

    def tree(self) -> list[_Packet]:
        """This packet and all copies."""
        found = [self]
        for packet in found:
            found += packet.copies
        return found

    def has_ended(self) -> bool:
        """Whether its last event ends it."""
        if self.final:
            return True
        if not self.weighty:
            # the original of a copy, of which nothing was seen
            return not self.entries.times and bool(self.copies)
        self.entries.sort()
        return self.entries.happened[-1].weight is Weight.SOFT

    def last(self) -> int:
        """The time of the last event of all."""
        if not self.copies:
            return max(self.entries.times)
        return max(time for packet in self.tree() for time in packet.entries.times)


class StoryAssembler:
    """Joins events of the same packet, and tells its story once it has ended.

    Events of several CPUs come in batches that are not in order. A story that has ended waits for
    late events a short time, on the clock of events.
    """

    def __init__(
        self,
        patience: int = PATIENCE,
        settle: int = SETTLE,
        most_open: int = MOST_OPEN,
        *,
        await_drops: bool = False,
    ) -> None:
        """Begin with no story; times are in ns, ``most_open`` is a number of packets.

        ``await_drops``: only drops matter, so that a story without one stays open however long
        nothing is heard of it, until its packet has ended.
        """
        self._await_drops = await_drops
        self._patience = patience
        self._settle = settle
        self._most_open = most_open
        self._occurrences = Occurrences()
        self._plots = Plots()
        self._wholes = Wholes()
        self._gaps = Gaps()
        self._suspected: tuple[Gap, ...] = ()
        self._packets: dict[int, _Packet] = {}
        self._roots: OrderedDict[int, _Packet] = OrderedDict()
        self._closed: OrderedDict[int, None] = OrderedDict()
        #: the largest number of a told story that is not remembered any more: numbers grow
        self._forgotten = 0
        #: the times at which packets are to be looked at; those of told packets are in neither
        self._settling: OrderedDict[int, int] = OrderedDict()
        self._waiting: OrderedDict[int, int] = OrderedDict()
        self._events = 0
        self._clock = 0
        self.unfinished = 0
        """Stories that were closed before their end for lack of room."""
        self.late = 0
        """Events that came after the story of their packet was told."""

    @property
    def open_stories(self) -> int:
        """Number of stories that are not told yet."""
        return len(self._roots)

    def add(self, records: Iterable[EventRecord]) -> list[Story]:
        """Take in events, but for those of no number; returns the stories that are told now."""
        return self._add(self._occurrences.of_records(records))

    def add_events(self, events: JoinedBatches) -> list[Story]:
        """Take in events as they were read together, which costs much less than records do."""
        return self._add(self._occurrences.of_events(events))

    def lose(self, gap: Gap) -> None:
        """Take in that events were lost: stories of packets that were on their way say so."""
        self._gaps.add(gap)

    def suspect(self, gaps: Iterable[Gap]) -> None:
        """Take in when events may have been lost, as far as is known now, and no other gaps."""
        self._suspected = tuple(gaps)

    def due(self, now: int) -> list[Story]:
        """The stories that are to be told at a time (CLOCK_MONOTONIC, ns): settled, or quiet."""
        self._clock = max(self._clock, now)
        return self._told_now()

    def flush(self) -> list[Story]:
        """All stories that are left, in the order in which they began."""
        stories: list[Story] = []
        while self._roots:
            root = next(iter(self._roots.values()))
            ended = _whole(root)
            stories += self._tell(root, StoryClosing.ENDED if ended else StoryClosing.FLUSHED)
        return stories

    # --- taking in --------------------------------------------------------------------------------

    def _add(self, arrivals: Iterable[Arrival]) -> list[Story]:
        packets, clock = self._packets, self._clock
        stories: list[Story] = []
        none = Weight.NONE
        for number, offset, time, happened, headers, connection, named in arrivals:
            packet = packets.get(number)
            if packet is None:
                if number in self._closed or (
                    number <= self._forgotten and _is_of_an_end(happened)
                ):
                    self.late += 1
                    continue
                if len(packets) >= self._most_open:
                    stories += self._make_room()
                packet = self._begin(number, offset, time)
            entries = packet.entries
            if named is not None:
                entries.name(named)
            entries.times.append(time)
            entries.happened.append(happened)
            entries.headers.append(headers)
            entries.connections.append(connection)
            self._events += 1
            clock = max(clock, time)
            weight = happened.weight
            if weight is none:
                continue
            if weight is Weight.COPY:
                if named is not None:
                    self._join(packet, named.number, time)
                continue
            if weight is Weight.WAITS or weight is Weight.WHOLE:
                packet.fragment = True
                if named is not None and weight is Weight.WHOLE:
                    self._wholes.learn(named.number, number)
                continue
            packet.final |= weight is Weight.FINAL
            if not packet.weighty:
                packet.weighty = True
                self._settling[number] = time + self._settle
        self._clock = clock
        while self._events > _MOST_EVENTS:
            stories += self._make_room()
        return stories + self._told_now()

    def _begin(self, number: int, clock_offset: int, time: int) -> _Packet:
        packet = self._packets[number] = self._roots[number] = _Packet(number, clock_offset)
        self._waiting[number] = time + self._patience
        return packet

    def _join(self, copy: _Packet, number: int, time: int) -> None:
        """Make a packet a branch of the story of its original, unless that is told."""
        copy.copy_of = number
        original = self._packets.get(number)
        if original is None:
            was_told = number in self._closed or number <= self._forgotten
            if was_told or copy.parent is not None:
                return
            # its own events may still come
            original = self._begin(number, copy.clock_offset, time)
        if copy.parent is None and original.root() is not copy:
            copy.parent = original
            original.copies.append(copy)
            self._roots.pop(copy.number, None)

    def _make_room(self) -> list[Story]:
        oldest = next(iter(self._roots.values()))
        if _whole(oldest):
            return self._tell(oldest, StoryClosing.ENDED)
        self.unfinished += 1
        return self._tell(oldest, StoryClosing.CROWDED)

    # --- telling ----------------------------------------------------------------------------------

    def _told_now(self) -> list[Story]:
        stories: list[Story] = []
        clock, settling, waiting = self._clock, self._settling, self._waiting
        for packet in self._due(settling):
            root = packet.root()
            if not _whole(root):
                packet.weighty = packet.has_ended()
                continue
            settled = root.last() + self._settle
            if settled > clock:
                settling[packet.number] = settled
            else:
                stories += self._tell(root, StoryClosing.ENDED)
        for packet in self._due(waiting):
            if packet.parent is not None:
                # its original is looked at
                continue
            quiet = packet.last() + self._patience
            if quiet <= clock and self._await_drops and not _knows_of_drop(packet):
                quiet = clock + self._patience
            if quiet > clock:
                waiting[packet.number] = quiet
            else:
                stories += self._tell(packet, StoryClosing.QUIET)
        return stories

    def _due(self, looks: OrderedDict[int, int]) -> Iterator[_Packet]:
        """The packets that are to be looked at now, which are taken out of what is to come."""
        # not more than there are now: what is not due is put back
        for _ in range(len(looks)):
            if not looks:
                break
            number, time = next(iter(looks.items()))
            if time > self._clock:
                break
            del looks[number]
            yield self._packets[number]

    def _tell(self, root: _Packet, closing: StoryClosing) -> list[Story]:
        """Tell a story, with its branches, and forget its packets."""
        tree = root.tree()
        for packet in tree:
            del self._packets[packet.number]
            self._settling.pop(packet.number, None)
            self._waiting.pop(packet.number, None)
            self._events -= len(packet.entries.times)
            self._closed[packet.number] = None
        while len(self._closed) > _MOST_CLOSED:
            number, _ = self._closed.popitem(last=False)
            self._forgotten = max(self._forgotten, number)
        self._roots.pop(root.number, None)
        events_lost = self._lost_some(tree, closing)
        told: dict[int, Story] = {}
        for packet in tree:
            _pass_on_headers(packet)
            _pass_on_copies(packet)
            if packet.fragment:
                self._wholes.name_in(packet.entries)
        if len(tree) > _MOST_DEPTH:
            _flatten(tree)
        # copies before their originals
        for packet in reversed(tree):
            branches = [told[copy.number] for copy in packet.copies if copy.number in told]
            if packet.entries.times:
                told[packet.number] = self._plots.tell(
                    packet.number,
                    packet.clock_offset,
                    packet.entries,
                    closing=closing,
                    branches=branches,
                    copy_of=packet.copy_of,
                    events_lost=events_lost,
                )
            packet.parent = None
        if root.number in told:
            return [told[root.number]]
        # nothing was seen of the original but its copies
        return [told[copy.number] for copy in root.copies if copy.number in told]

    def _lost_some(self, tree: list[_Packet], closing: StoryClosing) -> bool:
        """Whether events were lost on a packet's way, as seen, or shortly before."""
        times = [time for packet in tree for time in packet.entries.times]
        if not (self._gaps or self._suspected) or not times:
            return False
        ended = max(times)
        if closing is not StoryClosing.ENDED:
            ended = max(ended, self._clock)
        elif not all(packet.final for packet in tree):
            # more might have been heard of it
            ended += self._settle
        began = min(times) - self._settle
        suspected = any(gap.touches(began, ended) for gap in self._suspected)
        return suspected or self._gaps.within(began, ended)


def _pass_on_headers(packet: _Packet) -> None:
    """Give a copy of which no event tells the headers those of its original, then."""
    headers = packet.entries.headers
    if packet.parent is None or not all(one.blank for one in headers):
        return
    original, began = packet.parent.entries, min(packet.entries.times, default=0)
    original.sort()
    known = next((one for one in original.headers if not one.blank), None)
    for time, one in zip(original.times, original.headers, strict=True):
        if time > began:
            break
        if not one.blank:
            known = one
    if known is not None:
        packet.entries.headers = [known] * len(headers)


def _pass_on_copies(packet: _Packet) -> None:
    """Give the copies of a copy that had done nothing until then to the original of both.

    Each fragment of a packet is made as a copy of the one before, for example. A packet that comes
    before its copies in a tree is asked first, so these go as far up as can be.
    """
    original = packet.parent
    if original is None or not packet.copies:
        return
    packet.entries.sort()
    moved = next(
        (
            time
            for time, one in zip(packet.entries.times, packet.entries.happened, strict=True)
            if one.weight is not Weight.COPY
        ),
        None,
    )
    for copy in list(packet.copies):
        if moved is None or (copy.entries.times and min(copy.entries.times) < moved):
            _pass_on(copy, packet, original)


def _flatten(tree: list[_Packet]) -> None:
    """Give copies of copies that are too deep to the packet above; originals come before copies."""
    depths: dict[int, int] = {}
    for packet in tree:
        parent = packet.parent
        if parent is None:
            depths[packet.number] = 0
            continue
        depth = depths[parent.number] + 1
        if depth > _MOST_DEPTH and parent.parent is not None:
            _pass_on(packet, parent, parent.parent)
            depth = _MOST_DEPTH
        depths[packet.number] = depth


def _pass_on(copy: _Packet, packet: _Packet, above: _Packet) -> None:
    """Give a copy of a packet to the one that this is a copy of."""
    packet.copies.remove(copy)
    above.copies.append(copy)
    copy.parent = above


def _is_of_an_end(happened: Occurrence) -> bool:
    """Whether an event tells of a packet's end, and that alone is no story of an older packet."""
    of_socket = happened.weight is Weight.SOFT and not happened.drops
    return of_socket or happened.weight is Weight.FINAL


def _knows_of_drop(root: _Packet) -> bool:
    """Whether a packet or a copy of it seems to be dropped, while others have not ended."""
    return any(
        one.drops and not is_drop_of_clone(one.record) and not may_be_used_up(one.record)
        for packet in root.tree()
        if packet.weighty
        for one in packet.entries.happened
    )


def _whole(root: _Packet) -> bool:
    """Whether a packet and all its copies have ended."""
    if not root.copies:
        return root.has_ended()
    return all(packet.has_ended() for packet in root.tree())
