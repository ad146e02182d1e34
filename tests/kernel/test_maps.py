# SPDX-License-Identifier: GPL-2.0
"""Maps of running programs from the command line: their contents decide, without a swap."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Btf
from ipttctl.bpf.maps import Map
from ipttctl.bpf.specs import MapSpec
from ipttctl.errors import ProgramError
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.programs.sources import open_sources, parse_source
from ipttproto import NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.btf import Types
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Network, event, flood_udp
from tests.kernel.support.objects import BPF, REPOSITORY, compile_object

PORT = 4711
HASH, ARRAY, QUEUE, PROG_ARRAY = 1, 2, 22, 3

VALUE = {
    "packets": 1,
    "small": -2,
    "port": 443,
    "colour": "BLUE",
    "name": "eth0",
    "whole": 0x20001,
    "low": 5,
    "high": -7,
    "on": True,
    "mac": "0a:0b:0c:0d:0e:0f",
    "host": "10.0.0.1",
    "host6": "fd00::1",
    "pointer": "0x10",
    "ratio": 0.25,
    "pair": {"first": 1, "second": 2},
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Object files by name."""
    place = tmp_path_factory.mktemp("objects")
    sources = (BPF / "blocklist.c", REPOSITORY / "tests" / "unit" / "ctl" / "bpf" / "types.c")
    return {source.stem: compile_object(source, place) for source in sources}


