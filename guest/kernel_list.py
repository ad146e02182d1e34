# SPDX-License-Identifier: GPL-2.0
"""The kernels that the project is tested on, as listed in ``kernels.yaml``."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from guest import kernels
from guest.debug.recipe import Recipe
from guest.errors import KernelMissingError
from guest.kernels import Kernel
from guest.suites import Suite

LIST = Path(__file__).with_name("kernels.yaml")
LATER = Path(__file__).with_name("later.yaml")


@dataclass(frozen=True)
class ListedKernel:
    """An entry of the list."""

    name: str
    reason: str
    targets: Mapping[str, tuple[int, ...]]
    """CPU counts with which a make target runs it, by target."""
    package: str = ""
    """The Debian package of its image; empty for a kernel that is built here."""
    built: str = ""
    """The variant of a kernel that is built here."""
    installed: str = ""
    """Series and flavour, if they differ from the name."""
    arguments: tuple[str, ...] = ()
    """Kernel arguments that distinguish it."""
    suite: str = ""
    """The suite of the package, if it is not this machine's."""
    passed: str = ""
    """The newest version in the suite with which all tests have passed."""
    chosen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Files of kernel tests that a make target runs, by target, if not all."""
    left_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Files of kernel tests (``test_x.py``), and tests in files (``test_x.py::test_y``, all its
    cases, or ``test_x.py::test_y[case]``), that a make target leaves to other runs, by target."""
    late: tuple[str, ...] = ()
    """Files of kernel tests that come after all others."""
    dealt: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Files whose tests a make target deals out among the kernels that have them here."""
    spread: tuple[str, ...] = ()
    """Make targets that run each test with one of their numbers of CPUs only."""
    holders: Mapping[str, Mapping[str, tuple[ListedKernel, ...]]] = field(default_factory=dict)
    """By target and file of ``dealt``: the kernels among which its tests are dealt."""
    later: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tests that a make target runs on no kernel, by target, named as in ``left_out``."""

    def __post_init__(self) -> None:
        if bool(self.package) == bool(self.built):
            raise ValueError(f"kernel {self.name}: either a package or a variant to build")
        if bool(self.suite) != bool(self.passed):
            raise ValueError(f"kernel {self.name}: a suite moves on, so say which version passed")

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages of the kernel in this machine's own suite."""
        if not self.package or self.suite:
            return ()
        return self.package, self.package.replace("image", "headers", 1)

    def find(self) -> Kernel:
        """Find the kernel on this machine, under its name in the list.

        Raises:
            KernelMissingError: the kernel is not installed or not built.
        """
        if self.built:
            found = Recipe(self.built).kernel()
        elif self.suite:
            found = Suite(self.suite, self.package).kernel(self.name)
        else:
            found = kernels.newest(self.installed or self.name)
        return replace(found, name=self.name, arguments=self.arguments)

    def runs(self, file: str, target: str) -> bool:
        """Whether a make target runs a file of kernel tests on it."""
        chosen = file in self.chosen.get(target, (file,))
        return chosen and file not in self.left_out.get(target, ())

    def runs_test(self, file: str, test: str, target: str, cpus: int) -> bool:
        """Whether a make target runs a test of a file on it, in a guest with so many CPUs.

        ``test`` is its name, with a case in brackets.
        """
        if not self._takes(file, test, target):
            return False
        # by its name, which is the same on each kernel, whatever else is collected there
        card = zlib.crc32(test.encode())
        holders = self.holders.get(target, {}).get(file, ())
        names = [one.name for one in holders if one._takes(file, test, target)]
        is_ours = not names or names[card % len(names)] == self.name
        if target in self.spread:
            counts = self.targets[target]
            is_ours = is_ours and counts[card % len(counts)] == cpus
        return is_ours

    def _takes(self, file: str, test: str, target: str) -> bool:
        """Whether a make target may run a test on it, if it is dealt to it."""
        names = {f"{file}::{test}", f"{file}::{test.partition('[')[0]}"}
        elsewhere = {*self.left_out.get(target, ()), *self.later.get(target, ())}
        return self.runs(file, target) and names.isdisjoint(elsewhere)

    def is_newer(self, kernel: Kernel) -> bool:
        """Whether a kernel of the suite is newer than the last one that passed."""
        return bool(self.passed) and _version(kernel.release) > _version(self.passed)


def _version(release: str) -> tuple[int, ...]:
    """The numbers at the beginning of a release."""
    matched = re.match(r"[\d.]+\d", release)
    return tuple(map(int, matched.group().split("."))) if matched else ()


