# SPDX-License-Identifier: GPL-2.0
"""Reports of runs on several machines."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from guest.accelerator import Accelerator
from guest.errors import GuestLostError
from guest.kernels import Kernel
from guest.machine import Machine
from guest.matrix import Outcome, PrefixedLines, numbered, table


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


def test_a_kernels_own_arguments_are_given_to_it() -> None:
    command = machine("6.12-preempt", 4).virtme_command(Path("/repository"), Path("/run"))
    assert command[command.index("preempt=full") - 1] == "--append"
    assert command[command.index("--cpus") + 1] == "4"
    assert "--qemu-opts=-accel tcg,thread=single" in command
