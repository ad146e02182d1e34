# SPDX-License-Identifier: GPL-2.0
"""Packets of which a recording does not tell whether they fit a pattern somewhere."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from ipttctl.recordings.packet_pattern import PacketPattern
from ipttctl.stories.handed import OF_SPINE
from ipttctl.stories.steps import OF_HOOKS, OF_NFT
from ipttproto import InetHook, JoinedBatches, Kind

_OF_PASSAGE: Final = ("netns_cookie", "length", "pf", "hook", "protocol")
_ENDS: Final = ("sport", "dport", "saddr", "daddr")

_MAY_CHANGE: Final = (OF_NFT - {Kind.CHAIN_KNOWN}) | {Kind.RULE}
"""Kinds of events of what may have changed the packet. Chains of nftables tell of no rule that
changes the packet first and then does not match."""

_LAST: Final = frozenset({Kind.JOURNEY_FREED, Kind.JOURNEY_DROPPED, Kind.JOURNEY_LOST})

_Place: TypeAlias = bytes
"""Fields that tell passages through hooks apart: with a tunnel's header a packet is longer."""

_Ends: TypeAlias = bytes


class _Seen(NamedTuple):
    """Fields that rules' events do not show, as an event of a function tells them, and where.

    In the order of the record.
    """

    netns_cookie: int
    packet: int
    ttl: int
    tos: int
    kind: int
    pf: int
    hook: int
    protocol: int

    def follows(self, last: _Seen) -> bool:
        """Whether nothing but forwarding has changed the packet since the last function."""
        here = (self.netns_cookie, self.pf, self.protocol, self.tos)
        if here != (last.netns_cookie, last.pf, last.protocol, last.tos):
            return False
        passed = (last.hook, self.hook) == (InetHook.PREROUTING, InetHook.POSTROUTING)
        return self.ttl == last.ttl - (passed or self.hook == InetHook.FORWARD)


class _Doubt(enum.Enum):
    """Whether it is told that a packet with some ends does not fit where it is."""

    ARRIVED = enum.auto()
    """Not told; what later functions tell need not be true of the packet as it was."""
    BETWEEN = enum.auto()
    """Not told by a rule, of a packet that a function has shown before."""
    NONE = enum.auto()
    """Told."""
    NEVER = enum.auto()
    """Told, whatever rules make of the fields that not all events show."""


_IN_DOUBT: Final = frozenset({_Doubt.ARRIVED, _Doubt.BETWEEN})


@dataclass(slots=True)
class _Passage:
    """A passage of a packet through a hook."""

    doubts: dict[_Ends, _Doubt] = field(default_factory=dict)
    returned: bool = False
    """Whether a function has shown the packet."""
    changed: bool = False
    """Whether something may have changed the packet before the first function returned."""
    never: bool = False
    """Whether it does not fit whatever NAT makes of its ends."""

    def take(self, ends: _Ends, *, spine: bool, never: Callable[[], bool]) -> None:
        """Take it that the packet does not fit; ``never`` tells whether it did not before."""
        doubt = self.doubts.get(ends)
        stands = doubt is _Doubt.ARRIVED and (self.returned or self.changed)
        if not spine or (stands and never()):
            self.doubts[ends] = _Doubt.NEVER
        elif not stands and doubt is not _Doubt.NEVER:
            self.doubts[ends] = _Doubt.NONE

    def doubt(self, ends: _Ends, *, spine: bool) -> None:
        """Take it that nothing tells whether the packet fits."""
        doubt = self.doubts.get(ends)
        # functions show all that any event shows: what they do not tell, no rule will
        if (spine and doubt is not _Doubt.NEVER) or (doubt is None and not self.returned):
            self.doubts[ends] = _Doubt.ARRIVED
        elif doubt is None:
            self.doubts[ends] = _Doubt.BETWEEN

    @property
    def in_doubt(self) -> bool:
        """Whether something is not told."""
        return not self.never and not _IN_DOUBT.isdisjoint(self.doubts.values())


@dataclass(slots=True)
class _Way:
    """A packet that has not ended."""

    passages: dict[_Place, _Passage] = field(default_factory=dict)
    last: _Seen | None = None


class Doubts:
    """The packets in doubt.

    Events of rules do not show TOS and TTL, and functions show them as they left them. So what a
    function tells is true of the packet before it if nothing has changed it, or if these fields do
    not matter. Behind NAT a packet is asked anew.
    """

    def __init__(self, pattern: PacketPattern) -> None:
        """Ask a pattern."""
        self._pattern = pattern
        self._open: dict[int, _Way] = {}
        self._ended: set[int] = set()

    def learn(
        self, events: JoinedBatches, answers: Sequence[bool | None], fitting: Collection[int]
    ) -> None:
        """Look at events, with what the pattern answers; packets that fit are in no doubt."""
        rows = map(_Seen._make, events.rows(_Seen._fields, range(len(events))))
        passages, ends = events.keys(_OF_PASSAGE), events.keys(_ENDS)
        for place, (seen, answer) in enumerate(zip(rows, answers, strict=True)):
            if not seen.packet or seen.packet in fitting:
                self._open.pop(seen.packet, None)
            elif seen.kind in _LAST:
                self._close(seen.packet)
            elif seen.kind in OF_HOOKS:
                way = self._open.setdefault(seen.packet, _Way())
                passage = way.passages.setdefault(passages[place], _Passage())
                spine = seen.kind in OF_SPINE
                if spine and not passage.returned and way.last and seen.follows(way.last):
                    passage.changed = False
                if answer is None:
                    passage.doubt(ends[place], spine=spine)
                else:
                    never = partial(self._pattern.never_fits, events, place)
                    passage.take(ends[place], spine=spine, never=never)
                if spine:
                    passage.returned, way.last = True, seen
                    passage.never |= self._pattern.never_fits_behind_nat(events, place)
                else:
                    passage.changed |= seen.kind in _MAY_CHANGE

    def packets(self) -> set[int]:
        """All of them: every event was looked at."""
        for packet in [*self._open]:
            self._close(packet)
        return self._ended

    def _close(self, packet: int) -> None:
        """Keep of a packet that ended only whether it is in doubt."""
        way = self._open.pop(packet, None)
        if way and any(passage.in_doubt for passage in way.passages.values()):
            self._ended.add(packet)
