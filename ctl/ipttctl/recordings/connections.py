# SPDX-License-Identifier: GPL-2.0
"""Packets of the same connections, in either direction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from ipttctl.families import IP
from ipttproto import EventFlag, JoinedBatches, Kind

_OF_SPINE: Final = frozenset({Kind.SPINE_FUNCTION, Kind.SPINE_EXIT})
"""Kinds of events that tell the connection."""

_FAMILIES: Final = frozenset(map(int, IP.values()))
_CUT: Final = EventFlag.FRAGMENT | EventFlag.TRUNCATED

_Key: TypeAlias = tuple[object, ...]


class _Seen(NamedTuple):
    """The members of an event that tell the connection, in the order of the record."""

    netns_cookie: int
    packet: int
    ct_id: int
    sport: int
    dport: int
    icmp_id: int
    flags: int
    kind: int
    pf: int
    protocol: int
    saddr: bytes
    daddr: bytes


class Connections:
    """The connections that packets are of, each in its network namespace.

    Where connection tracking has not seen a packet, its addresses and ports count, either way
    round, or the number of a ping.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._tracked: defaultdict[_Key, set[int]] = defaultdict(set)
        self._untracked: defaultdict[_Key, set[int]] = defaultdict(set)

    def learn(self, events: JoinedBatches) -> None:
        """Look at events."""
        keys = events.keys(_Seen._fields)
        places = {key: place for place, key in enumerate(keys)}
        for seen in map(_Seen._make, events.rows(_Seen._fields, places.values())):
            if seen.kind not in _OF_SPINE or not seen.packet:
                continue
            if seen.ct_id:
                self._tracked[seen.netns_cookie, seen.ct_id].add(seen.packet)
            elif seen.pf in _FAMILIES and not seen.flags & _CUT:
                self._untracked[_ends(seen)].add(seen.packet)

    def others(self, packets: set[int]) -> set[int]:
        """The packets of the connections of some."""
        tracked: defaultdict[object, set[int]] = defaultdict(set)
        for (namespace, _), group in self._tracked.items():
            tracked[namespace] |= group
        # before connection tracking of a namespace has seen a packet, it is as if there were none
        untracked = (group - tracked[key[0]] for key, group in self._untracked.items())
        return _together(self._tracked.values(), packets) | _together(untracked, packets)


def _together(groups: Iterable[set[int]], packets: set[int]) -> set[int]:
    """The packets of those groups that have one of ``packets``."""
    return set().union(*(one for one in groups if not one.isdisjoint(packets)))


def _ends(seen: _Seen) -> _Key:
    """Equal for both directions."""
    ends = frozenset({(seen.saddr, seen.sport), (seen.daddr, seen.dport)})
    return seen.netns_cookie, seen.protocol, seen.icmp_id, ends
