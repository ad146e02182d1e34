# SPDX-License-Identifier: GPL-2.0
"""A counter of the packets in a stream of events."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ipttctl.events.filter import WITH_VERDICT
from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily
from ipttproto import InetHook, Kind, NetdevHook, Verdict

_OUTWARD: Final = (InetHook.OUTPUT, InetHook.POSTROUTING)
_KEPT: Final = 65536
#: of a device; of inet tables, ingress is a hook of IP
_EGRESS: Final = (NfFamily.NETDEV, NetdevHook.EGRESS)

#: hook -> the hooks that a packet can reach after it, in the same network namespace
_NEXT: Final = {0: {0, 1, 2}, 1: {1}, 2: {2, 4}, 3: {3, 4}, 4: {4}}


class PacketCounter:
    """A counter of packets by the address of their skb, which the kernel reuses.

    An address belongs to a new packet once the old one has ended, or if the old one could not have
    reached the event's hook. Before that, another packet on the same path is taken for the old one.
    """

    def __init__(self) -> None:
        self.count = 0
        """Number of packets so far."""
        self._last: OrderedDict[int, EventRecord] = OrderedDict()

    def add(self, record: EventRecord) -> None:
        """Count the packet of an event, unless it is counted already."""
        last = self._last.pop(record.skb, None)
        if last is None or not _continues(last, record):
            self.count += 1
        self._last[record.skb] = record
        if len(self._last) > _KEPT:
            self._last.popitem(last=False)


def _continues(last: EventRecord, record: EventRecord) -> bool:
    """Whether two consecutive events of one skb can belong to one packet."""
    if _of_hook(last) and _of_hook(record) and _place(last) == _place(record):
        return _goes_on(last, record)
    if not _of_hook(record) and _passage(last) == _passage(record):
        return True
    ended = last.kind in WITH_VERDICT and last.verdict != Verdict.ACCEPT
    begins = record.hook == InetHook.OUTPUT != last.hook
    again = _rules(last) == _rules(record)
    if ended or begins or again or not _reaches(last, record):
        return False
    if last.netns_cookie != record.netns_cookie or _at_egress(record):
        return last.hook != InetHook.INPUT or _at_egress(last)
    if _at_device(last):
        return True
    looped = record.in_name == b"lo" and last.hook in _OUTWARD
    return looped or record.hook in _NEXT.get(last.hook, ())


def _goes_on(last: EventRecord, record: EventRecord) -> bool:
    """Whether a packet at a netfilter hook goes on from one event to another there."""
    if record.link == last.link:
        # the link has reported its drop, and then that its shadow disagrees
        both = (last.kind, record.kind) == (Kind.PACKET, Kind.DISAGREE)
        return both and record.verdict == last.verdict
    # the links at a hook see a packet in order
    return record.priority >= last.priority and last.verdict == Verdict.ACCEPT


def _of_hook(record: EventRecord) -> bool:
    return record.kind in {Kind.PACKET, Kind.DISAGREE}


def _place(record: EventRecord) -> tuple[int, int, int]:
    return record.netns_cookie, record.pf, record.hook


def _passage(record: EventRecord) -> tuple[int, int, bool]:
    """A packet's passage through a table or base chain: each CPU counts those of either kind."""
    return record.cpu, record.traversal, bool(record.family)


def _rules(record: EventRecord) -> tuple[object, ...]:
    """The rules that a packet meets only once: a table at a hook, or a chain."""
    chain = record.family, record.table_handle, record.chain_handle
    return *_place(record), _of_hook(record), record.table, *chain


def _at_egress(record: EventRecord) -> bool:
    return (record.pf, record.hook) == _EGRESS


def _at_device(record: EventRecord) -> bool:
    return record.pf == NfFamily.NETDEV or record.hook == InetHook.INGRESS


def _reaches(last: EventRecord, record: EventRecord) -> bool:
    """Whether a packet can reach the family of a hook after that of another."""
    if record.pf == last.pf or _at_device(last) or _at_egress(record):
        return True
    return last.pf == NfFamily.BRIDGE and record.pf != NfFamily.NETDEV
