# SPDX-License-Identifier: GPL-2.0
"""Object files as specs: contents, settings, refusals. Nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttctl.bpf.collection import Collection, CollectionSpec
from ipttctl.bpf.syscalls import MapType, ProgramType
from ipttctl.errors import ProgramError
from tests.unit.ctl.bpf.support import example_spec


@pytest.fixture
def spec(object_file: Path) -> CollectionSpec:
    return CollectionSpec.from_object(object_file)


def test_programs_have_sections_and_types(spec: CollectionSpec) -> None:
    assert {p.name: (p.section, p.type) for p in spec.programs.values()} == {
        "drop": ("socket", ProgramType.SOCKET_FILTER),
        "first": ("kprobe/first", ProgramType.KPROBE),
        "second": ("kprobe", ProgramType.KPROBE),
        "third": ("kprobe", ProgramType.KPROBE),
        "any": ("nonsense", 0),
    }


def test_maps_are_there_with_those_of_constants(spec: CollectionSpec) -> None:
    networks = spec.maps["networks"]
    assert networks.type == MapType.LPM_TRIE
    assert (networks.key_size, networks.max_entries, networks.flags) == (8, 16, 1)
    assert {name: entry.pinned for name, entry in spec.maps.items()} == {
        "networks": False,
        "shared": True,
        "types.rodata": False,
    }


def test_constants_are_checked_by_their_types(spec: CollectionSpec) -> None:
    assert spec.constants == {"port": 16, "network": 64}
    spec.set_constants({"port": 443, "network": {"prefixlen": 8, "address": "10.0.0.0"}})
    for value, message in (
        ({"port": 65536}, "constant port: 65536 is not between 0 and 65535"),
        ({"network": 1}, "constant network: 1 is no struct net4; it takes an object of prefixlen"),
        ({"limit": 1}, "the programs have no constant limit; there are: network, port"),
    ):
        with pytest.raises(ProgramError, match=message):
            spec.set_constants(value)
    assert spec.values["port"] == 443


def test_a_plan_holds_what_differs_from_the_file(spec: CollectionSpec) -> None:
    spec.set_constants({"port": 443})
    spec.maps["networks"].max_entries = 99
    assert spec.elf
    plan = spec.elf.plan({"drop": 1}, spec.maps, spec.values, {})
    assert plan.maps == {"networks": {"max_entries": 99}, "shared": {}, "types.rodata": {}}
    ((name, content),) = plan.constants.items()
    assert name == "types.rodata"
    assert list(content.values()) == [(443).to_bytes(2, "little")]


@pytest.mark.parametrize(
    ("asked", "found"),
    [("socket", "drop"), ("drop", "drop"), ("kprobe/first", "first"), ("third", "third")],
)
def test_programs_are_found_by_section_and_name(
    spec: CollectionSpec, asked: str, found: str
) -> None:
    assert spec.find_program(asked) == found


def test_programs_that_are_not_found_or_not_one(spec: CollectionSpec) -> None:
    with pytest.raises(ProgramError, match="section kprobe has several programs; name one: second"):
        spec.find_program("kprobe")
    with pytest.raises(
        ProgramError, match=r"there is no program xdp; there are: drop \(socket\), first \(kprobe/"
    ):
        spec.find_program("xdp")
    with pytest.raises(ProgramError, match="there is no program third; there are: first, second"):
        example_spec().find_program("third")


def test_a_program_is_loaded_as_what_its_section_says(spec: CollectionSpec) -> None:
    with pytest.raises(
        ProgramError,
        match="program drop is of type socket_filter by its section socket, not kprobe",
    ):
        Collection.load(spec, programs={"drop": ProgramType.KPROBE})
    with pytest.raises(ProgramError, match="the source has no program nothing; there are: any"):
        Collection.load(spec, programs=["nothing"])
    spec.programs["drop"].type = 6
    with pytest.raises(ProgramError, match="program drop is of type xdp; ipttrace takes socket_fi"):
        Collection.load(spec, programs=["drop"])


def test_files_that_are_no_objects(tmp_path: Path) -> None:
    junk = tmp_path / "junk.o"
    junk.write_bytes(b"\x7fELF junk")
    with pytest.raises(
        ProgramError, match=r"junk.o is not an object file of BPF programs: elf: .*; compile it wi"
    ):
        CollectionSpec.from_object(junk)
    with pytest.raises(ProgramError, match=r"cannot read BPF object .*none.o: No such file"):
        CollectionSpec.from_object(tmp_path / "none.o")
