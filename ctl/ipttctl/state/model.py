# SPDX-License-Identifier: GPL-2.0
"""Links as they are declared to be, and how what is differs from that."""

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
from ipttctl.programs.choice import ProgramChoice

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class DeclaredMap:
    """The keys of a map with their values, as ``Map.set`` takes them; None is whatever it is.

    Keys that are not here go, but of arrays, whose keys always stay.
    """

    entries: tuple[tuple[Any, Any], ...]

    @property
    def keys_only(self) -> bool:
        """Whether no value is declared."""
        return all(value is None for _, value in self.entries)


@dataclass(frozen=True)
class DeclaredLink:
    """A link as it is to be.

    ``maps`` are by the names of the maps that its programs use; others are left alone. ``link`` is
    the id of a persistent link to take over, if it is at this hook.
    """

    name: str
    hook: Hook
    programs: ProgramChoice
    maps: Mapping[str, DeclaredMap] = field(default_factory=dict)
    link: int | None = None

    def check(self) -> None:
        """Check what can be told without the machine.

        Raises:
            UsageError: the name is none, or the hook has not the slots of the programs.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"'{self.name}' is not a name of a link", "letters, digits, '_', '.' and '-'"
            )
        check_slots(self.hook, self.programs.sources.keys())


@dataclass(frozen=True)
class State:
    """All links that are to be.

    Raises:
        UsageError: two have one name or take one link over, or one makes no sense.
    """

    links: tuple[DeclaredLink, ...] = ()

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


class StepAction(enum.StrEnum):
    """What a step does."""

    ATTACH = "attach"
    SWAP = "swap"
    SET = "set"
    DELETE = "delete"
    DETACH = "detach"


@dataclass(frozen=True)
class Step:
    """A difference between what is and what is declared, or what apply did about it.

    ``link`` is the link's id, None for one that is not made yet. ``changes`` are the parts of a
    program set that differ (slots, ``filter``, ``cookie``, ``payload``). ``map``, ``key`` and
    ``value`` are of SET and DELETE. ``declared`` is what ATTACH and SWAP make of it.
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
    """Have errors say which link, or which of its maps, they are about."""
    try:
        yield
    except IpttctlError as error:
        error.problem = f"{name}: {error.problem}"
        error.args = (f"{error.problem}; {error.remedy}" if error.remedy else error.problem,)
        raise
