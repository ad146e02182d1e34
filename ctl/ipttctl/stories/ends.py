# SPDX-License-Identifier: GPL-2.0
"""The end of a story, from the events of its packet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipttctl.events.records import EventRecord
from ipttctl.stories.handed import OF_SPINE, is_stolen
from ipttctl.stories.model import EndKind, StoryEnd
from ipttctl.stories.occurrences import Weight, freed
from ipttctl.stories.steps import OF_HOOKS, hook_place
from ipttctl.stories.used_up import goes_with_another, is_used_up
from ipttproto import EventFlag, Kind, Verdict

_DECIDING: Final = frozenset({Kind.CHAIN_RULE, Kind.CHAIN_POLICY})
_OF_LEGACY: Final = frozenset({Kind.RULE, Kind.RETURN, Kind.POLICY})
_DEVICES: Final = frozenset({Kind.JOURNEY_SENT, Kind.JOURNEY_RECEIVED})

Weighed = Sequence[tuple[EventRecord, Weight]]


def end_of(
    events: Weighed, handed_on: frozenset[int] = frozenset(), unfinished: str = ""
) -> StoryEnd:
    """The end of a packet, from all of its events in order.

    ``handed_on`` are events of functions that had handed it on. ``unfinished`` is the reason why it
    is told early; it does not matter if it has ended.
    """
    records = [record for record, _ in events]
    last = len(records) - 1
    place = _last(records, OF_HOOKS, handed_on)
    socket = _last(records, {Kind.JOURNEY_SOCKET})
    device = _last(records, _DEVICES)
    dropped = _last(records, {Kind.JOURNEY_DROPPED})
    step = max(-1 if one is None else one for one in (place, socket, device))
    in_hook = step == place and place is not None

    def end(kind: EndKind, at: int, blame: int | None = None, why: str = "") -> StoryEnd:
        return StoryEnd(kind, at, blame, device, socket, place, why)

    verdict = _drop(records, events) if in_hook else None
    if verdict is not None:
        kind, blame = _blame(records, verdict)
        return end(kind, verdict if dropped is None else max(dropped, verdict), blame)
    kept = _keeping(records, step, handed_on) if in_hook else None
    merging = _last(records, {Kind.JOURNEY_JOINED})
    if merging is not None and merging < step:
        # GRO refused it, and it went on
        merging = None
    joined = merging is not None or is_waiting([record.kind for record in records])
    at_socket = socket is not None and step == socket
    within = dropped is not None and goes_with_another(records[dropped], is_part=joined)
    if dropped is not None and not within and not is_used_up(records, dropped, at_socket=at_socket):
        return end(EndKind.KERNEL, dropped)
    used = _last(records, {Kind.JOURNEY_FREED}) if dropped is None else dropped
    at = last if used is None else used
    if socket is not None and at_socket:
        if used is not None and used != dropped and records[socket].flags & EventFlag.QUEUE_FULL:
            return end(EndKind.KERNEL, used)
        return end(EndKind.DELIVERED, socket if used is None else used)
    stolen = kept is not None and records[kept].verdict == Verdict.STOLEN
    if used is not None:
        kind = EndKind.KEPT if stolen else EndKind.CONSUMED
        if within or joined:
            kind = EndKind.JOINED
        elif step >= 0 and records[step].kind == Kind.JOURNEY_SENT:
            kind = EndKind.LEFT
        at = used if merging is None else merging
        return end(kind, at, kept if kind is EndKind.KEPT else None)
    kind, lost = EndKind.OPEN, _last(records, {Kind.JOURNEY_LOST})
    if lost is not None:
        kind, at, kept = EndKind.LOST, lost, None
    elif kept is not None:
        # that it is there does not depend on who looks
        kind = EndKind.KEPT if stolen else EndKind.QUEUED
    elif unfinished:
        kind = EndKind.UNFINISHED
    return end(kind, at, kept, unfinished if kind is EndKind.UNFINISHED else "")


def _last(
    records: Sequence[EventRecord],
    kinds: set[Kind] | frozenset[Kind],
    but: frozenset[int] = frozenset(),
) -> int | None:
    places = range(len(records) - 1, -1, -1)
    return next((at for at in places if records[at].kind in kinds and at not in but), None)


def is_waiting(kinds: Sequence[int]) -> bool:
    """Whether a packet, by the kinds of its events, is a fragment that waits for others.

    One that is freed then was put together with them: fragments that wait in vain are dropped. One
    that becomes the whole itself goes on.
    """
    of_fragments = [one for one in kinds if one in {Kind.JOURNEY_WAITS, Kind.JOURNEY_WHOLE}]
    return bool(of_fragments) and of_fragments[-1] == Kind.JOURNEY_WAITS


def _drop(records: Sequence[EventRecord], events: Weighed) -> int | None:
    """The last event at a hook, if netfilter dropped the packet there.

    A bridge's function that hands the packet to IP has stolen it, whatever happens there.
    """
    for place in range(len(records) - 1, -1, -1):
        record, weight = events[place]
        if record.kind not in OF_HOOKS:
            continue
        if record.kind in OF_SPINE and is_stolen(record):
            continue
        decided = record.kind in _DECIDING and record.verdict == Verdict.DROP
        # a function that freed the packet itself
        left = record.kind == Kind.SPINE_EXIT and freed(record)
        return place if weight is Weight.SOFT or decided or left else None
    return None


def _blame(records: Sequence[EventRecord], verdict: int) -> tuple[EndKind, int]:
    """The rule, policy or function that dropped the packet, at the hook of its last event there."""
    hook = hook_place(records[verdict])
    function: int | None = None
    table: int | None = None
    for place in range(verdict, -1, -1):
        record = records[place]
        if record.kind not in OF_HOOKS:
            continue
        if hook_place(record) != hook:
            break
        if record.kind == Kind.SPINE_FUNCTION:
            # one that let the packet pass: that which dropped it was not seen
            passed = record.verdict != Verdict.DROP and not freed(record)
            if function is not None or table is not None or passed:
                break
            function = place
        elif record.kind in {Kind.EXIT, Kind.CHAIN_EXIT}:
            if table is not None or record.verdict != Verdict.DROP:
                break
            table = place
        elif _is_blamed(record, records[table] if table is not None else None):
            return EndKind.RULE, place
        elif table is not None and record.kind in _OF_LEGACY:
            break
    if table is not None:
        return EndKind.RULE, table
    return EndKind.FUNCTION, verdict if function is None else function


def _is_blamed(record: EventRecord, left: EventRecord | None) -> bool:
    """Whether the event is of the rule that dropped the packet.

    Those of legacy rules do not tell themselves: it is the last before the packet ``left`` the
    table, unless that one counted more of them.
    """
    if record.kind in _DECIDING:
        return record.verdict == Verdict.DROP
    if left is None or record.kind not in _OF_LEGACY:
        return False
    counted = left.flags & record.flags & EventFlag.COUNTED
    return not counted or left.rules == record.rules


def _keeping(records: Sequence[EventRecord], last: int, handed_on: frozenset[int]) -> int | None:
    """The event of the function that kept or queued the packet, if one did."""
    taken = {Verdict.STOLEN, Verdict.QUEUE}
    hook = hook_place(records[last])
    found = None
    for place in range(last, -1, -1):
        record = records[place]
        if record.kind not in OF_HOOKS or place in handed_on:
            continue
        if hook_place(record) != hook or record.verdict not in taken:
            break
        found = place
        if record.kind == Kind.SPINE_FUNCTION:
            break
    return found
