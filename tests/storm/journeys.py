# SPDX-License-Identifier: GPL-2.0
"""Journeys under everything else, and what their events say of each packet.

Every observer gets the events of all links, so that the packets of all journeys are checked, those
of controllers that are killed included. Whatever is lost on the way, of each packet holds:

    it ends once: all journeys that follow it hear of the same end
    nothing comes after that but a walk's word on how a function or hook kept or dropped the packet
    it is one sk_buff from its begin to its end
    its number is greater than that of any packet that was this sk_buff before, than that of the
    packet it is a copy of, and than all numbers of a module that was unloaded before
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import Link, ProgramSet
from ipttctl.link.streams import EventStream
from ipttproto import EventBatch, EventFlag, Kind, Slot, Verdict
from ipttproto.arrays import np, npt
from tests.kernel.support import assembler as asm
from tests.kernel.support.network import Namespace
from tests.storm.actor import Actor
from tests.storm.journal import Journal
from tests.storm.observers import observe
from tests.storm.shared import Phase, Shared

Events = npt.NDArray[np.void]

_MEMBERS: Final = [
    "packet", "time", "link", "kind", "skb", "rule_handle", "verdict", "flags", "netns_cookie",
]  # fmt: skip  # by what they tell
_ENDS: Final = (Kind.JOURNEY_DROPPED, Kind.JOURNEY_FREED, Kind.JOURNEY_LOST)
#: how a packet is kept or dropped is told after it was, when it may have ended already
_LAST_WORDS: Final = (Kind.EXIT, Kind.CHAIN_EXIT, Kind.SPINE_FUNCTION, Kind.SPINE_EXIT)
_BUFFER: Final = 1 << 25
_FILTERS: Final = (None, "udp", "udp", "icmp or icmp6", "udp dst port 9", "ip6")
_LIMITS: Final = (None, None, Limits(sample=3), Limits(rate=200))
_SPINES: Final = ("spine", "spine:inet", "spine:inet/prerouting", "spine:inet4/output")


class Numbers:
    """The events of followed packets, and the greatest number of an earlier module."""

    def __init__(self, earlier: int) -> None:
        self._earlier = earlier
        self._parts: list[Events] = []

    def add(self, batches: Sequence[EventBatch]) -> None:
        """Keep what is needed of events that belong to a packet."""
        for batch in batches:
            events = batch.events
            self._parts.append(events[events["packet"] != 0][_MEMBERS].copy())

    def check(self) -> tuple[dict[str, int], int]:
        """Check all packets: how many there were of each kind, and the greatest number."""
        if not any(map(len, self._parts)):
            return {}, 0
        told = np.concatenate(self._parts)
        told = told[np.argsort(told["time"], kind="stable")]
        late = np.isin(told["kind"], _LAST_WORDS) & (told["verdict"] != Verdict.ACCEPT)
        least, most = int(told["packet"].min()), int(told["packet"].max())
        assert least > self._earlier, f"packet {least} after {self._earlier} of an earlier module"
        # numbers begin with the clock, and grow by less than one in a nanosecond
        future = told["packet"] >= told["time"]
        assert not future.any(), f"number is of the future: {told[future][:4]}"
        self._check_ends(told, late)
        self._check_addresses(told[~late])
        self._check_copies(told)
        return _kinds(told), most

    def _check_ends(self, told: Events, late: npt.NDArray[np.bool_]) -> None:
        ends = told[np.isin(told["kind"], _ENDS)]
        _once(ends, "ends")
        # with the index too it sorts in the stable way: the other one of numpy, which has
        # instructions of AVX2, sorts wrongly on an emulated processor
        _, index, where = np.unique(ends["packet"], return_index=True, return_inverse=True)
        first = ends[index]
        differing = (ends["time"] != first["time"][where]) | (ends["kind"] != first["kind"][where])
        assert not differing.any(), f"ends differ: {_all_of(told, ends[differing])}"
        if not len(first):
            return
        at = np.minimum(np.searchsorted(first["packet"], told["packet"]), len(first) - 1)
        after = (first["packet"][at] == told["packet"]) & (told["time"] > first["time"][at])
        wrong = after & ~late
        assert not wrong.any(), f"after its end: {_all_of(told, told[wrong])}"

    def _check_addresses(self, told: Events) -> None:
        told = told[told["skb"] != 0]
        order = np.argsort(told["packet"], kind="stable")
        packets, addresses = told["packet"][order], told["skb"][order]
        moved = (packets[1:] == packets[:-1]) & (addresses[1:] != addresses[:-1])
        assert not moved.any(), f"of several addresses: {_all_of(told, told[order][1:][moved])}"
        # by address, then by time
        told = told[np.argsort(told["skb"], kind="stable")]
        back = (told["skb"][1:] == told["skb"][:-1]) & (told["packet"][1:] < told["packet"][:-1])
        assert not back.any(), f"{told[1:][back][:4]} after {told[:-1][back][:4]}"

    def _check_copies(self, told: Events) -> None:
        copies = told[told["kind"] == Kind.JOURNEY_COPY]
        _once(copies, "is a copy")
        wrong = copies["rule_handle"] >= copies["packet"]
        assert not wrong.any(), f"copies of later packets: {copies[wrong][:4]}"


def _all_of(told: Events, wrong: Events) -> str:
    """All events of the first of the packets of which some are wrong."""
    return "\n".join(map(str, [_MEMBERS, *told[told["packet"] == wrong["packet"][0]]]))


def _once(events: Events, what: str) -> None:
    """Fail if a link has told of a packet more than once."""
    pairs, _, counts = np.unique(events[["link", "packet"]], return_index=True, return_counts=True)
    assert not (counts > 1).any(), f"{what} more than once: {pairs[counts > 1][:4]}"


def _kinds(told: Events) -> dict[str, int]:
    """How many packets met each of the things that a storm must have."""
    placed = told[["packet", "netns_cookie"]][told["netns_cookie"] != 0]
    pairs, _ = np.unique(placed, return_index=True)
    _, namespaces = np.unique(pairs["packet"], return_counts=True)

    def packets(chosen: npt.NDArray[np.bool_]) -> int:
        return len(np.unique(told["packet"][chosen]))

    return {
        "followed": len(np.unique(told["packet"])),
        "copied": packets(told["kind"] == Kind.JOURNEY_COPY),
        "dropped": packets(told["kind"] == Kind.JOURNEY_DROPPED),
        "used-up": packets(told["kind"] == Kind.JOURNEY_FREED),
        "at-socket": packets(told["kind"] == Kind.JOURNEY_SOCKET),
        "part": packets(told["flags"] & EventFlag.FRAGMENT != 0),
        "crossing": int((namespaces > 1).sum()),
    }


class _Following:
    """A journey, the links on it, and changes of them."""

    def __init__(
        self,
        actor: FollowerActor,
        controller: Controller,
        program: int,
        places: Sequence[Namespace],
    ) -> None:
        self._decide = actor.random
        self._journal = actor.journal
        self._controller = controller
        self._program = program
        self._places = places
        self.journey: Link | None = None
        self._links: list[Link] = []

    def change(self) -> None:
        """Begin a journey, put a link on it, swap one, take one off, or end it under its links."""
        kind = self._decide.random()
        if self.journey is None or not self._links:
            self._begin()
        elif kind < 0.4 and len(self._links) < 4:
            self._join()
        elif kind < 0.7:
            self._swap(self._decide.choice([self.journey, *self._links]))
        elif kind < 0.9:
            self._controller.detach(self._links.pop(self._decide.randrange(len(self._links))).id)
        else:
            self.end()

    def _begin(self) -> None:
        if self.journey is None:
            programs = ProgramSet({Slot.STEP: self._program})
            self.journey = self._controller.attach(JourneyHook(), programs)
            self._journal.write("journey", f"link {self.journey.id}")
        self._join()

    def _join(self) -> None:
        assert self.journey is not None
        hook = self._hook()
        link = self._controller.attach(hook, self._set(hook), journey=self.journey.id)
        assert link.journey == self.journey.id
        self._links.append(link)
        self._journal.write("journey-join", f"link {link.id} on {link.journey} {hook}")

    def _hook(self) -> Hook:
        place = self._decide.choice((None, None, *self._places))
        path = place.path if place else None
        kinds: tuple[Callable[[], Hook], ...] = (
            lambda: SpineHook.parse(self._decide.choice(_SPINES), netns=path),
            lambda: ChainHook(netns=path),
            TableHook,
        )
        return self._decide.choice(kinds)()

    def _set(self, hook: Hook) -> ProgramSet:
        slots = [slot for slot in hook.SLOTS if slot is not Slot.ENTRY]
        chosen: dict[Slot, int] = dict.fromkeys(slots, self._program)
        if isinstance(hook, JourneyHook):
            return ProgramSet(chosen)
        expression = self._decide.choice(_FILTERS)
        code = compile_filter(expression) if expression else None
        return ProgramSet(chosen, code, limits=self._decide.choice(_LIMITS))

    def _swap(self, link: Link) -> None:
        now = self._controller.swap(
            link.id, self._set(link.hook), expect_generation=link.generation
        )
        assert now.generation == link.generation + 1
        assert now.journey == link.journey
        if self.journey is not None and link.id == self.journey.id:
            self.journey = now
        else:
            self._links[self._links.index(link)] = now
        self._journal.write("journey-swap", f"link {now.id} generation {now.generation}")

    def end(self) -> None:
        """End the journey under its links, which leave it, and then the links."""
        if self.journey is not None:
            self._controller.detach(self.journey.id)
            self._journal.write("journey-end", f"link {self.journey.id}, {len(self._links)} on it")
            self.journey = None
        for link in self._links:
            assert self._controller.link(link.id).journey is None
            self._controller.detach(link.id)
        self._links = []


class FollowerActor(Actor):
    """Makes journeys with links on them, reads all events, and checks each packet's."""

    #: the greatest number of a packet so far, and the number of reloads at that time
    _greatest = 0
    _reloads = 0

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, places: Sequence[Namespace]
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._places = places

    def act(self) -> None:
        """Follow packets for a while."""
        if self.shared.phase is not Phase.ROUND:
            self.pause(0.02, 0.1)
            return
        reloads = self.shared.reloads
        numbers = Numbers(self._greatest if reloads > self._reloads else 0)
        with self.unless_reloading(), ExitStack() as end:
            program = end.enter_context(Program.load(asm.returning(1), name="follower"))
            controller = end.enter_context(Controller())
            events = end.enter_context(observe(controller, _BUFFER))
            following = _Following(self, controller, program.fd, self._places)
            self._follow(following, events, numbers)
            following.end()
            numbers.add(list(events.drain()))
        # otherwise they may be of two modules
        if self.shared.reloads == reloads:
            self._conclude(numbers)

    def _follow(self, following: _Following, events: EventStream, numbers: Numbers) -> None:
        end = time.monotonic() + self.random.uniform(0.5, 5)
        while time.monotonic() < end and self.shared.phase is Phase.ROUND:
            following.change()
            numbers.add(events.read(self.random.uniform(0.02, 0.5)))

    def _conclude(self, numbers: Numbers) -> None:
        kinds, greatest = numbers.check()
        self._greatest, self._reloads = max(self._greatest, greatest), self.shared.reloads
        self.journal.write("follow", " ".join(f"{kind}={n}" for kind, n in kinds.items()))
        for kind, count in kinds.items():
            if count:
                self.journal.write(f"follow-{kind}")
