# SPDX-License-Identifier: GPL-2.0
"""The map in which a program of a source tells its constants."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ipttctl.bpf import constants_map
from ipttctl.bpf.btf import Btf, Enum, Int, Struct
from ipttctl.bpf.constants_map import constants_of
from ipttctl.bpf.values import decode

TYPES = {
    "small": Int("__u8", 1),
    "port": Int("__be16", 2, network=True),
    "paint": Enum("enum colour", 4, False, (("RED", 1), ("BLUE", 7))),
    "on": Int("_Bool", 1, boolean=True),
    "below": Int("long", 8, signed=True),
}


def test_constants_are_described_with_their_types_and_values() -> None:
    values = {"small": 3, "port": 0xBB01, "paint": 7, "below": -1, "on": 1}
    with constants_map._Types() as made:
        number, content = made.describe(TYPES, values)
        described = made.type(number)
        blob = made.data()
    assert isinstance(described, Struct)
    assert (described.name, described.size) == (".rodata", len(content))
    # each at a multiple of its size, as a compiler has it
    assert {m.name: m.bits // 8 % m.type.size for m in described.members} == dict.fromkeys(TYPES, 0)
    # what the kernel gets is the same
    with Btf.from_data(blob) as again:
        assert again.section(".rodata") == described
    assert decode(described, content) == {
        "small": 3, "port": 443, "paint": "BLUE", "on": True, "below": -1,
    }  # fmt: skip  # pairs together
    with constants_map._Types() as made:
        _, content = made.describe(TYPES, {})
    assert content == bytes(len(content))


def test_constants_of_a_program_are_those_of_its_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Struct(".rodata", 8, ())
    maps: dict[int, tuple[str, Any, dict[str, Any]]] = {
        1: ("limits", None, {}),
        2: ("limit.rodata", kind, {"rate": 7, "drop.____fmt": "x", "____fmt": "y"}),
        3: ("other.rodata", None, {"unknown": 1}),
        4: ("limit.bss", kind, {"packets": 1}),
    }

    class Opened:
        """A program, or a map, in a ``with`` block."""

        def __init__(self, number: int) -> None:
            self.name, value_type, self._content = maps.get(number, ("", None, {}))
            self.format = SimpleNamespace(value_type=value_type)

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def maps(self) -> list[int]:
            """The ids of the program's maps."""
            return list(maps)

        def get(self, key: int) -> dict[str, Any]:
            """The only value."""
            assert key == 0
            return self._content

    for name in ("Program", "Map"):
        monkeypatch.setattr(constants_map, name, SimpleNamespace(from_id=Opened))
    assert constants_of(9) == {"rate": 7}
