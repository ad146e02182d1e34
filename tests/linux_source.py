# SPDX-License-Identifier: GPL-2.0
"""Single files of Debian's linux-source package, which is an archive of some 150 MB."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from guest.debug.recipe import SOURCE_SERIES, Recipe


def linux_files(parent: Path, names: Sequence[str]) -> Path:
    """A directory with the files, laid out as in the kernel's source tree.

    It is below ``parent`` and named after the version; files already there stay.

    Raises:
        KernelMissingError: the source package is not installed.
    """
    recipe = Recipe("kasan")
    directory = parent / f"linux-{recipe.source_version}"
    if all((directory / name).is_file() for name in names):
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if recipe.source.is_dir():
        for name in names:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(recipe.source / name, directory / name)
    else:
        _take_from_archive(recipe.archive, directory, names)
    return directory


def _take_from_archive(archive: Path, directory: Path, names: Sequence[str]) -> None:
    # --occurrence: stop reading after the last of them
    options = ["--strip-components=1", "--occurrence=1"]
    members = [f"linux-source-{SOURCE_SERIES}/{name}" for name in names]
    subprocess.run(["tar", "-xf", archive, "-C", directory, *options, *members], check=True)
