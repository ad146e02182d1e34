# SPDX-License-Identifier: GPL-2.0
"""The Debian package, built by debhelper in a copy of the sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from installer import wheel

_TOOLS: Final = ("build-essential", "debhelper", "dh-dkms")
"""Debian's packages of what builds a package."""


class ToolsMissingError(Exception):
    """This machine lacks packages that build the package."""

    def __init__(self, packages: Iterable[str]) -> None:
        super().__init__(f"missing; run: apt install {' '.join(packages)}")


def check_tools(source: Path) -> None:
    """See whether what the package's control file asks for is installed.

    Raises:
        ToolsMissingError: it is not.
    """
    if not all(map(shutil.which, ("dpkg-buildpackage", "dpkg-checkbuilddeps"))):
        raise ToolsMissingError(_TOOLS)
    checked = subprocess.run(
        ["dpkg-checkbuilddeps"],
        cwd=source,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    _, found, missing = checked.stderr.partition("Unmet build dependencies: ")
    if found:
        # names may have an architecture or a version behind them
        names = re.sub(r":\w+|\([^)]*\)", "", missing.splitlines()[0]).split()
        raise ToolsMissingError("debhelper" if "debhelper" in name else name for name in names)


def build(directory: Path) -> Path:
    """Build the package into a directory, where it replaces older ones; the file.

    Raises:
        ToolsMissingError: something that builds packages is not installed.
        subprocess.CalledProcessError: dpkg-buildpackage cannot build it; it has said why.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ipttctl-deb-") as temporary:
        source = Path(temporary, "ipttctl")
        wheel.copy_sources(source, debian=True)
        check_tools(source)
        done = subprocess.run(
            ["dpkg-buildpackage", "--unsigned-changes", "--unsigned-buildinfo", "--build=binary"],
            cwd=source,
            env={**os.environ, "PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            sys.stderr.buffer.write(done.stdout)
            done.check_returncode()
        (package,) = Path(temporary).glob("ipttctl_*.deb")
        for old in directory.glob("ipttctl_*.deb"):
            old.unlink()
        return Path(shutil.move(package, directory / package.name))
