# SPDX-License-Identifier: GPL-2.0
"""Object files of BPF programs, compiled with clang; libbpf fits them to the running kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

PREBUILT: Final = ("trace", "capture", "join")
"""Programs of ``bpf/`` that commands run by themselves."""

_TARGETS: Final = {"x86_64": "x86", "aarch64": "arm64"}
_TOOLS: Final = ("clang", "llvm-strip")


def missing() -> str:
    """The reason why nothing can be compiled here; empty if there is none."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"{' and '.join(lacking)} not found"
    if not Path("/usr/include/bpf/bpf_endian.h").is_file():
        return "libbpf's headers not found"
    return ""


def compile_object(source: Path, target: Path, *, root: Path) -> None:
    """Compile a source, seen from the directory of a checkout.

    Raises:
        subprocess.CalledProcessError: it does not compile; its ``stderr`` says why.
    """
    machine = os.uname().machine
    places = ["kmod_netlink", "bpf", f"/usr/include/{machine}-linux-gnu"]
    options = [f"-D__TARGET_ARCH_{_TARGETS[machine]}", *(f"-I{place}" for place in places)]
    clang = ["clang", "-O2", "-g", "-target", "bpf", "-fdebug-compilation-dir=."]
    subprocess.run(
        [*clang, *options, "-c", str(source), "-o", str(target.absolute())],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )


def build(root: Path, directory: Path) -> None:
    """Compile the programs that commands run by themselves, without debug information.

    Raises:
        subprocess.CalledProcessError: one does not compile.
    """
    directory.mkdir(parents=True)
    for name in PREBUILT:
        target = directory / f"{name}.o"
        # a path of its own would be in the object
        compile_object(Path("bpf", f"{name}.c"), target, root=root)
        subprocess.run(["llvm-strip", "-g", str(target)], check=True)