def said(*arguments: str) -> str:
    """Run a command, which must succeed without messages, and return its output."""
    done = ipttctl(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(status: int, *arguments: str) -> str:
    """The sentence with which a command fails."""
    done = ipttctl(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), done
    return done.stderr.removeprefix("ipttctl: ").rstrip("\n")


def objects_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def at_hook(controller: Controller, kind: str, program: str, hook: NfHook) -> Iterator[Link]:
    """A link with a program of an object file; detached at the end."""
    with open_sources({Slot.PACKET: parse_source(kind, program)}) as fds:
        link = controller.attach(hook, ProgramSet(fds))
    yield link
    controller.detach(link.id)


# --- purpose --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["object", "source"])
def test_a_block_list_changes_under_traffic_without_a_swap(
    controller: Controller, net: Network, objects: dict[str, Path], compiler: str
) -> None:
    file = objects["blocklist"] if compiler == "object" else BPF / "blocklist.c"
    blocking = NfHook.parse("nf:inet4/forward", netns=net.router.path, mode=NfMode.FILTER)
    net.right.iptables("-A", "INPUT", "-p", "udp", "--dport", str(PORT))

    def arrived() -> int:
        return net.right.counted("INPUT")

    def dropped(link: Link) -> int:
        return controller.link(link.id).stats.drops

    def lets_through(link: Link) -> None:
        before = arrived()
        wait_for(lambda: arrived() > before + 20, what="packets arrive")
        assert controller.link(link.id).generation == 1

    def stops(link: Link) -> None:
        # packets behind the hook when the map changes may still arrive
        before = dropped(link)
        wait_for(lambda: dropped(link) > before + 20, what="packets are dropped")
        there, gone = arrived(), dropped(link)
        wait_for(lambda: dropped(link) > gone + 50, what="more packets are dropped")
        assert arrived() == there
        assert controller.link(link.id).generation == 1

    with at_hook(controller, compiler, f"{file}:blocklist", blocking) as link:
        stop = event()
        flood = net.left.start(flood_udp, net.right_address, PORT, stop)
        try:
            name = f"{link.id}/blocked4"
            lets_through(link)
            said("map", "set", name, "10.77.2.0/24", "0")
            stops(link)
            (entry,) = objects_of(said("map", "dump", name, "-o", "json"))
            assert entry["key"] == "10.77.2.0/24"
            assert entry["value"] > 70
            said("map", "delete", name, "10.77.2.0/24")
            lets_through(link)
            said("map", "set", name, net.left_address, "0")
            stops(link)
            # a trie answers with the longest prefix of a key
            key, _, count = said("map", "get", name, net.left_address).partition("\t")
            assert (key, int(count) > 70) == (f"{net.left_address}/32", True)
            with Map.from_id(entry["map"]) as found:
                assert found.remove(net.left_address)
            lets_through(link)
        finally:
            stop.set()
            flood.join()
        listed = objects_of(said("maps", str(link.id), "-o", "json"))
        shown = {entry["name"]: entry for entry in listed}
        assert (
            shown["blocked4"].items()
            >= {
                "type": "lpm_trie",
                "key_size": 8,
                "value_size": 8,
                "max_entries": 65536,
                "flags": 1,
                "key_type": "struct network4",
                "value_type": "__u64",
                "slots": ["packet"],
            }.items()
        )
        assert shown["blocked6"]["key_type"] == "struct network6"
        line = next(x for x in said("maps", str(link.id)).splitlines() if "blocked4" in x)
        assert line == (
            f"map={shown['blocked4']['map']} name=blocked4 type=lpm_trie "
            "key=8(struct network4) value=8(__u64) entries=65536 slots=packet"
        )


# --- types ----------------------------------------------------------------------------------------


def test_keys_and_values_by_their_types(
    controller: Controller, net: Network, objects: dict[str, Path]
) -> None:
    hook = NfHook.parse("nf:inet4/forward", netns=net.router.path)
    (Path("/sys/fs/bpf") / "shared").unlink(missing_ok=True)
    try:
        with at_hook(controller, "object", f"{objects['types']}:socket", hook) as link:
            name = f"{link.id}/networks"
            said("map", "set", name, "10.0.0.0/8", json.dumps(VALUE))
            (entry,) = objects_of(said("map", "dump", name, "-o", "json"))
            assert entry["key"] == "10.0.0.0/8"
            assert entry["value"] == {**VALUE, "halves": [1, 2]}
            # the printed form is accepted as input
            text = said("map", "get", name, "10.1.2.3").partition("\t")[2].strip()
            said("map", "set", name, "192.168.0.0/16", text)
            assert json.loads(text) == entry["value"]
            assert [e["key"] for e in objects_of(said("map", "dump", name, "-o", "json"))] == [
                "10.0.0.0/8",
                "192.168.0.0/16",
            ]

            wrong = json.dumps({**VALUE, "port": 70000})
            assert refused(2, "map", "set", name, "10.0.0.0/8", wrong) == (
                "value.port: 70000 is not between 0 and 65535"
            )
            assert refused(2, "map", "get", name, "fd00::/8").startswith(
                "key: 'fd00::/8' is no IPv4 prefix"
            )
            assert refused(4, "map", "get", name, "172.16.0.1").startswith(
                "map networks has no key 172.16.0.1"
            )
            assert refused(4, "map", "delete", name, "172.16.0.0/12").startswith(
                "map networks has no key 172.16.0.0/12"
            )

            constants = f"{link.id}/types.rodata"
            assert json.loads(said("map", "get", constants, "0").partition("\t")[2]) == {
                "port": 7,
                "network": {"prefixlen": 0, "address": "0.0.0.0"},
            }
            value = json.dumps({"port": 1, "network": {"prefixlen": 0, "address": "1.1.1.1"}})
            assert refused(4, "map", "set", constants, "0", value) == (
                "the map is read-only (frozen); set its content before it is loaded"
            )
            # any value other than the current one
            assert refused(4, "map", "set", constants, "0", "-1").startswith("the map is read-only")
    finally:
        (Path("/sys/fs/bpf") / "shared").unlink()


def test_types_that_are_made_by_hand_reach_the_kernel(
    controller: Controller, make_program: MakeProgram
) -> None:
    """A spec may have the types of bpfcc's maps; a map that cannot have types is made without."""
    types = Types()
    pair = types.struct("pair", 8, [("first", types.u32, 0), ("second", types.s32, 4)])
    hash_map = MapSpec("pairs", HASH, 4, 8, 16, key_type=types.u32, value_type=pair)
    queue = MapSpec("queue", QUEUE, 0, 8, 16, value_type=pair)
    with (
        Btf.from_data(types.blob()) as described,
        Map.create(hash_map, described) as pairs,
        Map.create(queue, described) as without,
    ):
        assert without.info.btf == 0
        with pytest.raises(
            ProgramError, match="map queue is of type queue, which is not read by k"
        ):
            without.get(0)
        program = make_program(asm.look_up(pairs.fd, 0) + asm.returning(0))
        link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: program.fd}))
        name = f"{link.id}/pairs"
        said("map", "set", name, "0x10", '{"first": 7, "second": -7}')
        assert said("map", "get", name, "16") == '16\t{"first": 7, "second": -7}\n'
        assert pairs.get(16) == {"first": 7, "second": -7}
        controller.detach(link.id)


