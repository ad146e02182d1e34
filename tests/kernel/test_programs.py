# SPDX-License-Identifier: GPL-2.0
"""BPF programs on a real kernel: bpfcc compiles them, the verifier accepts them, pins keep them.

trace.c is compiled in a guest once, by the first test that needs it; its spec is in the cache
afterwards.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from installer import objects
from ipttctl.bpf import bpfcc
from ipttctl.bpf.collection import Collection, CollectionSpec, ProgramSpec
from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.errors import ProgramError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.programs import trace
from ipttctl.programs.trace import TraceOptions, load_trace_programs, remove_trace_pins
from ipttctl.system import netns
from ipttproto import TABLE_SLOTS, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.bpf_tracers import kprobes
from tests.kernel.support.kernel import kernel_version
from tests.kernel.support.network import Network, send_udp
from tests.kernel.support.observing import observing

REPOSITORY = Path(__file__).resolve().parents[2]
BPF = REPOSITORY / "bpf"
INCLUDE = [REPOSITORY / "kmod_netlink"]
PINS = Path("/sys/fs/bpf/test-programs")

#: stack size in bytes from which a program may have a private stack (kernel/bpf/verifier.c)
PRIVATE_STACK = 64
#: a helper that can have a kprobe; those of kernel/trace cannot
HELPER = "bpf_get_current_uid_gid"

OPTIONS = {
    "any": TraceOptions(),
    "IPv4 address": TraceOptions(address=ip_address("10.11.12.13")),
    "IPv6 network": TraceOptions(address=ip_network("fd00:1:2:3:4:5:6:0/112")),
    "IPv6 address": TraceOptions(address=ip_address("fd00:1:2:3:4:5:6:7")),
    "protocol": TraceOptions(protocol=0x5B),
    "port": TraceOptions(port=0x1267),
    "ICMP id": TraceOptions(icmp_id=0x2B67),
    "pid": TraceOptions(pid=0x1234567),
    "namespace": TraceOptions(netns=0x7EEDDCCB),
    "all": TraceOptions(
        address=ip_address("fd00:1:2:3:4:5:6:7"),
        protocol=0x5B,
        port=0x1267,
        icmp_id=0x2B67,
        pid=0x1234567,
        netns=0x7EEDDCCB,
    ),
}


def bpftool(*arguments: str | int) -> str:
    command = ["bpftool", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def shown(program: Program) -> Any:
    return json.loads(bpftool("--json", "prog", "show", "id", program.id))


def numbers(program: Program) -> set[int]:
    """The immediates in a program as the kernel runs it, as unsigned numbers."""
    text = bpftool("prog", "dump", "xlated", "id", program.id)
    found = re.findall(r"(?<![\w+])(-?(?:0x[0-9a-f]+|[1-9]\d*|0))\b", text)
    return {int(number, 0) % (1 << 64) for number in found}


def instructions(program: Program) -> int:
    text = bpftool("prog", "dump", "xlated", "id", program.id)
    return len(re.findall(r"^ *\d+: ", text, re.MULTILINE))


def close(programs: dict[Slot, Program]) -> None:
    for program in programs.values():
        program.close()


@pytest.fixture(autouse=True)
def pins() -> Iterator[None]:
    yield
    remove_trace_pins()
    shutil.rmtree(PINS, ignore_errors=True)


@pytest.fixture
def count() -> CollectionSpec:
    return CollectionSpec.from_source(BPF / "count.c", include=INCLUDE)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_verifier_takes_every_option(name: str) -> None:
    programs = load_trace_programs(OPTIONS[name])
    try:
        assert set(programs) == {*TABLE_SLOTS, Slot.FUNCTION, Slot.STEP}
        for program in programs.values():
            known = shown(program)
            assert known["type"] == program.type == "kprobe"
            assert known["tag"] == program.tag
            assert known["name"] == program.name
            assert known["id"] == program.id
    finally:
        close(programs)


def test_constants_are_in_the_program_and_rule_out_branches() -> None:
    programs = load_trace_programs(OPTIONS["any"])
    everything = instructions(programs[Slot.ENTRY])
    close(programs)
    programs = load_trace_programs(OPTIONS["all"])
    entry = programs[Slot.ENTRY]
    found = numbers(entry)
    assert {0x5B, 0x1267, 0x2B67, 0x1234567, 0x7EEDDCCB} <= found
    for half in ("fd00:1:2:3::", "4:5:6:7::"):
        assert int.from_bytes(ip_address(half).packed[:8], sys.byteorder) in found
    assert not {number for number in found if number >> 32 == 0x1B77C0DE}
    assert instructions(entry) > 10 * everything
    close(programs)


def test_a_second_trace_uses_the_pins_and_does_not_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = load_trace_programs(OPTIONS["port"])

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("compiled or loaded again")

    monkeypatch.setattr(bpfcc, "compile_source", fail)
    monkeypatch.setattr(Collection, "load", fail)
    second = load_trace_programs(OPTIONS["port"])
    assert {slot: program.id for slot, program in first.items()} == {
        slot: program.id for slot, program in second.items()
    }
    close(first)
    close(second)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the object files that a package has."""
    directory = tmp_path_factory.mktemp("package") / "objects"
    objects.build(REPOSITORY, directory)
    return directory


