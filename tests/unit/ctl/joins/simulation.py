# SPDX-License-Identifier: GPL-2.0
"""Packets of random flows over three hosts, and what each host would tell of them.

    a (clients) ---- r (router, NAT for some flows) ---- b (servers)
    w (not traced) --/

Each transit of a segment by a wire has a number of its own. A join is right if the departure and
the arrival have one in common.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ipttctl.joins.chains import Sighting, StoryChain, WireState
from ipttctl.joins.clocks import Life
from ipttctl.joins.joiner import Joiner
from ipttctl.joins.marks import Mark, Way
from tests.unit.ctl.joins.telling import add

_SECOND: Final = 1_000_000_000
_SEGMENT: Final = 1000
_SYN, _ACK = 0x02, 0x10


@dataclass(frozen=True)
class Terms:
    """The likelihoods of what happens to packets, and how far clocks are apart."""

    packets: int = 1000
    flows: int = 40
    lost: float = 0.02
    """On each wire."""
    doubled: float = 0.005
    """On each wire."""
    untold: float = 0.005
    """Stories that a host does not tell."""
    repeated: float = 0.02
    """Packets that are sent again, 200 ms later."""
    apart: int = 5 * _SECOND
    drift: float = 100e-6
    rate: int = 500
    """Packets a second."""
    rebooted: bool = False
    """Whether the router has another boot in the second half."""


@dataclass(frozen=True)
class Clock:
    """A host's clock: not right, and not as fast as it should be."""

    life: Life
    ahead: int
    drift: float

    def at(self, time: int) -> int:
        """Its reading at a time."""
        return self.ahead + time + int(time * self.drift)


@dataclass
class Flow:
    """A flow of packets, as one of its ends sees it."""

    protocol: int
    client: tuple[str, int]
    server: tuple[str, int]
    natted: str | None
    """The client's address behind the router."""
    from_outside: bool
    timed: bool
    numbered: bool
    """Whether packets have ids."""
    sent: list[int] = field(default_factory=lambda: [0, 0])
    """The next byte of each direction."""
    id: int = 0


