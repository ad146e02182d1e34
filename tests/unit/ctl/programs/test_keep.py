# SPDX-License-Identifier: GPL-2.0
"""Maps of a link that new programs get: which are chosen, which are refused, what is told."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.constants import set_constants
from ipttctl.bpf.maps import Map
from ipttctl.bpf.specs import CollectionSpec, MapSpec
from ipttctl.bpf.syscalls import MapInfo
from ipttctl.errors import ProgramError
from ipttctl.link.model import Link
from ipttctl.programs.keep import KeptMaps
from ipttctl.programs.maps import UsedMap
from ipttproto import Slot
from tests.unit.ctl.support import link

LINK = Link.from_attributes(link())
LIMITS = MapSpec("limits", 1, 4, 8, 16)
COUNTS = MapSpec("counts", 1, 4, 8, 16)
LONG = MapSpec("connection_counters", 1, 4, 8, 16)


def used(identifier: int, spec: MapSpec, *slots: Slot) -> UsedMap:
    """A map of the link, as a spec describes it."""
    name = spec.name[:15]
    info = MapInfo(
        identifier, spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags, name
    )
    made = SimpleNamespace(
        info=info,
        name=name,
        type="hash",
        format=SimpleNamespace(key_type=None, value_type=None),
    )
    return UsedMap(cast(Map, made), slots or (Slot.ENTRY,))


def having(*specs: MapSpec) -> CollectionSpec:
    return CollectionSpec({}, {spec.name: spec for spec in specs})


def kept(
    maps: Sequence[UsedMap], spec: CollectionSpec, *names: str, slots: Sequence[Slot] = ()
) -> tuple[dict[str, int], list[str]]:
    """The ids of the maps that a file's programs get, and what is told."""
    told: list[str] = []
    keeping = KeptMaps(LINK, maps, names, told.append)
    found = keeping.of_file(spec, "new.o", slots or [Slot.ENTRY])
    keeping.finish()
    return {name: one.info.id for name, one in found.items()}, told


def test_all_maps_of_the_same_names() -> None:
    maps = [used(1, LIMITS), used(2, COUNTS), used(3, LONG)]
    assert kept(maps, having(COUNTS, LONG, LIMITS)) == (
        {"counts": 2, "connection_counters": 3, "limits": 1},
        [],
    )


def test_what_is_left_behind_is_told_unless_names_are_given() -> None:
    maps = [used(1, LIMITS), used(2, COUNTS)]
    assert kept(maps, having(LIMITS)) == (
        {"limits": 1},
        ["map counts of link 3 is not kept: the new programs have none of that name"],
    )
    assert kept(maps, having(LIMITS), "limits") == ({"limits": 1}, [])
    assert kept(maps, having(LIMITS, COUNTS), "counts") == ({"counts": 2}, [])


@pytest.mark.parametrize(
    ("maps", "spec", "names", "message"),
    [
        ([LIMITS], [LIMITS], ["x"], "link 3 has no map x to keep; there are: limits"),
        ([LIMITS], [COUNTS], ["limits"], "the new programs have no map limits to keep"),
        ([LIMITS], [LIMITS], ["a.rodata"], "map a.rodata cannot be kept: it holds the constants"),
        (
            [LIMITS],
            [MapSpec("limits", 1, 4, 8, 32)],
            [],
            "new.o: map limits cannot be that of link 3, which has max_entries 16, not 32; keep ",
        ),
        (
            [LIMITS],
            [MapSpec("limits", 2, 4, 8, 16)],
            [],
            "new.o: map limits cannot be that of link 3, which has type hash, not array",
        ),
        ([LIMITS, LIMITS], [LIMITS], [], "link 3 has maps 1, 2 of the name limits: it is not cl"),
    ],
)
def test_refusals(maps: list[MapSpec], spec: list[MapSpec], names: list[str], message: str) -> None:
    with pytest.raises(ProgramError) as refusal:
        kept([used(number, one) for number, one in enumerate(maps, 1)], having(*spec), *names)
    assert str(refusal.value).startswith(message)


def test_of_two_maps_the_one_of_the_same_slot() -> None:
    maps = [used(1, LIMITS, Slot.ENTRY), used(2, LIMITS, Slot.EXIT)]
    assert kept(maps, having(LIMITS), slots=[Slot.EXIT])[0] == {"limits": 2}
    assert kept(maps, having(LIMITS), slots=[Slot.ENTRY])[0] == {"limits": 1}


def test_constants_are_not_kept_and_variables_by_their_section() -> None:
    def section(name: str) -> MapSpec:
        return MapSpec(name, 2, 4, 8, 1)

    maps = [used(1, section("old.rodata")), used(2, section("old.bss")), used(3, section("x.data"))]
    spec = having(section("new.rodata"), section("new.bss"))
    assert kept(maps, spec) == (
        {"new.bss": 2},
        ["map x.data of link 3 is not kept: the new programs have none of that name"],
    )
    assert kept(maps, spec, "old.bss") == kept(maps, spec, "new.bss") == ({"new.bss": 2}, [])


def test_a_variable_of_a_kept_map_cannot_be_set(object_file: Path) -> None:
    spec = CollectionSpec.from_object(object_file)
    set_constants(spec, {"port": "5"})
    assert kept([used(1, spec.maps["shared"])], spec)[0] == {"shared": 1}
    assert spec.elf
    spec.values = {"packets": 1}
    constants = {"packets": SimpleNamespace(map="shared")}
    spec.elf = cast(Any, SimpleNamespace(content=SimpleNamespace(constants=constants)))
    with pytest.raises(ProgramError, match=r"new.o: packets cannot be set: it is a variable in ma"):
        kept([used(1, spec.maps["shared"])], spec)


def test_the_maps_of_loaded_programs_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {1: "limits", 5: "limits", 6: "others"}
    monkeypatch.setattr(syscalls, "program_maps", lambda fd: [fd])
    monkeypatch.setattr(
        Map, "from_id", lambda number: nullcontext(SimpleNamespace(name=names[number]))
    )
    told: list[str] = []
    keeping = KeptMaps(LINK, [used(1, LIMITS), used(2, COUNTS)], (), told.append)
    keeping.check_loaded(Slot.ENTRY, "id", 1)  # the very same map
    keeping.check_loaded(Slot.ENTRY, "id", 6)
    with pytest.raises(ProgramError) as refusal:
        keeping.check_loaded(Slot.EXIT, "pinned", 5)
    assert str(refusal.value).startswith(
        "the program for slot exit (--pinned) is loaded already, with a map limits of its own: the "
        "maps of a loaded program are fixed; give its --source or --object"
    )
    keeping.finish()
    assert told == ["map counts of link 3 is not kept: the new programs have none of that name"]
