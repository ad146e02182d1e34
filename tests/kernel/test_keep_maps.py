# SPDX-License-Identifier: GPL-2.0
"""Swaps that keep maps, filter, cookie and payload; constants that are set before load.

The flood of the limiter goes through a router:

    left --- udp ---> router, the limiter at forward ---> right, which counts
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ipttctl import ProgramChoice, map_of, parse_source
from ipttctl.bpf import syscalls
from ipttctl.bpf.map_copy import copy_entries
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.specs import MapSpec
from ipttctl.errors import ExpectationError, ProgramError
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, Part, ProgramSet, Swap
from ipttctl.programs.keep import keep_maps
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import settled, wait_for
from tests.kernel.support.network import Namespace, Network, event, flood_udp, namespace
from tests.kernel.support.nf import socket_filter
from tests.kernel.support.objects import BPF, compile_object

PORT = 4711
LIMIT = 50
SWAPS = 5
#: seconds: longer than any guest runs, so that there is one period
FOR_EVER = 1_000_000
HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LPM_TRIE, QUEUE = 1, 2, 5, 6, 9, 11, 22
CONSTANTS = Path(__file__).parent / "support" / "constants.c"
WHERE = "nf:inet4/output"

pytestmark = pytest.mark.usefixtures("no_links")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def limiter(directory: Path) -> Path:
    return compile_object(BPF / "limit.c", directory)


@pytest.fixture(scope="module")
def constants(directory: Path) -> Path:
    return compile_object(CONSTANTS, directory)


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("kept") as made:
        yield made


def said(*arguments: str, noted: str = "") -> list[dict[str, Any]]:
    """Run a command, which must succeed; returns the objects that it prints."""
    done = ipttctl(*arguments, "-o", "json")
    assert done.returncode == 0, done
    assert re.fullmatch(rf"(compiling .*\n)?{noted}", done.stderr), done
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(status: int, *arguments: str) -> str:
    """The sentence with which a command fails."""
    done = ipttctl(*arguments)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("compiling")]
    assert (done.returncode, done.stdout, len(lines)) == (status, "", 1), done
    return lines[0].removeprefix("ipttctl: ")


def attached(where: Namespace, program: str, *options: str, at: str = WHERE) -> int:
    """The id of a new persistent link with a program in the slot `packet`."""
    kind, _, source = program.partition(" ")
    line = ("attach", "--hook", at, "--netns", str(where.path), "--persist")
    return int(said(*line, f"--{kind}", f"packet={source}", *options)[0]["link"])


def dump(link: int, name: str) -> dict[Any, Any]:
    return {entry["key"]: entry["value"] for entry in said("map", "dump", f"{link}/{name}")}


def changed(source: Path, directory: Path, name: str, *replaced: tuple[str, str]) -> Path:
    """An object file of a changed source."""
    text = source.read_text()
    for before, after in replaced:
        assert before in text
        text = text.replace(before, after)
    other = directory / f"{name}.c"
    other.write_text(text)
    return compile_object(other, directory)


# --- the limiter ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "source"])
def test_a_limiter_keeps_limits_and_counts_under_flood(
    kind: str, net: Network, limiter: Path
) -> None:
    file = limiter if kind == "object" else BPF / "limit.c"
    net.right.iptables("-A", "INPUT", "-p", "udp", "--dport", str(PORT))
    program, period = f"packet={file}:limit", f"period={FOR_EVER}"
    mode = ("--mode", "filter", "--filter", f"udp port {PORT}", "--set", period)
    link = attached(net.router, f"{kind} {file}:limit", *mode, at="nf:inet4/forward")
    said_nothing = ipttctl("map", "set", f"{link}/limits", net.left_address, str(LIMIT))
    assert said_nothing.returncode == 0

    def counts() -> dict[str, int]:
        zeros = {"passed": 0, "dropped": 0}
        return {**zeros, **dump(link, "counts").get(net.left_address, zeros)}

    def stats() -> tuple[int, int]:
        with Controller() as controller:
            found = controller.link(link).stats
            return found.selected, found.drops

    def drops_more(than: int) -> bool:
        return counts()["dropped"] > than

    stop = event()
    flood = net.left.start(flood_udp, net.right_address, PORT, stop)
    try:
        wait_for(lambda: counts()["dropped"] > 0, 120, "the limit is reached")
        before = counts()
        for number in range(SWAPS):
            # another program each time: nobody else has a limit, or has this one
            swap = ("swap", str(link), f"--{kind}", program, "--set", period, "--keep=filter")
            said(*swap, "--keep-maps", "--set", f"default_limit={number}")
            now = counts()
            assert now["passed"] == LIMIT
            assert now["dropped"] >= before["dropped"]
            before = now
            wait_for(partial(drops_more, now["dropped"]), 120, "it still drops")
    finally:
        stop.set()
        flood.join(30)
    packets, drops = settled(stats)
    print(f"{packets} packets, {drops} dropped, over {SWAPS} swaps")
    # not one packet was let through or forgotten because of a swap
    assert counts() == {"passed": LIMIT, "dropped": drops}
    assert packets == LIMIT + drops
    assert net.right.counted("INPUT") == LIMIT
    assert dump(link, "limits") == {net.left_address: LIMIT}
    # the measurement sees what is lost: without the option limits and counts are gone
    said("swap", str(link), f"--{kind}", program)
    assert (dump(link, "limits"), dump(link, "counts")) == ({}, {})


# --- maps -----------------------------------------------------------------------------------------


def test_maps_that_cannot_be_kept(
    place: Namespace, limiter: Path, directory: Path, make_program: MakeProgram
) -> None:
    link = attached(place, f"object {limiter}:limit")
    at = f"{link}/limits"
    assert ipttctl("map", "set", at, "10.0.0.1", "7").returncode == 0

    def swapped(file: Path, *options: str) -> str:
        return refused(4, "swap", str(link), "--object", f"packet={file}:limit", *options)

    for name, replaced, why in (
        ("more", ("ADDRESSES 16384", "ADDRESSES 32"), "max_entries 16384, not 32"),
        ("wide", ("\t__u64 dropped;", "\t__u64 dropped, late;"), "value_size 16, not 24"),
        (
            "named",
            ("dropped", "refused"),
            "other values: struct count has a member 'dropped' there only",
        ),
        ("kind", ("MAP_TYPE_LRU_HASH", "MAP_TYPE_HASH"), "type lru_hash, not hash"),
    ):
        file = changed(BPF / "limit.c", directory, name, replaced)
        said_of = "used" if name == "kind" else "limits" if name == "more" else "counts"
        assert swapped(file, "--keep-maps").startswith(
            f"{file}: map {said_of} cannot be that of link {link}, which has {why}; keep other maps"
        )
    # a part of them
    said("swap", str(link), "--object", f"packet={directory / 'named.o'}:limit",
         "--keep-maps=limits")  # fmt: skip  # a line
    assert dump(link, "limits") == {"10.0.0.1": 7}

    assert swapped(limiter, "--keep-maps=nothing").startswith(
        f"link {link} has no map nothing to keep; there are: limits, counts, used"
    )
    assert swapped(limiter, "--keep-maps=limit.rodata") == (
        "map limit.rodata cannot be kept: it holds the constants of its program; "
        "set them for the new one"
    )
    blocklist = compile_object(BPF / "blocklist.c", directory)
    program = f"packet={blocklist}:blocklist"
    assert refused(4, "swap", str(link), "--object", program, "--keep-maps=limits") == (
        "the new programs have no map limits to keep; give the name of one they have"
    )
    # a loaded program has its maps
    with Map.create(MapSpec("limits", HASH, 4, 8, 16)) as own:
        loaded = socket_filter(make_program, asm.look_up(own.fd, 0) + asm.returning(1))
        assert refused(4, "swap", str(link), "--id", f"packet={loaded.id}", "--keep-maps") == (
            "the program for slot packet (--id) is loaded already, with a map limits of its own: "
            "the maps of a loaded program are fixed; give its --source or --object, or "
            "`ipttctl map copy` to its map"
        )
    with Controller() as controller, map_of(controller.link(link), "limits") as kept:
        loaded = socket_filter(make_program, asm.look_up(kept.fd, 0) + asm.returning(1))
        said("swap", str(link), "--id", f"packet={loaded.id}", "--keep-maps=limits")
        assert kept.get("10.0.0.1") == 7
    # nothing was attached half
    assert dump(link, "limits") == {"10.0.0.1": 7}
    # all, and what is left behind is told
    told = f"map limits of link {link} is not kept: the new programs have none of that name\n"
    said("swap", str(link), "--object", program, "--keep-maps", noted=told)


def test_variables_are_kept_under_another_file_name(
    place: Namespace, constants: Path, directory: Path
) -> None:
    link = attached(place, f"object {constants}:constants", "--set", "level=9")
    place.ping("127.0.0.1")

    def variables(name: str) -> Any:
        (entry,) = said("map", "get", f"{link}/{name}", "0")
        return entry["value"]

    count = variables("constant.bss")["packets"]
    assert count > 0
    assert variables("constant.data") == {"level": 9}
    other = changed(CONSTANTS, directory, "other", ("return 1;", "return 2;"))
    swap = ("swap", str(link), "--object", f"packet={other}:constants", "--keep-maps")
    assert refused(4, *swap, "--set", "level=5") == (
        f"{other}: level cannot be set: it is a variable in map other.data, which is kept with its "
        "content; keep other maps, or make it a constant (const volatile)"
    )
    said(*swap, "--set", "name=lo")
    assert variables("constant.bss")["packets"] == count
    assert variables("constant.data") == {"level": 9}
    assert variables("other.rodata")["name"] == "lo"


def test_the_maps_are_of_the_generation_that_is_swapped(
    place: Namespace, limiter: Path, controller: Controller, make_program: MakeProgram
) -> None:
    choice = ProgramChoice({Slot.PACKET: parse_source("object", f"{limiter}:limit")})
    other = socket_filter(make_program, asm.returning(1))
    with choice.open() as programs:
        link = controller.attach(NfHook.parse(WHERE, netns=place.path), programs)
    with keep_maps(link) as kept, choice.open(keep=kept) as programs:
        controller.swap(link.id, ProgramSet({Slot.PACKET: other.fd}))
        for swap in (
            lambda: controller.swap(
                link.id, programs, expect_generation=link.generation, keep=[Part.COOKIE]
            ),
            lambda: controller.swap(link.id, programs, expect_generation=link.generation),
            lambda: controller.transact([Swap(link.id, programs, link.generation)]),
        ):
            with pytest.raises(ExpectationError):
                swap()
    assert controller.link(link.id).generation == 2
    told = refused(7, "swap", str(link.id), "--id", f"packet={other.id}", "--keep-maps",
                   "--expect-gen", "1")  # fmt: skip  # a line
    assert "the link has generation 2, not 1 [ESTALE]" in told
    controller.detach(link.id)


# --- filter, cookie, payload ----------------------------------------------------------------------


def test_filter_cookie_and_payload_are_kept(
    controller: Controller, make_program: MakeProgram
) -> None:
    with (
        Map.create(MapSpec("bytes", PERCPU_ARRAY, 4, 16, 1)) as first,
        Map.create(MapSpec("bytes", PERCPU_ARRAY, 4, 16, 1)) as second,
        Map.create(MapSpec("others", PERCPU_ARRAY, 4, 16, 1)) as third,
    ):

        def program(of: Map) -> Program:
            return make_program(asm.look_up(of.fd, 0) + asm.returning(1))

        one, same, other, without = (program(m) for m in (first, first, second, third))
        given = ("--filter", "udp", "--cookie", "77", "--payload", "bytes")
        line = ("attach", "--hook", "table", "--persist", "--id", f"exit={one.id}", *given)
        found = said(*line, noted=r"(no IPv[46] tables: .*\n)*")
        link = int(found[0]["link"])
        length = found[0]["filter_length"]
        assert length > 0

        def swap(to: Program, *options: str) -> dict[str, Any]:
            return said("swap", str(link), "--id", f"exit={to.id}", *options)[0]

        def parts(state: dict[str, Any]) -> tuple[int, int, int]:
            return state["filter_length"], state["cookie"], state["payload_map"] or 0

        everything = ("--keep", "filter,cookie,payload")
        assert parts(swap(same, *everything)) == (length, 77, first.info.id)
        # the new program's own map takes the payload's place
        assert parts(swap(other, *everything)) == (length, 77, second.info.id)
        instructions, *rest = parts(swap(other, "--keep", "cookie", "--filter", "tcp port 80"))
        assert instructions not in {0, length}
        assert rest == [77, 0]
        kept = swap(other, "--keep", "cookie", "--keep=filter", "--payload", "bytes")
        assert (kept["cookie"], kept["payload_map"]) == (77, second.info.id)
        assert kept["filter_length"] not in {0, length}
        refusal = refused(4, "swap", str(link), "--id", f"exit={without.id}", "--keep", "payload")
        assert refusal == (
            f"the payload of link {link} cannot be kept: the new programs have no map of the name "
            "bytes; give the payload"
        )
        assert refused(2, "swap", str(link), "--id", f"exit={one.id}", "--keep", "cookie",
                       "--cookie", "1") == (
            "the cookie is to be kept, and another one is given; give one"
        )  # fmt: skip  # a line
        plain = swap(without)
        assert parts(plain) == (0, 0, 0)
        # what is not there is kept as such
        assert parts(swap(one, *everything)) == (0, 0, 0)
        controller.detach(link)


# --- constants ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["object", "source"])
def test_constants_of_each_type_reach_the_program(
    kind: str, place: Namespace, constants: Path
) -> None:
    file = constants if kind == "object" else CONSTANTS
    values = {
        "wide": "0xfedcba9876543210",
        "below": "-7",
        "paint": "BLUE",
        "port": "443",
        "small": "255",
        "on": "true",
    }
    options = [word for pair in values.items() for word in ("--set", "=".join(pair))]
    link = attached(place, f"{kind} {file}:constants", *options)

    def seen() -> dict[str, Any]:
        place.ping("127.0.0.1")
        return dict(dump(link, "seen")[0])

    first = seen()
    packets = first.pop("packets")
    assert first == {
        "wide": 0xFEDCBA9876543210,
        "below": -7,
        "paint": "BLUE",
        "port": 443,
        "small": 255,
        "on": True,
    }
    # a swap without them has none; the counts are kept
    said("swap", str(link), f"--{kind}", f"packet={file}:constants", "--keep-maps",
         "--set", "below=5")  # fmt: skip  # a line
    second = seen()
    assert second.pop("packets") > packets
    assert second == {"wide": 0, "below": 5, "paint": 0, "port": 0, "small": 0, "on": False}

    # a program that is still loaded tells its constants; the first one is not
    wait_for(lambda: said("history", str(link))[0]["constants"] == {}, 60, "it is unloaded")
    told = said("history", str(link))[1]["constants"]["packet"]
    assert {name: told[name] for name in second} == second
    name = ".rodata" if kind == "source" else "constant.rodata"
    assert dump(link, name) == {0: told}
    line = ipttctl("history", str(link)).stdout.splitlines()[1]
    assert " packet.set.below=5 " in f"{line} "
    assert " packet.set.on=false " in f"{line} "

    for given, why in (
        ("small=256", "constant small (unsigned char): 256 is not between 0 and 255"),
        ("below=2147483648", "constant below (int): 2147483648 is not between -2147483648 and"),
        ("on=2", "constant on (_Bool): '2' is neither true nor false"),
        ("paint=GREEN", "constant paint (enum colour): 'GREEN' is no enum colour; there are: RED,"),
        ("wide=1.5", "constant wide (__u64): '1.5' is no __u64; it takes a number"),
    ):
        told = refused(
            2, "swap", str(link), f"--{kind}", f"packet={file}:constants", "--set", given
        )
        assert told.startswith(why)
    told = refused(4, "swap", str(link), f"--{kind}", f"packet={file}:constants", "--set", "x=1")
    assert told.startswith("the programs have no constant x; there are: below (int), ")
    program = said("links", str(link))[0]["programs"]["packet"]["id"]
    assert refused(4, "swap", str(link), "--id", f"packet={program}", "--set", "below=1") == (
        "constant below cannot be set: the programs are loaded already; "
        "give their --source or --object"
    )


# --- transactions and declared states -------------------------------------------------------------


def test_a_transaction_keeps_maps(place: Namespace, limiter: Path, tmp_path: Path) -> None:
    links = [attached(place, f"object {limiter}:limit") for _ in range(2)]
    for link in links:
        assert ipttctl("map", "set", f"{link}/limits", "10.0.0.1", str(link)).returncode == 0
    program = {"packet": f"{limiter}:limit"}
    file = tmp_path / "changes.json"
    changes = [
        {"link": links[0], "object": program, "keep-maps": True, "set": {"default_limit": 9}},
        {"link": links[1], "object": program, "keep-maps": ["limits", "counts"], "keep": "filter"},
    ]
    file.write_text(json.dumps(changes))
    said("swap", "--txn", str(file))
    assert [dump(link, "limits") for link in links] == [{"10.0.0.1": link} for link in links]
    assert dump(links[0], "limit.rodata") == {0: {"default_limit": 9, "period": 0}}
    changes[1]["keep-maps"] = ["nothing"]
    file.write_text(json.dumps(changes))
    assert refused(4, "swap", "--txn", str(file)).startswith(
        f"link {links[1]} has no map nothing to keep"
    )
    with Controller() as controller:
        assert [link.generation for link in controller.links()] == [2, 2]


@pytest.mark.parametrize("kind", ["object", "source"])
def test_a_declared_link_keeps_maps_and_differs_by_constants(
    kind: str, place: Namespace, limiter: Path, tmp_path: Path
) -> None:
    file = tmp_path / "state.json"
    source = limiter if kind == "object" else BPF / "limit.c"

    def declare(**options: Any) -> None:
        link = {"hook": WHERE, "netns": place.name, kind: {"packet": f"{source}:limit"}, **options}
        file.write_text(json.dumps({"links": {"guard": link}}))

    declare(set={"default_limit": 100})
    (made,) = said("apply", str(file))
    link = made["link"]
    assert (made["action"], made["set"]) == ("attach", {"default_limit": "100"})
    assert ipttctl("map", "set", f"{link}/limits", "10.0.0.1", "7").returncode == 0
    # the same number, written in another way
    declare(set={"default_limit": "0x64"}, **{"keep-maps": True})
    assert said("diff", str(file))[1:] == []
    declare(set={"default_limit": 200}, **{"keep-maps": ["limits"]})
    done = ipttctl("diff", str(file))
    assert done.returncode == 9
    assert done.stdout.startswith(
        f"swap guard link={link} changes=packet packet={kind}:{source}:limit "
    )
    assert done.stdout.endswith(" set.default_limit=200\n")
    (step,) = said("apply", str(file))
    assert (step["action"], step["changes"]) == ("swap", ["packet"])
    assert dump(link, "limits") == {"10.0.0.1": 7}
    assert said("diff", str(file))[1:] == []
    # what is saved is applied without a change
    saved = said("save")[0]
    assert saved["links"]["guard"]["set"] == {"default_limit": 200}
    assert saved["links"]["guard"]["keep-maps"] == ["limits"]
    file.write_text(json.dumps(saved))
    assert said("apply", str(file)) == []
    declare(set={"limit": 1})
    told = refused(4, "diff", str(file))
    assert told.startswith("guard: the programs have no constant limit; there are: default_limit")


# --- copies ---------------------------------------------------------------------------------------


def _filled(spec: MapSpec, number: int) -> Map:
    made = Map.create(spec)
    for key in range(number):
        prefix = (32).to_bytes(4, "little") if spec.type == LPM_TRIE else b""
        value = (key + 1).to_bytes(made.value_size, "little")
        made.update(prefix + key.to_bytes(4, "little"), value)
    return made


@pytest.mark.parametrize(
    ("kind", "flags"),
    [(HASH, 0), (ARRAY, 0), (PERCPU_HASH, 0), (PERCPU_ARRAY, 0), (LRU_HASH, 0), (LPM_TRIE, 1)],
)
def test_entries_of_each_type_of_map_are_copied(kind: int, flags: int) -> None:
    size = 8 if kind == LPM_TRIE else 4
    spec = MapSpec("copied", kind, size, 16, 1000, flags)
    room = MapSpec("copied", kind, size, 16, 2000, flags)
    with _filled(spec, 1000) as source, Map.create(room) as target:
        present = dict(source.items())
        number = copy_entries(source, target)
        assert number == len(present)
        # an LRU map may forget some when it is full
        assert number == 1000 or (kind == LRU_HASH and number > 500)
        after = dict(target.items())
        assert {key: after[key] for key in present} == present


def test_what_cannot_be_copied() -> None:
    with (
        _filled(MapSpec("many", HASH, 4, 8, 100), 100) as many,
        Map.create(MapSpec("few", HASH, 4, 8, 10)) as few,
        Map.create(MapSpec("wide", HASH, 4, 16, 100)) as wide,
        Map.create(MapSpec("each", PERCPU_HASH, 4, 8, 100)) as each,
        Map.create(MapSpec("line", QUEUE, 0, 8, 100)) as line,
        Map.create(MapSpec("tails", syscalls.MapType.PROG_ARRAY, 4, 4, 2)) as tails,
        Map.create(MapSpec("array", ARRAY, 4, 8, 10)) as array,
        Map.create(MapSpec("short", ARRAY, 4, 8, 5)) as short,
    ):
        for target, why in (
            (many, "both are map"),
            (few, r"map few is full after \d+ entries, or has no such index; raise its max_ent"),
            (wide, "a value of map many has 8 bytes, and one of map wide 16; only maps with the"),
            (each, "a value of map many has 8 bytes, and one of map each"),
            (line, "map line is of type queue, which has no keys"),
            (tails, "map tails is of type prog_array: its values are objects"),
        ):
            with pytest.raises(ProgramError, match=why):
                copy_entries(many, target)
        # what was copied by then stays, and is counted
        assert len(dict(few.items())) == 10
        with pytest.raises(ProgramError, match="map array has 10 elements, and map short 5"):
            copy_entries(array, short)


def test_maps_are_copied_by_link_pin_and_id(place: Namespace, limiter: Path) -> None:
    pin = Path("/sys/fs/bpf/test-copied")
    pin.unlink(missing_ok=True)
    first, second = (attached(place, f"object {limiter}:limit") for _ in range(2))
    assert ipttctl("map", "set", f"{first}/limits", "10.0.0.1", "7").returncode == 0
    assert ipttctl("map", "set", f"{second}/limits", "10.0.0.2", "8").returncode == 0
    with Controller() as controller, map_of(controller.link(second), "limits") as found:
        identifier = found.info.id
        found.pin(pin)
    try:
        done = ipttctl("map", "copy", f"{first}/limits", f"{second}/limits")
        assert re.fullmatch(rf"from=\d+ to={identifier} entries=1\n", done.stdout), done
        assert dump(second, "limits") == {"10.0.0.1": 7, "10.0.0.2": 8}
        (told,) = said("map", "copy", f"map={identifier}", f"{first}/limits")
        assert (told["from"], told["entries"]) == (identifier, 2)
        assert dump(first, "limits") == dump(second, "limits")
        assert ipttctl("map", "delete", str(pin), "10.0.0.1").returncode == 0
        assert said("map", "dump", str(pin))[0]["key"] == "10.0.0.2"
        assert refused(4, "map", "copy", str(pin), f"{first}/limit.rodata").startswith(
            "a value of map limits has 8 bytes, and one of map limit.rodata 12"
        )
        read_only = f"{first}/limit.rodata"
        assert refused(4, "map", "copy", f"{second}/limit.rodata", read_only) == (
            "the map is read-only (frozen); set its content before it is loaded"
        )
        assert refused(4, "map", "copy", "/sys/fs/bpf/none", read_only).startswith(
            "nothing is pinned at /sys/fs/bpf/none"
        )
    finally:
        pin.unlink()


def test_a_link_that_is_made_again_keeps_maps(place: Namespace, limiter: Path) -> None:
    """The same command makes the link first, and then swaps its programs."""
    line = (
        "attach", "--hook", WHERE, "--netns", str(place.path), "--persist", "--name", "web",
        "--object", f"packet={limiter}:limit", "--replace", "--keep-maps",
    )  # fmt: skip  # pairs together
    (made,) = said(*line, "--cookie", "7")
    assert ipttctl("map", "set", "web/limits", "10.0.0.1", "5").returncode == 0
    (again,) = said(*line, "--keep", "cookie")
    assert (again["link"], again["generation"], again["cookie"]) == (made["link"], 2, 7)
    assert dump(made["link"], "limits") == {"10.0.0.1": 5}
    said("detach", "web")


def test_kept_maps_are_the_same(place: Namespace, limiter: Path, controller: Controller) -> None:
    """The maps live as long as any program that uses them."""
    link = attached(place, f"object {limiter}:limit")
    kept = _maps(controller.link(link))
    said("swap", str(link), "--object", f"packet={limiter}:limit", "--keep-maps")
    again = _maps(controller.link(link))
    assert {name: again[name] for name in ("limits", "counts", "used")} == {
        name: kept[name] for name in ("limits", "counts", "used")
    }
    assert again["limit.rodata"] != kept["limit.rodata"]


def _maps(link: Link) -> dict[str, int]:
    return {entry["name"]: entry["map"] for entry in said("maps", str(link.id))}
