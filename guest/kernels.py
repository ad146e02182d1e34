# SPDX-License-Identifier: GPL-2.0
"""The installed kernels that guests can boot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from guest.errors import KernelMissingError

_RELEASE = re.compile(r"(?P<series>\d+\.\d+)\b.*?(?:-(?P<flavour>rt|cloud))?-[a-z0-9]+$")


@dataclass(frozen=True)
class Kernel:
    """An installed kernel: its image to boot and its headers to build against."""

    name: str
    """Its series and flavour, as in ``6.12-rt``, or its name in ``kernels.yaml``."""
    release: str
    image: Path
    headers: Path
    arguments: tuple[str, ...] = ()
    """Kernel arguments, in addition to those of every guest."""

    def module(self, build_dir: Path) -> Path:
        """The file of the project's module for this kernel, below ``build_dir``."""
        return build_dir / "kmod" / self.release / "ipttrace.ko"

    def test_modules(self, build_dir: Path) -> Path:
        """The directory of the kernel tests' modules, below ``build_dir``."""
        return build_dir / "kmod-test" / self.release


def _age(release: str) -> tuple[int, ...]:
    """A key that orders releases of one series by age."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def installed(boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> list[Kernel]:
    """All kernels with an image, modules and headers, oldest first.

    A realtime or cloud flavour is part of the name, as in ``6.12-rt``.
    """
    found = []
    for image in boot.glob("vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        match = _RELEASE.match(release)
        headers = modules / release / "build"
        if match is None or not (modules / release / "kernel").is_dir():
            continue
        if not (headers / "Makefile").is_file():
            continue
        name = "-".join(part for part in match.group("series", "flavour") if part)
        found.append(Kernel(name, release, image, headers))
    return sorted(found, key=lambda kernel: _age(kernel.release))


def newest(name: str, kernels: list[Kernel] | None = None) -> Kernel:
    """The newest installed kernel of a series and flavour.

    Raises:
        KernelMissingError: no such kernel is installed with image and headers.
    """
    candidates = installed() if kernels is None else kernels
    matching = [kernel for kernel in candidates if kernel.name == name]
    if not matching:
        raise KernelMissingError(
            f"no installed kernel {name} has an image in /boot and headers in /lib/modules; "
            "run: make setup"
        )
    return matching[-1]
