# SPDX-License-Identifier: GPL-2.0
"""Run bpfcc in a process of its own (``bpfcc_compiler``), and report what it lacks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ipttctl.bpf import tools
from ipttctl.errors import ProgramError

COMPILER: Final = Path(__file__).with_name("bpfcc_compiler.py")

_SYSTEM_PYTHON: Final = Path("/usr/bin/python3")
_SYSTEM_BPFCC: Final = Path("/usr/lib/python3/dist-packages/bcc/version.py")
_NO_BPFCC: Final = 3
#: a directory without headers, where nobody can put any
_EMPTY: Final = Path("/proc/sys")


def version() -> str:
    """The version of bpfcc, found without importing it; empty if bpfcc is missing."""
    specification = importlib.util.find_spec("bcc")
    if specification is None or specification.origin is None:
        version = _SYSTEM_BPFCC
    else:
        version = Path(specification.origin).with_name("version.py")
    with suppress(OSError):
        return version.read_text()
    return ""


def compile_source(source: Path, text: bytes, cflags: Sequence[str]) -> dict[str, Any]:
    """Compile the text of a source; returns the answer of ``bpfcc_compiler``.

    Args:
        source: the file, as messages name it.
        text: its content.
        cflags: options for clang.

    Raises:
        ProgramError: it does not compile; bpfcc or the kernel's headers are missing.
    """
    done = _run(source, text, cflags)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def debug_information(source: Path, text: bytes, cflags: Sequence[str]) -> str:
    """The instructions of all programs, interleaved with their source lines, as bpfcc prints them.

    Raises:
        ProgramError: as for ``compile_source``.
    """
    return _run(source, text, cflags, debug=True).stderr


def _run(
    source: Path, text: bytes, cflags: Sequence[str], *, debug: bool = False
) -> subprocess.CompletedProcess[str]:
    if not _has_kernel_headers():
        raise _no_headers()
    # A virtual environment need not see the system's packages, where bpfcc lives.
    here = importlib.util.find_spec("bcc") is not None
    python = sys.executable if here or not _SYSTEM_PYTHON.exists() else str(_SYSTEM_PYTHON)
    request = {
        "text": text.decode(errors="surrogateescape"),
        "cflags": list(cflags),
        "debug": debug,
        "parent": os.getpid(),
    }
    done = tools.run(
        # -B: bytecode that is written below /usr makes headers there look changed on an overlay
        [python, "-B", "-P" if here else "-I", str(COMPILER)],
        text=json.dumps(request),
        # bpfcc looks for headers in the current directory first
        directory=_EMPTY,
    )
    if done.returncode == _NO_BPFCC:
        raise ProgramError(
            f"bpfcc is not there to compile {source.name} ({_last_line(done.stderr)})",
            "run: apt install python3-bpfcc",
        )
    if done.returncode != 0:
        if "kernel headers" in done.stderr:
            raise _no_headers()
        raise ProgramError(f"cannot compile {source}: {_clang_error(done.stderr, source)}")
    return done


def _has_kernel_headers() -> bool:
    build = Path("/lib/modules", os.uname().release, "build")
    embedded = Path("/sys/kernel/kheaders.tar.xz")
    return "BCC_KERNEL_SOURCE" in os.environ or build.exists() or embedded.exists()


def _no_headers() -> ProgramError:
    release = os.uname().release
    return ProgramError(
        f"the headers of kernel {release}, which bpfcc compiles against, are missing",
        f"run: apt install linux-headers-{release}",
    )


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def _clang_error(output: str, source: Path) -> str:
    for line in output.splitlines():
        if "error:" in line:
            return line.replace("/virtual/main.c", source.name).strip()
    return _last_line(output)
