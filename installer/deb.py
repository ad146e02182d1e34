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
"""Debian packages of the tools that build a package."""


class ToolsMissingError(Exception):
    """This machine lacks packages that are needed to build ours."""

    def __init__(self, packages: Iterable[str]) -> None:
        super().__init__(f"missing; run: apt install {' '.join(packages)}")


def check_tools(source: Path) -> None:
    """Check that the build dependencies in the package's control file are installed.

    Raises:
        ToolsMissingError: some are not.
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
        # an architecture or a version may follow a name
        names = re.sub(r":\w+|\([^)]*\)", "", missing.splitlines()[0]).split()
        raise ToolsMissingError("debhelper" if "debhelper" in name else name for name in names)


def build(directory: Path) -> Path:
    """Build the package into a directory, where it replaces older ones; returns the file.

    Raises:
        ToolsMissingError: a tool that builds packages is not installed.
        subprocess.CalledProcessError: dpkg-buildpackage failed, and has printed why.
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
