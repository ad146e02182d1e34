# SPDX-License-Identifier: GPL-2.0
"""The Debian package, built by debhelper in a copy of the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from installer import wheel


def build(directory: Path) -> Path:
    """Build the package into a directory, where it replaces older ones; the file.

    Raises:
        subprocess.CalledProcessError: dpkg-buildpackage cannot build it; it has said why.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ipttctl-deb-") as temporary:
        source = Path(temporary, "ipttctl")
        wheel.copy_sources(source, debian=True)
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
