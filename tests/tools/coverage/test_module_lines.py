# SPDX-License-Identifier: GPL-2.0
"""Counters from a compiler, in the form in which the kernel gives them out, and their lines.

A program in user space leaves the same files as a kernel with gcov.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.coverage.collect import save_counters
from tests.coverage.lines import FileLines
from tests.coverage.module import module_lines
from tests.coverage.runs import Run

HEADER = """static inline int twice(int number)
{
	if (number < 0)
		return 0;
	return 2 * number;
}
"""
PROGRAM = """#include <stdlib.h>
#include "compat/twice.h"

int main(int argc, char **argv)
{
	if (argc > 1 && atoi(argv[1]) > 1)
		return twice(1) - 2;
	return twice(-1);
}
"""
#: the lines with code
HEADER_LINES = {1, 3, 4, 5}
PROGRAM_LINES = {4, 6, 7, 8}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    directory = tmp_path / "kmod" / "6.12"
    (directory / "compat").mkdir(parents=True)
    (directory / "compat" / "twice.h").write_text(HEADER)
    (directory / "main.c").write_text(PROGRAM)
    source = str(directory / "main.c")
    # in two steps, from another directory, like kbuild
    compiling = ["gcc", "--coverage", "-c", source, "-o", str(directory / "main.o")]
    subprocess.run(compiling, cwd=tmp_path, check=True)
    linking = ["gcc", "--coverage", str(directory / "main.o"), "-o", str(directory / "main")]
    subprocess.run(linking, check=True)
    return directory / "main"


def measured(program: Path, run: Run, *arguments: str) -> Run:
    """Run the program once; keep its counters in the way of a guest."""
    directory = program.parent
    subprocess.run([program, *arguments], check=True)
    # the kernel's directory has a file of counters and a symbolic link to the compiler's file
    gcov = run.directory / "debugfs"
    there = gcov / directory.relative_to("/")
    there.mkdir(parents=True)
    (directory / "main.gcda").rename(there / "main.gcda")
    (there / "main.gcno").symlink_to(directory / "main.gcno")
    save_counters(directory, run.module_data, gcov)
    run.describe(["tests/kernel"], "", directory)
    return run


def by_name(runs: list[Run]) -> dict[str, FileLines]:
    return {file.name: file for file in module_lines(runs)}


def test_lines_that_ran(program: Path, tmp_path: Path) -> None:
    files = by_name([measured(program, Run(tmp_path / "run"))])
    assert set(files) == {"kmod_netlink/main.c", "kmod_netlink/compat/twice.h"}
    assert files["kmod_netlink/main.c"].ran == PROGRAM_LINES - {7}
    assert files["kmod_netlink/main.c"].missed == {7}
    assert files["kmod_netlink/compat/twice.h"].ran == HEADER_LINES - {5}
    assert files["kmod_netlink/compat/twice.h"].missed == {5}


def test_a_line_ran_if_it_did_in_any_run(program: Path, tmp_path: Path) -> None:
    runs = [measured(program, Run(tmp_path / "a")), measured(program, Run(tmp_path / "b"), "2")]
    files = by_name(runs)
    assert files["kmod_netlink/main.c"].ran == PROGRAM_LINES
    assert files["kmod_netlink/compat/twice.h"].ran == HEADER_LINES
    assert not files["kmod_netlink/main.c"].missed


def test_counters_survive_the_next_build(program: Path, tmp_path: Path) -> None:
    run = measured(program, Run(tmp_path / "run"))
    for path in program.parent.glob("main.*"):
        path.unlink()
    assert by_name([run])["kmod_netlink/main.c"].missed == {7}


def test_counters_of_another_build_are_refused(program: Path, tmp_path: Path) -> None:
    run = measured(program, Run(tmp_path / "run"))
    lines = run.module_data / "main.gcno"
    data = bytearray(lines.read_bytes())
    # magic, version, stamp: four bytes each
    data[8] ^= 0xFF
    lines.write_bytes(data)
    with pytest.raises(AssertionError, match="stamp mismatch"):
        module_lines([run])


def test_a_module_without_counters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="is it built for gcov"):
        save_counters(Path("/kmod"), tmp_path / "run", tmp_path)
