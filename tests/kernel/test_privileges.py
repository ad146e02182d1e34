# SPDX-License-Identifier: GPL-2.0
"""Privileges that commands need: users, containers, sockets that are passed on.

The kernel checks CAP_NET_ADMIN in the initial user namespace twice: of the opener of the socket,
and of the sender. Each check fails here on its own.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import select
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import (
    IpttctlError,
    KernelError,
    ModuleError,
    PrivilegeError,
    RefusedPrivilegeError,
)
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.family import Family, resolve_family
from ipttctl.link.model import ProgramSet
from ipttctl.link.wire import Connection
from ipttproto import FAMILY, Command, Group, Hook, Slot
from ipttproto.operations import OPERATIONS
from tests.fuzz.capabilities import BPF, NET_ADMIN, PERFMON, keep_only
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.identity import (
    Become,
    as_other,
    container,
    container_with_host_network,
    nobody,
    other,
)
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.maps import PERCPU_ARRAY, one_element_map
from tests.kernel.support.network import namespace, send_udp
from tests.kernel.support.nf import attach, socket_filter
from tests.kernel.support.observing import observing

NETLINK_GENERIC, SOL_NETLINK = 16, 270
ADD_MEMBERSHIP, LISTEN_ALL_NSID = 1, 8

#: commands that can be sent, and the dump
ASKED = [operation.command for operation in OPERATIONS if operation.group is None]
GUARDED: Final = {command.name for command in ASKED} | {"GET dump"} | {str(g) for g in Group}
REFUSED: Final = dict.fromkeys(GUARDED, "EPERM")

fork = multiprocessing.get_context("fork")


def new_socket() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    made.bind((0, 0))
    return made


@pytest.fixture
def family() -> Family:
    with new_socket() as sock:
        return resolve_family(sock, FAMILY)


def outcome(act: Callable[..., Any], *arguments: Any) -> str:
    """The name of the errno of a refusal, or "done"."""
    try:
        act(*arguments)
    except KernelError as error:
        return errno.errorcode[error.errno]
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def try_everything(family: Family, sock: socket.socket | None = None) -> dict[str, str]:
    """The outcome of each command and of joining each group, on a socket of its own or ``sock``.

    The requests are incomplete, so that nothing is made or changed where they are allowed.
    """
    sock = sock or new_socket()
    connection = Connection(sock, family)
    found = {c.name: outcome(connection.request, c, {}, "asking") for c in ASKED}
    found["GET dump"] = outcome(connection.dump, Command.GET, "asking")
    for group in Group:
        number = family.groups[group]
        found[group] = outcome(sock.setsockopt, SOL_NETLINK, ADD_MEMBERSHIP, number)
    return found


def test_the_administrator_is_let_in(family: Family) -> None:
    """The administrator may do everything; without this the other tests would prove nothing."""
    found = as_other(lambda: None, try_everything, family)
    done = {"STATS", "GET dump", *Group}
    assert found == {what: "done" if what in done else "EINVAL" for what in GUARDED}
    assert as_other(partial(keep_only, NET_ADMIN), try_everything, family) == found


OTHERS = pytest.mark.parametrize(
    "become",
    [nobody, container_with_host_network, partial(keep_only, BPF, PERFMON)],
    ids=["user", "container", "without CAP_NET_ADMIN"],
)


@OTHERS
def test_who_is_not_the_administrator_may_do_nothing(family: Family, become: Become) -> None:
    assert as_other(become, try_everything, family) == REFUSED


@pytest.mark.parametrize(
    "become", [nobody, container_with_host_network, container], ids=["user", "container", "network"]
)
def test_the_administrators_socket_does_not_help(family: Family, become: Become) -> None:
    with new_socket() as sock:
        assert as_other(become, try_everything, family, sock) == REFUSED
        assert "EPERM" not in as_other(lambda: None, try_everything, family, sock).values()


def test_the_administrator_cannot_use_anothers_socket(family: Family) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:

        def pass_on() -> None:
            with new_socket() as sock:
                socket.send_fds(theirs, [b"."], [sock.fileno()])

        as_other(nobody, pass_on)
        _, [fd], _, _ = socket.recv_fds(ours, 1, 1)
    with socket.socket(fileno=fd) as sock:
        found = try_everything(family, sock)
    # the kernel checks the process that joins a group, not the opener of the socket
    assert found == REFUSED | {str(group): "done" for group in Group}


def test_a_container_with_its_own_network_is_nowhere_near(
    family: Family, controller: Controller, make_program: MakeProgram
) -> None:
    """The family does not exist there. Its groups can be joined by number, and nothing arrives."""

    def look() -> dict[str, Any]:
        sock = new_socket()
        sock.setsockopt(SOL_NETLINK, LISTEN_ALL_NSID, 1)
        found: dict[str, Any] = try_everything(family, sock)
        found["name"] = outcome(resolve_family_here)
        found["controller"] = error_of(Controller)
        listening.set()
        assert sent.wait(60)
        found["heard"] = bool(select.select([sock], [], [], 0)[0])
        return found

    def resolve_family_here() -> None:
        try:
            with new_socket() as sock:
                resolve_family(sock, FAMILY)
        except ModuleError as error:
            raise OSError(errno.ENOENT, str(error)) from None

    listening, sent = fork.Event(), fork.Event()
    program = socket_filter(make_program, asm.returning(1))
    with other(container, look) as process, observing(controller) as observer:
        assert listening.wait(60)
        link = attach(controller, program, "nf:inet4/output")
        send_udp("127.0.0.1", 9, [b"x"])
        observer.collect(lambda events: any(one["link"] == link.id for one in events))
        controller.detach(link.id)
        sent.set()
        found = process.outcome()
        process.end()
    groups = {str(group): "done" for group in Group}
    elsewhere = {"name": "ENOENT", "controller": "ModuleError", "heard": False}
    assert found == dict.fromkeys(GUARDED, "ENOENT") | groups | elsewhere


def error_of(act: Callable[..., Any], *arguments: Any) -> str:
    """The name of the library's error, or "done"."""
    try:
        act(*arguments)
    except IpttctlError as error:
        return type(error).__name__
    return "done"