@pytest.fixture
def packaged(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the programs of trace from a package; nothing can be compiled."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(trace, "object_file", lambda name: compiled / name)
    monkeypatch.setattr(bpfcc, "compile_source", fail)


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize("name", OPTIONS)
def test_the_verifier_takes_every_option_of_a_package(name: str) -> None:
    programs = load_trace_programs(OPTIONS[name])
    assert {slot: shown(program)["name"] for slot, program in programs.items()} == {
        Slot.ENTRY: "trace_entry",
        Slot.RULE: "trace_rule",
        Slot.EXIT: "trace_exit",
        Slot.FUNCTION: "trace_function",
        Slot.STEP: "trace_step",
    }
    close(programs)


@pytest.mark.usefixtures("packaged")
def test_programs_of_a_package_are_pinned_and_select(
    net: Network, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address, a port and the namespace: each is read from the packet, or from the kernel."""
    place = net.router
    with netns.Namespace(place.path) as opened:
        cookie = opened.identity.cookie
    wanted = TraceOptions(address=ip_address("127.0.0.2"), port=9, netns=cookie)
    for where in (place, net.left):
        where.iptables("-A", "INPUT", "-p", "udp")
    close(load_trace_programs(wanted))
    monkeypatch.setattr(Collection, "load", None)
    programs = load_trace_programs(wanted)
    fds = {slot: programs[slot].fd for slot in TABLE_SLOTS}
    with observing(controller) as observer:
        link = controller.attach(TableHook(), ProgramSet(fds))
        for where, address, port in (
            (place, "127.0.0.3", 9),
            (place, "127.0.0.2", 10),
            (net.left, "127.0.0.2", 9),
            (place, "127.0.0.2", 9),
        ):
            where.call(send_udp, address, port, [b"x"])
        controller.detach(link.id)
        events = observer.drain()
    close(programs)
    seen = {(e["netns_cookie"], bytes(e["daddr"][:4]), int(e["dport"])) for e in events}
    assert seen == {(cookie, bytes([127, 0, 0, 2]), 9)}


def test_broken_pins_are_replaced() -> None:
    first = load_trace_programs(OPTIONS["port"])
    (place,) = trace.PIN_ROOT.iterdir()
    (place / "trace_rule").unlink()
    second = load_trace_programs(OPTIONS["port"])
    assert second[Slot.RULE].id != first[Slot.RULE].id
    assert sorted(path.name for path in place.iterdir()) == [
        "trace_entry",
        "trace_exit",
        "trace_function",
        "trace_rule",
        "trace_step",
    ]
    close(first)
    close(second)


def test_pins_that_others_can_replace_are_refused() -> None:
    close(load_trace_programs(OPTIONS["port"]))
    (place,) = trace.PIN_ROOT.iterdir()
    for writable in (place, trace.PIN_ROOT):
        mode = writable.stat().st_mode & 0o7777
        writable.chmod(0o777)
        said: list[str] = []
        trust = f"do not trust {writable}: {writable} can be written to by others"
        try:
            close(load_trace_programs(OPTIONS["port"], on_warning=said.append))
        except ProgramError as error:
            said.append(error.problem)
        assert trust in said[0]
        writable.chmod(mode)
    os.chown(place, 65534, 65534)
    with pytest.raises(ProgramError, match=f"{place} belongs to uid 65534"):
        load_trace_programs(OPTIONS["port"])
    os.chown(place, 0, 0)
    close(load_trace_programs(OPTIONS["port"]))


def test_only_the_last_sets_stay_pinned() -> None:
    for port in range(1, trace.PINS_KEPT + 4):
        close(load_trace_programs(TraceOptions(port=port)))
    assert len(list(trace.PIN_ROOT.iterdir())) == trace.PINS_KEPT
    assert remove_trace_pins() == trace.PINS_KEPT


def _load_and_tell(queue: Any) -> None:
    programs = load_trace_programs(OPTIONS["protocol"])
    queue.put([programs[slot].id for slot in TABLE_SLOTS])


def test_processes_at_once_share_one_set() -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_load_and_tell, args=(queue,)) for _ in range(4)]
    for process in processes:
        process.start()
    told = [queue.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert len({tuple(ids) for ids in told}) == 1
    assert [path.name.startswith("trace-") for path in trace.PIN_ROOT.iterdir()] == [True]


def test_without_a_bpffs_programs_are_loaded_with_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    programs = load_trace_programs(
        OPTIONS["any"], on_warning=warnings.append, pin_root=tmp_path / "pins"
    )
    assert len(warnings) == 1
    assert "no BPF file system at" in warnings[0]
    close(programs)


def test_a_collection_has_maps_with_the_sizes_and_constants_set(count: CollectionSpec) -> None:
    count.set_constants({"minimum_cost": 0x123456789A})
    count.maps["verdicts"].max_entries = 11
    with Collection.load(count) as collection:
        verdicts = collection.maps["verdicts"]
        assert verdicts.info.max_entries == 11
        assert len(list(verdicts.items())) == 11
        assert 0x123456789A in numbers(collection.programs["count_exit"])
        one = bytes([7] * verdicts.value_size)
        verdicts.update(b"\1\0\0\0", one)
        assert verdicts.lookup(b"\1\0\0\0") == one
        assert verdicts.lookup(b"\x0b\0\0\0") is None
        with pytest.raises(ProgramError, match="no such index or is full"):
            verdicts.update(b"\x0b\0\0\0", one)


def test_a_pinned_collection_opens_again(count: CollectionSpec) -> None:
    with Collection.load(count) as collection:
        collection.pin(PINS)
        ids = {name: program.id for name, program in collection.programs.items()}
        with pytest.raises(ProgramError, match="exists already"):
            collection.pin(PINS)
        assert [path.name for path in PINS.parent.iterdir() if path.name.startswith("tmp-")] == []
    with Collection.open_pinned(PINS) as again:
        assert {name: program.id for name, program in again.programs.items()} == ids
        assert set(again.maps) == {"verdicts"}
        with pytest.raises(ProgramError, match="is not a BPF program but bpf-map"):
            Program.from_pinned(PINS / "maps" / "verdicts")
        with pytest.raises(ProgramError, match="a name in a BPF file system cannot have a dot"):
            again.programs["count_exit"].pin("/sys/fs/bpf/count.exit")


def test_programs_by_fd_and_id_are_the_same_program(count: CollectionSpec) -> None:
    with Collection.load(count, programs=["count_exit"]) as collection, ExitStack() as stack:
        program = collection.programs["count_exit"]
        by_fd = stack.enter_context(Program.from_fd(program.fd))
        by_id = stack.enter_context(Program.from_id(program.id))
        assert by_fd.id == by_id.id == program.id
        assert len({by_fd.fd, by_id.fd, program.fd}) == 3


def test_a_program_that_fails_leaves_nothing(count: CollectionSpec) -> None:
    broken = CollectionSpec(dict(count.programs), count.maps, count.constants)
    broken.programs["bad"] = ProgramSpec("bad", bytes.fromhex("9500000000000000"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ProgramError, match="verifier refuses program bad: R0 !read_ok"):
        Collection.load(broken)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_object_that_clang_compiled_loads_with_bpftool(tmp_path: Path) -> None:
    machine = {"x86_64": "x86", "aarch64": "arm64"}[os.uname().machine]
    target = tmp_path / "count.o"
    clang = ["clang", "-O2", "-g", "-target", "bpf", f"-D__TARGET_ARCH_{machine}"]
    include = [*INCLUDE, Path("/usr/include") / f"{os.uname().machine}-linux-gnu"]
    options = [f"-I{directory}" for directory in include]
    subprocess.run([*clang, *options, "-c", BPF / "count.c", "-o", target], check=True)
    bpftool("prog", "loadall", str(target), str(PINS))
    with Program.from_pinned(PINS / "count_exit") as program:
        assert program.type == "kprobe"
        assert program.name == "count_exit"


@pytest.mark.parametrize("stack", [32, 256])
def test_a_private_stack_is_of_one_program_at_a_time(
    stack: int, net: Network, controller: Controller, make_program: MakeProgram
) -> None:
    """From 6.13 on there is one large stack per CPU: no program may run in the middle of a run.

    A kprobe program at a helper of the running program would do that; the kernel skips it if it
    knows that a program is running.
    """
    version = kernel_version()
    private = stack > PRIVATE_STACK and version >= (6, 13)
    code = (
        asm.store_number(asm.R10, -stack, 1) + asm.call(asm.GET_CURRENT_UID_GID) + asm.returning(1)
    )
    program = make_program(code).fd
    net.router.iptables("-A", "INPUT", "-p", "udp")
    with kprobes({HELPER: None}, at_return=False) as counts:
        link = controller.attach(
            TableHook(),
            ProgramSet({Slot.ENTRY: program, Slot.EXIT: program}, filter=compile_filter("udp")),
        )
        net.left.call(send_udp, net.router_address, 9, [b"x"] * 20)
        stats = controller.link(link.id).stats
        controller.detach(link.id)
        runs = sum(slot.runs for slot in stats.slots.values())
        assert runs >= 2 * 20
        assert stats.nested == 0
        assert counts()[HELPER] == (0 if private else runs)
