# SPDX-License-Identifier: GPL-2.0
"""The kernel's C style: clang-format with the kernel's configuration, and checkpatch --strict."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from installer.wheel import LEFT_BEHIND
from ipttproto.generate import generated
from tests.check.linux_scripts import CHECKPATCH, CLANG_FORMAT

_DIRECTORIES: Final = ("kmod_netlink", "bpf", "docs", "tests")

_CONSTANTS: Final = "constants in .rodata, which the loader writes and clang must not fold"

_IGNORED: Final = {
    "*": {
        "OPEN_ENDED_LINE": "clang-format, with the kernel's configuration, ends lines with '('",
    },
    "kmod_netlink/nft_layout.c": {
        "MACRO_ARG_PRECEDENCE": "the arguments are names of structs and members",
        "MACRO_ARG_REUSE": "the arguments are names, without side effects",
    },
    "kmod_netlink/compat/compiler.h": {
        "MACRO_ARG_UNUSED": "without the attribute there is no use for the argument",
    },
    "bpf/ipttrace.h": {
        "CAMELCASE": "it means the keyword _Static_assert",
        "COMPLEX_MACRO": "IPTTRACE_INLINE stands for specifiers, which take no parentheses",
        "MACRO_ARG_PRECEDENCE": "the arguments are names of structs and members",
        "MACRO_ARG_REUSE": "the arguments are names and numbers, without side effects",
        "MACRO_ARG_UNUSED": "bpfcc has no use for the license",
        "PREFER_DEFINED_ATTRIBUTE_MACRO": "the C library's headers lack __always_inline",
        "VOLATILE": _CONSTANTS,
    },
    "docs/examples/client.c": {
        "PREFER_KERNEL_TYPES": "a program of user space has the types of C",
        "OPEN_BRACE": "checkpatch takes libmnl's mnl_attr_for_each for the name of a function",
        "TRAILING_STATEMENTS": "the same",
    },
    "tests/kernel/support/constants.c": {
        "CAMELCASE": "it means the type _Bool",
        "VOLATILE": _CONSTANTS,
    },
    "tests/unit/ctl/bpf/types.c": {
        "CAMELCASE": "it means the type _Bool",
        "VOLATILE": _CONSTANTS,
    },
}
"""Files -> the kinds of checkpatch messages to leave out for them, with the reason."""


def sources(root: Path) -> list[Path]:
    """The C files below ``root``, as relative paths, without those that a build in place makes."""
    found = (path for part in _DIRECTORIES for path in (root / part).rglob("*.[ch]"))
    return sorted(
        path.relative_to(root)
        for path in found
        if not any(path.match(pattern) for pattern in LEFT_BEHIND)
    )


def _ignored(path: Path) -> str:
    kinds = (set(named) for files, named in _IGNORED.items() if fnmatch(str(path), files))
    return ",".join(sorted(set().union(*kinds)))


def _configuration(root: Path, scripts: Path) -> Iterator[str]:
    if (root / CLANG_FORMAT).read_text() != (scripts / CLANG_FORMAT).read_text():
        yield f"{CLANG_FORMAT}: not the kernel's; copy {scripts / CLANG_FORMAT}"


def _format(root: Path, paths: list[Path]) -> Iterator[str]:
    handwritten = [path for path in paths if str(path) not in generated()]
    command = ["clang-format", "--dry-run", *map(str, handwritten)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    for line in done.stderr.splitlines():
        if "[-Wclang-format-violations]" in line:
            yield f"{line}; run: clang-format -i FILE"


def _checkpatch(root: Path, scripts: Path, ignored: str, paths: list[Path]) -> Iterator[str]:
    # the headers below include/ would allow their names in mixed case; none are wanted here
    (scripts / "include").mkdir(exist_ok=True)
    options = ["--no-tree", "--root", str(scripts), "--ignore", ignored, "--strict", "--terse"]
    options += ["--show-types", "--no-summary", "--file"]
    command = ["perl", str(scripts / CHECKPATCH), *options, *(str(root / path) for path in paths)]
    # it writes a file to its working directory
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if said or done.returncode:
        yield said or f"checkpatch ended with {done.returncode}"


def complaints(root: Path, scripts: Path) -> Iterator[str]:
    """The findings of the kernel's tools in the C files below ``root``."""
    paths = sources(root)
    yield from _configuration(root, scripts)
    yield from _format(root, paths)
    for ignored, group in itertools.groupby(sorted(paths, key=_ignored), key=_ignored):
        yield from _checkpatch(root, scripts, ignored, list(group))
