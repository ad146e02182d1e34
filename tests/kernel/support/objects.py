# SPDX-License-Identifier: GPL-2.0
"""Object files of BPF programs, compiled with clang."""

from __future__ import annotations

import subprocess
from pathlib import Path

from installer import objects

REPOSITORY = Path(__file__).resolve().parents[3]
BPF = REPOSITORY / "bpf"


def compile_object(source: Path, directory: Path) -> Path:
    """Compile a source to an object file in a directory."""
    target = directory / source.with_suffix(".o").name
    try:
        objects.compile_object(source, target, root=REPOSITORY)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr) from None
    return target
