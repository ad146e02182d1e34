# SPDX-License-Identifier: GPL-2.0
"""The interface of every kind of hook; all else is private to its own file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Self

from ipttctl.errors import UsageError, os_reason
from ipttctl.events import describe
from ipttctl.events.filter import HookPattern
from ipttctl.events.records import EventRecord
from ipttctl.options import Option
from ipttctl.system.namespace_names import NameAt
from ipttctl.system.netns import OWN, Namespace, find, identity
from ipttctl.system.netns import Identity as NamespaceIdentity
from ipttproto import Gone, Kind, Slot

HookIdentity = tuple[int, ...]
"""A place as numbers, the kind of hook first; equal only for what the kernel has as one place."""

LINK_VALUES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "family": None,
        "netns": None,
        "netns_cookie": None,
        "netns_name": None,
        "device": None,
        "ifindex": None,
        "mode": None,
        "report_drops": False,
        "count_rules": False,
        "gone": None,
        "journey_followed": None,
        "journey_unfollowed": None,
        "journey_lost": None,
        "journey_both_ways": None,
        "journey_displaced": None,
        "armed": [],
    }
)
"""Keys of a link's JSON that depend on the kind of hook, with their default values."""


@dataclass(frozen=True, kw_only=True)
class HookChoice:
    """The option that chooses a hook; each kind of hook has a subclass with its own options."""

    hook: Annotated[str, Option("--hook", "where to attach", metavar="HOOK")]


@dataclass(frozen=True, kw_only=True)
class NamespaceOptions(HookChoice):
    """The option of hooks that are, or can be, in one network namespace."""

    namespace: Annotated[
        str | None,
        Option(
            "--netns",
            "nf, chain, spine: inode number, name or path of the network namespace (default for "
            "nf: our own, otherwise: all)",
            metavar="NETNS",
        ),
    ] = None


def given_namespace(netns: Namespace | NamespaceIdentity | int | str | Path) -> str | None:
    """The name of a namespace for a file, or its identity; None for our own.

    Raises:
        UsageError: the namespace cannot be found any more.
        PrivilegeError: the caller may not see its cookie.
    """
    if netns == OWN:
        return None
    if isinstance(netns, NamespaceIdentity):
        with find(str(netns)) as found:
            return _called(found)
    if isinstance(netns, int):
        return str(identity(netns, f"of descriptor {netns}"))
    return _called(netns) if isinstance(netns, Namespace) else str(netns)


def open_namespace(
    netns: Namespace | NamespaceIdentity | int | str | Path, opened: ExitStack
) -> int:
    """A new descriptor of a namespace, which ``opened`` closes.

    Raises:
        UsageError: the namespace cannot be opened.
    """
    try:
        if isinstance(netns, NamespaceIdentity):
            descriptor = os.dup(opened.enter_context(find(str(netns))).fileno())
        elif isinstance(netns, Namespace):
            descriptor = os.dup(netns.fileno())
        elif isinstance(netns, int):
            descriptor = os.dup(netns)
        else:
            descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"the network namespace {netns} cannot be opened: {os_reason(error)}",
            "see `ip netns`",
        ) from None
    opened.callback(os.close, descriptor)
    return descriptor


def namespace_text(namespace: NamespaceIdentity, names: NameAt | None) -> str:
    """A namespace by its number and the name that it has now."""
    return describe.namespace(namespace.inode, names.name(namespace.cookie) if names else None)


def _called(namespace: Namespace) -> str | None:
    return None if namespace.path == OWN else namespace.name or str(namespace.identity)


