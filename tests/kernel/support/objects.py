# SPDX-License-Identifier: GPL-2.0
"""Object files of BPF programs, compiled with clang."""

from __future__ import annotations

import os
from pathlib import Path

from tests.kernel.support.kernel import run

REPOSITORY = Path(__file__).resolve().parents[3]
BPF = REPOSITORY / "bpf"

_TARGETS = {"x86_64": "x86", "aarch64": "arm64"}


def compile_object(source: Path, directory: Path) -> Path:
    """Compile a source to an object file in a directory."""
    machine = os.uname().machine
    target = directory / source.with_suffix(".o").name
    include = [REPOSITORY / "kmod_netlink", BPF, Path("/usr/include") / f"{machine}-linux-gnu"]
    options = [f"-I{path}" for path in include]
    clang = ["clang", "-O2", "-g", "-target", "bpf", f"-D__TARGET_ARCH_{_TARGETS[machine]}"]
    run(*clang, *options, "-c", str(source), "-o", str(target), timeout=300)
    return target
