# SPDX-License-Identifier: GPL-2.0
"""Processes by number, and what proves that one had its number at a moment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipttctl.system import processes
from ipttctl.system.processes import Process, Processes

TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
PR_SET_NAME = 15

UNIFIED = "0::/system.slice/ssh.service\n"


@pytest.fixture(autouse=True)
def _initial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the namespaces of the tests count as the initial ones."""
    ours = {name: (Path("/proc/self/ns") / name).stat().st_ino for name in ("pid", "time")}
    monkeypatch.setattr(processes, "_INITIAL", ours)


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the end of the block."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the end of the test."""
    with sleeper() as process:
        yield process


def fake(
    proc: Path, pid: int, comm: str = "cat", start: int = 5, cgroup: str = UNIFIED, tgid: int = 0
) -> None:
    """A process in a directory that stands for /proc."""
    namespaces = proc / "self" / "ns"
    namespaces.mkdir(parents=True, exist_ok=True)
    for name in ("pid", "time"):
        (namespaces / name).unlink(missing_ok=True)
        (namespaces / name).symlink_to(f"/proc/self/ns/{name}")
    directory = proc / str(pid)
    directory.mkdir()
    fields = " ".join(["S", *["0"] * 18, str(start), "0", "0"])
    (directory / "stat").write_bytes(os.fsencode(f"{pid} ({comm}) {fields}\n"))
    (directory / "status").write_text(
        f"Name:\tcat\nTgid:\t{tgid or pid}\nUid:\t1\t33\t2\t3\nGroups:\t\n"
    )
    (directory / "cgroup").write_text(cgroup)


def test_a_process_of_ours(child: subprocess.Popen[bytes]) -> None:
    known = Processes()
    time.sleep(2.5 * TICK / 1e9)
    found = known.at(child.pid, time.monotonic_ns())
    assert found is not None
    assert (found.pid, found.uid) == (child.pid, os.geteuid())
    assert found.comm == "sleep"
    assert found.cgroup.startswith("/")
    assert found == known.read(child.pid)


def test_one_that_started_since_is_not_told() -> None:
    known = Processes()
    before = time.monotonic_ns()
    with sleeper() as process:
        time.sleep(2.5 * TICK / 1e9)
        assert known.at(process.pid, before) is None
        assert known.at(process.pid, time.monotonic_ns()) is not None


def test_an_event_that_is_yet_to_come_proves_nothing(child: subprocess.Popen[bytes]) -> None:
    assert Processes().at(child.pid, time.monotonic_ns() + 1_000_000_000) is None


def test_one_that_is_gone_is_not_told(child: subprocess.Popen[bytes]) -> None:
    known = Processes()
    child.kill()
    child.wait()
    assert known.at(child.pid, time.monotonic_ns()) is None
    assert known.read(0) is None
    assert known.read(-1) is None


def test_a_thread_is_no_process() -> None:
    code = (
        "import threading, sys; t = threading.Thread(target=lambda: sys.stdin.read());"
        "t.start(); print(t.native_id, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        thread = int(process.stdout.readline())
        assert Path(f"/proc/{thread}/stat").exists()
        assert Processes().read(thread) is None
        assert Processes().read(process.pid) is not None


def test_a_command_of_any_bytes() -> None:
    hostile = b") R 1 1 (\n\xff"
    code = f"import ctypes; ctypes.CDLL(None).prctl({PR_SET_NAME}, {hostile!r}, 0, 0, 0)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        found = Processes().read(process.pid)
    assert found is not None
    assert os.fsencode(found.comm) == hostile
    assert found.uid == os.geteuid()


def test_a_tick_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start is rounded down to a tick: only one that is a whole tick earlier is certain."""
    fake(tmp_path, 7, start=500)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 900 * TICK)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: 900 * TICK)
    known = Processes(tmp_path)
    assert known.at(7, 501 * TICK) == Process(7, 500 * TICK, "cat", 33, "/system.slice/ssh.service")
    assert known.at(7, 501 * TICK - 1) is None
    assert known.at(7, 500 * TICK) is None


def test_the_time_suspended_counts_only_as_far_as_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, suspended = 1000 * TICK, 300 * TICK
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: now + suspended)
    fake(tmp_path, 7, start=1299)
    fake(tmp_path, 8, start=1400)
    known = Processes(tmp_path)
    # the start is 1299 in the one clock and 999 in the other
    assert known.at(7, now) is not None
    now = 1010 * TICK
    # before the first reading it may not have been suspended yet
    assert known.at(7, 999 * TICK) is None
    # the process 8 started while or after the host was suspended again: at the event it was not
    suspended = 500 * TICK
    assert known.at(8, 1005 * TICK) is None
    # from now on the new difference is known
    now = 1020 * TICK
    assert known.at(8, 1011 * TICK) is not None
    assert known.at(8, 1009 * TICK) is None


def test_another_namespace_has_other_numbers(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pid", "time"):
        with monkeypatch.context() as patch:
            patch.setitem(processes._INITIAL, name, 1)
            assert Processes().read(child.pid) is None
    assert Processes().read(child.pid) is not None


def test_no_proc_no_processes(tmp_path: Path) -> None:
    known = Processes(tmp_path)
    assert not known.usable
    assert known.read(1) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("0::/user.slice (deleted)\n", "/user.slice"),
        ("12:pids:/docker/x\n1:name=systemd:/docker/x\n0::/\n", "/docker/x"),
        ("1:name=systemd:/a:b\n0::/c:d\n", "/c:d"),
        ("2:cpu:/odd\n", ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_the_cgroup_that_says_most(tmp_path: Path, text: str, path: str) -> None:
    fake(tmp_path, 7, cgroup=text)
    found = Processes(tmp_path).read(7)
    assert found is not None
    assert found.cgroup == path


@pytest.mark.parametrize("name", ["stat", "status", "cgroup"])
def test_a_file_without_sense_is_no_process(tmp_path: Path, name: str) -> None:
    fake(tmp_path, 7)
    fake(tmp_path, 8, tgid=3)
    known = Processes(tmp_path)
    assert known.read(7) is not None
    assert known.read(8) is None
    if name == "cgroup":
        (tmp_path / "7" / name).unlink()
    else:
        (tmp_path / "7" / name).write_text("Tgid:\t7\n")
    assert known.read(7) is None


def test_the_directory_of_a_process_is_never_another_ones(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    """A process that ends while it is read is not found."""
    real = processes._read

    def read(directory: int, name: str, most: int) -> str:
        if name == "status":
            child.kill()
            child.wait()
        return real(directory, name, most)

    monkeypatch.setattr(processes, "_read", read)
    assert Processes().read(child.pid) is None
