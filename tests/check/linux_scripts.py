# SPDX-License-Identifier: GPL-2.0
"""The kernel's own style: checkpatch and .clang-format, from Debian's linux-source package.

No package of headers contains them. They are extracted from the source archive once per version.
"""

from __future__ import annotations

from pathlib import Path

from tests.linux_source import linux_files

CLANG_FORMAT = ".clang-format"
CHECKPATCH = "scripts/checkpatch.pl"
_FILES = (CLANG_FORMAT, CHECKPATCH, "scripts/spelling.txt", "scripts/const_structs.checkpatch")


def linux_scripts(build_directory: Path) -> Path:
    """A directory with the files, laid out as in the kernel's source tree.

    Raises:
        KernelMissingError: the source package is not installed.
    """
    return linux_files(build_directory, _FILES)
