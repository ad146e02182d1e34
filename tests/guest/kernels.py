# SPDX-License-Identifier: GPL-2.0
"""Which installed kernels can be guests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.guest.errors import KernelMissingError

DEFAULT_SERIES = ("6.1", "6.12")
"""The kernel series the project is tested on, oldest first."""

_RELEASE = re.compile(r"(?P<series>\d+\.\d+)\b.*?(?:-(?P<flavour>rt|cloud))?-[a-z0-9]+$")


@dataclass(frozen=True)
class Kernel:
    """An installed kernel: its image to boot and its headers to build against."""

    series: str
    release: str
    image: Path
    headers: Path

    def module(self, build_dir: Path) -> Path:
        """Where the project's module for this kernel is built below ``build_dir``."""
        return build_dir / "kmod" / self.release / "ipttrace.ko"

    def test_target(self, build_dir: Path) -> Path:
        """Where the target that drops with an errno is built, for the kernel tests."""
        return build_dir / "kmod-test" / self.release / "xt_errdrop.ko"


def _age(release: str) -> tuple[int, ...]:
    """A key that orders releases of one series by age."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def installed(boot: Path = Path("/boot"), modules: Path = Path("/lib/modules")) -> list[Kernel]:
    """Every kernel that has an image, modules and headers, oldest first.

    The series of a realtime or cloud flavour carries its name, as in ``6.12-rt``.
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
        series = "-".join(part for part in match.group("series", "flavour") if part)
        found.append(Kernel(series, release, image, headers))
    return sorted(found, key=lambda kernel: _age(kernel.release))


def newest(series: str, kernels: list[Kernel] | None = None) -> Kernel:
    """The newest installed kernel of a series.

    Raises:
        KernelMissingError: none is installed with image and headers.
    """
    candidates = installed() if kernels is None else kernels
    matching = [kernel for kernel in candidates if kernel.series == series]
    if not matching:
        raise KernelMissingError(
            f"no installed kernel {series} has an image in /boot and headers in /lib/modules; "
            "run: make setup"
        )
    return matching[-1]
