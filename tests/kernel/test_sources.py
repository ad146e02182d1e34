# SPDX-License-Identifier: GPL-2.0
"""Programs from all sources, mixed in one link; unavailable ones are refused with a sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.collection import Collection, CollectionSpec
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import PrivilegeError, ProgramError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.programs.maps import maps_of
from ipttctl.programs.sources import open_sources, parse_source
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import ipttctl
from tests.kernel.support.kernel import run, wait_for
from tests.kernel.support.objects import BPF, REPOSITORY, compile_object

PINS = Path("/sys/fs/bpf/test-sources")

#: the pin of the map `shared` of types.c, unless told otherwise
SHARED = Path("/sys/fs/bpf/shared")
TYPES = REPOSITORY / "tests" / "unit" / "ctl" / "bpf" / "types.c"


@pytest.fixture(scope="module")
def count_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(BPF / "count.c", tmp_path_factory.mktemp("objects"))


@pytest.fixture(scope="module")
def types_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_object(TYPES, tmp_path_factory.mktemp("objects"))


@pytest.fixture(autouse=True)
def pins() -> Iterator[None]:
    PINS.mkdir(mode=0o700)
    yield
    shutil.rmtree(PINS)
    SHARED.unlink(missing_ok=True)


@contextmanager
def child_with(program: Program) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a program open until its standard input ends."""
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[program.fd],
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


def attached(*arguments: str, fds: tuple[int, ...] = ()) -> dict[str, Any]:
    """The output of ``attach --persist``, which must succeed."""
    done = ipttctl("attach", "--persist", "-o", "json", *arguments, pass_fds=fds, timeout=400)
    assert done.returncode == 0, done.stderr
    link: dict[str, Any] = json.loads(done.stdout)
    return link


def refused(*arguments: str) -> str:
    """The sentence with which ``attach`` refuses because a program is not available."""
    done = ipttctl("attach", *arguments)
    assert done.returncode == 4, done
    *notes, sentence = done.stderr.splitlines()
    # sources are slow
    assert all(note.startswith("compiling ") for note in notes), done
    return sentence


def test_every_source_mixed_with_others(
    controller: Controller, make_program: MakeProgram, count_object: Path
) -> None:
    held, pinned, by_id = (make_program(asm.returning(n), name=f"p{n}") for n in (2, 3, 4))
    by_tag, given = make_program(asm.returning(5), name="p5"), make_program(name="given")
    pinned.pin(PINS / "p3")
    with child_with(held) as child:
        link = attached(
            "--object", f"entry={count_object}:count_entry",
            "--pid", f"rule={child.pid}:{held.fd}",
            "--source", f"exit={BPF / 'count.c'}:count_exit",
        )  # fmt: skip  # pairs together
    # the child has ended, and its program stays
    programs = link["programs"]
    assert programs["rule"] == {"id": held.id, "tag": held.tag, "name": "p2"}
    assert [programs[slot]["name"] for slot in ("entry", "exit")] == ["count_entry", "count_exit"]

    number = str(link["link"])
    swapped = ipttctl(
        "swap", number, "-o", "json",
        "--pinned", f"entry={PINS / 'p3'}",
        "--id", f"rule={by_id.id}",
        "--tag", f"exit={by_tag.tag}",
    )  # fmt: skip  # pairs together
    assert swapped.returncode == 0, swapped.stderr
    ids = {slot: program["id"] for slot, program in json.loads(swapped.stdout)["programs"].items()}
    assert ids == {"entry": pinned.id, "rule": by_id.id, "exit": by_tag.id}

    swapped = ipttctl(
        "swap", number, "-o", "json",
        "--fd", f"entry={given.fd}",
        "--object", f"exit={count_object}:count_exit",
        pass_fds=[given.fd],
    )  # fmt: skip  # pairs together
    assert swapped.returncode == 0, swapped.stderr
    programs = json.loads(swapped.stdout)["programs"]
    assert programs["entry"]["id"] == given.id
    assert programs["exit"]["name"] == "count_exit"
    controller.detach(link["link"])


