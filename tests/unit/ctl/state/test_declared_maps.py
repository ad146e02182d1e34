# SPDX-License-Identifier: GPL-2.0
"""Map changes of apply, their order and their undo, with maps in user space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ipttctl.bpf.maps import Map
from ipttctl.bpf.syscalls import MapInfo, MapType
from ipttctl.errors import ProgramError, UsageError
from ipttctl.state.maps import ARRAYS, EntryChange, MapChange, MapDifference

HASH = 1


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


class Contents(Map):
    """A map of numbers, with limited room, that records the changes to it."""

    def __init__(self, content: dict[int, int], *, kind: int = HASH, room: int = 16) -> None:
        self._fd = -1
        self.info = MapInfo(1, kind, 4, 4, room, 0, "m")
        self.content = {number(key): number(value) for key, value in content.items()}
        self.done: list[tuple[str, int]] = []

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values."""
        yield from list(self.content.items())

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key, where there is room."""
        if key not in self.content and len(self.content) >= self.info.max_entries:
            raise ProgramError("the map is full")
        self.content[key] = value
        self.done.append(("set", int.from_bytes(key, "little")))

    def delete(self, key: bytes) -> bool:
        """Remove a key."""
        self.done.append(("delete", int.from_bytes(key, "little")))
        return self.content.pop(key, None) is not None

    def numbers(self) -> dict[int, int]:
        """The contents as numbers."""
        return {
            int.from_bytes(key, "little"): int.from_bytes(value, "little")
            for key, value in self.content.items()
        }


def entry(key: int, before: int | None, after: int | None) -> EntryChange:
    values = (None if value is None else number(value) for value in (before, after))
    return EntryChange(number(key), *values)


def test_what_differs() -> None:
    found = Contents({1: 10, 2: 20, 3: 30, 4: 40})
    difference = MapDifference.between(found, [(1, 10), (2, 21), (3, None), (5, 50), (6, None)])
    assert difference.map is found
    assert set(difference.entries) == {
        entry(2, 20, 21), entry(4, 40, None), entry(5, None, 50), entry(6, None, 0),
    }  # fmt: skip  # as one
    assert MapDifference.between(found, [(1, 10), (2, 20), (3, None), (4, None)]).entries == ()
    assert found.done == []


@pytest.mark.parametrize("kind", sorted(ARRAYS & {MapType.ARRAY}))
def test_what_is_not_declared_of_an_array_stays(kind: int) -> None:
    found = Contents({0: 10, 1: 20}, kind=kind)
    assert MapDifference.between(found, [(1, 21)]).entries == (entry(1, 20, 21),)


def test_a_map_without_keys() -> None:
    found = Contents({})
    found.info = MapInfo(1, 22, 0, 4, 16, 0, "m")
    with pytest.raises(ProgramError, match="map m is of type queue, which has no keys"):
        MapDifference.between(found, [])


def test_what_cannot_be_in_the_map() -> None:
    with pytest.raises(UsageError, match="is not between 0 and 4294967295"):
        MapDifference.between(Contents({}), [(1, 1 << 32)])


def test_a_full_map_gives_room_first_and_gets_it_back() -> None:
    found = Contents({1: 10, 2: 20}, room=2)
    change = MapChange(MapDifference.between(found, [(2, 21), (3, 30)]))
    change.make(lambda: None)
    assert found.numbers() == {2: 21, 3: 30}
    assert found.done[0] == ("delete", 1)
    found.done.clear()
    assert change.undo(lambda: False) == ""
    assert found.numbers() == {1: 10, 2: 20}
    assert found.done[0] == ("delete", 3)


def test_what_fails_half_way_is_undone_as_far_as_it_came() -> None:
    found = Contents({1: 10, 2: 20}, room=2)
    change = MapChange(MapDifference.between(found, [(2, 21), (3, 30), (4, 40)]))
    with pytest.raises(ProgramError, match="full"):
        change.make(lambda: None)
    assert change.undo(lambda: False) == ""
    assert found.numbers() == {1: 10, 2: 20}


def test_values_are_compared_by_what_they_mean() -> None:
    """Padding between the members of a struct may contain anything."""
    found = Contents({1: 0})

    class Loose:
        def key_bytes(self, key: Any) -> bytes:
            return number(key)

        def value_bytes(self, value: Any) -> bytes:
            return number(value)

        def value(self, data: bytes) -> int:
            return data[0]

    found.content[number(1)] = b"\x07\xff\xff\xff"
    found.__dict__["format"] = Loose()
    assert MapDifference.between(found, [(1, 7)]).entries == ()
    assert len(MapDifference.between(found, [(1, 8)]).entries) == 1
