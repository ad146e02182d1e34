# SPDX-License-Identifier: GPL-2.0
"""The joining of stories of several hosts, where each tells what it saw of a packet.

What left one host and what came to another are of one packet if all that survives the wire is the
same, if the times do not contradict that, and if nothing else could be meant. Nothing is guessed:
where two could be, neither is taken.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from ipttctl.joins.chains import (
    HostStory,
    Sighting,
    StoryChain,
    Together,
    Wire,
    WireState,
    told_of,
)
from ipttctl.joins.clocks import LONGEST, Clocks, Life
from ipttctl.joins.delays import Delays
from ipttctl.joins.gone import GoneDepartures
from ipttctl.joins.matching import Matching
from ipttctl.joins.places import Place, SightingIndex, places_of

HOLD: Final = 3_000_000_000
"""Time (ns) for which a story waits for those of other hosts that its packet could be in.

Where stories were seen to come late it is longer.
"""

MOST_HOLD: Final = 30_000_000_000
"""The longest that it is then."""

_TIMES_LATE: Final = 2
"""Times of the delay of stories that is waited."""

MOST_STORIES: Final = 1 << 16
"""Most stories that wait."""

MOST_BYTES: Final = 1 << 28
"""Most bytes of them, about: of their lines, and of what is known of their marks."""

MOST_IN_CHAIN: Final = 512
"""Most stories of a chain. Where segments are cut and merged all the time, one has no end."""

_LONGEST_HOLD: Final = 3
"""Times of that which are waited at most, where others have to be waited for meanwhile."""

_MOST_ALIKE: Final = 256
"""Most sightings that are compared with each other; more are ambiguous."""

_MOST_PASSED: Final = 256
"""Most others that are passed over for each of them; with more beside them they are ambiguous."""

_MANY: Final = 32
"""Sightings that are alike from which on they are not looked at again at once."""

_MOST_FLOWS: Final = 1 << 14
"""Most flows of which it is known that hosts have packets that are to be cut, or are merged."""

_STORY: Final = 1 << 10
_SIGHTING: Final = 1536
_PLACE: Final = 640
"""Bytes that a story takes beside its line, a mark of it, and each of its places."""


@dataclass
class JoinCounts:
    """Numbers of packets at wires, by what became of them."""

    joined: int = 0
    """Arrivals of which the departure is known."""
    unseen: int = 0
    """Departures that no traced host saw arrive."""
    came: int = 0
    """Arrivals that no traced host saw depart."""
    ambiguous: int = 0
    """Departures and arrivals for which more than one other end could be."""
    cut: int = 0
    """Departures and arrivals of packets that GSO may have cut, or GRO merged."""
    given_up: int = 0
    """Stories that did not wait as long as they should have, for lack of room."""


@dataclass
class _Waiting:
    """The stories of a host that wait, by their numbers, and their bytes."""

    stories: OrderedDict[int, HostStory] = field(default_factory=OrderedDict)
    bytes: int = 0


class Joiner:
    """Takes stories as they come, and gives chains once nothing more is to be waited for."""

    def __init__(
        self,
        hold: int = HOLD,
        longest: int = LONGEST,
        most_stories: int = MOST_STORIES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Wait for ``hold`` ns at least; a packet is on the wire for ``longest`` ns at most.

        Where stories that wait are more than ``most_stories`` or ``most_bytes``, the oldest ones
        of the host that has most of them are told early.
        """
        self._least_hold = self._hold = hold
        self._delays = Delays()
        self._longest = longest
        self._most = most_stories
        self._most_bytes = most_bytes
        self.clocks = Clocks(longest)
        self.counts = JoinCounts()
        #: sightings that are open
        self._index = SightingIndex()
        #: those to look at for the first time, and again, and when
        self._waiting: OrderedDict[Sighting, int] = OrderedDict()
        self._again: OrderedDict[Sighting, int] = OrderedDict()
        #: when those that are alike with many were looked at last
        self._looked: dict[Sighting, int] = {}
        self._hosts: dict[str, _Waiting] = {}
        #: hosts that have packets of a flow that are to be cut, or are merged, and when last
        self._cut: OrderedDict[tuple[object, ...], dict[str, int]] = OrderedDict()
        self._gone = GoneDepartures()
        self._stories = 0
        self._bytes = 0
        self._done: list[Together] = []
        self._done_bytes = 0
        self._count = 0
        self._now = 0

    def __len__(self) -> int:
        """Number of stories that wait."""
        return self._stories

    @property
    def full(self) -> bool:
        """Whether ``due`` has to be called before there is room for more."""
        return len(self._done) >= self._most or self._done_bytes >= self._most_bytes

    @property
    def hold(self) -> int:
        """Time (ns) for which stories wait at present."""
        return self._hold

    def add(self, life: Life, line: bytes, now: int) -> None:
        """Take a story of a host, a line of JSON that came at a time (ns) of the asker's own clock.

        Raises:
            FrameError: it is no object.
        """
        self._now = max(self._now, now)
        told = told_of(life, line, self._now)
        self._note_delay(told)
        told.number = self._count
        told.cost = _STORY + len(line)
        self._count += 1
        for sighting in told.sightings:
            told.cost += _SIGHTING + _PLACE * self._index.add(sighting)
            self._waiting[sighting] = self._now + self._hold
        for flow in told.cut:
            self._cut.setdefault(flow, {})[life[0]] = self._now
            self._cut.move_to_end(flow)
        while len(self._cut) > _MOST_FLOWS:
            self._cut.popitem(last=False)
        waiting = self._hosts.setdefault(life[0], _Waiting())
        waiting.stories[told.number] = told
        waiting.bytes += told.cost
        self._stories += 1
        self._bytes += told.cost
        if not told.sightings:
            self._end(told.together)
        while self._stories > self._most or self._bytes > self._most_bytes:
            largest = max(self._hosts.values(), key=lambda one: one.bytes)
            self._give_up(next(iter(largest.stories.values())))

    def due(self, now: int) -> list[StoryChain]:
        """The chains of which nothing more is to be found out."""
        self._now = max(self._now, now)
        self._hold = self._hold_by_delays()
        #: nothing is found out by looking twice at the same time
        looked: set[Sighting] = set()
        for queue in (self._again, self._waiting):
            while queue and next(iter(queue.values())) <= self._now:
                sighting, _ = queue.popitem(last=False)
                if sighting not in looked and not self._is_early(sighting):
                    cluster = self._cluster(sighting)
                    looked.update(cluster)
                    if len(cluster) > _MANY:
                        self._looked.update(dict.fromkeys(cluster, self._now))
                    self._resolve(cluster)
                if sighting.state is WireState.OPEN:
                    self._again[sighting] = self._now + self._hold // 4
                else:
                    self._looked.pop(sighting, None)
        done, self._done, self._done_bytes = self._done, [], 0
        found = [self._chain(one.stories) for one in done]
        return sorted(found, key=lambda chain: min(one.number for one in chain.stories))

    def flush(self) -> list[StoryChain]:
        """All chains: nothing comes any more."""
        self._now += self._hold * _LONGEST_HOLD
        found = self.due(self._now)
        # those that wait for another look
        self._now += self._hold
        return found + self.due(self._now)

    # --- how long they wait -------------------------------------------------------------------

    def _note_delay(self, told: HostStory) -> None:
        """Wait longer from now on if a story is late."""
        if not told.sightings:
            return
        made = self.clocks.on_asker(told.life, told.sightings[-1].time)
        if made is not None:
            self._delays.note(told.received - made, self._now)
            self._hold = self._hold_by_delays()

    def _hold_by_delays(self) -> int:
        delay = self._delays.greatest(self._now)
        return max(self._least_hold, min(MOST_HOLD, _TIMES_LATE * delay))

    # --- which are alike ----------------------------------------------------------------------

    def _is_early(self, sighting: Sighting) -> bool:
        """Whether what it is alike with was looked at a moment ago, and that takes long."""
        looked = self._looked.get(sighting)
        return looked is not None and self._now - looked < self._hold // 8

    def _cluster(self, first: Sighting) -> list[Sighting]:
        """The sightings that are of the same bytes as one, or as another of them.

        Where these are too many to be compared, or to be found, all that is near them is among
        them.
        """
        found = {first: None}
        queue = [first]
        passed = 0
        for one in queue:
            for place in places_of(one):
                there, others = self._index.overlapping(one, place)
                more = [other for other in there if other not in found]
                found.update(dict.fromkeys(more))
                queue += more
                passed += others
                if len(found) > _MOST_ALIKE or passed > _MOST_PASSED * len(found):
                    return self._near(first)
        return queue

    def _near(self, first: Sighting) -> list[Sighting]:
        """The sightings in the same places of the index as one, or as another of them."""
        found = {first: None}
        queue = [first]
        seen: set[Place] = set()
        for one in queue:
            for place in places_of(one):
                if place not in seen:
                    seen.add(place)
                    more = [other for other in self._index.at(place) if other not in found]
                    found.update(dict.fromkeys(more))
                    queue += more
        return queue

    def _resolve(self, cluster: list[Sighting]) -> None:
        """Find the other ends of sightings, and settle what has waited long enough."""
        if len(cluster) > _MOST_ALIKE:
            for one in cluster:
                one.rivals = max(one.rivals, len(cluster))
                self._settle(one, WireState.JOINED if one.partners else WireState.AMBIGUOUS)
            return
        doubtful = {
            one
            for one in cluster
            if not one.leaves and self._gone.count(one, self._now, self.clocks)
        }
        matching = Matching(cluster, self.clocks, doubtful)
        matching.run()
        for came, left in matching.found.items():
            if not self._may_settle(came, left):
                continue
            if any(one.state is not WireState.OPEN for one in left):
                # it was let go for another one, a moment ago
                self._settle(came, WireState.GIVEN_UP)
            else:
                self._join(came, left)
        for came, left in matching.possible.items():
            is_known = came.state is not WireState.OPEN or came in matching.found
            if not is_known and self._may_settle(came, left):
                self._leave(came, left)
        self._settle_departures(cluster, matching)

    def _settle_departures(self, cluster: list[Sighting], matching: Matching) -> None:
        awaited: dict[Sighting, list[Sighting]] = {}
        for came, left in matching.possible.items():
            if came.state is WireState.OPEN:
                for one in left:
                    awaited.setdefault(one, []).append(came)
        for one in cluster:
            if not one.leaves or one.state is not WireState.OPEN:
                continue
            others = awaited.get(one, [])
            # the arrivals know of this one as long as they are not settled
            if not self._may_settle(one, others) or (others and not self._is_old(one)):
                continue
            if others:
                self._note_gone(one)
            if one.partners:
                self._settle(one, WireState.JOINED)
            elif one.rivals or others:
                one.rivals = max(one.rivals, len(others))
                self._settle(one, WireState.AMBIGUOUS)
            else:
                self._settle(one, WireState.UNSEEN)

    def _may_settle(self, one: Sighting, others: Iterable[Sighting]) -> bool:
        """Whether nothing more is to be waited for."""
        if self._is_old(one):
            return True
        latest = max((other.told.received for other in others), default=0)
        return self._now - max(one.told.received, latest) >= self._hold

    def _is_old(self, one: Sighting) -> bool:
        """Whether it has waited as long as it may."""
        return self._now - one.told.received >= self._hold * _LONGEST_HOLD

    def _join(self, came: Sighting, left: list[Sighting]) -> None:
        groups = {id(one.told.together): one.told.together for one in (came, *left)}
        if sum(len(one.stories) for one in groups.values()) > MOST_IN_CHAIN:
            self.counts.given_up += 1
            for sighting in (came, *left):
                if not sighting.partners:
                    self._let_go(sighting)
            return
        first, *others = sorted(groups.values(), key=lambda one: -len(one.stories))
        for other in others:
            first.take(other)
        for one in left:
            one.partners.append(came)
            came.partners.append(one)
            self.clocks.matched(one.told.life, came.told.life, one.time, came.time)
        self._settle(came, WireState.JOINED)

    def _leave(self, came: Sighting, left: list[Sighting]) -> None:
        """Settle an arrival that has no other end, or too many."""
        came.rivals = len(left) + self._gone.count(came, self._now, self.clocks)
        for one in left:
            one.rivals += 1
        self._settle(came, WireState.AMBIGUOUS if came.rivals else WireState.UNSEEN)

    # --- what is done with ----------------------------------------------------------------------

    def _note_gone(self, one: Sighting) -> None:
        """Remember a departure as long as an arrival that could be of it may come."""
        self._gone.note(one, self._now, self._now + _LONGEST_HOLD * self._hold)

    def _settle(self, one: Sighting, state: WireState) -> None:
        if one.state is not WireState.OPEN:
            return
        if state is WireState.UNSEEN and self._may_be_cut(one):
            state = WireState.CUT
        one.state = state
        self._index.remove(one)
        for known in (self._waiting, self._again, self._looked):
            known.pop(one, None)
        counts = self.counts
        if state is WireState.AMBIGUOUS:
            counts.ambiguous += 1
        elif state is WireState.CUT:
            counts.cut += 1
        elif state is WireState.UNSEEN and one.leaves:
            counts.unseen += 1
        elif state is WireState.UNSEEN:
            counts.came += 1
        elif state is WireState.JOINED and not one.leaves:
            counts.joined += 1
        together = one.told.together
        together.open -= 1
        if not together.open:
            self._end(together)

    def _may_be_cut(self, one: Sighting) -> bool:
        """Whether GSO may have cut the packet on its way, or GRO merged it with others."""
        if one.mark.segment:
            return True
        since = self._now - 2 * _LONGEST_HOLD * self._hold
        hosts = self._cut.get(one.mark.flow, {})
        return any(time >= since for host, time in hosts.items() if host != one.told.life[0])

    def _give_up(self, told: HostStory) -> None:
        """Settle a story at once, and those that it is joined with."""
        together = told.together
        self.counts.given_up += len(together.stories)
        for one in [one for other in together.stories for one in other.sightings]:
            self._let_go(one)

    def _let_go(self, one: Sighting) -> None:
        """Settle a sighting that cannot wait; arrivals that it could be of are not joined then."""
        if one.leaves and one.state is WireState.OPEN:
            self._note_gone(one)
        self._settle(one, WireState.JOINED if one.partners else WireState.GIVEN_UP)

    def _end(self, together: Together) -> None:
        """Have stories told that wait for nothing any more."""
        self._done.append(together)
        for told in together.stories:
            for one in _wrapped(told):
                if one.state is WireState.CUT:
                    self.counts.cut -= 1
                elif one.leaves:
                    self.counts.unseen -= 1
                else:
                    self.counts.came -= 1
                one.state = WireState.WRAPPED
            waiting = self._hosts[told.life[0]]
            del waiting.stories[told.number]
            waiting.bytes -= told.cost
            if not waiting.stories:
                del self._hosts[told.life[0]]
            self._stories -= 1
            self._bytes -= told.cost
            self._done_bytes += told.cost

    def _chain(self, together: list[HostStory]) -> StoryChain:
        stories = _in_order(together)
        places = {id(one): place for place, one in enumerate(stories)}
        wires = [
            self._wire(places, left, came)
            for told in stories
            for left in told.sightings
            if left.leaves
            for came in left.partners
        ]
        return StoryChain(stories, wires)

    def _wire(self, places: dict[int, int], left: Sighting, came: Sighting) -> Wire:
        ends = places[id(left.told)], places[id(came.told)]
        least, most = self.clocks.wire(left.told.life, came.told.life, left.time, came.time)
        # bounds that are not from both directions say no more than what is believed of wires; a
        # clock that was found to be another since then says nothing of this packet
        if not least > -self._longest / 2 or not 0 <= most < self._longest / 2:
            return Wire(*ends, left, came)
        return Wire(*ends, left, came, max(0, int(least)), int(most))