def _entry(fields: Mapping[str, Any]) -> ListedKernel:
    return ListedKernel(
        **{
            **fields,
            **{which: tuple(fields.get(which, ())) for which in ("arguments", "spread")},
            "late": tuple(file for files in fields.get("late", ()) for file in files),
            "targets": {name: tuple(cpus) for name, cpus in fields["targets"].items()},
            **{
                which: {target: tuple(files) for target, files in fields.get(which, {}).items()}
                for which in ("chosen", "left_out", "dealt")
            },
        }
    )


def deal(
    kernels: Sequence[ListedKernel], among: Collection[str] | None = None
) -> list[ListedKernel]:
    """Say of each kernel among which others its files are dealt out: all, or those ``among``.

    A kernel that is not ``among`` them has the tests that it would have if it were.
    """
    return [
        replace(
            kernel,
            holders={
                target: {
                    file: tuple(
                        one
                        for one in kernels
                        if file in one.dealt.get(target, ())
                        and (among is None or one.name in among or one is kernel)
                    )
                    for file in files
                }
                for target, files in kernel.dealt.items()
            },
        )
        for kernel in kernels
    ]


def load_later(path: Path = LATER) -> dict[str, tuple[str, ...]]:
    """Read which tests each make target leaves to other targets, whatever the reason."""
    return {
        target: tuple(test for tests in reasons.values() for test in tests)
        for target, reasons in yaml.safe_load(path.read_text()).items()
    }


def load(among: Collection[str] | None = None) -> list[ListedKernel]:
    """Read all kernels on the list, in its order.

    Files are dealt out among all kernels, or only those with a name in ``among``.
    """
    later = load_later()
    entries = [_entry(fields) for fields in yaml.safe_load(LIST.read_text())]
    return deal([replace(one, later=later) for one in entries], among)


def named(name: str, among: Collection[str] | None = None) -> ListedKernel:
    """The listed kernel with a name; ``among`` is that of ``load()``.

    Raises:
        KernelMissingError: the list has no such kernel.
    """
    listed = load(among)
    for kernel in listed:
        if kernel.name == name:
            return kernel
    names = ", ".join(kernel.name for kernel in listed)
    raise KernelMissingError(f"no kernel is called {name}; {LIST.name} lists {names}")


def of_target(target: str) -> list[ListedKernel]:
    """The kernels that a make target runs the tests on.

    Raises:
        KernelMissingError: the target has no kernel.
    """
    listed = [kernel for kernel in load() if target in kernel.targets]
    if not listed:
        raise KernelMissingError(f"{LIST.name} has no kernel for target {target}")
    return listed


def default_kernel() -> ListedKernel:
    """The default kernel: the newest installed one that every change is tested on."""
    return [kernel for kernel in of_target("test") if not kernel.suite][-1]


def support_table() -> str:
    """The list as a table for docs/support.md."""
    lines = ["| Kernel | What it is | Tested by, with CPUs | Why |", "|---|---|---|---|"]
    for kernel in load():
        what = f"`{kernel.package}`" if kernel.package else f"built: `make kernel-{kernel.built}`"
        what += f" of {kernel.suite}; {kernel.passed} passed" if kernel.suite else ""
        what += "".join(f", `{argument}`" for argument in kernel.arguments)
        runs = [
            f"`make {target}` {', '.join(map(str, cpus))}{_part(kernel, target)}"
            for target, cpus in kernel.targets.items()
        ]
        lines.append(f"| {kernel.name} | {what} | {'; '.join(runs)} | {kernel.reason} |")
    return "\n".join(lines) + "\n"


def _part(kernel: ListedKernel, target: str) -> str:
    """The part of the tests that a target runs on a kernel, in brackets; nothing if it is all."""
    entries = kernel.left_out.get(target, ())
    tests = sum("::" in entry for entry in entries)
    counts = [(len(entries) - tests, "file"), (tests, "test")]
    words = " and ".join(f"{count} {what}{'s' * (count > 1)}" for count, what in counts if count)
    parts = [f"{len(kernel.chosen[target])} files"] if target in kernel.chosen else []
    parts += [f"not {words}"] if words else []
    if target in kernel.spread:
        parts.append("each test with one of these")
    if target in kernel.dealt:
        parts.append(f"its share of {len(kernel.dealt[target])} files")
    return f" ({'; '.join(parts)})" if parts else ""