def test_maps_of_programs_are_not_written_by_number() -> None:
    with (
        Map.create(MapSpec("tails", PROG_ARRAY, 4, 4, 2)) as tails,
        pytest.raises(ProgramError, match="map tails is of type prog_array: its values are obj"),
    ):
        tails.set(0, 1)


def test_maps_without_types_go_by_their_sizes(
    controller: Controller, make_program: MakeProgram
) -> None:
    specs = [
        MapSpec("numbers", HASH, 4, 8, 2),
        MapSpec("bytes", HASH, 6, 3, 2),
        MapSpec("cpus", syscalls.MapType.PERCPU_ARRAY, 4, 4, 2),
        MapSpec("twice", ARRAY, 4, 4, 1),
        MapSpec("twice", ARRAY, 4, 4, 1),
    ]
    maps = [Map.create(spec) for spec in specs]
    code = b"".join(asm.load_map(asm.R1, entry.fd) for entry in maps)
    program = make_program(code + asm.returning(0))
    link = controller.attach(
        TableHook(), ProgramSet({Slot.RULE: program.fd, Slot.EXIT: program.fd})
    )
    at = f"{link.id}/"
    shown = objects_of(said("maps", str(link.id), "-o", "json"))
    assert [(e["name"], e["type"]) for e in shown] == [
        ("numbers", "hash"), ("bytes", "hash"), ("cpus", "percpu_array"),
        ("twice", "array"), ("twice", "array"),
    ]  # fmt: skip  # pairs together
    assert {tuple(e["slots"]) for e in shown} == {("rule", "exit")}
    assert {e["key_type"] for e in shown} == {None}

    said("map", "set", at + "numbers", "10.0.0.1", "0x10")
    assert maps[0].lookup(b"\x0a\0\0\1") == (16).to_bytes(8, "little")
    assert said("map", "get", at + "numbers", "0a:00:00:01") == "16777226\t16\n"
    said("map", "set", at + "numbers", "2", "2")
    assert refused(4, "map", "set", at + "numbers", "3", "3") == (
        "the map has no such index or is full; raise its max_entries"
    )
    said("map", "delete", at + "numbers", "2")
    assert refused(2, "map", "set", at + "numbers", "x", "3").startswith("key: 'x' is no __u32")

    said("map", "set", at + "bytes", "0a:0b:0c:0d:0e:0f", "01:02:03")
    assert said("map", "dump", at + "bytes") == "0a:0b:0c:0d:0e:0f\t01:02:03\n"

    cpus = syscalls.possible_cpus()
    said("map", "set", at + "cpus", "1", "7")
    each = list(range(cpus))
    said("map", "set", at + "cpus", "0", json.dumps(each))
    assert objects_of(said("map", "dump", at + "cpus", "-o", "json")) == [
        {"map": maps[2].info.id, "key": 0, "value": each},
        {"map": maps[2].info.id, "key": 1, "value": [7] * cpus},
    ]
    assert refused(4, "map", "delete", at + "cpus", "1").startswith("map cpus is an array")
    assert refused(4, "map", "get", at + "cpus", "2").startswith("map cpus has no key 2")

    twice = [entry.info.id for entry in maps[3:]]
    assert refused(4, "map", "get", at + "twice", "0") == (
        f"link {link.id} has maps {twice[0]}, {twice[1]} of the name twice; "
        f"take one by its id, as in {at}{twice[0]}"
    )
    said("map", "set", f"{at}{twice[1]}", "0", "9")
    assert (maps[3].get(0), maps[4].get(0)) == (0, 9)
    assert refused(4, "map", "get", at + "nothing", "0").startswith(
        f"link {link.id} has no map nothing; there are: numbers ({maps[0].info.id}), bytes ("
    )
    controller.detach(link.id)
    assert refused(6, "map", "get", at + "numbers", "0").startswith(f"looking up link {link.id}: ")
    for entry in maps:
        entry.close()
