# SPDX-License-Identifier: GPL-2.0
"""A counter of the packets in a stream of events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from ipttctl.events.filter import WITH_VERDICT
from ipttctl.families import NfFamily
from ipttproto import EventFlag, InetHook, JoinedBatches, Kind, NetdevHook, Verdict

_OUTWARD: Final = (InetHook.OUTPUT, InetHook.POSTROUTING)
_KEPT: Final = 65536
_OF_HOOKS: Final = frozenset({Kind.PACKET, Kind.DISAGREE})
_OF_SPINE: Final = frozenset({Kind.SPINE_FUNCTION, Kind.SPINE_EXIT})
#: of a device; of inet tables, ingress is a hook of IP
_EGRESS: Final = (NfFamily.NETDEV, NetdevHook.EGRESS)

#: hook -> the hooks that a packet can reach after it, in the same network namespace
_NEXT: Final = {0: {0, 1, 2}, 1: {1}, 2: {2, 4}, 3: {3, 4}, 4: {4}}


class _Step(NamedTuple):
    """A step of a packet's way: the members of an event that tell one packet from another."""

    skb: int
    netns_cookie: int
    table_handle: int
    chain_handle: int
    link: int
    traversal: int
    verdict: int
    priority: int
    flags: int
    kind: int
    pf: int
    hook: int
    family: int
    in_name: bytes
    table: bytes
    cpu: int


_MEMBERS: Final = _Step._fields[:-1]
"""Those that the protocol's record has, in its order."""


class PacketCounter:
    """A counter of packets by the address of their skb, which the kernel reuses.

    Followed packets have numbers, and are counted by these. Of others, an address belongs to a new
    packet once the old one has ended, or if the old one could not have reached the event's hook.
    Before that, another packet on the same path is taken for the old one.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of packets so far."""
        self._last: OrderedDict[int, _Step] = OrderedDict()
        self._followed: OrderedDict[int, None] = OrderedDict()

    def add(self, events: JoinedBatches) -> None:
        """Count the packets of events, unless they are counted already."""
        numbers = events.values("packet")
        if any(numbers):
            for number in filter(None, numbers):
                self._add_followed(number)
            events = events.select([not number for number in numbers])
        # between the first and the last event of a passage it is one packet
        goes_on = [*_same_passages(events), False]
        first = 0
        for place in range(len(events)):
            if goes_on[place + 1]:
                continue
            step = _step(events, first)
            before = self._last.pop(step.skb, None)
            if before is None or not _continues(before, step):
                self.count += 1
            self._last[step.skb] = step if place == first else _step(events, place)
            if len(self._last) > _KEPT:
                self._last.popitem(last=False)
            first = place + 1

    def _add_followed(self, number: int) -> None:
        if number in self._followed:
            return
        self.count += 1
        self._followed[number] = None
        if len(self._followed) > _KEPT:
            self._followed.popitem(last=False)


def _step(events: JoinedBatches, place: int) -> _Step:
    [row] = events.rows(_MEMBERS, [place])
    return _Step._make((*row, events.cpus[place]))


def _same_passages(events: JoinedBatches) -> Iterator[bool]:
    """Whether each event is of the same packet in the same passage as the event before it."""
    before = None
    keys = events.keys(("skb", "traversal", "family"))
    for *passage, kind in zip(keys, events.cpus, events.values("kind"), strict=True):
        yield passage == before and kind not in _OF_HOOKS
        before = passage


def _continues(last: _Step, step: _Step) -> bool:
    """Whether two consecutive events of one skb can belong to one packet."""
    if _of_hook(last) and _of_hook(step) and _place(last) == _place(step):
        return _goes_on(last, step)
    if not _of_hook(step) and _passage(last) == _passage(step):
        return True
    ended = last.kind in WITH_VERDICT and last.verdict != Verdict.ACCEPT
    # nobody may have listened at the queue
    ended &= not (last.kind == Kind.SPINE_FUNCTION and last.flags & EventFlag.QUEUE_BYPASS)
    # the function that went through the rules returns what they have decided
    ended &= not (_of_spine(step) and not _of_spine(last) and _place(last) == _place(step))
    begins = step.hook == InetHook.OUTPUT != last.hook
    again = _rules(last) == _rules(step)
    if ended or begins or again or not _reaches(last, step):
        return False
    if last.netns_cookie != step.netns_cookie or _at_egress(step):
        return last.hook != InetHook.INPUT or _at_egress(last)
    if _at_device(last):
        return True
    looped = step.in_name.rstrip(b"\0") == b"lo" and last.hook in _OUTWARD
    return looped or step.hook in _NEXT.get(last.hook, ())


def _goes_on(last: _Step, step: _Step) -> bool:
    """Whether a packet at a netfilter hook goes on from one event to another there."""
    if step.link == last.link:
        # the link has reported its drop, and then that its shadow disagrees
        both = (last.kind, step.kind) == (Kind.PACKET, Kind.DISAGREE)
        return both and step.verdict == last.verdict
    # the links at a hook see a packet in order
    return step.priority >= last.priority and last.verdict == Verdict.ACCEPT


def _of_hook(step: _Step) -> bool:
    return step.kind in _OF_HOOKS


def _place(step: _Step) -> tuple[int, int, int]:
    return step.netns_cookie, step.pf, step.hook


def _of_spine(step: _Step) -> bool:
    return step.kind in _OF_SPINE


def _passage(step: _Step) -> tuple[int, int, bool, bool]:
    """A packet's passage through a table, base chain or hook: each CPU counts those of a kind."""
    return step.cpu, step.traversal, bool(step.family), _of_spine(step)


def _rules(step: _Step) -> tuple[object, ...]:
    """Rules, or functions, that a packet meets only once: a table at a hook, a chain, a hook."""
    chain = step.family, step.table_handle, step.chain_handle
    if _of_spine(step):
        return *_place(step), True
    return *_place(step), _of_hook(step), step.table, *chain


def _at_egress(step: _Step) -> bool:
    return (step.pf, step.hook) == _EGRESS


def _at_device(step: _Step) -> bool:
    return step.pf == NfFamily.NETDEV or step.hook == InetHook.INGRESS


def _reaches(last: _Step, step: _Step) -> bool:
    """Whether a packet can reach the family of a hook after that of another."""
    if step.pf == last.pf or _at_device(last) or _at_egress(step):
        return True
    return last.pf == NfFamily.BRIDGE and step.pf != NfFamily.NETDEV