class Hook(ABC):
    """A place where links are attached, as requested by a user or as reported by the module."""

    KIND: ClassVar[int]
    """The kind's number (enum ipttrace_hook)."""
    SLOTS: ClassVar[tuple[Slot, ...]]
    """The slots that take programs."""
    EVENTS: ClassVar[frozenset[Kind]]
    """The kinds of events that come from such a hook."""
    NEEDS_WALK: ClassVar[bool] = False
    """Whether links at such a hook take a walk of the module's, once verified."""
    NEEDS_SPINE_WALK: ClassVar[bool] = False
    """Whether that is the walk along the spine, which has a result of its own."""
    CAN_DROP: ClassVar[bool] = False
    """Whether links at such a hook can drop packets."""
    TITLE: ClassVar[str]
    """The kind's name in a sentence, in the plural: ``netfilter hooks``."""
    SYNTAX: ClassVar[str]
    """The syntax of such a hook."""
    PATTERNS: ClassVar[tuple[str, ...]]
    """The syntax that selects events from such a hook."""
    OPTIONS: ClassVar[type[HookChoice]] = HookChoice
    """The class of the options that go with it, on command lines and in files."""

    gone: Gone | int | None = None
    """Why the link is at its hook no more; None while it is."""

    @property
    def waiting(self) -> frozenset[int]:
        """The IP versions that it waits for, because their code is not loaded."""
        return frozenset()

    @property
    def drops(self) -> bool:
        """Whether a link there drops the packets that its programs do not want."""
        return False

    @abstractmethod
    def __str__(self) -> str:
        """The hook in its written form."""

    # --- as requested -----------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def means(cls, text: str) -> bool:
        """Whether a text means a hook of this kind, correctly written or not."""

    @classmethod
    @abstractmethod
    def chosen(cls, options: Any) -> Self:
        """Make the hook from given ``OPTIONS``.

        Raises:
            UsageError: there is no such hook, or options exclude each other.
            PrivilegeError: the caller may not open the namespace.
        """

    @abstractmethod
    def given(self) -> dict[str, Any]:
        """The options for a file from which ``chosen`` makes the same hook; None for one left out.

        Raises:
            UsageError: the namespace cannot be found any more.
        """

    @abstractmethod
    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The hook's part of an attach request; ``opened`` keeps its descriptors open.

        Raises:
            UsageError: there is no such namespace or device.
        """

    @abstractmethod
    def identity(self) -> HookIdentity:
        """The numbers that distinguish the hook from all other places.

        Raises:
            UsageError: there is no such namespace or device.
            PrivilegeError: the caller may not enter the namespace.
        """

    def release(self) -> None:
        """Release a namespace that is held: it would stay although nobody else uses it."""
        return

    # --- as reported by the module ----------------------------------------------------------------

    @classmethod
    @abstractmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Make the hook that a message about a link describes; missing attributes are empty."""

    def misses(self, link: int) -> Iterator[str]:
        """Sentences that say why a link is not at the hook."""
        del link
        return iter(())

    # --- in print ---------------------------------------------------------------------------------

    def fields(self, names: NameAt | None) -> Iterator[str]:
        """``key=value`` fields of a link's line: its exact place."""
        del names
        return iter(())

    def state_fields(self) -> Iterator[str]:
        """Fields of a link's line that come after those of its programs."""
        return iter(())

    def values(self, names: NameAt | None) -> dict[str, Any]:
        """The values for those keys of ``LINK_VALUES`` that the hook has."""
        del names
        return {}

    def rows(self, names: NameAt) -> Iterator[str]:
        """Lines in a table's cell, below the hook's name."""
        del names
        return iter(())

    # --- its events -------------------------------------------------------------------------------

    @classmethod
    def pattern(cls, text: str) -> HookPattern | None:
        """The pattern of this kind's events for a text; None if the text means another kind.

        Raises:
            UsageError: the text means this kind, and is wrong.
        """
        return HookPattern(cls.EVENTS) if cls.means(text) else None

    @classmethod
    def event_values(cls, record: EventRecord) -> dict[str, Any]:
        """The values for those keys of an event's JSON that not all kinds of hooks have."""
        del record
        return {}

    @classmethod
    @abstractmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """An event in one bracketed field; ``crossed`` names bridge ports.

        It depends on the members ``records.DECISIVE`` alone. ``describe.COST`` stands for the cost.
        """

    @classmethod
    @abstractmethod
    def heading(cls, record: EventRecord) -> str:
        """The hook of an event, for the heading of its packet."""

    @classmethod
    @abstractmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """An event in words, for a line below the heading of its packet."""


@dataclass(frozen=True)
class UnknownHook(Hook):
    """A hook of a kind unknown to this build, from a module of another build: a number."""

    number: int

    SLOTS = ()
    EVENTS = frozenset()
    TITLE = "hooks that this build does not know"

    def __str__(self) -> str:
        return str(self.number)

    @classmethod
    def means(cls, text: str) -> bool:
        """No text names such a hook."""
        del text
        return False

    @classmethod
    def chosen(cls, options: Any) -> Self:
        """Refuse: no option chooses such a hook."""
        raise cls._unknown(options.hook)

    def given(self) -> dict[str, Any]:
        """Refuse: no option describes such a hook."""
        raise self._unknown(self)

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """Refuse: nothing can attach there."""
        del opened
        raise self._unknown(self)

    def identity(self) -> HookIdentity:
        """The number of the kind, which no other kind has."""
        return (self.number,)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """Keep the number of the kind, which is all that is known."""
        return cls(attributes.get("hook", 0))

    @classmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """No kind of event is of it."""
        del crossed
        raise cls._unknown(record.kind)

    @classmethod
    def heading(cls, record: EventRecord) -> str:
        """No kind of event is of it."""
        raise cls._unknown(record.kind)

    @classmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """No kind of event is of it."""
        raise cls._unknown(record.kind)

    @staticmethod
    def _unknown(what: object) -> UsageError:
        return UsageError(f"this build knows no hook {what}")
