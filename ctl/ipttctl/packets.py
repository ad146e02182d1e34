# SPDX-License-Identifier: GPL-2.0
"""Telling packets apart in a stream of events, to count them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ipttproto import Kind

if TYPE_CHECKING:
    from ipttctl.records import EventRecord

_ACCEPT: Final = 1
_INPUT: Final = 1
_OUTPUT: Final = 3
_OUTWARD: Final = (3, 4)
_KEPT: Final = 65536

#: hooks that a packet can come to after each hook, in the same network namespace
_NEXT: Final = {0: {0, 1, 2}, 1: {1}, 2: {2, 4}, 3: {3, 4}, 4: {4}}


class PacketCounter:
    """Counts packets by the address of their skb, which the kernel uses again.

    An address begins a new packet when the old one met its end, or could not have come to where
    the event is. A packet that comes again by the same way before that is taken for the same one.
    """

    def __init__(self) -> None:
        self.count = 0
        """Packets so far."""
        self._last: OrderedDict[int, EventRecord] = OrderedDict()

    def add(self, record: EventRecord) -> None:
        """Count the packet of an event, unless it was counted."""
        last = self._last.pop(record.skb, None)
        if last is None or not _continues(last, record):
            self.count += 1
        self._last[record.skb] = record
        if len(self._last) > _KEPT:
            self._last.popitem(last=False)


def _continues(last: EventRecord, record: EventRecord) -> bool:
    """Whether two events with the same skb, one after the other, can be of one packet."""
    if (last.cpu, last.traversal) == (record.cpu, record.traversal):
        return True
    ended = last.kind == Kind.EXIT and last.verdict != _ACCEPT
    begins = record.hook == _OUTPUT != last.hook
    if ended or begins or last.pf != record.pf:
        return False
    if last.netns != record.netns:
        return last.hook != _INPUT
    again = (last.hook, last.table) == (record.hook, record.table)
    looped = record.in_name == b"lo" and last.hook in _OUTWARD
    return not again and (looped or record.hook in _NEXT.get(last.hook, ()))
