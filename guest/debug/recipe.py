# SPDX-License-Identifier: GPL-2.0
"""The recipe of a debug kernel, and its place in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from guest.errors import KernelMissingError
from guest.kernels import Kernel

SOURCE_SERIES = "6.12"
VARIANTS = {
    "kasan": "memory errors, undefined behaviour, locking, leaks, failing allocations, coverage",
    "kcsan": "data races",
}
_HERE = Path(__file__).resolve().parent
_COMPLETE = "complete.json"


def cache_directory() -> Path:
    """The cache of kernels, outside the checkout, so that a fresh checkout need not build again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ipttctl" / "kernels"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Recipe:
    """A variant's configuration, source and tools; any change to the kernel changes its key."""

    variant: str

    @property
    def name(self) -> str:
        """The kernel's name on command lines, as in ``6.12-kasan``."""
        return f"{SOURCE_SERIES}-{self.variant}"

    @property
    def archive(self) -> Path:
        """The source archive that Debian's package installs."""
        return Path(f"/usr/src/linux-source-{SOURCE_SERIES}.tar.xz")

    @cached_property
    def configuration(self) -> str:
        """The options that are set, for KCONFIG_ALLCONFIG."""
        return "".join((_HERE / f"{part}.config").read_text() for part in ("base", self.variant))

    @cached_property
    def source_version(self) -> str:
        """The version of the installed source package.

        Raises:
            KernelMissingError: it is not installed.
        """
        package = f"linux-source-{SOURCE_SERIES}"
        if not self.archive.is_file():
            raise KernelMissingError(f"{self.archive} is missing; run: make setup")
        return _output("dpkg-query", "-W", "-f", "${Version}", package)

    @cached_property
    def key(self) -> str:
        """A hash of everything that determines the kernel."""
        options = [line for line in self.configuration.splitlines() if line.startswith("CONFIG_")]
        tools = [_output("gcc", "-dumpfullversion"), _output("pahole", "--version")]
        text = "\n".join([self.source_version, *tools, *options])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def source(self) -> Path:
        """The directory of the unpacked source; variants share it, and none writes to it."""
        return cache_directory() / f"linux-{self.source_version}"

    @property
    def directory(self) -> Path:
        """The root directory below which the kernel is installed."""
        return cache_directory() / f"{self.name}-{self.key}"

    def complete(self, release: str, seconds: float) -> None:
        """Mark the kernel as complete, and record the build time."""
        text = json.dumps({"release": release, "seconds": round(seconds)})
        (self.directory / _COMPLETE).write_text(text + "\n")

    def build_seconds(self) -> int | None:
        """The build time in seconds; None if there is no complete kernel."""
        try:
            return int(json.loads((self.directory / _COMPLETE).read_text())["seconds"])
        except FileNotFoundError:
            return None

    def kernel(self) -> Kernel:
        """The kernel in the cache.

        Raises:
            KernelMissingError: it is not built, or has another configuration or source.
        """
        if self.build_seconds() is None:
            raise KernelMissingError(
                f"kernel {self.name} is not in {cache_directory()}; run: make kernel-{self.variant}"
            )
        release = json.loads((self.directory / _COMPLETE).read_text())["release"]
        return Kernel(
            name=self.name,
            release=release,
            image=self.directory / "boot" / f"vmlinuz-{release}",
            headers=self.directory / "lib" / "modules" / release / "build",
        )
