# SPDX-License-Identifier: GPL-2.0
"""A counter of the packets in a stream of events."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ipttctl.families import NfFamily
from ipttproto import Kind

if TYPE_CHECKING:
    from ipttctl.events.records import EventRecord

_ACCEPT: Final = 1
_INPUT: Final = 1
_OUTPUT: Final = 3
_OUTWARD: Final = (3, 4)
_KEPT: Final = 65536
_WITH_VERDICT: Final = (Kind.EXIT, Kind.PACKET, Kind.CHAIN_EXIT)
_BEFORE_IP: Final = (NfFamily.NETDEV, NfFamily.BRIDGE)

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
        # the links at a hook see a packet in order, each link once
        at_another = record.link != last.link and record.priority >= last.priority
        return at_another and last.verdict == _ACCEPT
    if not _of_hook(record) and (last.cpu, last.traversal) == (record.cpu, record.traversal):
        return True
    ended = last.kind in _WITH_VERDICT and last.verdict != _ACCEPT
    begins = record.hook == _OUTPUT != last.hook
    if ended or begins or not _same_family(last.pf, record.pf):
        return False
    if last.netns_cookie != record.netns_cookie:
        return last.hook != _INPUT
    if last.pf == NfFamily.NETDEV:
        return True
    again = (*_place(last), last.table) == (*_place(record), record.table)
    looped = record.in_name == b"lo" and last.hook in _OUTWARD
    return not again and (looped or record.hook in _NEXT.get(last.hook, ()))


def _of_hook(record: EventRecord) -> bool:
    return record.kind == Kind.PACKET


def _place(record: EventRecord) -> tuple[int, int, int]:
    return record.netns_cookie, record.pf, record.hook


def _same_family(last: int, pf: int) -> bool:
    """Whether a packet can reach a hook of family ``pf`` after one of ``last``."""
    return pf == last or (last in _BEFORE_IP and pf != NfFamily.NETDEV)
