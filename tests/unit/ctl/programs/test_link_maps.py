# SPDX-License-Identifier: GPL-2.0
"""Maps by name: one is found, and the others are closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.maps import Map
from ipttctl.bpf.syscalls import MapInfo
from ipttctl.errors import IpttctlError, ProgramError
from ipttctl.programs.maps import map_of_programs

NAMES = {10: "counts", 11: "twice", 12: "twice", 13: "a_name_of_fifte", 14: "", 15: "gone"}
PROGRAMS = {3: [12, 10], 4: [10, 11, 13, 14, 15]}


class Opened(Map):
    """A map that is known to be open or closed."""

    count = 0

    def __init__(self, identifier: int) -> None:
        self._fd = identifier
        self.info = MapInfo(identifier, 1, 4, 4, 1, 0, NAMES[identifier])
        Opened.count += 1

    def close(self) -> None:
        """Close it."""
        if self._fd >= 0:
            Opened.count -= 1
        self._fd = -1


@pytest.fixture(autouse=True)
def maps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Maps with these names, one of which has gone."""

    def open_map(identifier: int) -> Opened:
        if NAMES[identifier] == "gone":
            raise ProgramError("there is no BPF map with this id")
        return Opened(identifier)

    monkeypatch.setattr(syscalls, "program_maps", PROGRAMS.__getitem__)
    monkeypatch.setattr(Map, "from_id", open_map)
    yield
    assert Opened.count == 0


@pytest.mark.parametrize(
    ("name", "identifier"),
    [("counts", 10), ("10", 10), ("12", 12), ("a_name_of_fifteen_or_more", 13), ("14", 14)],
)
def test_names_and_ids(name: str, identifier: int) -> None:
    with map_of_programs([3, 4], name) as found:
        assert found.info.id == identifier
        assert Opened.count == 1


def test_an_unknown_name() -> None:
    with pytest.raises(ProgramError) as caught:
        map_of_programs([3], "none")
    assert caught.value.problem == "the program set has no map none"
    assert caught.value.remedy == "there are: counts (10), twice (12)"


def test_a_name_of_two() -> None:
    with map_of_programs([3], "twice") as found:
        assert found.info.id == 12
    with pytest.raises(ProgramError) as caught:
        map_of_programs([4, 3], "twice")
    assert caught.value.problem == "the program set has maps 11, 12 of the name twice"
    assert caught.value.remedy == "take one by its id, as in 11"


def test_no_descriptor_left_is_not_a_map_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(syscalls, "call", lambda *_: -24)
    with pytest.raises(IpttctlError, match=r"cannot open map 10: all \d+ descriptors are in use"):
        syscalls.map_by_id(10)
    monkeypatch.setattr(syscalls, "program_maps", PROGRAMS.__getitem__)
    with pytest.raises(IpttctlError, match="descriptors are in use; raise `ulimit -n`"):
        map_of_programs([3], "counts")