class Simulation:
    """Makes stories; ``truth`` says which transits a sighting is of."""

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self._random = random.Random(seed)
        self._number = 0
        self._transit = 0
        self.transits: dict[tuple[str, int], tuple[set[int], set[int]]] = {}
        """Transits of arrivals and of departures, by host and packet."""
        self._onward: dict[int, int] = {}
        self._before: dict[int, int] = {}
        """Transits and those before them, where the host between has told nothing."""
        lives = [("a", "1"), ("r", "1"), ("b", "1"), ("r", "2")]
        ahead = [100 * _SECOND, 100 * _SECOND + terms.apart, 100 * _SECOND - terms.apart, _SECOND]
        drifts = [terms.drift, -terms.drift, 0.0, terms.drift]
        self._clocks = [Clock(*one) for one in zip(lives, ahead, drifts, strict=True)]

    def stories(self) -> Iterator[tuple[int, Life, dict[str, Any]]]:
        """The stories as the asker gets them: its time, the host, the story."""
        waiting: list[tuple[int, int, Life, dict[str, Any]]] = []
        flows = [self._flow(number) for number in range(self.terms.flows)]
        step = _SECOND // self.terms.rate
        for number in range(self.terms.packets):
            now = 10 * _SECOND + number * step
            for found in self._packet(self._random.choice(flows), now):
                heapq.heappush(waiting, found)
            while waiting and waiting[0][0] < now:
                time, _, life, story = heapq.heappop(waiting)
                yield time, life, story
        while waiting:
            time, _, life, story = heapq.heappop(waiting)
            yield time, life, story

    def _flow(self, number: int) -> Flow:
        chance = self._random
        outside = chance.random() < 0.2
        client = f"10.{9 if outside else 1}.0.{number % 200 + 1}", chance.randrange(1024, 65536)
        return Flow(
            chance.choice([1, 6, 6, 17, 17]),
            client,
            ("10.2.0.1", chance.choice([53, 443])),
            "10.2.0.254" if chance.random() < 0.5 else None,
            outside,
            chance.random() < 0.7,
            chance.random() < 0.7,
            [chance.randrange(1 << 32), chance.randrange(1 << 32)],
        )

    def _packet(self, flow: Flow, now: int) -> Iterator[tuple[int, int, Life, dict[str, Any]]]:
        chance = self._random
        back = chance.random() < 0.4
        size = chance.choice([0, 1, 1, 2, 5]) if flow.protocol == 6 else 1
        mark = self._mark(flow, back=back, segments=size, now=now)
        times = [now]
        if chance.random() < self.terms.repeated:
            times.append(now + _SECOND // 5)
        for place, time in enumerate(times):
            again = mark
            if place and flow.protocol == 6:
                stamp = time // 1_000_000 % (1 << 32) if flow.timed else None
                again = replace_mark(mark, timestamp=stamp, id=self._next_id(flow, size))
            elif place and flow.numbered:
                again = replace_mark(mark, id=self._next_id(flow, 1))
            yield from self._travel(flow, again, back=back, now=time)

    def _mark(self, flow: Flow, *, back: bool, segments: int, now: int) -> Mark:
        chance = self._random
        source, destination = (flow.server, flow.client) if back else (flow.client, flow.server)
        sequence = flow.sent[back]
        payload = segments * _SEGMENT if flow.protocol == 6 else chance.randrange(1, 400)
        if flow.protocol == 6:
            flow.sent[back] = (sequence + payload) % (1 << 32)
        is_tcp, is_ping = flow.protocol == 6, flow.protocol == 1
        timed = is_tcp and flow.timed
        return Mark(
            Way.DEPARTURE,
            4,
            flow.protocol,
            True,
            _ACK if is_tcp else 0,
            0 if is_tcp else min(64, payload),
            payload + 40,
            payload,
            sequence if is_tcp else chance.randrange(1 << 16) if is_ping else 0,
            flow.sent[not back] if is_tcp else 0,
            now // 1_000_000 if timed else None,
            7 if timed else None,
            self._next_id(flow, max(1, segments)) if is_tcp or flow.numbered else 0,
            0,
            0,
            8 << 8 if is_ping else source[1],
            77 if is_ping else destination[1],
            # what is asked again often
            None if is_tcp else chance.choice([5, chance.randrange(1 << 64)]),
            source[0],
            destination[0],
        )

    def _next_id(self, flow: Flow, count: int) -> int:
        found = flow.id
        flow.id = (flow.id + count) % (1 << 16)
        return found

    # --- the way ------------------------------------------------------------------------------

    def _travel(
        self, flow: Flow, mark: Mark, *, back: bool, now: int
    ) -> Iterator[tuple[int, int, Life, dict[str, Any]]]:
        """A packet's way: from its first host over the router to its last."""
        first = "b" if back else "w" if flow.from_outside else "a"
        last = ("w" if flow.from_outside else "a") if back else "b"
        public = flow.natted
        inside = mark
        if back and public:
            inside = replace_mark(mark, destination=public)
        elif public:
            mark = replace_mark(mark, source=flow.client[0])
        sent = replace_mark(inside if back else mark)
        units = self._units(sent)
        yield from self._told(first, now, None, (sent, units), began=True)
        coming = self._wire(sent, units)
        for came, arrived, delay in coming:
            there = now + delay
            changed = came
            if public:
                changed = (
                    replace_mark(came, destination=flow.client[0])
                    if back
                    else replace_mark(came, source=public)
                )
            leaves = there + self._random.randrange(20_000, 1_000_000)
            before = sorted(arrived)
            # what a wire has doubled is the same packet still
            fresh = [
                self._onward.setdefault(one, new)
                for one, new in zip(before, self._units(changed), strict=True)
            ]
            told = list(self._told("r", there, (came, arrived), (changed, fresh), left_at=leaves))
            yield from told
            if not told:
                # then it is as if the wire went on
                self._before.update(zip(fresh, before, strict=True))
            for end, got, more in self._wire(changed, fresh):
                yield from self._told(last, leaves + more, (end, got), None)

    def _units(self, mark: Mark) -> list[int]:
        """The numbers of the transits of a packet's segments."""
        count = max(1, mark.payload // _SEGMENT) if mark.protocol == 6 else 1
        self._transit += count
        return list(range(self._transit - count, self._transit))

    def _wire(self, mark: Mark, units: list[int]) -> list[tuple[Mark, set[int], int]]:
        """Sightings of a packet: marks, transits, delays."""
        chance, terms = self._random, self.terms
        there = [unit for unit in units if chance.random() >= terms.lost]
        found: list[tuple[Mark, set[int], int]] = []
        delay = chance.randrange(50_000, 5_000_000)
        while there:
            # GRO merges what is behind one another
            run = [there.pop(0)]
            while there and there[0] == run[-1] + 1 and chance.random() < 0.6:
                run.append(there.pop(0))
            found.append((_part(mark, run[0] - units[0], len(run), len(units)), set(run), delay))
            delay += chance.randrange(1000, 50_000)
        if found and chance.random() < terms.doubled:
            one, transits, late = found[0]
            found.append((one, transits, late + chance.randrange(10_000, 3_000_000)))
        return found

    def _told(
        self,
        host: str,
        time: int,
        came: tuple[Mark, set[int]] | None,
        left: tuple[Mark, list[int]] | None,
        *,
        began: bool = False,
        left_at: int | None = None,
    ) -> Iterator[tuple[int, int, Life, dict[str, Any]]]:
        """The story of a packet on a host, unless that is not traced, or tells nothing."""
        if host == "w" or self._random.random() < self.terms.untold:
            return
        place = "arb".index(host)
        half = 10 * _SECOND + self.terms.packets * _SECOND // self.terms.rate // 2
        if host == "r" and self.terms.rebooted and time > half:
            place = 3
        clock = self._clocks[place]
        self._number += 1
        shown = clock.at(time)
        marks = []
        if came:
            marks.append(_value(came[0], Way.ARRIVAL, 0, self._number))
        if left:
            after = clock.at(left_at if left_at is not None else time + 5000) - shown
            marks.append(_value(left[0], Way.DEPARTURE, after, self._number))
        self.transits[host, self._number] = (
            came[1] if came else set(),
            set(left[1]) if left else set(),
        )
        story = {
            "packet": self._number,
            "in_device": None if began else "eth0",
            "monotonic_ns": shown,
            "end": {"kind": "left" if left else "delivered"},
            "join": marks,
        }
        late = (left_at or time) + self._random.randrange(150_000_000, 900_000_000)
        yield late, self._number, clock.life, story

    # --- the truth ----------------------------------------------------------------------------

    def is_right(self, left: Sighting, came: Sighting) -> bool:
        """Whether an arrival is of a departure."""
        sent = self.transits[left.told.life[0], left.packet][1]
        got = self.transits[came.told.life[0], came.packet][0]
        return bool(sent & (got | {self._before[one] for one in got if one in self._before}))


def replace_mark(mark: Mark, **changes: Any) -> Mark:
    """A mark with other members."""
    return mark._replace(**changes)


def _part(mark: Mark, first: int, count: int, whole: int) -> Mark:
    """Some of the segments of a packet."""
    if mark.protocol != 6 or not mark.payload or count == whole:
        return mark
    return mark._replace(
        sequence=(mark.sequence + first * _SEGMENT) % (1 << 32),
        payload=count * _SEGMENT,
        length=count * _SEGMENT + 40,
        id=(mark.id + first) % (1 << 16),
    )


def _value(mark: Mark, way: Way, after: int, packet: int) -> dict[str, Any]:
    values = mark._replace(way=way).values()
    return {**values, "after_ns": after, "packet": packet, "device": "eth0"}


@dataclass
class Outcome:
    """The joins of a simulation, right and wrong."""

    right: int = 0
    wrong: list[tuple[Sighting, Sighting]] = field(default_factory=list)
    stories: int = 0
    made: int = 0
    """Stories that there were."""
    chains: int = 0
    longest: int = 0
    states: dict[WireState, int] = field(default_factory=dict)
    told: int = 0
    """Arrivals whose departure was told by its host."""


def simulated(terms: Terms, seed: int, joiner: Joiner | None = None) -> tuple[Outcome, Joiner]:
    """Run a simulation, and look at each join."""
    simulation = Simulation(terms, seed)
    joiner = joiner or Joiner()
    outcome = Outcome()

    def take(chains: list[StoryChain]) -> None:
        for chain in chains:
            outcome.chains += 1
            outcome.stories += len(chain.stories)
            outcome.longest = max(outcome.longest, len(chain.stories))
            for wire in chain.wires:
                if simulation.is_right(wire.left, wire.came):
                    outcome.right += 1
                else:
                    outcome.wrong.append((wire.left, wire.came))
            for told in chain.stories:
                for one in told.sightings:
                    outcome.states[one.state] = outcome.states.get(one.state, 0) + 1

    last = 0
    for time, life, story in simulation.stories():
        add(joiner, life, story, time)
        if time - last > _SECOND // 4:
            take(joiner.due(time))
            last = time
    take(joiner.flush())
    outcome.made = len(simulation.transits)
    departed = set().union(*(sent for _, sent in simulation.transits.values()))
    outcome.told = sum(bool(came & departed) for came, _ in simulation.transits.values())
    return outcome, joiner
