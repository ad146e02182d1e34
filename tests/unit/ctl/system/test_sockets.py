# SPDX-License-Identifier: GPL-2.0
"""Processes that hold a socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ipttctl.system import processes, sockets
from ipttctl.system.processes import Processes
from ipttctl.system.sockets import SocketHolders, Sockets

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def _initial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the namespaces of the tests count as the initial ones."""
    ours = {name: (Path("/proc/self/ns") / name).stat().st_ino for name in ("pid", "time")}
    monkeypatch.setattr(processes, "_INITIAL", ours)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scans be due at any time."""
    monkeypatch.setattr(sockets, "_LEAST_REST", 0)
    monkeypatch.setattr(sockets, "_REST", 0)


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


@pytest.fixture
def children() -> Iterator[list[int]]:
    """Processes that are ended after the test."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        end(pid)


def fork(pids: list[int]) -> int:
    """A child that holds what we hold, old enough to be certain about."""
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    pids.append(pid)
    time.sleep(2.5 * TICK / 1e9)
    return pid


def end(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def pids(found: SocketHolders) -> list[int]:
    return [one.pid for one in found.processes]


def test_a_socket_of_ours(sock: socket.socket) -> None:
    found = Sockets(Processes()).holders(inode(sock), time.monotonic_ns(), os.geteuid())
    assert found is not None
    assert pids(found) == [os.getpid()]


def test_a_socket_that_only_a_child_holds(sock: socket.socket, children: list[int]) -> None:
    child, number = fork(children), inode(sock)
    sock.close()
    found = Sockets(Processes()).holders(number, time.monotonic_ns())
    assert found is not None
    assert pids(found) == [child]


def test_several_holders_are_told(
    sock: socket.socket, children: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    holders = sorted([os.getpid(), fork(children), fork(children)])
    # a second descriptor makes no second holder
    with sock.dup():
        found = Sockets(Processes()).holders(inode(sock), time.monotonic_ns())
    assert found is not None
    assert (pids(found), found.left_out) == (holders, 0)
    monkeypatch.setattr(sockets, "_MOST_TRIED", 2)
    found = Sockets(Processes()).holders(inode(sock), time.monotonic_ns())
    assert found is not None
    assert (pids(found), found.left_out) == (holders[:2], 1)


def test_a_child_forked_since_is_not_told(sock: socket.socket, children: list[int]) -> None:
    moment, number = time.monotonic_ns(), inode(sock)
    fork(children)
    listed = Processes()
    found = Sockets(listed).holders(number, moment)
    assert found is not None
    assert pids(found) == [os.getpid()]
    sock.close()
    assert Sockets(listed).holders(number, moment) is None


def test_a_holder_that_let_go_is_not_told(sock: socket.socket, children: list[int]) -> None:
    known, number = Sockets(Processes()), inode(sock)
    assert known.holders(number, time.monotonic_ns())
    child = fork(children)
    # the last scan does not know the child
    sock.close()
    found = known.holders(number, time.monotonic_ns())
    assert found is not None
    assert pids(found) == [child]
    end(child)
    assert known.holders(number, time.monotonic_ns()) is None


def test_a_descriptor_of_another_file_is_no_holder(sock: socket.socket) -> None:
    known, number = Sockets(Processes()), inode(sock)
    assert known.holders(number, time.monotonic_ns())
    with Path(os.devnull).open("rb") as other:
        os.dup2(other.fileno(), sock.fileno())
    assert known.holders(number, time.monotonic_ns()) is None


def test_the_uid_of_another_socket_is_not_told(sock: socket.socket) -> None:
    known = Sockets(Processes())
    assert known.holders(inode(sock), time.monotonic_ns(), os.geteuid() + 1) is None
    assert known.holders(inode(sock), time.monotonic_ns(), None)


def test_an_old_event_may_be_about_another_socket(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_MINUTE", 1_000_000)
    moment = time.monotonic_ns()
    assert Sockets(Processes()).holders(inode(sock), time.monotonic_ns())
    time.sleep(0.002)
    assert Sockets(Processes()).holders(inode(sock), moment) is None


def test_what_has_no_answer(sock: socket.socket) -> None:
    known, now = Sockets(Processes()), time.monotonic_ns()
    assert known.holders(0, now) is None
    # a file with such a number is no socket
    assert known.holders(Path(__file__).stat().st_ino, now) is None
    # an event that is yet to come
    assert known.holders(inode(sock), now + 1_000_000_000) is None


def test_scans_rest(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_LEAST_REST", 60)
    known = Sockets(Processes())
    assert known.holders(inode(sock), time.monotonic_ns())
    with socket.socket() as later:
        assert known.holders(inode(later), time.monotonic_ns()) is None
        # what is known is still answered
        assert known.holders(inode(sock), time.monotonic_ns())
        # so it is when it is old
        monkeypatch.setattr(sockets, "_FRESH", -1)
        assert known.holders(inode(sock), time.monotonic_ns())
        assert known.holders(inode(later), time.monotonic_ns()) is None
        monkeypatch.setattr(known, "_next", 0)
        assert known.holders(inode(later), time.monotonic_ns())


def test_known_sockets_take_no_scan(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Sockets(Processes())
    assert known.holders(inode(sock), time.monotonic_ns())
    monkeypatch.setattr(known, "_scan", lambda: pytest.fail("a scan"))
    assert known.holders(inode(sock), time.monotonic_ns())


def test_an_answer_holds_until_the_look(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_MOST_ANSWERS", 1)
    known, number = Sockets(Processes()), inode(sock)
    first = time.monotonic_ns()
    second = time.monotonic_ns()
    found = known.holders(number, first)
    assert found is not None
    sock.close()
    assert known.holders(number, second) is found
    # neither for one before nor for one after it, nor for another uid
    assert known.holders(number, first - 1) is None
    assert known.holders(number, time.monotonic_ns()) is None
    assert known.holders(number, first, 0) is None
    with socket.socket() as other:
        assert known.holders(inode(other), time.monotonic_ns())
    assert known.holders(number, first) is None


def test_a_scan_that_takes_too_long_is_not_complete(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_LONGEST", -1)
    known = Sockets(Processes())
    assert known.holders(inode(sock), time.monotonic_ns()) is None
    assert not known._complete


def test_processes_that_may_not_be_seen_are_not_counted_as_none(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Sockets(Processes())
    monkeypatch.setattr(known, "_scan_process", lambda pid, until: _only(known, pid, until))
    found = known.holders(inode(sock), time.monotonic_ns())
    assert found is not None
    assert not found.complete


def _only(known: Sockets, pid: int, until: float) -> bool:
    return Sockets._scan_process(known, pid, until) if pid == os.getpid() else False