def test_a_number_that_nobody_left_open_is_no_program_of_ours(
    controller: Controller, make_program: MakeProgram, tmp_path: Path
) -> None:
    """Each of these numbers could become that of the program that the command itself opens."""
    pinned = make_program(asm.returning(2), name="pinned")
    pinned.pin(PINS / "pinned")
    entry, declared = f"entry={PINS / 'pinned'}", tmp_path / "declared.yaml"
    for number in range(3, 10):
        sentence = refused("--pinned", entry, "--fd", f"exit={number}")
        assert f"--fd: fd {number} is not open in this process; leave it open" in sentence
        declared.write_text(
            f"links: {{a: {{pinned: {{entry: {PINS / 'pinned'}}}, fd: {{exit: {number}}}}}}}"
        )
        done = ipttctl("apply", str(declared))
        assert done.returncode == 4, done
        assert f"link a: --fd: fd {number} is not open" in done.stderr
    assert controller.links() == []
    sources = {Slot.ENTRY: parse_source("pinned", str(PINS / "pinned"))}
    free = os.dup(pinned.fd)
    os.close(free)
    with (
        pytest.raises(ProgramError, match=f"fd {free} is not open"),
        open_sources({**sources, Slot.EXIT: parse_source("fd", str(free))}),
    ):
        pass


def test_slots_of_one_file_share_its_maps(types_object: Path) -> None:
    sources = {
        Slot.ENTRY: parse_source("object", f"{types_object}:kprobe/first"),
        Slot.RULE: parse_source("object", f"{types_object}:first"),
    }
    with open_sources(sources) as fds, ExitStack() as stack:
        entry, rule = (stack.enter_context(Program.from_fd(fd)) for fd in fds.values())
        assert entry.type == "kprobe"
        assert entry.maps() == rule.maps() != []


def test_the_type_follows_the_slot(types_object: Path, tmp_path: Path) -> None:
    """A section that names no type leaves it to the slot; otherwise the section decides."""
    for slot, kind in ((Slot.EXIT, "kprobe"), (Slot.PACKET, "socket_filter")):
        source = parse_source("object", f"{types_object}:nonsense")
        with open_sources({slot: source}) as fds, Program.from_fd(fds[slot]) as program:
            assert program.type == kind
    assert "program drop is of type socket_filter by its section socket, not kprobe" in refused(
        "--object", f"rule={types_object}:drop"
    )
    assert "section kprobe has several programs; name one: second, third" in refused(
        "--object", f"rule={types_object}:kprobe"
    )
    assert "cannot read BPF object" in refused("--object", f"rule={tmp_path / 'none.o'}:x")


def test_a_verifier_that_refuses_an_object_is_quoted(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("kprobe") int bad(void *ctx) { return *(volatile int *)8; }\n'
        'char LICENSE[] SEC("license") = "GPL";\n'
    )
    sentence = refused("--object", f"rule={compile_object(source, tmp_path)}:bad")
    assert "the kernel's verifier refuses program bad of bad.o: " in sentence
    assert "invalid mem access" in sentence
    assert "the line is `int bad(void *ctx)" in sentence.replace('SEC("kprobe") ', "")


