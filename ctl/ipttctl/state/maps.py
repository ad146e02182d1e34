# SPDX-License-Identifier: GPL-2.0
"""Differences between a map's content and its declared content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.maps import Map
from ipttctl.errors import ProgramError

ARRAYS: Final = frozenset({syscalls.MapType.ARRAY, syscalls.MapType.PERCPU_ARRAY})
"""Types of maps whose keys are fixed."""


@dataclass(frozen=True)
class EntryChange:
    """A key of a map, with its values before and after; None is a missing key."""

    key: bytes
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class MapDifference:
    """The changes to be made in a map; the map stays its owner's."""

    map: Map
    entries: tuple[EntryChange, ...]

    @classmethod
    def between(cls, found: Map, declared: Iterable[tuple[Any, Any]]) -> MapDifference:
        """The changes after which a map holds these keys and, unless it is an array, no others.

        A value of None stands for any; a missing key gets 0.

        Raises:
            UsageError: a key or value does not fit the map.
            ProgramError: the map has no keys.
        """
        if not found.info.key_size:
            raise ProgramError(f"map {found.name} is of type {found.type}, which has no keys")
        shape = found.format
        present = dict(found.items())
        wanted = {shape.key_bytes(key): value for key, value in declared}
        entries = []
        for key, value in wanted.items():
            before = present.get(key)
            if value is None:
                after = bytes(found.value_size) if before is None else before
            else:
                after = shape.value_bytes(value)
            # values, not bytes: there may be padding
            if before is None or shape.value(before) != shape.value(after):
                entries.append(EntryChange(key, before, after))
        if found.info.type not in ARRAYS:
            entries += [EntryChange(k, v, None) for k, v in present.items() if k not in wanted]
        return cls(found, tuple(entries))


class MapChange:
    """A difference, and how much of it has been made."""

    def __init__(self, difference: MapDifference) -> None:
        """Begin with nothing made."""
        self._map = difference.map
        # removed keys make room for new ones
        self._entries = sorted(difference.entries, key=lambda entry: entry.after is not None)
        self._begun: list[EntryChange] = []

    def make(self, check: Callable[[], None]) -> None:
        """Change the map, and call ``check`` before each key, which raises to stop.

        Raises:
            ProgramError: the map is full or read-only; the changes made by then stay.
        """
        for entry in self._entries:
            check()
            self._begun.append(entry)
            self._put(entry.key, entry.after)

    def undo(self, abandoned: Callable[[], bool]) -> str:
        """Revert the changes until ``abandoned``; returns words for those that stay."""
        changed = len(self._begun)
        left = 0
        while self._begun and not abandoned():
            entry = self._begun.pop()
            try:
                self._put(entry.key, entry.before)
            except ProgramError:
                left += 1
        left += len(self._begun)
        return f"{left} of {changed} changes of map {self._map.name}" if left else ""

    def _put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._map.delete(key)
        else:
            self._map.update(key, value)
