# SPDX-License-Identifier: GPL-2.0
"""Kernels of suites other than this machine's, each suite in its own root file system.

A root below ``.build/suites`` holds the suite's kernel, headers and compiler.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guest import kernels
from guest.errors import KernelMissingError
from guest.kernels import Kernel
from guest.roots import BUILD, Root, SuiteError, run

DIRECTORY: Final = BUILD / "suites"
_TOOLS: Final = ("gcc", "make", "kmod", "libc6-dev")


@dataclass(frozen=True)
class Suite:
    """The root file system of a suite with one kernel in it."""

    name: str
    """The suite's name, as in ``trixie-backports``."""
    package: str
    """The package of the kernel's image; with a ``*``, the oldest package that matches."""

    @property
    def root(self) -> Path:
        """The directory of the root file system."""
        return DIRECTORY / self.name

    @property
    def _root(self) -> Root:
        return Root(self.root, self.name)

    def kernel(self, name: str) -> Kernel:
        """The kernel in the root, under the given name.

        Raises:
            KernelMissingError: the root does not exist.
        """
        found = kernels.installed(self.root / "boot", self.root / "lib" / "modules")
        if not found or not self._root.complete:
            raise KernelMissingError(
                f"kernel {name} of suite {self.name} is not in {DIRECTORY}; run: make suites"
            )
        latest = found[-1]
        return Kernel(name, latest.release, latest.image, latest.headers)

    def command(self, *command: str, shared: Path | None = None) -> list[str]:
        """A command line that runs a command in the root, with a host directory mounted in it."""
        return self._root.command(*command, shared=shared)

    def prepare(self) -> None:
        """Make the root, or bring its kernel up to date with the archive.

        Raises:
            SuiteError: this fails, and there is no earlier root.
        """
        announcement = f"Making a root of {self.name}: some minutes, a gigabyte"
        self._root.prepare(announcement, self._install_kernel)

    def install(self, *packages: str) -> None:
        """Install packages in the root, if they are missing or outdated.

        Raises:
            SuiteError: the archive does not answer, or lacks a package.
        """
        self._root.install(*packages)

    def _install_kernel(self) -> None:
        self.install(*_TOOLS, *self._packages())
        self._link_within()

    def _link_within(self) -> None:
        """Make links from modules to headers relative, so that they stay in the root."""
        for link in (self.root / "lib" / "modules").glob("*/*"):
            if link.is_symlink() and link.readlink().is_absolute():
                target = self.root / link.readlink().relative_to("/")
                link.unlink()
                link.symlink_to(os.path.relpath(target, link.parent.resolve()))

    def _packages(self) -> tuple[str, str]:
        """The packages of image and headers, in apt-get's notation."""
        image = self.package
        if "*" in image:
            pattern = (
                image.replace("image", "headers", 1).replace(".", r"\.").replace("*", r"[0-9-]+")
            )
            found = run(*self.command("apt-cache", "search", "--names-only", f"^{pattern}$"))
            names = [line.split()[0] for line in found.splitlines()]
            if not names:
                raise SuiteError(f"suite {self.name} has no package {image}")
            image = min(names, key=_age).replace("headers", "image", 1)
        target = f"/{self.name}" if self.name.endswith("-backports") else ""
        return f"{image}{target}", f"{image.replace('image', 'headers', 1)}{target}"


def _age(package: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", package)))
