# SPDX-License-Identifier: GPL-2.0
"""The kernels that the project is tested on, as listed in ``kernels.yaml``."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
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
    share: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)
    """By target and file of ``dealt``: which of how many kernels it is, from 0 on."""

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
        names = {f"{file}::{test}", f"{file}::{test.partition('[')[0]}"}
        place, of = self.share.get(target, {}).get(file, (0, 1))
        # by its name, which is the same on each kernel, whatever else is collected there
        card = zlib.crc32(test.encode())
        is_ours = card % of == place
        if target in self.spread:
            counts = self.targets[target]
            is_ours = is_ours and counts[card % len(counts)] == cpus
        return (
            is_ours and self.runs(file, target) and names.isdisjoint(self.left_out.get(target, ()))
        )

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


def deal(kernels: Sequence[ListedKernel]) -> list[ListedKernel]:
    """Give kernels their shares of the files that are dealt out among them."""
    hands: dict[tuple[str, str], list[str]] = {}
    for kernel in kernels:
        for target, files in kernel.dealt.items():
            for file in files:
                hands.setdefault((target, file), []).append(kernel.name)
    return [
        replace(
            kernel,
            share={
                target: {
                    file: (names.index(kernel.name), len(names))
                    for file in files
                    for names in [hands[target, file]]
                }
                for target, files in kernel.dealt.items()
            },
        )
        for kernel in kernels
    ]


def load(path: Path = LIST) -> list[ListedKernel]:
    """Read all kernels on the list, in its order."""
    return deal([_entry(fields) for fields in yaml.safe_load(path.read_text())])


def named(name: str) -> ListedKernel:
    """The listed kernel with a name.

    Raises:
        KernelMissingError: the list has no such kernel.
    """
    listed = load()
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
    counts = [(len(entries) - tests, "files"), (tests, "tests")]
    words = " and ".join(f"{count} {what}" for count, what in counts if count)
    parts = [f"{len(kernel.chosen[target])} files"] if target in kernel.chosen else []
    parts += [f"not {words}"] if words else []
    if target in kernel.spread:
        parts.append("each test with one of these")
    if target in kernel.dealt:
        parts.append(f"its share of {len(kernel.dealt[target])} files")
    return f" ({'; '.join(parts)})" if parts else ""
