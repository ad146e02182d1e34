# SPDX-License-Identifier: GPL-2.0
"""The options with which clang compiles a BPF program for this host."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Final

from ipttctl.errors import ProgramError
from ipttctl.paths import module_directory, programs_directory

#: machine, as uname has it -> the name of libbpf's headers for its registers (bpf_tracing.h)
_ARCHITECTURES: Final = {
    "x86_64": "x86",
    "aarch64": "arm64",
    "s390x": "s390",
    "ppc64le": "powerpc",
    "riscv64": "riscv",
}


def cflags() -> list[str]:
    """The options, for sources with the kernel's headers for programs and with vmlinux.h alike.

    Raises:
        ProgramError: the architecture is not known.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise ProgramError(
            f"the architecture {machine} is not known", f"there are: {', '.join(_ARCHITECTURES)}"
        )
    # Debian has asm/types.h in a directory of the architecture, which is not clang's for bpf
    multiarch = Path("/usr/include") / f"{machine}-linux-gnu"
    include = [programs_directory(), module_directory(), *filter(Path.is_dir, [multiarch])]
    return [
        "-O2",
        "-g",
        "-target",
        "bpf",
        f"-D__TARGET_ARCH_{_ARCHITECTURES[machine]}",
        *(f"-I{directory}" for directory in include),
    ]
