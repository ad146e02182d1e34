# SPDX-License-Identifier: GPL-2.0
"""The list of test kernels, and the other files that repeat it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guest import kernel_list
from guest.debug.recipe import VARIANTS
from guest.errors import KernelMissingError

REPOSITORY = Path(__file__).resolve().parents[3]


def test_support_matrix_has_the_list() -> None:
    table, document = kernel_list.support_table(), REPOSITORY / "docs" / "support.md"
    assert table in document.read_text(), f"{document.name} should say:\n{table}"


def test_packages_are_installed_by_setup() -> None:
    text = (REPOSITORY / "apt-packages.txt").read_text()
    installed = {line.split("#")[0].strip() for line in text.splitlines()}
    wanted = {package for kernel in kernel_list.load() for package in kernel.packages}
    kernels = {name for name in installed if re.match("linux-(image|headers)-", name)}
    assert wanted == kernels


def test_names_are_used_once_and_variants_exist() -> None:
    listed = kernel_list.load()
    names = [kernel.name for kernel in listed]
    assert len(set(names)) == len(names)
    assert {kernel.built for kernel in listed if kernel.built} == set(VARIANTS)


def test_every_change_is_tested_on_kernels_of_test_all() -> None:
    every_change = {kernel.name for kernel in kernel_list.of_target("test")}
    assert every_change <= {kernel.name for kernel in kernel_list.of_target("test-all")}
    assert kernel_list.default_kernel().name in every_change


def test_what_is_not_listed_is_refused_with_what_is() -> None:
    with pytest.raises(KernelMissingError, match=r"6\.12-rt"):
        kernel_list.named("6.13")
    with pytest.raises(KernelMissingError, match="target nothing"):
        kernel_list.of_target("nothing")


def test_a_kernel_is_installed_or_built() -> None:
    with pytest.raises(ValueError, match="either"):
        kernel_list.ListedKernel("x", "why", {}, package="linux-image-x", built="kasan")
    with pytest.raises(ValueError, match="either"):
        kernel_list.ListedKernel("x", "why", {})


KERNEL_TESTS = list((REPOSITORY / "tests" / "kernel").rglob("test_*.py"))
THERE = frozenset(path.name for path in KERNEL_TESTS)


def names_in(file: str) -> set[str]:
    """The names of the tests in files of kernel tests of that name."""
    texts = [path.read_text() for path in KERNEL_TESTS if path.name == file]
    return {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}


def test_chosen_files_and_tests_exist_and_are_some_of_them() -> None:
    for kernel in kernel_list.load():
        for which in (kernel.chosen, kernel.left_out, kernel.dealt, kernel.later):
            assert which is kernel.later or set(which) <= set(kernel.targets)
            for entries in which.values():
                assert {entry.partition("::")[0] for entry in entries} < THERE
                for file, _, test in (entry.partition("::") for entry in entries):
                    assert not test or test.partition("[")[0] in names_in(file)
        assert set(kernel.late) < THERE


@pytest.mark.parametrize("target", ["test", "test-all"])
def test_what_a_kernel_leaves_out_another_runs(target: str) -> None:
    listed = kernel_list.of_target(target)
    for kernel in listed:
        for file, _, test in (entry.partition("::") for entry in kernel.left_out.get(target, ())):
            others = [other for other in listed if other.name != kernel.name]
            assert any(other.runs(file, target) for other in others)
            assert not test or any(other.runs_test(file, test, target, 2) for other in others)


@pytest.fixture(name="collected", scope="module")
def _collected() -> list[tuple[str, str]]:
    """File and name of each kernel test; without those of real tools, which no kernel is dealt."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q"]
    skip = "--ignore=tests/kernel/tools"
    environment = {name: value for name, value in os.environ.items() if name != "IPTT_TARGET"}
    done = subprocess.run(
        [*command, skip, "tests/kernel"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.partition("::") for line in done.stdout.splitlines()]
    return [(path.rpartition("/")[2], name) for path, colons, name in lines if colons]


def missed(
    collected: list[tuple[str, str]], target: str, kernels: list[kernel_list.ListedKernel]
) -> set[str]:
    """The tests that none of the kernels runs for a target."""
    return {
        f"{file}::{name}"
        for file, name in collected
        if not any(
            kernel.runs_test(file, name, target, cpus)
            for kernel in kernels
            for cpus in kernel.targets[target]
        )
    }


def test_each_test_runs_on_some_kernel_or_is_left_to_test_all(
    collected: list[tuple[str, str]],
) -> None:
    names = {f"{file}::{name}" for file, name in collected}
    later = set(kernel_list.load_later()["test"])
    left = {name for name in names if not later.isdisjoint({name, name.partition("[")[0]})}
    assert missed(collected, "test", kernel_list.of_target("test")) == left
    assert {name if name in later else name.partition("[")[0] for name in left} == later
    assert not missed(collected, "test-all", kernel_list.of_target("test-all"))


def test_no_test_is_missed_with_a_kernel_that_is_not_there_or_does_not_count(
    collected: list[tuple[str, str]],
) -> None:
    there = ["6.1", "6.12"]
    with_all = missed(collected, "test", kernel_list.of_target("test"))
    kernels = [kernel_list.named(name, there) for name in there]
    # means something on that kernel only
    newest = "test_programs.py::test_a_private_stack_is_of_one_program_at_a_time[256]"
    assert missed(collected, "test", kernels) - with_all == {newest}

    uncounted, counted = kernel_list.named("7.x", there), kernel_list.named("7.x")
    in_chains = [name for file, name in collected if file == "test_chains.py"]
    assert any(uncounted.runs_test("test_chains.py", name, "test", 2) for name in in_chains)
    assert all(
        uncounted.runs_test(file, name, "test", 2) == counted.runs_test(file, name, "test", 2)
        for file, name in collected
    )


def test_a_private_stack_is_looked_at_where_there_is_one() -> None:
    name = "test_a_private_stack_is_of_one_program_at_a_time[256]"
    runs = [
        kernel.name
        for kernel in kernel_list.of_target("test")
        if kernel.runs_test("test_programs.py", name, "test", 2)
    ]
    assert runs == ["7.x"]


def test_what_a_target_runs_on_a_kernel() -> None:
    chosen = kernel_list.ListedKernel(
        "x", "why", {}, package="linux-image-x", chosen={"test": ("test_a.py",)}
    )
    assert [chosen.runs(file, "test") for file in ("test_a.py", "test_b.py")] == [True, False]
    assert chosen.runs("test_b.py", "test-all")
    others = kernel_list.ListedKernel(
        "x", "why", {}, package="linux-image-x", left_out={"test": ("test_a.py",)}
    )
    assert [others.runs(file, "test") for file in ("test_a.py", "test_b.py")] == [False, True]
    assert not others.runs_test("test_a.py", "test_x", "test", 2)
    some = kernel_list.ListedKernel(
        "x",
        "why",
        {},
        package="linux-image-x",
        left_out={"test": ("test_a.py::test_x", "test_a.py::test_y[1]")},
    )
    assert some.runs("test_a.py", "test")
    tests = ("test_x", "test_x[1]", "test_y", "test_y[1]", "test_y[2]", "test_xy")
    run = [test for test in tests if some.runs_test("test_a.py", test, "test", 2)]
    assert run == ["test_y", "test_y[2]", "test_xy"]
    assert all(some.runs_test("test_a.py", test, "test-all", 2) for test in tests)


def test_each_test_of_a_file_that_is_dealt_out_runs_on_one_kernel() -> None:
    names = [f"test_{number}[{case}]" for number in range(40) for case in "xyz"]
    listed = kernel_list.load()
    dealt = {(target, file) for one in listed for target in one.dealt for file in one.dealt[target]}
    assert dealt
    for target, file in dealt:
        holders = [one for one in listed if file in one.dealt.get(target, ())]
        assert len(holders) > 1
        assert all(target in one.targets and one.runs(file, target) for one in holders)
        ran = [
            [one.name for one in holders if one.runs_test(file, name, target, 2)] for name in names
        ]
        assert all(len(one) == 1 for one in ran)
        assert {name for one in ran for name in one} == {one.name for one in holders}
        assert all(one.runs_test(file, "test_1", "test-all", 2) for one in holders)


def test_each_test_of_a_kernel_with_several_numbers_of_cpus_runs_with_one() -> None:
    spread = [(one, target) for one in kernel_list.load() for target in one.spread]
    assert spread
    for kernel, target in spread:
        counts = kernel.targets[target]
        assert len(counts) > 1
        names = [f"test_{number}" for number in range(60)]
        ran = [
            [cpus for cpus in counts if kernel.runs_test("test_links.py", name, target, cpus)]
            for name in names
        ]
        assert all(len(one) == 1 for one in ran)
        assert {cpus for one in ran for cpus in one} == set(counts)
