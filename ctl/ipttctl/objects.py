# SPDX-License-Identifier: GPL-2.0
"""What the module tells about itself, as plain values. Nothing here talks to the kernel."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ipttproto import Command, DetachReason, Hook, LinkFlag, Loss, Slot

FAMILIES: Final[Mapping[int, int]] = {4: 2, 6: 10}
"""IP version -> NFPROTO_*."""

_VERSIONS: Final = {nfproto: version for version, nfproto in FAMILIES.items()}
_SLOTS: Final = {int(slot): slot for slot in Slot}
_ARMED_BITS: Final = {4: 1, 6: 2}
_FILTER_INSTRUCTION: Final = 8

_E = TypeVar("_E", bound=enum.IntEnum)


@dataclass(frozen=True)
class ProgramInfo:
    """A program in a slot: its id in the kernel, its tag in hex, its name (may be empty)."""

    id: int
    tag: str = ""
    name: str = ""


@dataclass(frozen=True)
class LinkStats:
    """What a link did so far, over all CPUs and generations.

    ``packets`` reached the hook, ``selected`` of them were followed, ``events`` were emitted
    (lost ones included), ``nested`` program runs were left out.
    """

    packets: int = 0
    selected: int = 0
    events: int = 0
    nested: int = 0


@dataclass(frozen=True)
class Link:
    """An attachment of a program set to a hook, as it was when the module told.

    ``family`` is 4, 6, or None for both. ``filter_length`` counts instructions, 0 is no filter.
    ``owner_portid`` is 0 if the link is persistent. ``armed`` holds the IP versions whose table
    code is loaded and watched.
    """

    id: int
    hook: Hook | int
    family: int | None
    flags: LinkFlag | int
    programs: Mapping[Slot, ProgramInfo]
    filter_length: int
    cookie: int
    generation: int
    owner_portid: int
    owner_pid: int
    owner_comm: str
    armed: frozenset[int]
    stats: LinkStats = field(default_factory=LinkStats)

    @property
    def persistent(self) -> bool:
        """Whether the link outlives the socket that made it."""
        return bool(self.flags & LinkFlag.PERSISTENT)

    @property
    def waiting(self) -> frozenset[int]:
        """The IP versions that the link asks for and whose table code is not loaded."""
        wanted = frozenset(FAMILIES) if self.family is None else frozenset({self.family})
        return wanted - self.armed

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Link:
        """The link that the attributes of a message describe; what is missing is empty."""
        programs = attributes.get("programs", {})
        armed = attributes.get("armed", 0)
        return cls(
            id=attributes.get("link", 0),
            hook=_member(Hook, attributes.get("hook", 0)),
            family=_VERSIONS.get(attributes.get("family", 0)),
            flags=attributes.get("flags", 0),
            programs={
                _SLOTS[p["slot"]]: ProgramInfo(
                    p.get("id", 0), p.get("tag", b"").hex(), p.get("name", "")
                )
                for p in programs.get("program", ())
                if p.get("slot") in _SLOTS
            },
            filter_length=programs.get(
                "filter-length", len(programs.get("filter", b"")) // _FILTER_INSTRUCTION
            ),
            cookie=programs.get("cookie", 0),
            generation=attributes.get("generation", 0),
            owner_portid=attributes.get("owner-portid", 0),
            owner_pid=attributes.get("owner-pid", 0),
            owner_comm=attributes.get("owner-comm", ""),
            armed=frozenset(v for v, bit in _ARMED_BITS.items() if armed & bit),
            stats=LinkStats(**attributes.get("stats", {})),
        )


class Change(enum.StrEnum):
    """What happened to a link."""

    ATTACHED = "attached"
    SWAPPED = "swapped"
    DETACHED = "detached"
    ARMED = "armed"
    """Table code came or went: see ``Link.armed``."""


_CHANGES: Final[Mapping[int, Change]] = {
    Command.LINK_ATTACHED: Change.ATTACHED,
    Command.LINK_SWAPPED: Change.SWAPPED,
    Command.LINK_DETACHED: Change.DETACHED,
    Command.LINK_CHANGED: Change.ARMED,
}


@dataclass(frozen=True)
class LinkChange:
    """A link changed: how, what it is now, and for a detached one why it went."""

    change: Change
    link: Link
    reason: DetachReason | int | None = None

    @classmethod
    def from_message(cls, command: int, attributes: Mapping[str, Any]) -> LinkChange | None:
        """The change that a notification tells of; None if it is not of links."""
        change = _CHANGES.get(command)
        if change is None:
            return None
        reason = attributes.get("reason")
        return cls(
            change,
            Link.from_attributes(attributes),
            None if reason is None else _member(DetachReason, reason),
        )


@dataclass(frozen=True)
class ProgramSet:
    """The programs to attach, by slot as file descriptors, with a filter and a cookie.

    ``filter`` is an array of struct sock_filter, as ``ipttctl.filters.compile_filter`` makes it.
    ``cookie`` is what bpf_get_attach_cookie() returns to the programs.
    """

    programs: Mapping[Slot, int]
    filter: bytes | None = None
    cookie: int | None = None

    def attributes(self) -> dict[str, Any]:
        """The nest that a request carries."""
        nest: dict[str, Any] = {
            "program": [{"slot": slot, "fd": fd} for slot, fd in self.programs.items()]
        }
        if self.filter is not None:
            nest["filter"] = self.filter
        if self.cookie is not None:
            nest["cookie"] = self.cookie
        return nest


@dataclass(frozen=True)
class CpuStatus:
    """The event stream of a CPU: the number of its next event, and what it lost so far."""

    cpu: int
    sequence: int
    lost: Mapping[Loss, int]


@dataclass(frozen=True)
class ModuleStatus:
    """The loaded module: its version, its protocol's fingerprint, its event streams."""

    version: str
    fingerprint: int
    cpus: tuple[CpuStatus, ...]

    @classmethod
    def from_attributes(cls, replies: Iterable[Mapping[str, Any]]) -> ModuleStatus:
        """The status that the replies to a stats request describe, however many they are.

        What is missing is empty: a module of another build may say less.
        """
        version, fingerprint = "", 0
        cpus = []
        for attributes in replies:
            version = attributes.get("module-version", version)
            fingerprint = attributes.get("fingerprint", fingerprint)
            cpus += [
                CpuStatus(
                    cpu.get("cpu", 0),
                    cpu.get("sequence", 0),
                    {cause: cpu.get(f"lost-{cause.name.lower()}", 0) for cause in Loss},
                )
                for cpu in attributes.get("cpu", ())
            ]
        return cls(version, fingerprint, tuple(cpus))


def _member(names: type[_E], value: int) -> _E | int:
    try:
        return names(value)
    except ValueError:
        return value
