# SPDX-License-Identifier: GPL-2.0
"""The kernel's own style: checkpatch and .clang-format, from Debian's linux-source package.

No package of headers brings them. They are taken out of the source archive once per version.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.guest.debug.recipe import SOURCE_SERIES, Recipe

CLANG_FORMAT = ".clang-format"
CHECKPATCH = "scripts/checkpatch.pl"
_FILES = (CLANG_FORMAT, CHECKPATCH, "scripts/spelling.txt", "scripts/const_structs.checkpatch")


def _take_from_archive(archive: Path, directory: Path) -> None:
    # --occurrence: it need not read on once it has all of them
    options = ["--strip-components=1", "--occurrence=1"]
    members = [f"linux-source-{SOURCE_SERIES}/{name}" for name in _FILES]
    subprocess.run(["tar", "-xf", archive, "-C", directory, *options, *members], check=True)


def linux_scripts(build_directory: Path) -> Path:
    """A directory that holds the files as the kernel's source tree does.

    Raises:
        KernelMissingError: the source package is not installed.
    """
    recipe = Recipe("kasan")
    directory = build_directory / f"linux-{recipe.source_version}"
    if all((directory / name).is_file() for name in _FILES):
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if recipe.source.is_dir():
        (directory / "scripts").mkdir()
        for name in _FILES:
            shutil.copy(recipe.source / name, directory / name)
    else:
        _take_from_archive(recipe.archive, directory)
    return directory
