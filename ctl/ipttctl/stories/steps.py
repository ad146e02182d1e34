# SPDX-License-Identifier: GPL-2.0
"""The steps of a packet's way, from its events."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from ipttctl.events.records import EventRecord
from ipttctl.families import NfFamily, ip_version
from ipttctl.stories.handed import OF_SPINE, comes_before
from ipttctl.stories.model import (
    BranchStep,
    Consultation,
    DeviceStep,
    FunctionCall,
    PacketChange,
    PacketField,
    Passage,
    RouteStep,
    RuleStep,
    SocketStep,
    StoryStep,
    TunnelStep,
)
from ipttproto import Conntrack, InetHook, Kind, NetdevHook, Verdict

OF_RULES: Final = frozenset(
    {
        Kind.RULE,
        Kind.RETURN,
        Kind.POLICY,
        Kind.CHAIN_RULE,
        Kind.CHAIN_END,
        Kind.CHAIN_POLICY,
    }
)
"""Kinds of events of rules and ends of chains."""

OF_NFT: Final = frozenset(
    {Kind.CHAIN_RULE, Kind.CHAIN_END, Kind.CHAIN_POLICY, Kind.CHAIN_EXIT, Kind.CHAIN_KNOWN}
)
"""Kinds of events of nftables' chains."""

_KNOWN: Final = frozenset({Kind.KNOWN, Kind.CHAIN_KNOWN})
_LEFT: Final = frozenset({Kind.EXIT, Kind.CHAIN_EXIT})
OF_HOOKS: Final = OF_SPINE | OF_RULES | _KNOWN | _LEFT
"""Kinds of events at netfilter hooks."""

#: fields whose change between hooks is told; the others change there for many reasons
_TOLD_BETWEEN: Final = frozenset({PacketField.MARK, PacketField.TOS, PacketField.TTL})

#: fields that events of tables and chains do not show
_UNSEEN_BY_TABLES: Final = frozenset({PacketField.TOS, PacketField.TTL})

_OF_CONNECTION: Final = frozenset({PacketField.CT_STATE, PacketField.CT_MARK, PacketField.CT_ZONE})
#: what the kernel takes from a packet that goes to another network namespace: skb_scrub_packet()
_OF_NAMESPACE: Final = _OF_CONNECTION | {PacketField.MARK, PacketField.PRIORITY}
#: what the header of a tunnel has for itself
_OF_OUTER_HEADER: Final = _OF_CONNECTION | {PacketField.TTL, PacketField.TOS}

#: the priority that forwarding gives a packet, by two bits of its TOS: rt_tos2priority()
_PRIORITIES: Final = (0, 2, 6, 4)


class Difference(enum.IntFlag):
    """A difference between the headers in two events."""

    SOURCE = 1
    DESTINATION = 2
    PROTOCOL = 4
    LONGER = 8
    SHORTER = 16

    @property
    def of_tunnel(self) -> bool:
        """Whether there is another outer header: another protocol, or other addresses and length.

        Between hooks nobody changes addresses and length at once in another way.
        """
        return bool(self & (Difference.PROTOCOL | Difference.LONGER | Difference.SHORTER))


HookPlace: TypeAlias = tuple[int, int, int]


def hook_place(record: EventRecord) -> HookPlace:
    """The hook of an event: cookie of the namespace, family, number. Ingress is of the device."""
    if record.hook == InetHook.INGRESS and record.pf in {NfFamily.IPV4, NfFamily.IPV6}:
        return record.netns_cookie, int(NfFamily.NETDEV), int(NetdevHook.INGRESS)
    return record.netns_cookie, int(record.pf), int(record.hook)


def steps_of(
    records: Sequence[EventRecord],
    differences: Sequence[Difference],
    branches: Sequence[int] = (),
    handed_on: frozenset[int] = frozenset(),
) -> tuple[StoryStep, ...]:
    """The steps of the events of one packet, in their order.

    ``differences`` are those of the headers to the event before. ``branches`` are the numbers of
    events before each branch began. ``handed_on`` are events of functions that handed it on.
    """
    teller = _Teller(records, differences, handed_on)
    due = list(enumerate(branches))
    for at in range(len(records)):
        while due and due[0][1] <= at:
            teller.branch(due.pop(0)[0])
        teller.tell(at)
    for index, _ in due:
        teller.branch(index)
    return teller.steps()


@dataclass
class _OpenConsultation:
    at: int
    key: tuple[int, int, bytes]
    rules: list[RuleStep] = field(default_factory=list)
    end: int | None = None
    known: bool = False

    def done(self) -> Consultation:
        return Consultation(self.at, tuple(self.rules), self.end, self.known)


