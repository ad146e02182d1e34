# SPDX-License-Identifier: GPL-2.0
"""The kernel's own style: checkpatch and .clang-format, from Debian's linux-source package.

No package of headers brings them. They are taken out of the source archive once per version.
"""

from __future__ import annotations

from pathlib import Path

from tests.linux_source import linux_files

CLANG_FORMAT = ".clang-format"
CHECKPATCH = "scripts/checkpatch.pl"
_FILES = (CLANG_FORMAT, CHECKPATCH, "scripts/spelling.txt", "scripts/const_structs.checkpatch")


def linux_scripts(build_directory: Path) -> Path:
    """A directory that holds the files as the kernel's source tree does.

    Raises:
        KernelMissingError: the source package is not installed.
    """
    return linux_files(build_directory, _FILES)
