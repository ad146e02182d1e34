# SPDX-License-Identifier: GPL-2.0
"""What a debug kernel is made of, and where the one made of exactly this is kept."""

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
    """Where kernels are kept: outside the checkout, so that a fresh one need not build again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "ipttctl" / "kernels"


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(frozen=True)
class Recipe:
    """A variant's configuration, source and tools; whatever changes the kernel changes its key."""

    variant: str

    @property
    def name(self) -> str:
        """How the kernel is called on command lines, as in ``6.12-kasan``."""
        return f"{SOURCE_SERIES}-{self.variant}"

    @property
    def archive(self) -> Path:
        """The source as Debian's package installs it."""
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
        """A hash of everything that goes into the kernel."""
        options = [line for line in self.configuration.splitlines() if line.startswith("CONFIG_")]
        tools = [_output("gcc", "-dumpfullversion"), _output("pahole", "--version")]
        text = "\n".join([self.source_version, *tools, *options])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def source(self) -> Path:
        """The unpacked source; variants share it, none writes into it."""
        return cache_directory() / f"linux-{self.source_version}"

    @property
    def directory(self) -> Path:
        """The root below which the kernel is installed as on a machine of its own."""
        return cache_directory() / f"{self.name}-{self.key}"

    def complete(self, release: str, seconds: float) -> None:
        """Note that everything is in place, and how long that took."""
        text = json.dumps({"release": release, "seconds": round(seconds)})
        (self.directory / _COMPLETE).write_text(text + "\n")

    def build_seconds(self) -> int | None:
        """How long the build took; None when there is no complete one."""
        try:
            return int(json.loads((self.directory / _COMPLETE).read_text())["seconds"])
        except FileNotFoundError:
            return None

    def kernel(self) -> Kernel:
        """The kernel in the cache.

        Raises:
            KernelMissingError: it is not built, or not of this configuration and source.
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
