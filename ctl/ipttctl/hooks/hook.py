# SPDX-License-Identifier: GPL-2.0
"""Every kind of hook can do this; the rest only its own file knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

from ipttctl.errors import UsageError
from ipttctl.events.filter import HookPattern
from ipttctl.options import Option
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Gone, Kind, Slot

if TYPE_CHECKING:
    from ipttctl.events.records import EventRecord

Identity = tuple[int, ...]
"""A place by numbers, the kind of hook first: equal for one place only, as the kernel counts."""

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
        "armed": [],
    }
)
"""Keys of a link's JSON that depend on the kind of hook, with their values where there are none."""


@dataclass(frozen=True, kw_only=True)
class HookChoice:
    """The option that chooses a hook; the options of a kind of hook are a class below this one."""

    hook: Annotated[
        str,
        Option(
            "--hook",
            "where to attach: table, or nf:FAMILY/HOOK[@PRIORITY] such as nf:inet4/local_out@raw",
            metavar="HOOK",
        ),
    ] = "table"


class Hook(ABC):
    """A place where links are: as somebody asks for it, or as the module tells of it."""

    KIND: ClassVar[int]
    """enum ipttrace_hook."""
    SLOTS: ClassVar[tuple[Slot, ...]]
    """The slots for programs that it has."""
    EVENTS: ClassVar[frozenset[Kind]]
    """The kinds of events that come from there."""
    CAN_DROP: ClassVar[bool] = False
    """Whether links there can drop packets."""
    TITLE: ClassVar[str]
    """The kind in a sentence, several of them: ``netfilter hooks``."""
    SYNTAX: ClassVar[str]
    """How one is written."""
    PATTERNS: ClassVar[tuple[str, ...]]
    """How events from there are asked for."""
    OPTIONS: ClassVar[type[HookChoice]] = HookChoice
    """What goes with it, for commands and files."""

    gone: Gone | int | None = None
    """Why links are there no more; None while they are."""

    @property
    def waiting(self) -> frozenset[int]:
        """The IP versions that it waits for, as their code is not loaded."""
        return frozenset()

    @abstractmethod
    def __str__(self) -> str:
        """The hook as it is written."""

    # --- as it is asked for -----------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def means(cls, text: str) -> bool:
        """Whether a hook that is written so is of this kind, rightly written or not."""

    @classmethod
    @abstractmethod
    def chosen(cls, options: Any) -> Self:
        """The hook of ``OPTIONS`` that were given.

        Raises:
            UsageError: there is none like that, or options that do not go together.
            PrivilegeError: the caller may not open its namespace.
        """

    @abstractmethod
    def given(self) -> dict[str, Any]:
        """The options of a file that ``chosen`` makes the same hook of; None for one left out.

        Raises:
            UsageError: its namespace cannot be found any more.
        """

    @abstractmethod
    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The part of an attach request about it; descriptors in it stay open with ``opened``.

        Raises:
            UsageError: there is no such namespace or device.
        """

    @abstractmethod
    def identity(self) -> Identity:
        """Numbers that tell it from all other places.

        Raises:
            UsageError: there is no such namespace or device.
            PrivilegeError: the caller may not enter the namespace.
        """

    def release(self) -> None:
        """Let go of a namespace that is held: it would not go though everybody else left it."""
        return

    # --- as the module tells ----------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The hook that a message about a link describes; what is missing is empty."""

    def misses(self, link: int) -> Iterator[str]:
        """Sentences for what keeps a link from being there."""
        del link
        return iter(())

    # --- in print ---------------------------------------------------------------------------------

    def fields(self, names: NamespaceNames | None) -> Iterator[str]:
        """``key=value`` fields of a link's line: where it is exactly."""
        del names
        return iter(())

    def state_fields(self) -> Iterator[str]:
        """Fields of a link's line that come behind those of its programs."""
        return iter(())

    def values(self, names: NamespaceNames | None) -> dict[str, Any]:
        """The values of ``LINK_VALUES`` that it has."""
        del names
        return {}

    def rows(self, names: NamespaceNames) -> Iterator[str]:
        """Lines of a table's cell below the hook's name."""
        del names
        return iter(())

    # --- its events -------------------------------------------------------------------------------

    @classmethod
    def pattern(cls, text: str) -> HookPattern | None:
        """The events of this kind of hook that a text asks for; None if it is of another kind.

        Raises:
            UsageError: it is of this kind, and wrong.
        """
        return HookPattern(cls.EVENTS) if cls.means(text) else None

    @classmethod
    @abstractmethod
    def decision(cls, record: EventRecord, crossed: str) -> str:
        """An event in brackets; ``crossed`` names bridge ports."""

    @classmethod
    @abstractmethod
    def heading(cls, record: EventRecord) -> str:
        """The hook of an event, above its packet."""

    @classmethod
    @abstractmethod
    def outcome(cls, record: EventRecord) -> Iterator[str]:
        """An event in words, where a heading tells of its packet."""


@dataclass(frozen=True)
class UnknownHook(Hook):
    """A hook of a kind that this build does not know, of a module of another build: a number."""

    number: int

    SLOTS = ()
    EVENTS = frozenset()
    TITLE = "hooks that this build does not know"

    def __str__(self) -> str:
        return str(self.number)

    @classmethod
    def means(cls, text: str) -> bool:
        """Nobody can name it."""
        del text
        return False

    @classmethod
    def chosen(cls, options: Any) -> Self:
        """Nobody can choose it."""
        raise cls._unknown(options.hook)

    def given(self) -> dict[str, Any]:
        """It cannot be written down."""
        raise self._unknown(self)

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """Nobody can attach there."""
        del opened
        raise self._unknown(self)

    def identity(self) -> Identity:
        """The number: no hook of another kind is the same."""
        return (self.number,)

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The number is all that can be told."""
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
