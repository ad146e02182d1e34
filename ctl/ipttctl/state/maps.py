# SPDX-License-Identifier: GPL-2.0
"""What a map holds against what it is declared to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.maps import Map
from ipttctl.errors import ProgramError

ARRAYS: Final = frozenset({syscalls.MapType.ARRAY, syscalls.MapType.PERCPU_ARRAY})
"""Types of maps whose keys neither come nor go."""


@dataclass(frozen=True)
class Entry:
    """A key of a map: before and after, None for not there."""

    key: bytes
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class MapDifference:
    """What is to change in a map, which stays its owner's."""

    map: Map
    entries: tuple[Entry, ...]

    @classmethod
    def between(cls, found: Map, declared: Iterable[tuple[Any, Any]]) -> MapDifference:
        """What makes a map hold these keys and, but of an array, no others.

        A value of None stands for any; the keys that are not there get 0.

        Raises:
            UsageError: something cannot be key or value of the map.
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
            # not the bytes: there may be padding between them
            if before is None or shape.value(before) != shape.value(after):
                entries.append(Entry(key, before, after))
        if found.info.type not in ARRAYS:
            entries += [Entry(k, v, None) for k, v in present.items() if k not in wanted]
        return cls(found, tuple(entries))


class MapChange:
    """A difference, as far as it was made."""

    def __init__(self, difference: MapDifference) -> None:
        """Nothing of it was made yet."""
        self._map = difference.map
        # what goes makes room for what comes
        self._entries = sorted(difference.entries, key=lambda entry: entry.after is not None)
        self._begun: list[Entry] = []

    def make(self, check: Callable[[], None]) -> None:
        """Change the map, and ``check`` before each key whether to go on.

        Raises:
            ProgramError: it is full, or read-only; what was changed by then stays so.
        """
        for entry in self._entries:
            check()
            self._begun.append(entry)
            self._put(entry.key, entry.after)

    def undo(self, abandoned: Callable[[], bool]) -> str:
        """Change it back, as much as was changed and until ``abandoned``; what stays changed."""
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
