# SPDX-License-Identifier: GPL-2.0
"""Declared links, and the differences between them and the machine."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ipttctl.errors import IpttctlError, UsageError
from ipttctl.hooks import check_slots
from ipttctl.hooks.hook import Hook
from ipttctl.link.condition import Condition
from ipttctl.link.names import is_name
from ipttctl.link.terms import check_rollback_after
from ipttctl.programs.choice import ProgramChoice

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

OWNER_LABEL: Final = "ipttctl.owner"
"""The label of links with the owner of the file that declares them; without it, none."""


@dataclass(frozen=True)
class DeclaredMap:
    """The keys of a map with their values, as ``Map.set`` takes them; None is any value.

    All other keys are removed, unless the map is an array, whose keys are fixed.
    """

    entries: tuple[tuple[Any, Any], ...]

    @property
    def keys_only(self) -> bool:
        """Whether no value is declared."""
        return all(value is None for _, value in self.entries)


@dataclass(frozen=True)
class DeclaredLink:
    """A declared link.

    ``maps`` are contents by the names of maps that its programs use; other maps are left alone.
    ``link`` is the id of a persistent link to take over, if it is at this hook. ``labels`` are all
    labels that the link has; with None they are left alone. With ``keep_maps`` new programs that
    are swapped in get the link's maps of the same names: of these names, or of all if there are
    none (see ``KeptMaps``); None keeps no maps.
    """

    name: str
    hook: Hook
    programs: ProgramChoice
    maps: Mapping[str, DeclaredMap] = field(default_factory=dict)
    link: int | None = None
    labels: Mapping[str, str] | None = None
    keep_maps: tuple[str, ...] | None = None

    @property
    def link_name(self) -> str | None:
        """The link's name in the module, which is the declared one if that may be one."""
        return self.name if is_name(self.name) else None

    def check(self) -> None:
        """Check all that can be checked without the machine.

        Raises:
            UsageError: the name is not valid, or the hook lacks a program's slot.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"'{self.name}' is not a name of a link", "letters, digits, '_', '.' and '-'"
            )
        if OWNER_LABEL in (self.labels or {}):
            raise UsageError(
                f"label {OWNER_LABEL} is that of the file's owner", "give it as --owner"
            )
        check_slots(self.hook, self.programs.sources.keys())


@dataclass(frozen=True)
class State:
    """All declared links.

    ``absent`` are the names of those whose network namespace or device is missing, and
    ``absent_links`` the ids that these take over: they are not among ``links``.

    Raises:
        UsageError: two have the same name or take over the same link, or one is not valid.
    """

    links: tuple[DeclaredLink, ...] = ()
    absent: frozenset[str] = frozenset()
    absent_links: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for link in self.links:
            with about(link.name):
                link.check()
        names: list[object] = [link.name for link in self.links]
        taken: list[object] = [link.link for link in self.links if link.link is not None]
        for values in (names, taken):
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise UsageError(f"link {twice} is declared twice")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms on which a state is applied.

    ``owner`` is that of the file, empty for the file without one. With ``take`` it takes over links
    that it declares and the file of another owner does too. With ``prune`` persistent links that no
    file declares are surplus. With ``confirm`` swaps that wait for it are confirmed, and links that
    differ are refused. With ``patient`` a link whose swap waits is left alone even if it differs.
    ``rollback_after``, in seconds, and ``guards`` are as for ``Controller.swap``.

    Raises:
        UsageError: they exclude each other, or there is no such time.
    """

    owner: str = ""
    take: bool = False
    prune: bool = False
    confirm: bool = False
    patient: bool = False
    rollback_after: float | None = None
    guards: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if self.confirm and self.on_trial:
            raise UsageError("a swap is confirmed, or made on trial, not both")
        if self.patient and (self.confirm or self.on_trial):
            raise UsageError("a state that is kept has no trials of its own")
        if self.rollback_after is not None:
            check_rollback_after(self.rollback_after)

    @property
    def on_trial(self) -> bool:
        """Whether swaps wait to be confirmed."""
        return self.rollback_after is not None or bool(self.guards)


class StepAction(enum.StrEnum):
    """Kinds of steps."""

    ATTACH = "attach"
    SWAP = "swap"
    SET = "set"
    DELETE = "delete"
    DETACH = "detach"
    RENAME = "rename"
    CONFIRM = "confirm"


@dataclass(frozen=True)
class Step:
    """A difference between machine and declaration, or the step that apply took about it.

    ``link`` is the link's id, None if it is not made yet. ``changes`` are the differing parts of a
    program set (slots, ``filter``, ``cookie``, ``payload``, ``limits``, ``labels``,
    ``owner``). ``map``,
    ``key`` and ``value`` belong to SET and DELETE. ``declared`` is the link that ATTACH and SWAP
    establish.
    """

    action: StepAction
    name: str | None
    link: int | None
    changes: tuple[str, ...] = ()
    map: str | None = None
    key: Any = None
    value: Any = None
    declared: DeclaredLink | None = None


@contextmanager
def about(name: str) -> Iterator[None]:
    """Make errors name the link, or the map of a link, that they are about."""
    try:
        yield
    except IpttctlError as error:
        error.problem = f"{name}: {error.problem}"
        error.args = (f"{error.problem}; {error.remedy}" if error.remedy else error.problem,)
        raise