@dataclass
class _OpenPassage:
    first: int
    place: HookPlace
    arrived: tuple[PacketChange, ...] = ()
    calls: list[FunctionCall] = field(default_factory=list)
    pending: list[_OpenConsultation] = field(default_factory=list)
    loose: list[PacketChange] = field(default_factory=list)
    end: int | None = None
    function: int = 0
    repeats: bool = False
    route: int | None = None
    """The place of the step that routing chose this hook by, if the packet is forwarded."""
    looked: bool = False
    """Whether an event has shown the whole packet."""

    def call(self, at: int | None) -> None:
        """A function returned: what was consulted since the last one was its doing."""
        consulted = tuple(one.done() for one in self.pending)
        if at is not None or consulted or self.loose:
            self.calls.append(FunctionCall(at, consulted, tuple(self.loose)))
        self.pending, self.loose = [], []

    def done(self) -> Passage:
        self.call(None)
        return Passage(self.first, tuple(self.calls), self.end, self.arrived)


def _first(step: Passage | _OpenPassage | RouteStep | DeviceStep | SocketStep) -> int:
    """The first event of a step."""
    return step.first if isinstance(step, (Passage, _OpenPassage)) else step.at


class _Teller:
    """Follows a packet from event to event."""

    def __init__(
        self,
        records: Sequence[EventRecord],
        differences: Sequence[Difference],
        handed_on: frozenset[int],
    ) -> None:
        self._records = records
        self._differences = differences
        self._handed_on = handed_on
        self._steps: list[StoryStep | _OpenPassage] = []
        self._open: list[_OpenPassage] = []
        self._last: dict[PacketField, tuple[int, int]] = {}
        self._cookie = 0
        self._out = b""
        self._hook: HookPlace | None = None
        self._in: tuple[int, bytes] | None = None
        """The device that the packet came in by last, with its namespace, if that is known."""
        self._came_in = False
        """Whether the packet came in by a device, and routing has not been told of since."""

    def steps(self) -> tuple[StoryStep, ...]:
        return tuple(
            step.done() if isinstance(step, _OpenPassage) else step for step in self._steps
        )

    def branch(self, index: int) -> None:
        self._steps.append(BranchStep(index))

    def tell(self, at: int) -> None:
        record = self._records[at]
        kind = record.kind
        if at in self._handed_on:
            self._tell_handed_on(at, record)
            return
        if self._crossed(record):
            self._forget(_OF_NAMESPACE)
        if kind in OF_HOOKS:
            self._tell_hook(at, record)
        elif kind in {Kind.JOURNEY_SENT, Kind.JOURNEY_RECEIVED}:
            changes = self._on_the_way(at)
            sent = kind == Kind.JOURNEY_SENT
            self._steps.append(DeviceStep(at, sent, self._crossed(record), changes))
            self._hook = None
            self._came_in = not sent
            self._in = None if sent else (record.netns_cookie, record.in_name)
        elif kind == Kind.JOURNEY_SOCKET:
            self._on_the_way(at)
            self._steps.append(SocketStep(at))
            self._came_in = False
        self._cookie = record.netns_cookie or self._cookie

    def _crossed(self, record: EventRecord) -> bool:
        """Whether the packet is in another network namespace than at the event before."""
        return bool(record.netns_cookie and self._cookie) and record.netns_cookie != self._cookie

    def _forget(self, fields: frozenset[PacketField]) -> None:
        for name in fields:
            self._last.pop(name, None)

    def _on_the_way(self, at: int) -> tuple[PacketChange, ...]:
        """Tell of another outer header; returns other changes of addresses since the last event."""
        difference = self._differences[at]
        if difference.of_tunnel:
            removed = bool(difference & Difference.SHORTER)
            self._steps.append(TunnelStep(at - 1, at, removed))
            self._forget(_OF_OUTER_HEADER)
            return ()
        return self._of_addresses(at)

    def _of_addresses(self, at: int) -> tuple[PacketChange, ...]:
        difference = self._differences[at]
        return tuple(
            PacketChange(field, at - 1, at)
            for bit, field in (
                (Difference.SOURCE, PacketField.SOURCE),
                (Difference.DESTINATION, PacketField.DESTINATION),
            )
            if difference & bit
        )

    def _tell_handed_on(self, at: int, record: EventRecord) -> None:
        """Tell of a function that has handed the packet on, where it took it.

        Its event shows the packet as it was then: nothing in it is later than what was told.
        """
        place = hook_place(record)
        passage = self._open_at(place, at, record)
        if passage is None:
            passage = _OpenPassage(at, place)
            self._insert(self._place_before(record), passage)
            self._open.append(passage)
        self._add(at, record, passage, ())

    def _place_before(self, record: EventRecord) -> int:
        """The place among the steps before all that came within a function of a hook."""
        place = len(self._steps)
        for at in range(len(self._steps) - 1, -1, -1):
            step = self._steps[at]
            if isinstance(step, BranchStep):
                continue
            inner = self._records[step.after if isinstance(step, TunnelStep) else _first(step)]
            if inner.netns_cookie != record.netns_cookie:
                continue
            if isinstance(step, _OpenPassage) and not comes_before(record, inner):
                break
            if isinstance(step, DeviceStep) and not step.sent:
                break
            place = at
        return place

    def _insert(self, place: int, passage: _OpenPassage) -> None:
        self._steps.insert(place, passage)
        for one in self._open:
            if one.route is not None and one.route >= place:
                one.route += 1

    def _tell_hook(self, at: int, record: EventRecord) -> None:
        passage = self._passage(at, record)
        changes: tuple[PacketChange, ...] = ()
        if passage.first != at:
            changes = (*self._of_addresses(at), *self._in_passage(at, record, passage))
        self._add(at, record, passage, changes)

    def _add(
        self,
        at: int,
        record: EventRecord,
        passage: _OpenPassage,
        changes: tuple[PacketChange, ...],
    ) -> None:
        """Add an event to its passage, with the changes that show in it."""
        kind = record.kind
        if kind in OF_RULES:
            self._consultation(at, record, passage).rules.append(RuleStep(at, changes))
        elif kind in _KNOWN:
            passage.pending.append(_OpenConsultation(at, _table(record), known=True))
        elif kind in _LEFT:
            self._consultation(at, record, passage).end = at
            passage.loose += changes
        elif kind == Kind.SPINE_FUNCTION:
            passage.loose += changes
            passage.call(at)
            passage.function = record.rulenum
            passage.repeats = record.verdict == Verdict.REPEAT
        else:
            passage.loose += changes
            passage.call(None)
            passage.end = at
            self._open.remove(passage)

    def _passage(self, at: int, record: EventRecord) -> _OpenPassage:
        """The passage that an event belongs to: one that has not ended, or a new one."""
        place = hook_place(record)
        if (begun := self._open_at(place, at, record)) is not None:
            return begun
        before = len(self._steps)
        arrived = self._on_the_way(at) if at else ()
        self._tell_device_in(at, record)
        route = self._route(at, record, place)
        passage = _OpenPassage(at, place, route=route)
        found = self._in_passage(at, record, passage)
        if before:
            arrived += tuple(change for change in found if change.field in _TOLD_BETWEEN)
        passage.arrived = arrived
        self._steps.append(passage)
        self._open.append(passage)
        self._hook = place
        return passage

    def _open_at(self, place: HookPlace, at: int, record: EventRecord) -> _OpenPassage | None:
        """The passage that has not ended and that an event belongs to, if there is one."""
        for passage in reversed(self._open):
            if passage.place == place and self._goes_on(passage, at, record):
                return passage
        return None

    def _tell_device_in(self, at: int, record: EventRecord) -> None:
        """Tell of a device that took the packet from the one below it, which nothing else shows.

        A VRF, say, which does so within IP. Where br_netfilter pretends that a packet came in by
        the bridge, the event names a port.
        """
        inward = record.hook in {InetHook.PREROUTING, InetHook.INPUT, InetHook.FORWARD}
        if not inward or ip_version(record.pf) is None or record.physin_ifindex:
            return
        device = record.netns_cookie, record.in_name
        if not record.in_name or self._in == device:
            return
        # at the first hook of all the packet came in by a device before anything was heard of it
        if self._in is not None:
            self._steps.append(DeviceStep(at, sent=False, crossed=self._crossed(record)))
        self._in = device

    def _in_passage(
        self, at: int, record: EventRecord, passage: _OpenPassage
    ) -> tuple[PacketChange, ...]:
        """Changes of fields; those that forwarding made on the way here go to its step."""
        found = self._of_fields(at, record, begins=passage.first == at)
        first_look = record.kind in OF_SPINE and not passage.looked
        passage.looked |= first_look
        if not first_look:
            return found
        if passage.route is not None:
            route = self._steps[passage.route]
            assert isinstance(route, RouteStep)
            of_route = tuple(change for change in found if self._is_of_forwarding(change))
            self._steps[passage.route] = replace(route, changes=of_route)
            found = tuple(change for change in found if change not in of_route)
        if passage.first == at or self._has_rules(passage):
            return found
        # events of tables do not show these fields: the changes may be older than the passage
        arrived = tuple(change for change in found if change.field in _UNSEEN_BY_TABLES)
        passage.arrived += arrived
        return tuple(change for change in found if change not in arrived)

    def _has_rules(self, passage: _OpenPassage) -> bool:
        """Whether a rule matched in what the function consulted that returns next."""
        rules = (rule for one in passage.pending for rule in one.rules)
        return any(self._records[rule.at].kind in {Kind.RULE, Kind.CHAIN_RULE} for rule in rules)

    def _is_of_forwarding(self, change: PacketChange) -> bool:
        before, after = self._records[change.before], self._records[change.after]
        match change.field:
            case PacketField.TTL:
                return after.ttl == before.ttl - 1
            case PacketField.PRIORITY:
                return after.skb_priority == _PRIORITIES[after.tos >> 3 & 3]
            case _:
                return False

    def _goes_on(self, passage: _OpenPassage, at: int, record: EventRecord) -> bool:
        if record.kind in OF_SPINE:
            function: EventRecord | None = record
        else:
            # the functions of a hook can send the packet past the same hook, as IPVS does
            rest = range(at + 1, len(self._records))
            function = next((self._records[one] for one in rest if self._ends(one, passage)), None)
        if function is None:
            # without the spine nothing tells that a passage ended, but for what came after
            return bool(passage.function) or passage is self._steps[-1]
        if function.kind == Kind.SPINE_EXIT:
            return True
        number = function.rulenum
        return number > passage.function or (passage.repeats and number == passage.function)

    def _ends(self, at: int, passage: _OpenPassage) -> bool:
        """Whether a function returned, or the packet left the hook, in an event at this hook."""
        record = self._records[at]
        return record.kind in OF_SPINE and hook_place(record) == passage.place

    def _route(self, at: int, record: EventRecord, place: HookPlace) -> int | None:
        """Tell the way that routing chose; returns the place of that step if it forwards."""
        if ip_version(place[1]) is None:
            return None
        forwarded = None
        last, hook = self._hook, place[2]
        same = last is not None and last[:2] == place[:2]
        # where FORWARD has no functions, the next hook tells that the packet went that way
        passed = hook == InetHook.POSTROUTING and self._came_in
        self._came_in = hook == InetHook.PREROUTING
        if record.physout_ifindex:
            # a bridge sends it, and nobody has routed it
            pass
        elif passed or (hook == InetHook.FORWARD and last != place):
            forwarded = len(self._steps)
            self._steps.append(RouteStep(at, forwarded=True))
        elif hook == InetHook.INPUT and same and last and last[2] == InetHook.PREROUTING:
            self._steps.append(RouteStep(at))
        elif hook == InetHook.POSTROUTING and same and self._out not in {b"", record.out_name}:
            self._steps.append(RouteStep(at, rerouted=True))
        self._out = record.out_name
        return forwarded

    def _consultation(
        self, at: int, record: EventRecord, passage: _OpenPassage
    ) -> _OpenConsultation:
        key = _table(record)
        if passage.pending:
            last = passage.pending[-1]
            if last.key == key and last.end is None and not last.known:
                return last
        made = _OpenConsultation(at, key)
        passage.pending.append(made)
        return made

    def _of_fields(self, at: int, record: EventRecord, *, begins: bool) -> tuple[PacketChange, ...]:
        """Changes since the last event that shows the field.

        A packet that no connection is known of any more has lost it on its way, as in a tunnel:
        functions of hooks take none away.
        """
        found = []
        untracked_before = self._last.get(PacketField.CT_STATE, (Conntrack.NONE, 0))[0]
        has_mark = PacketField.MARK in self._last and not begins
        for name, value in _values(record, has_mark=has_mark).items():
            known = self._last.get(name)
            self._last[name] = value, at
            if known is None or known[0] == value:
                continue
            if name in _OF_CONNECTION and record.ct_state == Conntrack.NONE:
                continue
            found.append(
                PacketChange(name, known[1], at, _is_initial(name, value, untracked_before))
            )
        return tuple(found)


def _is_initial(name: PacketField, value: int, state_before: int) -> bool:
    if name is PacketField.CT_STATE:
        return state_before == Conntrack.NONE and value != Conntrack.UNTRACKED
    of_connection = name in {PacketField.CT_MARK, PacketField.CT_ZONE}
    return of_connection and state_before == Conntrack.NONE


def _values(record: EventRecord, *, has_mark: bool) -> Mapping[PacketField, int]:
    """The fields that an event shows. Tables and chains show the mark that came to them."""
    if record.kind not in OF_SPINE:
        return {} if has_mark else {PacketField.MARK: record.mark}
    values = {
        PacketField.MARK: record.mark,
        PacketField.PRIORITY: record.skb_priority,
        PacketField.CT_STATE: int(record.ct_state),
        PacketField.CT_MARK: record.ct_mark,
        PacketField.CT_ZONE: record.ct_zone,
    }
    if record.ttl:
        values |= {PacketField.TTL: record.ttl, PacketField.TOS: record.tos}
    return values


def _table(record: EventRecord) -> tuple[int, int, bytes]:
    return int(record.family), record.table_handle, record.table