def _wrapped(told: HostStory) -> list[Sighting]:
    """The sightings without another end of packets in tunnels for which another sighting stands.

    That is one that is joined; otherwise the last departure, or the first arrival.
    """
    found: list[Sighting] = []
    of_packets: dict[tuple[int, bool], list[Sighting]] = {}
    for one in told.sightings:
        of_packets.setdefault((one.packet, one.leaves), []).append(one)
    for (_, leaves), alike in of_packets.items():
        unseen = [one for one in alike if one.state in {WireState.UNSEEN, WireState.CUT}]
        if unseen and all(one.state is not WireState.JOINED for one in alike):
            unseen.pop(-1 if leaves else 0)
        found += unseen
    return found


def _in_order(together: list[HostStory]) -> list[HostStory]:
    """Stories in the order of the packet's way."""
    before = {id(one): 0 for one in together}
    for told in together:
        for left in told.sightings:
            if left.leaves:
                for came in left.partners:
                    before[id(came.told)] += 1
    ready = [one for one in together if not before[id(one)]]
    for told in ready:
        for left in told.sightings:
            for came in left.partners if left.leaves else ():
                before[id(came.told)] -= 1
                if not before[id(came.told)]:
                    ready.append(came.told)
    # a circle, which no packet has gone
    return ready + [one for one in together if before[id(one)]]
