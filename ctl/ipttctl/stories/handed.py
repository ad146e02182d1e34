# SPDX-License-Identifier: GPL-2.0
"""Functions of hooks that took a packet and handed it on: to other hooks, or to a device.

Their events come when they return, after all that happened to the packet meanwhile, and show it as
it was before. br_netfilter, IPVS and nftables' ``fwd`` do that, and flow tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily, ip_version
from ipttctl.stories.occurrences import Occurrence, freed
from ipttproto import InetHook, Kind, Verdict

OF_SPINE: Final = frozenset({Kind.SPINE_FUNCTION, Kind.SPINE_EXIT})
"""Kinds of events that show the whole packet, with its connection."""

_TAKING: Final = OF_SPINE | {Kind.CHAIN_RULE, Kind.CHAIN_EXIT, Kind.EXIT}
_STEPS: Final = frozenset(Kind) - {
    Kind.JOURNEY_COPY,
    Kind.JOURNEY_JOINED,
    Kind.JOURNEY_WAITS,
    Kind.JOURNEY_WHOLE,
    Kind.JOURNEY_DROPPED,
    Kind.JOURNEY_FREED,
    Kind.JOURNEY_LOST,
}
_ORDER: Final[Mapping[int, int]] = {
    InetHook.PREROUTING: 0,
    InetHook.INPUT: 1,
    InetHook.FORWARD: 1,
    InetHook.OUTPUT: 2,
    InetHook.POSTROUTING: 3,
}
"""The order of hooks on a packet's way, those of IP and of bridges."""


def is_stolen(record: EventRecord) -> bool:
    """Whether a function took the packet, or a rule of its chain did, and did not drop it."""
    return record.kind in _TAKING and record.verdict == Verdict.STOLEN and not freed(record)


def comes_before(record: EventRecord, other: EventRecord) -> bool:
    """Whether a packet is at the hook of an event before it is at that of another one."""
    if not ip_version(other.pf) and other.pf != NfFamily.BRIDGE:
        return False
    if record.pf == NfFamily.NETDEV:
        return True
    mine, others = _ORDER.get(record.hook), _ORDER.get(other.hook)
    if mine is None or others is None:
        return False
    # functions of bridges call hooks of IP of the same name
    within = record.pf == NfFamily.BRIDGE and other.pf != NfFamily.BRIDGE
    return mine <= others if within else mine < others


def handed_on(happened: Sequence[Occurrence]) -> frozenset[int]:
    """The indexes of the events of such functions, among all events of a packet."""
    if not any(is_stolen(one.record) for one in happened):
        return frozenset()
    found: set[int] = set()
    last: EventRecord | None = None
    latest: EventRecord | None = None
    visited: set[int] = set()
    for at, one in enumerate(happened):
        record = one.record
        if is_stolen(record) and (
            _always_hands_on(record)
            # the packet leaves the hook without a function's name
            or (latest is not None and _is_same_hook(record, latest))
            or (last is not None and _was_on_its_way(record, last, visited))
        ):
            found.add(at)
            latest = record
        elif record.kind in _STEPS:
            last, latest = record, None
            visited.add(record.netns_cookie)
    return frozenset(found)


def _always_hands_on(record: EventRecord) -> bool:
    """Whether the function is of br_netfilter: it takes a packet for nothing else."""
    of_function = record.kind == Kind.SPINE_FUNCTION
    return of_function and record.table.rstrip(b"\0") == b"br_netfilter"


def _is_same_hook(record: EventRecord, other: EventRecord) -> bool:
    mine, others = ((one.netns_cookie, one.pf, one.hook) for one in (record, other))
    return record.kind == Kind.SPINE_EXIT and mine == others


def _was_on_its_way(record: EventRecord, last: EventRecord, visited: set[int]) -> bool:
    """Whether the packet was elsewhere when a function returned, by the last event before it."""
    if last.netns_cookie != record.netns_cookie:
        return record.netns_cookie in visited
    match last.kind:
        case Kind.JOURNEY_SENT | Kind.JOURNEY_SOCKET:
            return True
        case Kind.JOURNEY_RECEIVED:
            return False
        case _:
            return comes_before(record, last)
