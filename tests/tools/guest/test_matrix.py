# SPDX-License-Identifier: GPL-2.0
"""Runs on several machines, and reports of them."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from guest.accelerator import Accelerator
from guest.errors import GuestLostError
from guest.job import Job, Workspace
from guest.kernels import Kernel
from guest.machine import Machine
from guest.matrix import (
    CLOSED,
    NOT_BEGUN,
    Outcome,
    PrefixedLines,
    failures,
    not_begun,
    numbered,
    run_on_all,
    shared_out,
    table,
)


def machine(name: str, cpus: int) -> Machine:
    return Machine(
        Kernel(name, f"{name}-amd64", Path("/boot/vmlinuz"), Path("/headers"), ("preempt=full",)),
        Accelerator.TCG,
        cpus=cpus,
    )


def test_names_are_told_apart() -> None:
    assert numbered(["a", "b"]) == ["a", "b"]
    assert numbered(["a", "b", "a"]) == ["a#1", "b", "a#2"]


def test_the_table_tells_failed_tests_from_failed_guests() -> None:
    lost = GuestLostError("no status after 9 s", "tail")
    outcomes = [
        Outcome(machine("6.1", 2), 61.4, 0, "==== 5 passed in 50s ===="),
        Outcome(machine("6.12-rt", 1), 5, 1, "1 failed"),
        Outcome(machine("6.12", 4), 9, None, "collected 5 items", lost),
    ]
    heading, *rows = table(outcomes).splitlines()
    assert heading.split()[:4] == ["kernel", "CPUs", "release", "seconds"]
    assert [row.split()[:4] for row in rows] == [
        ["6.1", "2", "6.1-amd64", "61"],
        ["6.12-rt", "1", "6.12-rt-amd64", "5"],
        ["6.12", "4", "6.12-amd64", "9"],
    ]
    assert rows[0].split(maxsplit=5)[4:] == ["passed", "5 passed in 50s"]
    assert "FAILED (exit status 1)" in rows[1]
    assert "GUEST FAILED: no status after 9 s" in rows[2]
    assert [outcome.passed for outcome in outcomes] == [True, False, False]


def test_the_table_says_which_failures_do_not_count() -> None:
    failed = Outcome(machine("7.x", 2), 9, 1, "1 failed", counts=False)
    passed = Outcome(machine("7.x", 2), 9, 0, "1 passed", counts=False)
    assert "FAILED (exit status 1); newer than the last that passed" in table([failed])
    assert "newer" not in table([passed])


def test_lines_are_printed_whole_behind_the_machine(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    sink = PrefixedLines("6.12/2 | ", threading.Lock())
    sink(b"one\r\ntw")
    sink(b"o\n\nend")
    sink.flush()
    assert capfdbinary.readouterr().out == b"6.12/2 | one\n6.12/2 | two\n6.12/2 | \n6.12/2 | end\n"
    assert sink.last == "end"


def test_tests_that_failed_are_named_with_their_machine() -> None:
    sink = PrefixedLines("6.1/2 | ", threading.Lock())
    summary = b"FAILED tests/kernel/test_a.py::test_b - assert 0\nERROR tests/kernel/test_c.py::d\n"
    sink(b"tests/kernel/test_a.py FAILED\nSKIPPED [1] tests/e.py:1\n" + summary)
    outcome = Outcome(machine("6.1", 2), 9, 1, "1 failed", failures=tuple(sink.failures))
    assert failures([outcome]) == [
        "6.1/2: FAILED tests/kernel/test_a.py::test_b - assert 0",
        "6.1/2: ERROR tests/kernel/test_c.py::d",
    ]


def test_a_kernels_own_arguments_are_given_to_it() -> None:
    command = machine("6.12-preempt", 4).virtme_command(Path("/repository"), Path("/run"))
    assert command[command.index("preempt=full") - 1] == "--append"
    assert command[command.index("--cpus") + 1] == "4"
    (options,) = [word for word in command if word.startswith("--qemu-opts=")]
    assert options.startswith("--qemu-opts=-accel tcg,thread=single -cpu max,")


@pytest.mark.parametrize(("lost", "runs"), [(0, {"6.1": 1, "6.12": 1}), (1, {"6.1": 2, "6.12": 1})])
def test_guests_that_come_when_all_is_done_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lost: int, runs: dict[str, int]
) -> None:
    """One processor: a second guest of a machine comes after the first one's end."""
    taken: list[str] = []
    losses = [GuestLostError("no status", "tail")] * lost

    def run(machine: Machine, job: Job, *_: Any, **__: Any) -> int:
        share = Path(job.environment["IPTT_SHARED"])
        assert job.shared == (share,)
        assert share.is_dir()
        taken.append(job.environment["IPTT_SHARED"])
        if losses and machine.kernel.name == "6.1":
            raise losses.pop()
        return 0

    monkeypatch.setattr("guest.matrix.run", run)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    workspace = Workspace(tmp_path, tmp_path / ".build", tmp_path)
    machines = [machine("6.1", 2), machine("6.12", 2)]
    assigned = shared_out(machines, Job(("true",)), workspace, 2)
    assert [str(one.machine) for one in assigned] == ["6.1/2", "6.12/2"] * 2
    outcomes = run_on_all(assigned, workspace, 1)
    assert Counter(outcome.machine.kernel.name for outcome in outcomes) == runs
    assert len(set(taken)) == 2
    assert sum(outcome.error is not None for outcome in outcomes) == lost


def test_a_job_that_is_not_shared_runs_once_on_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("guest.matrix.run", lambda *_, **__: 0)
    workspace = Workspace(tmp_path, tmp_path / ".build", tmp_path)
    machines = [machine("6.1", 1), machine("6.1", 2)]
    outcomes = run_on_all(shared_out(machines, Job(("true",)), workspace, 1), workspace, 1)
    assert [outcome.machine for outcome in outcomes] == machines
    assert not (tmp_path / ".build").exists()


def test_files_that_there_was_no_time_for_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(machine: Machine, job: Job, *_: Any, **__: Any) -> int:
        del machine
        share = Path(job.environment["IPTT_SHARED"])
        # no timer has run: a machine has some time in any case
        if not (share / NOT_BEGUN).exists():
            deadline = time.monotonic() + 10
            while not (share / CLOSED).exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            (share / NOT_BEGUN).write_text("tests/kernel/test_a.py\ntests/kernel/test_b.py")
        return 0

    monkeypatch.setattr("guest.matrix.run", run)
    monkeypatch.setattr("guest.matrix.LATE_COMERS", 0.05)
    workspace = Workspace(tmp_path, tmp_path / ".build", tmp_path)
    assigned = shared_out([machine("6.1", 2)], Job(("true",)), workspace, 2)
    run_on_all(assigned, workspace, 1, until=time.time() - 1)
    assert not_begun(assigned) == [
        "NOT RUN, as the time was up: 6.1/2: tests/kernel/test_a.py tests/kernel/test_b.py"
    ]


def test_nothing_is_closed_before_its_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("guest.matrix.run", lambda *_, **__: 0)
    monkeypatch.setattr("guest.matrix.LATE_COMERS", 0.05)
    workspace = Workspace(tmp_path, tmp_path / ".build", tmp_path)
    assigned = shared_out([machine("6.1", 2)], Job(("true",)), workspace, 2)
    run_on_all(assigned, workspace, 1, until=time.time() + 60)
    run_on_all(assigned, workspace, 1)
    assert not_begun(assigned) == []
    assert all(one.share and not (one.share / CLOSED).exists() for one in assigned)
