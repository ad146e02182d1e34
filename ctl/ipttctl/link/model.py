# SPDX-License-Identifier: GPL-2.0
"""Links and the module's status as plain values. Nothing here talks to the kernel."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ipttctl import hooks
from ipttctl.hooks.hook import Hook
from ipttctl.link.condition import Condition, Violation
from ipttctl.link.limits import NO_LIMITS, LeftOut, Limits
from ipttctl.link.names import LinkRef, labels_of, link_attributes, note_attributes
from ipttctl.numbers import known_member
from ipttproto import (
    Action,
    Command,
    DetachReason,
    Feature,
    Layout,
    LinkFlag,
    Loss,
    Slot,
    SwapOutcome,
    Walk,
)

_SLOTS: Final = {int(slot): slot for slot in Slot}
_MILLI: Final = 1000
_NO_FEATURES: Final = Feature(0)


@dataclass(frozen=True)
class ProgramInfo:
    """A program in a slot: its id in the kernel, its tag in hex, its name (may be empty)."""

    id: int
    tag: str = ""
    name: str = ""


@dataclass(frozen=True)
class SlotStats:
    """Counters of the programs in a slot, over all CPUs and generations.

    ``run_time`` is in ns and grows only while the kernel's BPF statistics are on (sysctl
    kernel.bpf_stats_enabled).
    """

    runs: int = 0
    run_time: int = 0


@dataclass(frozen=True)
class LinkStats:
    """Counters of a link, over all CPUs and generations.

    ``packets``: packets that reached the hook. ``selected``: those of them that were followed.
    ``events``: events emitted, lost ones included. ``nested``: program runs left out. ``lost``:
    events lost to a full ring. ``drops``: packets that the link dropped (nf in filter mode).
    ``slots``: counters of each slot in use.

    ``agreed`` and ``disagreed``: packets for which the link's shadow had the link's verdict, and
    another one. ``shadow_runs``: runs of the shadow's program; ``shadow_run_time``: their time, as
    in ``SlotStats``. These four are of the current shadow, or of the last one if there is none.

    ``left_out_sample``, ``left_out_rate``, ``left_out_governor``: packets whose events the limits
    left out, by the limit.
    """

    packets: int = 0
    selected: int = 0
    events: int = 0
    nested: int = 0
    lost: int = 0
    drops: int = 0
    slots: Mapping[Slot, SlotStats] = field(default_factory=dict)
    agreed: int = 0
    disagreed: int = 0
    shadow_runs: int = 0
    shadow_run_time: int = 0
    left_out_sample: int = 0
    left_out_rate: int = 0
    left_out_governor: int = 0

    @property
    def left_out(self) -> LeftOut:
        """Packets whose events limits left out."""
        return LeftOut(self.left_out_sample, self.left_out_rate, self.left_out_governor)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> LinkStats:
        """The counters in a nest; missing ones are 0."""
        plain = {
            name.replace("-", "_"): value for name, value in attributes.items() if name != "slot"
        }
        return cls(
            **plain,
            slots={
                _SLOTS[s["slot"]]: SlotStats(s.get("runs", 0), s.get("run-time", 0))
                for s in attributes.get("slot", ())
                if s.get("slot") in _SLOTS
            },
        )


@dataclass(frozen=True)
class TableRuleset:
    """The generation of a legacy table's rules: another one whenever they are replaced.

    While they are ``replacing``, they may be of the next generation already.
    """

    generation: int
    replacing: bool


@dataclass(frozen=True)
class Shadow:
    """A program set whose verdicts are compared with those of a link, and not used.

    ``number`` is the shadow's own: no other shadow of any link has it. The module promotes it when
    all conditions ``promote_if`` are met, if there are any. The other members are as those of
    ``Link``.
    """

    number: int
    programs: Mapping[Slot, ProgramInfo]
    filter_length: int = 0
    cookie: int = 0
    payload_map: int = 0
    payload_size: int = 0
    limits: Limits = NO_LIMITS
    promote_if: tuple[Condition, ...] = ()

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Shadow:
        """The shadow that a nest describes; missing attributes are empty."""
        programs = attributes.get("programs", {})
        return cls(
            number=attributes.get("number", 0),
            programs=dict(_programs(programs.get("program", ()))),
            filter_length=programs.get("filter-length", 0),
            cookie=programs.get("cookie", 0),
            payload_map=programs.get("payload-map", 0),
            payload_size=programs.get("payload-size", 0),
            limits=Limits.from_attributes(programs.get("limits", {})),
            promote_if=tuple(map(Condition.from_attributes, attributes.get("promote-if", ()))),
        )


@dataclass(frozen=True)
class Link:
    """An attachment of a program set to a hook, as it was when the module reported it.

    ``filter_length`` is the filter's number of instructions, 0 without a filter. ``filter`` holds
    them as an array of struct sock_filter; it is set only when a single link is requested
    (``Controller.link``). ``payload_map`` is the id of the map from which programs add bytes to
    events, ``payload_size`` the number of bytes; 0 is none. ``owner_portid`` is 0 if the link is
    persistent. ``rollback_in`` is the time in seconds until the last swap is rolled back, unless it
    is confirmed. ``name`` is empty if it has none. ``reason`` is the one that was given for the
    change that made the generation, or for detaching it; ``transaction`` is the number of that
    change (see ``HistoryEntry``). ``outcome`` is what became of the last swap; None if it was for
    good, or there was none. ``guards`` are the conditions of a swap that waits, and ``violation``
    is how one did not hold, if the swap was rolled back for that. ``shadow`` is None if it has
    none. ``ended`` is the last generation whose programs handle no packet any more: the one before
    ``generation``, but while packets still meet programs that were replaced. It is None if an older
    module does not say it.
    """

    id: int
    hook: Hook
    flags: LinkFlag
    programs: Mapping[Slot, ProgramInfo]
    filter_length: int
    cookie: int
    generation: int
    owner_portid: int
    owner_pid: int
    owner_comm: str
    stats: LinkStats = field(default_factory=LinkStats)
    filter: bytes | None = field(default=None, compare=False)
    payload_map: int = 0
    payload_size: int = 0
    limits: Limits = NO_LIMITS
    rollback_in: float | None = None
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    transaction: int = 0
    guards: tuple[Condition, ...] = ()
    outcome: SwapOutcome | int | None = None
    violation: Violation | None = None
    shadow: Shadow | None = None
    # it changes by itself: a link is the same before and after
    ended: int | None = field(default=None, compare=False)
    journey: int | None = None
    """The link at the hook journey that this one is on; None once that is gone."""

    @property
    def waits(self) -> bool:
        """Whether the last swap waits to be confirmed or rolled back."""
        return self.outcome == SwapOutcome.WAITING

    @property
    def persistent(self) -> bool:
        """Whether the link outlives the socket that made it."""
        return bool(self.flags & LinkFlag.PERSISTENT)

    @property
    def exclusive(self) -> bool:
        """Whether nobody but its owner may swap, detach, adopt or release it, unless by force."""
        return bool(self.flags & LinkFlag.EXCLUSIVE)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Link:
        """The link that the attributes of a message describe; missing ones are empty."""
        programs = attributes.get("programs", {})
        rollback = attributes.get("rollback-in")
        outcome = attributes.get("outcome")
        shadow = attributes.get("shadow")
        return cls(
            id=attributes.get("link", 0),
            hook=hooks.from_attributes(attributes),
            flags=LinkFlag(attributes.get("flags", 0)),
            programs=dict(_programs(programs.get("program", ()))),
            filter_length=programs.get("filter-length", 0),
            filter=programs.get("filter"),
            cookie=programs.get("cookie", 0),
            generation=attributes.get("generation", 0),
            owner_portid=attributes.get("owner-portid", 0),
            owner_pid=attributes.get("owner-pid", 0),
            owner_comm=attributes.get("owner-comm", ""),
            stats=LinkStats.from_attributes(attributes.get("stats", {})),
            payload_map=programs.get("payload-map", 0),
            payload_size=programs.get("payload-size", 0),
            limits=Limits.from_attributes(programs.get("limits", {})),
            rollback_in=None if rollback is None else rollback / _MILLI,
            name=attributes.get("name", ""),
            labels=labels_of(attributes),
            reason=attributes.get("reason-text", ""),
            transaction=attributes.get("transaction", 0),
            guards=tuple(map(Condition.from_attributes, attributes.get("guard", ()))),
            outcome=None if outcome is None else known_member(SwapOutcome, outcome),
            violation=Violation.from_attributes(attributes.get("violation")),
            shadow=None if shadow is None else Shadow.from_attributes(shadow),
            ended=attributes.get("ended"),
            journey=attributes.get("journey"),
        )


@dataclass(frozen=True)
class HistoryEntry:
    """The origin of one generation of a link.

    ``time`` is CLOCK_REALTIME in ns. ``pid``, ``uid`` and ``comm`` are those of the requesting
    process. For a roll-back that nobody asked for they are 0 and empty: the module does it itself.
    ``transaction`` is a number that links which were swapped together have in common, and no other
    change has but the roll-back of that swap. ``reason`` is empty if none was given. ``violation``
    is of the guard that had the swap rolled back, if one had.
    """

    generation: int
    action: Action | int
    time: int
    pid: int
    uid: int
    comm: str
    programs: Mapping[Slot, ProgramInfo]
    transaction: int = 0
    reason: str = ""
    violation: Violation | None = None

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> HistoryEntry:
        """The entry that a nest describes; missing attributes are empty."""
        return cls(
            generation=attributes.get("generation", 0),
            action=known_member(Action, attributes.get("action", 0)),
            time=attributes.get("time", 0),
            pid=attributes.get("pid", 0),
            uid=attributes.get("uid", 0),
            comm=attributes.get("comm", ""),
            programs=dict(_programs(attributes.get("program", ()))),
            transaction=attributes.get("transaction", 0),
            reason=attributes.get("reason", ""),
            violation=Violation.from_attributes(attributes.get("violation")),
        )


class Part(enum.StrEnum):
    """Parts of a program set other than its programs."""

    FILTER = "filter"
    COOKIE = "cookie"
    PAYLOAD = "payload"
    LIMITS = "limits"


class Change(enum.StrEnum):
    """Kinds of changes of a link."""

    ATTACHED = "attached"
    SWAPPED = "swapped"
    DETACHED = "detached"
    CHANGED = "changed"
    """See ``armed``, ``gone``, ``name``, ``owner_portid``, ``outcome`` and ``shadow``."""
    ENDED = "ended"
    """No packet meets a program set that was replaced any more: see ``ended``."""


_CHANGES: Final[Mapping[int, Change]] = {
    Command.LINK_ATTACHED: Change.ATTACHED,
    Command.LINK_SWAPPED: Change.SWAPPED,
    Command.LINK_DETACHED: Change.DETACHED,
    Command.LINK_CHANGED: Change.CHANGED,
    Command.LINK_ENDED: Change.ENDED,
}


@dataclass(frozen=True)
class LinkChange:
    """A change of a link: its kind, the link's new state, and why a detached link went.

    ``sequence`` grows with every change of any link. ``forced_pid`` and ``forced_comm`` are the
    process that made the change by force, against the link's owner; 0 and empty if nobody did.
    ``requester_pid`` and ``requester_comm`` are the process that had a swap rolled back.
    """

    change: Change
    link: Link
    reason: DetachReason | int | None = None
    sequence: int = 0
    forced_pid: int = 0
    forced_comm: str = ""
    requester_pid: int = 0
    requester_comm: str = ""

    @classmethod
    def from_message(cls, command: int, attributes: Mapping[str, Any]) -> LinkChange | None:
        """The change in a notification; None if the notification is not about a link."""
        change = _CHANGES.get(command)
        if change is None:
            return None
        reason = attributes.get("reason")
        return cls(
            change,
            Link.from_attributes(attributes),
            None if reason is None else known_member(DetachReason, reason),
            attributes.get("links-sequence", 0),
            attributes.get("forced-pid", 0),
            attributes.get("forced-comm", ""),
            attributes.get("requester-pid", 0),
            attributes.get("requester-comm", ""),
        )


@dataclass(frozen=True)
class LinkList:
    """All links at one moment, ordered by id.

    ``sequence`` is that of the last change before it. ``overrun`` says that changes before it were
    lost: the list replaces all that was known.
    """

    sequence: int
    links: tuple[Link, ...]
    overrun: bool = False


@dataclass(frozen=True)
class ProgramSet:
    """The programs to attach, by slot as file descriptors, and what goes with them.

    ``filter`` is an array of struct sock_filter, as ``compile_filter`` makes it.
    ``cookie`` is the value that bpf_get_attach_cookie() returns to the programs. ``payload`` is the
    descriptor of a per-CPU array that programs of the set use: the bytes that a program leaves in
    its first element are added to the event that the program asks for. ``limits`` leave out events
    of whole packets.
    """

    programs: Mapping[Slot, int]
    filter: bytes | None = None
    cookie: int | None = None
    payload: int | None = None
    limits: Limits | None = None

    def attributes(self) -> dict[str, Any]:
        """The nest that a request carries."""
        nest: dict[str, Any] = {
            "program": [{"slot": slot, "fd": fd} for slot, fd in self.programs.items()]
        }
        if self.filter is not None:
            nest["filter"] = self.filter
        if self.cookie is not None:
            nest["cookie"] = self.cookie
        if self.payload is not None:
            nest["payload-fd"] = self.payload
        if self.limits:
            nest["limits"] = self.limits.attributes()
        return nest


@dataclass(frozen=True)
class Swap:
    """A link's part in a transaction: its new programs, and its expected state before.

    ``labels`` are all that the link has from now on; with None it keeps those that it has.
    ``expect_generation`` and ``expect_programs`` (ids by slot, 0 for an empty one) and ``keep`` are
    as for ``Controller.swap``.
    """

    link: LinkRef
    programs: ProgramSet
    expect_generation: int | None = None
    expect_programs: Mapping[Slot, int] | None = None
    labels: Mapping[str, str] | None = None
    keep: Collection[Part] = ()

    def attributes(self) -> dict[str, Any]:
        """The attributes of a swap request, or the nest of a transaction."""
        return {
            **link_attributes(self.link),
            **note_attributes(self.labels, None),
            **expectations(self.expect_generation, self.expect_programs),
            "programs": self.programs.attributes(),
        }


def expectations(generation: int | None, programs: Mapping[Slot, int] | None) -> dict[str, Any]:
    """The attributes that make a request conditional on the link's state."""
    attributes: dict[str, Any] = {}
    if generation is not None:
        attributes["expect-generation"] = generation
    if programs:
        attributes["expect-program"] = [
            {"slot": slot, "id": program} for slot, program in programs.items()
        ]
    return attributes