@pytest.mark.parametrize(
    ("become", "error"),
    [
        (nobody, "PrivilegeError"),
        (container_with_host_network, "RefusedPrivilegeError"),
        (container, "ModuleError"),
    ],
    ids=["user", "container", "network"],
)
def test_the_library_says_so(become: Become, error: str) -> None:
    assert as_other(become, error_of, Controller) == error


# --- privileges for attaching --------------------------------------------------------------------


def refusal(act: Callable[..., Any], *arguments: Any) -> str:
    """The module's sentence for a process without the privilege, or "done"."""
    try:
        act(*arguments)
    except RefusedPrivilegeError as error:
        return error.extack
    return "done"


@pytest.mark.parametrize("capabilities", [(), (BPF,), (PERFMON,)], ids=["none", "bpf", "perfmon"])
def test_attaching_needs_what_its_kind_of_program_needs(
    make_program: MakeProgram, capabilities: tuple[int, ...]
) -> None:
    """A socket filter needs only CAP_NET_ADMIN, a kprobe program its loader's capability too."""
    packet = socket_filter(make_program, asm.returning(1)).fd
    entry = make_program(asm.returning(1)).fd
    with namespace("given") as place, one_element_map(PERCPU_ARRAY) as payload:
        using = make_program(asm.counting(payload), type=ProgramType.SOCKET_FILTER).fd

        def use() -> list[str]:
            """Attach, swap and detach with every part of a program set, from descriptors."""
            with Controller() as controller:
                hook = NfHook.parse("nf:inet4/output", netns=place.path)
                full = ProgramSet(
                    {Slot.PACKET: using}, filter=compile_filter("udp"), payload=payload, cookie=7
                )
                link = controller.attach(hook, full)
                controller.swap(link.id, ProgramSet({Slot.PACKET: packet}))
                controller.detach(link.id)
                link = controller.attach(hook, ProgramSet({Slot.PACKET: packet}))
                at_table = ProgramSet({Slot.ENTRY: entry})
                return [
                    refusal(controller.attach, TableHook(), at_table),
                    error_of(Program.from_id, 1),
                ]

        found = as_other(partial(keep_only, NET_ADMIN, *capabilities), use)
    sentence = "attaching a program needs CAP_BPF or CAP_PERFMON"
    assert found == ["done" if capabilities else sentence, PrivilegeError.__name__]


# --- sockets that are passed on ------------------------------------------------------------------


def test_a_link_lives_as_long_as_any_copy_of_its_socket(
    controller: Controller, make_program: MakeProgram, family: Family
) -> None:
    """The link outlives its killed owner and a closed copy, while another user holds a copy."""
    program = make_program(asm.returning(0)).fd
    ours, theirs = socket.socketpair(socket.AF_UNIX)

    def make_and_pass_on() -> int:
        sock = new_socket()
        programs = ProgramSet({Slot.ENTRY: program}).attributes()
        attributes = {"hook": Hook.TABLE, "programs": programs}
        [reply] = Connection(sock, family).request(Command.ATTACH, attributes, "attaching")
        socket.send_fds(theirs, [b"."], [sock.fileno()])
        return int(reply["link"])

    with ours, theirs, other(lambda: None, make_and_pass_on) as maker:
        link = maker.outcome()
        _, [fd], _, _ = socket.recv_fds(ours, 1, 1)
        maker.process.kill()
        maker.process.join()
        assert maker.process.exitcode == -signal.SIGKILL
    sock = socket.socket(fileno=fd)
    assert controller.link(link).owner_pid == maker.process.pid
    with other(nobody, partial(outcome, asking_to_detach, sock, family, link)) as holder:
        assert holder.outcome() == "EPERM"
        sock.close()
        assert controller.link(link).generation == 1
        holder.end()
    wait_for(lambda: link not in [one.id for one in controller.links()])


def asking_to_detach(sock: socket.socket, family: Family, link: int) -> None:
    Connection(sock, family).request(Command.DETACH, {"link": link}, "detaching")


def test_who_holds_a_socket_that_joined_hears(
    controller: Controller, make_program: MakeProgram, family: Family
) -> None:
    """Only joining is guarded; the kernel checks no reader."""
    with new_socket() as sock:
        sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, family.groups[Group.LINKS])

        def listen() -> list[str]:
            assert select.select([sock], [], [], 60)[0]
            messages = Connection(sock, family).receive()
            return [Command(message.command).name for message in messages]

        with other(nobody, listen) as reader:
            link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
            assert reader.outcome() == ["LINK_ATTACHED"]
            reader.end()
        controller.detach(link.id)


def test_a_command_that_the_caller_starts_holds_no_copy(
    controller: Controller, make_program: MakeProgram
) -> None:
    """The library's sockets are not inherited over exec: a started command does not keep links."""
    with Controller() as owner:
        link = owner.attach(TableHook(), ProgramSet({Slot.ENTRY: make_program().fd}))
        started = os.posix_spawnp("sleep", ["sleep", "600"], os.environ)
    try:
        wait_for(lambda: link.id not in [one.id for one in controller.links()])
    finally:
        os.kill(started, signal.SIGKILL)
        os.waitpid(started, 0)
