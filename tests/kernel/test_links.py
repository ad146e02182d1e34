# SPDX-License-Identifier: GPL-2.0
"""Links: made, swapped, removed, owned; refused requests leave nothing behind."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import (
    ExpectationError,
    KernelError,
    LinkGoneError,
    PrivilegeError,
)
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.family import Family, resolve_family
from ipttctl.link.model import Change, LinkChange, ProgramSet
from ipttctl.link.streams import LinkChangeStream
from ipttctl.link.wire import Connection
from ipttproto import FAMILY, Acknowledgement, Command, DetachReason, Slot, parse_datagram
from ipttproto.family import limit
from ipttproto.messages import GenericHeader, MessageHeader
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    ftrace_switched_off,
    redirected_functions,
    run,
    wait_for,
    wait_for_no_redirection,
)
from tests.kernel.support.maps import PROG_ARRAY, one_element_map

fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True, scope="module")
def table_code() -> None:
    """The code that links watch: in a fresh guest nobody has loaded it yet."""
    run("modprobe", "--all", "ip_tables", "ip6_tables")


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Connection.open() as opened:
        yield opened


@pytest.fixture
def family() -> Family:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as asking:
        asking.bind((0, 0))
        return resolve_family(asking, FAMILY)


def test_attach_get_swap_detach(controller: Controller, make_program: MakeProgram) -> None:
    one, two = make_program(name="one"), make_program(asm.returning(0), name="two")
    made = controller.attach(
        TableHook(4), ProgramSet({Slot.ENTRY: one.fd, Slot.EXIT: two.fd}, cookie=5)
    )
    assert made.generation == 1
    assert made.hook == TableHook(4, armed=frozenset({4}))
    assert (made.cookie, made.owner_pid) == (5, os.getpid())
    assert {slot: info.id for slot, info in made.programs.items()} == {
        Slot.ENTRY: one.id,
        Slot.EXIT: two.id,
    }
    assert made.programs[Slot.ENTRY].tag == one.tag
    assert made.programs[Slot.EXIT].name == "two"
    assert controller.link(made.id) == made
    assert controller.links() == [made]

    swapped = controller.swap(made.id, ProgramSet({Slot.RULE: two.fd}))
    assert (swapped.id, swapped.generation) == (made.id, 2)
    assert list(swapped.programs) == [Slot.RULE]

    gone = controller.detach(made.id)
    assert (gone.id, gone.generation) == (made.id, 2)
    assert controller.links() == []
    wait_for_no_redirection()


def test_who_detaches_does_not_wait_for_ftrace(
    controller: Controller, make_program: MakeProgram
) -> None:
    """Handlers go a moment after the last link, and are there again when the next link is made.

    Their removal takes grace periods of RCU-tasks, for which the next attach has to wait
    instead: if the detach waited, it would take longer than the attach.
    """
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    attaching = detaching = 0.0
    link = controller.attach(TableHook(), programs)
    for _ in range(5):
        assert redirected_functions()
        run("ping", "-n", "-q", "-c", "1", "127.0.0.1")
        begin = time.monotonic()
        controller.detach(link.id)
        detaching += time.monotonic() - begin
        # calls are stopped first
        wait_for_no_redirection()
        begin = time.monotonic()
        link = controller.attach(TableHook(), programs)
        attaching += time.monotonic() - begin
    controller.detach(link.id)
    assert attaching > detaching
    # one after the other, without a pause
    for _ in range(3):
        controller.detach(controller.attach(TableHook(), programs).id)


def test_ids_are_not_used_again(controller: Controller, make_program: MakeProgram) -> None:
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    first = controller.attach(TableHook(), programs)
    controller.detach(first.id)
    second = controller.attach(TableHook(), programs)
    controller.detach(second.id)
    assert second.id > first.id


def test_a_program_outlives_its_loader(controller: Controller, make_program: MakeProgram) -> None:
    program = make_program()
    link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: program.fd}))
    identifier = program.id
    program.close()
    assert controller.link(link.id).programs[Slot.ENTRY].id == identifier
    controller.detach(link.id)


def test_swap_compares_first(controller: Controller, make_program: MakeProgram) -> None:
    one, two = make_program(), make_program()
    link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: one.fd}))
    new = ProgramSet({Slot.ENTRY: two.fd})
    with pytest.raises(ExpectationError, match="generation") as refused:
        controller.swap(link.id, new, expect_generation=2)
    assert refused.value.errno == errno.ESTALE
    with pytest.raises(ExpectationError, match="program"):
        controller.swap(link.id, new, expect_programs={Slot.ENTRY: two.id})
    with pytest.raises(ExpectationError, match="program"):
        controller.swap(link.id, new, expect_programs={Slot.EXIT: one.id})
    assert controller.link(link.id) == link
    swapped = controller.swap(
        link.id, new, expect_generation=1, expect_programs={Slot.ENTRY: one.id, Slot.EXIT: 0}
    )
    assert swapped.generation == 2
    with pytest.raises(ExpectationError):
        controller.detach(link.id, expect_generation=1)
    controller.detach(link.id, expect_generation=2)


def read_all(changes: LinkChangeStream, count: int) -> list[LinkChange]:
    """The next ``count`` changes."""
    told: list[LinkChange] = []
    while len(told) < count:
        more = changes.read(10)
        assert more, f"only {told}"
        told += more
    return told


def test_changes_are_told(controller: Controller, make_program: MakeProgram) -> None:
    program = make_program()
    with controller.link_changes() as changes:
        link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: program.fd}))
        controller.swap(link.id, ProgramSet({Slot.RULE: program.fd}), wait=True)
        controller.detach(link.id)
        with Controller() as other:
            short = other.attach(TableHook(), ProgramSet({Slot.ENTRY: program.fd}))
        told = read_all(changes, 5)
    assert [(c.change, c.link.id, c.link.generation) for c in told] == [
        (Change.ATTACHED, link.id, 1),
        (Change.SWAPPED, link.id, 2),
        (Change.DETACHED, link.id, 2),
        (Change.ATTACHED, short.id, 1),
        (Change.DETACHED, short.id, 1),
    ]
    assert told[2].reason == DetachReason.REQUEST
    assert told[4].reason == DetachReason.OWNER


def _attach_and_wait(fd: int, ready: Any) -> None:
    with Controller() as controller:
        controller.attach(TableHook(), ProgramSet({Slot.ENTRY: fd, Slot.EXIT: fd}))
        controller.attach(TableHook(), ProgramSet({Slot.RULE: fd}), persistent=True)
        ready.set()
        signal.pause()


def test_sigkill_takes_the_links_but_persistent_ones(
    controller: Controller, make_program: MakeProgram
) -> None:
    ready = fork.Event()
    process = fork.Process(target=_attach_and_wait, args=(make_program().fd, ready), daemon=True)
    process.start()
    assert ready.wait(COMMAND_TIMEOUT)
    assert len(controller.links()) == 2
    process.kill()
    process.join()
    (left,) = wait_for(lambda: controller.links() if len(controller.links()) == 1 else [])
    assert left.persistent
    assert left.owner_portid == 0
    controller.detach(left.id)


def test_unloading_is_refused_while_there_are_links(
    controller: Controller, make_program: MakeProgram
) -> None:
    link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
    done = subprocess.run(["rmmod", "ipttrace"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "in use" in done.stderr
    assert controller.link(link.id).generation == 1
    controller.detach(link.id)


def test_as_many_links_as_documented(controller: Controller, make_program: MakeProgram) -> None:
    programs = ProgramSet({Slot.ENTRY: make_program(asm.returning(0)).fd})
    links = [controller.attach(TableHook(), programs) for _ in range(128)]
    with pytest.raises(KernelError, match="as many links") as refused:
        controller.attach(TableHook(), programs)
    assert refused.value.errno == errno.ENOSPC
    run("ping", "-n", "-q", "-c", "1", "127.0.0.1")
    assert [link.id for link in controller.links()] == [link.id for link in links]
    # closing the socket removes them all in one step


Refusal = tuple[Mapping[str, Any], int, str]


def _one(slot: int, fd: int) -> dict[str, Any]:
    return {"program": [{"slot": slot, "fd": fd}]}


@pytest.fixture
def refusals(make_program: MakeProgram) -> Iterator[list[Refusal]]:
    """Requests to attach that must be refused: attributes, errno, words of the sentence."""
    good = make_program().fd
    socket_filter = make_program(type=ProgramType.SOCKET_FILTER).fd
    with one_element_map(PROG_ARRAY, 4) as programs:
        yield _refusals(make_program, good, socket_filter, programs)


def _refusals(
    make_program: MakeProgram, good: int, socket_filter: int, programs: int
) -> list[Refusal]:
    tail = make_program(
        asm.load_map(asm.R2, programs) + asm.mov(asm.R3, 0) + asm.call(asm.TAIL_CALL)
        + asm.returning(0)
    ).fd  # fmt: skip  # one step of the program a piece
    ret = b"\x06\x00\x00\x00\xff\xff\x00\x00"
    return [
        ({"hook": 1}, errno.EINVAL, "no program set"),
        ({"programs": _one(1, good)}, errno.EINVAL, "no hook"),
        ({"hook": 9, "programs": _one(1, good)}, errno.EOPNOTSUPP, "no such hook"),
        ({"hook": 1, "programs": {"cookie": 1}}, errno.EINVAL, "no program"),
        ({"hook": 1, "programs": _one(1, 999)}, errno.EBADF, "file descriptor"),
        ({"hook": 1, "programs": _one(1, 0)}, errno.EINVAL, "type kprobe"),
        ({"hook": 1, "programs": _one(1, socket_filter)}, errno.EINVAL, "type kprobe"),
        ({"hook": 1, "programs": _one(1, programs)}, errno.EINVAL, "type kprobe"),
        ({"hook": 1, "programs": _one(1, tail)}, errno.EOPNOTSUPP, "tail calls"),
        ({"hook": 1, "programs": {"program": [{"fd": good}]}}, errno.EINVAL, "no slot"),
        ({"hook": 1, "programs": {"program": [{"slot": 1}]}}, errno.EINVAL, "no file descriptor"),
        (
            {"hook": 1, "programs": {"program": [{"slot": 1, "fd": good}] * 2}},
            errno.EINVAL,
            "twice",
        ),
        ({"hook": 1, "family": 3, "programs": _one(1, good)}, errno.EAFNOSUPPORT, "family"),
        ({"hook": 1, "programs": _one(1, good) | {"filter": b""}}, errno.EINVAL, "instructions"),
        (
            {"hook": 1, "programs": _one(1, good) | {"filter": ret[:7]}},
            errno.EINVAL,
            "instructions",
        ),
        (
            {"hook": 1, "programs": _one(1, good) | {"filter": b"\xff" * 8}},
            errno.EINVAL,
            "classic BPF",
        ),
    ]


def test_refused_requests_leave_nothing(
    connection: Connection,
    controller: Controller,
    make_program: MakeProgram,
    refusals: list[Refusal],
) -> None:
    for attributes, number, words in refusals:
        with pytest.raises(KernelError, match=words) as refused:
            connection.request(Command.ATTACH, attributes, "attaching")
        assert refused.value.errno == number, attributes
        assert controller.links() == []
        assert redirected_functions() == []
    good = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
    controller.detach(good.id)


def _send_raw(family: Family, command: int, attributes: bytes) -> Acknowledgement:
    """Send a request with arbitrary attributes, and return the answer."""
    body = GenericHeader.build({"command": command, "version": 1, "reserved": 0}) + attributes
    header = {"length": 16 + len(body), "type": family.id, "flags": 5, "sequence": 1, "portid": 0}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sender:
        sender.setsockopt(270, 11, 1)  # SOL_NETLINK, NETLINK_EXT_ACK
        sender.settimeout(10)
        sender.send(MessageHeader.build(header) + body)
        (answer,) = parse_datagram(family.id, sender.recv(65536))
    assert isinstance(answer, Acknowledgement)
    return answer


@pytest.mark.parametrize(
    ("attributes", "number", "words"),
    [
        # u32 hook with two bytes; unknown attribute 90; slot 7 in the nest; flags beyond the mask
        (b"\x06\x00\x02\x00\x01\x00\x00\x00", errno.EINVAL, "ength"),
        (b"\x08\x00\x5a\x00\x01\x00\x00\x00", errno.EINVAL, "nknown attribute"),
        (
            b"\x10\x00\x05\x80\x0c\x00\x01\x80\x08\x00\x01\x00\x07\x00\x00\x00",
            errno.ERANGE,
            "range",
        ),
        (b"\x08\x00\x04\x00\x80\x00\x00\x00", errno.ERANGE, "range"),
        (b"\x08\x00\x02", errno.EINVAL, ""),
    ],
)
def test_malformed_attributes(family: Family, attributes: bytes, number: int, words: str) -> None:
    answer = _send_raw(family, Command.ATTACH, attributes)
    assert answer.errno == number
    assert words in answer.message


def test_a_filter_is_given_back(controller: Controller, make_program: MakeProgram) -> None:
    """A request for the link returns the filter as given; lists and changes have its length."""
    one = compile_filter("1,6 0 0 1")
    longest = one * limit("MAX_FILTER")
    program = {Slot.ENTRY: make_program().fd}
    made = controller.attach(TableHook(), ProgramSet(program, longest))
    assert (made.filter, made.filter_length) == (None, limit("MAX_FILTER"))
    other = controller.attach(TableHook(), ProgramSet(program))
    for code, length in ((longest, limit("MAX_FILTER")), (one, 1), (None, 0)):
        swapped = controller.swap(made.id, ProgramSet(program, code))
        assert (swapped.filter, swapped.filter_length) == (None, length)
        told = controller.link(made.id)
        assert (told.filter, told.filter_length) == (code, length)
        assert [link.filter_length for link in controller.links()] == [length, 0]
    assert controller.link(other.id).filter is None


@pytest.mark.parametrize("verb", ["swap", "detach", "link"])
def test_a_link_that_is_gone(controller: Controller, make_program: MakeProgram, verb: str) -> None:
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    link = controller.attach(TableHook(), programs)
    controller.detach(link.id)
    arguments = (link.id, programs) if verb == "swap" else (link.id,)
    with pytest.raises(LinkGoneError, match="no such link") as refused:
        getattr(controller, verb)(*arguments)
    assert refused.value.errno == errno.ENOENT


def _as_nobody(action: Callable[[], None]) -> None:
    os.setgid(65534)
    os.setuid(65534)
    action()


def _expect_denied_open() -> None:
    try:
        with Controller():
            pass
    except PrivilegeError:
        return
    raise AssertionError("nobody may open a controller")


def _expect_denied_group(family_groups: list[int]) -> None:
    for group in family_groups:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as member:
            try:
                member.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
            except PermissionError:
                continue
            raise AssertionError(f"nobody may join group {group}")


def test_nobody_may_do_anything(family: Family) -> None:
    groups = list(family.groups.values())
    for action in (_expect_denied_open, lambda: _expect_denied_group(groups)):
        process = fork.Process(target=_as_nobody, args=(action,))
        process.start()
        process.join(30)
        assert process.exitcode == 0


def test_ftrace_that_is_off(controller: Controller, make_program: MakeProgram) -> None:
    """Without ftrace no function can be watched; with links ftrace cannot be switched off."""
    programs = ProgramSet({Slot.ENTRY: make_program().fd})
    with (
        ftrace_switched_off(),
        pytest.raises(KernelError, match="ftrace_enabled") as refused,
    ):
        controller.attach(TableHook(), programs)
    assert refused.value.errno == errno.EBUSY
    assert controller.links() == []
    link = controller.attach(TableHook(), programs)
    with pytest.raises(OSError, match="busy"):
        Path("/proc/sys/kernel/ftrace_enabled").write_text("0")
    controller.detach(link.id)
