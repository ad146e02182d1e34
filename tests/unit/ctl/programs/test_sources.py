# SPDX-License-Identifier: GPL-2.0
"""Sources of programs: their notation, and unavailable ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from ipttctl.bpf import processes
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import ProgramError, UsageError
from ipttctl.programs.sources import (
    KINDS,
    ById,
    ByTag,
    FromObject,
    FromSource,
    OfDescriptor,
    OfProcess,
    Pinned,
    ProgramSource,
    open_sources,
    parse_source,
    program_type,
    source_digests,
)
from ipttproto import Slot

pytestmark = pytest.mark.usefixtures("left_open")


@pytest.mark.parametrize(
    ("kind", "text", "source"),
    [
        ("fd", "7", OfDescriptor(7)),
        ("pinned", "/sys/fs/bpf/x", Pinned("/sys/fs/bpf/x")),
        ("id", "0x10", ById(16)),
        ("tag", "0123456789ABCDEF", ByTag("0123456789abcdef")),
        ("pid", "4711:7", OfProcess(4711, 7)),
        ("source", "a:b.c:f", FromSource("a:b.c", "f")),
        ("object", "x.o:kprobe/x", FromObject("x.o", "kprobe/x")),
    ],
)
def test_texts(kind: str, text: str, source: ProgramSource) -> None:
    assert parse_source(kind, text) == source
    assert kind in KINDS


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("fd", "x", "fd: 'x' is not a number"),
        ("fd", "-1", "fd: -1 is not between 0 and"),
        ("id", str(1 << 32), "id: 4294967296 is not between 0 and 4294967295"),
        ("tag", "12", "'12' is not a program's tag; it has 16 hex digits"),
        ("pid", "1", "'1' is not PID:FD"),
        ("pid", "0:1", "pid: 0 is not between 1 and"),
        ("pid", "1:", "fd: '' is not a number"),
        ("source", "x.c", "'x.c' is not FILE:FUNCTION"),
        ("source", ":f", "':f' is not FILE:FUNCTION"),
        ("object", "x.o:", "'x.o:' is not FILE:SECTION"),
        ("url", "x", "there is no program source 'url'; there are: fd, pinned, id, tag, pid, sou"),
    ],
)
def test_texts_that_mean_nothing(kind: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_source(kind, text)


def test_types_follow_slots() -> None:
    types = {slot: program_type(slot) for slot in Slot}
    assert types.pop(Slot.PACKET) == ProgramType.SOCKET_FILTER
    assert set(types.values()) == {ProgramType.KPROBE}


def test_descriptors_stay_their_owners() -> None:
    with open_sources({Slot.EXIT: OfDescriptor(9), Slot.ENTRY: OfDescriptor(7)}) as fds:
        assert list(fds.items()) == [(Slot.ENTRY, 7), (Slot.EXIT, 9)]


def test_programs_of_an_object_that_are_not_for_their_slot(object_file: Path) -> None:
    source = parse_source("object", f"{object_file}:socket")
    with (
        pytest.raises(ProgramError, match=r"types.o: program drop is of type socket_filter"),
        open_sources({Slot.RULE: source}),
    ):
        pass
    source = parse_source("object", f"{object_file}:xdp")
    with (
        pytest.raises(ProgramError, match=r"types.o: there is no program xdp; there are: drop"),
        open_sources({Slot.RULE: source}),
    ):
        pass


def test_programs_differ_by_content_name_and_constants(object_file: Path, tmp_path: Path) -> None:
    def of(section: str = "drop", slot: Slot = Slot.PACKET, **constants: Any) -> str:
        return source_digests({slot: FromObject(str(object_file), section)}, constants)[slot]

    assert of() == of("socket")
    assert of(port="0x1bb") == of(port=443) != of(port=444) != of()
    assert of("first", Slot.RULE) != of("second", Slot.RULE)
    other = tmp_path / "other.o"
    other.write_bytes(object_file.read_bytes() + b"\0")
    digests = source_digests({Slot.PACKET: FromObject(str(other), "drop"), Slot.RULE: ById(3)})
    assert digests.keys() == {Slot.PACKET}
    assert digests[Slot.PACKET] != of()


def test_a_constant_is_set_in_the_files_that_have_it(object_file: Path, tmp_path: Path) -> None:
    """Files are read, and constants checked, before anything is loaded."""
    source = tmp_path / "plain.c"
    source.write_text(
        '__attribute__((section("kprobe"))) int plain(void *ctx) { return 0; }'
        'char LICENSE[] __attribute__((section("license"))) = "GPL";'
    )
    plain = tmp_path / "plain.o"
    command = ["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(plain)]
    subprocess.run(command, check=True)
    sources = {
        Slot.PACKET: FromObject(str(object_file), "drop"),
        Slot.RULE: FromObject(str(plain), "plain"),
    }
    before = source_digests(sources)
    after = source_digests(sources, {"port": "443"})
    assert before[Slot.PACKET] != after[Slot.PACKET]
    assert before[Slot.RULE] == after[Slot.RULE]
    for constants, error, message in (
        (
            {"limit": 1},
            ProgramError,
            r"have no constant limit; there are: network \(struct net4\), ",
        ),
        ({"port": "x"}, UsageError, r"constant port \(__u16\): 'x' is no __u16; it takes a number"),
    ):
        with pytest.raises(error, match=message):
            source_digests(sources, constants)
        with (
            pytest.raises(error, match=message),
            open_sources(sources, constants=constants),
        ):
            pass
    for sources_loaded in ({Slot.RULE: OfDescriptor(7)}, {Slot.RULE: ById(7)}):
        with pytest.raises(ProgramError, match="constant port cannot be set: the programs are loa"):
            source_digests(cast(Any, sources_loaded), {"port": 1})


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that ends when its standard input does."""
    command = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def test_descriptors_of_another_process(child: subprocess.Popen[str]) -> None:
    copy = processes.foreign_descriptor(child.pid, 1)
    try:
        assert (
            Path(f"/proc/self/fd/{copy}").readlink() == Path(f"/proc/{child.pid}/fd/1").readlink()
        )
        assert not os.get_inheritable(copy)
    finally:
        os.close(copy)
    with pytest.raises(ProgramError, match=f"process {child.pid} has no fd 99 open; see: ls -l"):
        processes.foreign_descriptor(child.pid, 99)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - an order of the list is not needed
    with pytest.raises(
        ProgramError, match=rf"fd 1 of process {child.pid} is not a BPF program but pipe:"
    ):
        Program.from_process(child.pid, 1)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


def test_processes_that_have_ended(child: subprocess.Popen[str]) -> None:
    assert child.stdin
    child.stdin.close()
    # a zombie
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProgramError, match=f"process {child.pid} has ended, and its fd 1 with it"):
        processes.foreign_descriptor(child.pid, 1)
    child.wait()
    with pytest.raises(ProgramError, match=f"there is no process {child.pid}"):
        processes.foreign_descriptor(child.pid, 1)
