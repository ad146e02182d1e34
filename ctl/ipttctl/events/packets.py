# SPDX-License-Identifier: GPL-2.0
"""A counter of the packets in a stream of events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from ipttctl.events.filter import WITH_VERDICT
from ipttctl.families import NfFamily
from ipttproto import EventFlag, InetHook, JoinedBatches, Kind, NetdevHook, Verdict

_OUTWARD: Final = (InetHook.OUTPUT, InetHook.POSTROUTING)
_KEPT: Final = 65536
_MOST_STEPS: Final = 1 << 13
_OF_HOOKS: Final = frozenset({Kind.PACKET, Kind.DISAGREE})
_OF_SPINE: Final = frozenset({Kind.SPINE_FUNCTION, Kind.SPINE_EXIT})
#: of a device; of inet tables, ingress is a hook of IP
_EGRESS: Final = (NfFamily.NETDEV, NetdevHook.EGRESS)

#: hook -> the hooks that a packet can reach after it, in the same network namespace
_NEXT: Final = {0: {0, 1, 2}, 1: {1}, 2: {2, 4}, 3: {3, 4}, 4: {4}}


class _Step(NamedTuple):
    """A step of a packet's way: the members of an event that tell where it is, and how it goes on.

    Many packets take the same steps.
    """

    netns_cookie: int
    table_handle: int
    chain_handle: int
    link: int
    verdict: int
    priority: int
    flags: int
    kind: int
    pf: int
    hook: int
    family: int
    in_name: bytes
    table: bytes


_MEMBERS: Final = _Step._fields
"""In the order of the protocol's record."""

_Passage: TypeAlias = tuple[int, int]
"""The CPU that counts passages, and the number of one."""


class PacketCounter:
    """A counter of packets by the address of their skb, which the kernel reuses.

    Followed packets have numbers, and are counted by these. Of others, an address belongs to a new
    packet once the old one has ended, or if the old one could not have reached the event's hook.
    Before that, another packet on the same path is taken for the old one.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of packets so far."""
        self._last: OrderedDict[int, tuple[bytes, _Step, _Passage]] = OrderedDict()
        self._followed: OrderedDict[int, None] = OrderedDict()
        self._steps: dict[bytes, _Step] = {}
        self._continue: dict[tuple[bytes, bytes, bool], bool] = {}
        """Whether a packet can go on from one step to another, in the same passage or not."""

    def add(self, events: JoinedBatches) -> None:
        """Count the packets of events, unless they are counted already."""
        numbers = events.values("packet")
        if any(numbers):
            for number in filter(None, numbers):
                self._add_followed(number)
            events = events.select([not number for number in numbers])
        if len(self._steps) > _MOST_STEPS:
            self._steps.clear()
            self._continue.clear()
        keys, skbs = events.keys(_MEMBERS), events.values("skb")
        passages = list(zip(events.cpus, events.values("traversal"), strict=True))
        # between the first and the last event of a passage it is one packet
        ends = [*_passage_begins(events, skbs, passages), True]
        first = 0
        for place, skb in enumerate(skbs):
            if not ends[place + 1]:
                continue
            passage = passages[place]
            before = self._last.pop(skb, None)
            if before is None:
                self.count += 1
            else:
                question = before[0], keys[first], before[2] == passage
                answer = self._continue.get(question)
                if answer is None:
                    step = self._step(events, keys, first)
                    answer = self._continue[question] = _continues(before[1], step, question[2])
                self.count += not answer
            self._last[skb] = keys[place], self._step(events, keys, place), passage
            if len(self._last) > _KEPT:
                self._last.popitem(last=False)
            first = place + 1

    def _step(self, events: JoinedBatches, keys: Sequence[bytes], place: int) -> _Step:
        step = self._steps.get(keys[place])
        if step is None:
            [row] = events.rows(_MEMBERS, [place])
            step = self._steps[keys[place]] = _Step._make(row)
        return step

    def _add_followed(self, number: int) -> None:
        if number in self._followed:
            return
        self.count += 1
        self._followed[number] = None
        if len(self._followed) > _KEPT:
            self._followed.popitem(last=False)


def _passage_begins(
    events: JoinedBatches, skbs: Sequence[int], passages: Sequence[_Passage]
) -> list[bool]:
    """Whether each event is of another packet or passage than the event before it."""
    whole = list(zip(skbs, passages, events.values("family"), strict=True))
    kinds = events.values("kind")
    return [True] * bool(whole) + [
        before != one or kind in _OF_HOOKS
        for before, one, kind in zip(whole, whole[1:], kinds[1:], strict=False)
    ]


def _continues(last: _Step, step: _Step, same_passage: bool) -> bool:
    """Whether two consecutive events of one skb can belong to one packet.

    ``same_passage``: the same CPU has counted the same passage, of whatever kind.
    """
    if _of_hook(last) and _of_hook(step) and _place(last) == _place(step):
        return _goes_on(last, step)
    if not _of_hook(step) and same_passage and _counted(last) == _counted(step):
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


def _counted(step: _Step) -> tuple[bool, bool]:
    """The kind of passages that it is counted among: of tables, base chains or hooks."""
    return bool(step.family), _of_spine(step)


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