@dataclass(frozen=True)
class CpuStatus:
    """The event stream of a CPU: the number of its next event, and its losses so far."""

    cpu: int
    sequence: int
    lost: Mapping[Loss, int]


@dataclass(frozen=True)
class ModuleStatus:
    """The loaded module: its version, its protocol, its event streams.

    ``protocol`` is the major and the minor version of its protocol, None if it does not say;
    ``features`` is what it can do besides that which every module of the major version can.
    ``fingerprint`` is a checksum of its protocol's definition, which tells builds apart.
    ``walk`` says whether links at nftables' chains are taken, ``walk_compared`` whether the sources
    of the kernel's series were compared with the module's walks. ``spine_walk`` says whether links
    at the spine are taken. ``walk_layout`` says
    whether the kernel has its structures where the walk finds them; where that is not so, or not
    known, ``walk_refusal`` is a sentence on it. ``links_sequence`` grows with
    every change of a link, and ``last_link`` is the highest id that one has had. While links of the
    module before are ``restoring``, no other is made that is persistent or has a name.
    """

    version: str
    fingerprint: int
    cpus: tuple[CpuStatus, ...]
    walk: Walk | int = 0
    walk_compared: bool = False
    walk_layout: Layout | int = 0
    walk_refusal: str = ""
    links_sequence: int = 0
    restoring: bool = False
    last_link: int = 0
    protocol: tuple[int, int] | None = None
    features: Feature = _NO_FEATURES
    spine_walk: Walk | int = 0

    @property
    def protocol_text(self) -> str:
        """The protocol, in words."""
        of = "of no version" if self.protocol is None else "{}.{}".format(*self.protocol)
        return f"protocol {of}, build {self.fingerprint:08x}"

    @classmethod
    def from_attributes(cls, replies: Iterable[Mapping[str, Any]]) -> ModuleStatus:
        """The status in the replies to a stats request, which can be any number.

        Missing attributes are empty: a module of another build may send fewer.
        """
        said: dict[str, Any] = {}
        cpus = []
        for attributes in replies:
            said |= attributes
            cpus += [
                CpuStatus(
                    cpu.get("cpu", 0),
                    cpu.get("sequence", 0),
                    {cause: cpu.get(f"lost-{cause.name.lower()}", 0) for cause in Loss},
                )
                for cpu in attributes.get("cpu", ())
            ]
        major, minor = said.get("protocol-major"), said.get("protocol-minor", 0)
        return cls(
            said.get("module-version", ""),
            said.get("fingerprint", 0),
            tuple(cpus),
            known_member(Walk, said.get("walk", 0)),
            bool(said.get("walk-compared", 0)),
            known_member(Layout, said.get("walk-layout", 0)),
            said.get("walk-refusal", ""),
            said.get("links-sequence", 0),
            bool(said.get("restoring", 0)),
            said.get("last-link", 0),
            None if major is None else (major, minor),
            Feature(said.get("features", 0)),
            known_member(Walk, said.get("spine-walk", 0)),
        )


def _programs(nests: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Slot, ProgramInfo]]:
    for nest in nests:
        slot = _SLOTS.get(nest.get("slot", 0))
        if slot is not None:
            yield (
                slot,
                ProgramInfo(nest.get("id", 0), nest.get("tag", b"").hex(), nest.get("name", "")),
            )
