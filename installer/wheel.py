# SPDX-License-Identifier: GPL-2.0
"""The wheel: Python code, sources of the module and of programs, and compiled programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from installer import objects

ROOT: Final = Path(__file__).resolve().parents[1]

_SOURCES: Final = ("bpf", "ctl", "kmod_netlink", "proto", "LICENSE", "README.md", "pyproject.toml")
_DEBIAN: Final = ("debian", "docs", "installer")
OBJECTS: Final = Path("ctl/ipttctl/objects")
"""Directory of compiled BPF programs, by machine; there is none in a checkout."""

LEFT_BEHIND: Final = (
    *("__pycache__", "*.egg-info", "*.o", "*.ko", "*.mod", "*.mod.c", ".*.cmd", ".tmp_*"),
    *("Module.symvers", "modules.order", "features.h"),
)
"""Name patterns of build products in source directories (see .gitignore)."""


def copy_sources(directory: Path, *, debian: bool = False) -> None:
    """Copy the sources of a wheel or of a Debian package to a new directory."""
    directory.mkdir()
    ignored = shutil.ignore_patterns(*LEFT_BEHIND)
    for name in (*_SOURCES, *(_DEBIAN if debian else ())):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy2(source, directory)


def build(directory: Path) -> Path:
    """Build the wheel into a directory, where it replaces older ones; returns the file.

    Raises:
        subprocess.CalledProcessError: pip failed, or a program does not compile.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ipttctl-wheel-") as temporary:
        # setuptools writes into the sources that it builds from
        copy = Path(temporary, "source")
        copy_sources(copy)
        if lacking := objects.missing():
            print(f"{lacking}: the first trace compiles its programs with bpfcc", file=sys.stderr)
        else:
            objects.build(copy, copy / OBJECTS / os.uname().machine)
        built = Path(temporary, "built")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel"),
                *("--no-deps", "--no-build-isolation", "--no-index"),
                *("--wheel-dir", str(built), str(copy)),
            ],
            check=True,
        )
        (wheel,) = built.glob("*.whl")
        for old in directory.glob("ipttctl-*.whl"):
            old.unlink()
        return Path(shutil.move(wheel, directory / wheel.name))