def test_a_source_that_the_verifier_refuses_has_its_line(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    source.write_text(
        '#include "ipttrace.h"\n\nIPTTRACE_LICENSE("GPL");\n\n'
        "IPTTRACE_PROGRAM\nint bad(struct pt_regs *ctx)\n{\n"
        "\tint *nowhere = (void *)8;\n\n"
        "\treturn *(volatile int *)nowhere;\n}\n"
    )
    sentence = refused("--source", f"rule={source}:bad")
    assert sentence.startswith(f"ipttctl: {source}:10: the kernel's verifier refuses program bad: ")
    assert "invalid mem access" in sentence
    assert sentence.endswith("the line is `return *(volatile int *)nowhere;`")


def test_a_function_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = tmp_path / "bad.c"
    text = (
        '#include "ipttrace.h"\n\nIPTTRACE_LICENSE("GPL");\n\n'
        "IPTTRACE_PROGRAM\nint bad(struct pt_regs *ctx)\n{\n\treturn elsewhere(1);\n}\n"
    )
    source.write_text(text)
    sentence = refused("--source", f"rule={source}:bad")
    assert "bad.c:8:" in sentence
    assert "elsewhere" in sentence
    source.write_text(text.replace("elsewhere(1)", "1"))
    assert "there is no program worse; there are: bad" in refused(
        "--source", f"rule={source}:worse"
    )


def test_tags_have_to_be_of_one_program(make_program: MakeProgram) -> None:
    one, two = make_program(asm.returning(77)), make_program(asm.returning(77))
    assert one.tag == two.tag
    assert f"programs {one.id}, {two.id} have tag {one.tag}; take one by its id" in refused(
        "--tag", f"rule={one.tag}"
    )
    two.close()

    def only_one() -> bool:
        # the kernel frees programs in the background
        with suppress(ProgramError), Program.from_tag(one.tag) as found:
            return found.id == one.id
        return False

    wait_for(only_one)
    assert "no loaded program has tag 0000000000000001" in refused("--tag", f"rule={1:016x}")


def test_processes_that_end_and_descriptors_that_are_none(make_program: MakeProgram) -> None:
    program = make_program()
    with child_with(program) as child:
        place = f"rule={child.pid}:{program.fd}"
        assert f"process {child.pid} has no fd 99 open" in refused("--pid", f"rule={child.pid}:99")
        assert f"fd 0 of process {child.pid} is not a BPF program but pipe" in refused(
            "--pid", f"rule={child.pid}:0"
        )
        child.send_signal(signal.SIGKILL)
        # a zombie
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        ended = f"process {child.pid} has ended, and its fd {program.fd} with it"
        assert ended in refused("--pid", place)
        child.wait()
        assert f"there is no process {child.pid}" in refused("--pid", place)


def test_processes_that_one_may_not_look_into(make_program: MakeProgram) -> None:
    """Root without CAP_SYS_PTRACE may not look into a process that has it."""
    program = make_program()
    script = (
        "import sys\nfrom ipttctl.errors import PrivilegeError\n"
        "from ipttctl.bpf.programs import Program\n"
        "try: Program.from_process(*map(int, sys.argv[1:]))\n"
        "except PrivilegeError as error: print(error)\n"
    )
    with child_with(program) as child:
        said = run(
            "setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace",
            sys.executable, "-c", script, str(child.pid), str(program.fd),
        )  # fmt: skip  # pairs together
    assert said == (
        f"cannot take fd {program.fd} of process {child.pid}: not permitted; "
        "run as root, or with CAP_SYS_PTRACE\n"
    )
    assert PrivilegeError.exit_code == 5


# --- collections ----------------------------------------------------------------------------------


def collection_specs(count_object: Path) -> list[CollectionSpec]:
    """The same program from both compilers."""
    include = [REPOSITORY / "kmod_netlink"]
    return [
        CollectionSpec.from_object(count_object),
        CollectionSpec.from_source(BPF / "count.c", include=include),
    ]


def test_both_compilers_give_the_same_collection(count_object: Path) -> None:
    for spec in collection_specs(count_object):
        spec.set_constants({"minimum_cost": 0x123456789A})
        spec.maps["verdicts"].max_entries = 3
        with Collection.load(spec, programs={"count_exit": ProgramType.KPROBE}) as collection:
            assert set(collection.programs) == {"count_exit"}
            verdicts = collection.maps["verdicts"]
            assert verdicts.info.max_entries == 3
            assert (str(verdicts.format.key_type), str(verdicts.format.value_type)) in {
                ("__u32", "__u64"),
                ("int", "__u64"),
            }
            verdicts.set(1, 7)
            cpus = os.cpu_count() or 0
            assert dict(verdicts.dump())[1][:cpus] == [7] * cpus
            assert verdicts.info.id in collection.programs["count_exit"].maps()
            if spec.elf:
                assert collection.maps["count.rodata"].get(0) == {"minimum_cost": 0x123456789A}
            else:
                identifier = collection.programs["count_exit"].id
                code = run("bpftool", "prog", "dump", "xlated", "id", str(identifier))
                assert "0x123456789a" in code


def test_maps_are_shared_by_handing_one_over(count_object: Path) -> None:
    for spec in collection_specs(count_object):
        with Collection.load(spec) as first:
            shared = first.maps["verdicts"]
            with Collection.load(spec, maps={"verdicts": shared}) as second:
                assert second.maps["verdicts"].info.id == shared.info.id
                assert shared.info.id in second.programs["count_exit"].maps()
            assert shared.get(0) is not None
            spec.maps["verdicts"].max_entries += 1
            with pytest.raises(ProgramError, match="verdicts exists already and has max_entries 8"):
                Collection.load(spec, maps={"verdicts": shared})
            with pytest.raises(ProgramError, match="the programs have no map x; there are: "):
                Collection.load(spec, maps={"x": shared})


def test_maps_are_shared_by_name(types_object: Path) -> None:
    """`shared` of types.c is shared by default; any other map on request."""
    spec = CollectionSpec.from_object(types_object)
    spec.maps["networks"].pinned = True
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Collection.load(spec, programs=["drop"], pins=PINS) as first:
        assert {path.name for path in PINS.iterdir()} == {"shared", "networks"}
        first.maps["shared"].set(7, 8)
        with Collection.load(spec, programs=["drop"], pins=PINS) as second:
            assert second.maps["shared"].get(7) == 8
            for name in ("shared", "networks"):
                assert second.maps[name].info.id == first.maps[name].info.id
    spec.maps["shared"].value_size = 4
    with pytest.raises(ProgramError, match="map shared exists already and has value_size 1, not 4"):
        Collection.load(spec, programs=["drop"], pins=PINS)
    (PINS / "shared").unlink()
    with Collection.load(spec, programs=["drop"], pins=PINS) as third:
        assert third.maps["shared"].info.value_size == 4
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_constants_of_an_object_lie_in_its_rodata(types_object: Path) -> None:
    spec = CollectionSpec.from_object(types_object)
    network = {"prefixlen": 8, "address": "10.0.0.0"}
    spec.set_constants({"port": 443, "network": network})
    spec.maps["shared"].pinned = False
    with Collection.load(spec, programs=["drop"]) as collection:
        rodata = collection.maps["types.rodata"]
        assert rodata.get(0) == {"port": 443, "network": network}
        with pytest.raises(ProgramError, match=r"the map is read-only \(frozen\)"):
            rodata.set(0, {"port": 1, "network": network})
        again = CollectionSpec.from_object(types_object)
        again.maps["shared"].pinned = False
        with Collection.load(again, programs=["drop"]) as plain:
            assert plain.maps["types.rodata"].get(0)["port"] == 7


def test_a_pinned_collection_of_an_object_opens_again(types_object: Path) -> None:
    spec = CollectionSpec.from_object(types_object)
    spec.maps["shared"].pinned = False
    with Collection.load(spec, programs=["drop"]) as collection:
        collection.pin(PINS / "all")
        networks = collection.maps["networks"]
        networks.update(networks.format.key_bytes("10.0.0.0/8"), bytes(networks.value_size))
    with Collection.open_pinned(PINS / "all") as again:
        assert set(again.programs) == {"drop"}
        assert set(again.maps) == {"networks", "shared", "types.rodata"}
        assert [key for key, _ in again.maps["networks"].dump()] == ["10.0.0.0/8"]


def test_maps_of_a_link_are_those_of_its_programs(
    controller: Controller, count_object: Path
) -> None:
    spec = CollectionSpec.from_object(count_object)
    with Collection.load(spec) as collection:
        fds = {
            Slot.ENTRY: collection.programs["count_entry"].fd,
            Slot.EXIT: collection.programs["count_exit"].fd,
        }
        link = controller.attach(TableHook(), ProgramSet(fds))
        ids = {entry.info.id for entry in collection.maps.values()}
    with maps_of(link) as used:
        assert {entry.map.info.id for entry in used} <= ids
        assert {entry.map.name: entry.slots for entry in used}["verdicts"] == (Slot.EXIT,)
        assert isinstance(used[0].map, Map)
    controller.detach(link.id)
