# SPDX-License-Identifier: GPL-2.0
"""Builds of the module: which one is loaded, and whether a file has it.

The kernel does not keep the file of a module. Installing another version replaces it in place. So
a copy of the file that is loaded is kept: an upgrade that fails goes back to it.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ipttctl.bpf.private_dirs import check_private, make_private
from ipttctl.errors import ModuleError, ProgramError, os_reason

KEPT: Final = Path("/var/lib/ipttctl/running")
"""The directory of the copy of the module that is loaded."""

_NOTE: Final = Path("/sys/module/ipttrace/notes/.note.gnu.build-id")
#: head of a build id: length of the name, of the id (SHA-1), kind, name (elf(5), Nhdr)
_HEAD: Final = bytes.fromhex("04000000 14000000 03000000") + b"GNU\0"
_LENGTH: Final = 20


def running() -> bytes | None:
    """The build id of the module that is loaded; None if there is none, or it has no such id."""
    try:
        return _id(_NOTE.read_bytes())
    except OSError:
        return None


def of_file(path: Path) -> bytes | None:
    """The build id of a module file; None if it cannot be read, or has none."""
    content = unpacked(path)
    return None if content is None else _id(content)


def unpacked(path: Path) -> bytes | None:
    """A module file, uncompressed; None if it cannot be read."""
    try:
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        return path.read_bytes() if path.suffix == ".ko" else None
    except (OSError, lzma.LZMAError, EOFError):
        return None


def find(build: bytes, candidates: Iterable[Path]) -> Path | None:
    """The first file with a build that nobody but root can have written; None if none has it.

    The kept copy is tried first.
    """
    for path in (*sorted(KEPT.glob("*")), *candidates):
        if of_file(path) == build and _is_private(path):
            return path
    return None


def keep(path: Path) -> Path:
    """Keep a copy of the file of the module that is loaded; returns the copy.

    Raises:
        ModuleError: it cannot be written.
    """
    try:
        make_private(KEPT)
        copy = copied(path, KEPT)
        for old in KEPT.glob("*"):
            if old != copy:
                old.unlink()
    except ProgramError as error:
        raise ModuleError(error.problem, error.remedy) from None
    except OSError as error:
        raise ModuleError(f"cannot keep {path} below {KEPT}: {os_reason(error)}") from None
    return copy


def copied(path: Path, directory: Path) -> Path:
    """A copy of a file in a directory, under the same name: all of it, or what was there before.

    Raises:
        OSError: it cannot be written.
    """
    copy = directory / path.name
    if copy == path:
        return copy
    temporary = directory / f".{path.name}.{os.getpid()}"
    try:
        shutil.copyfile(path, temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
    return copy


def _is_private(path: Path) -> bool:
    try:
        check_private(path, follow=True)
    except (ProgramError, OSError):
        return False
    return True


def _id(content: bytes) -> bytes | None:
    start = content.find(_HEAD)
    found = content[start + len(_HEAD) :][:_LENGTH]
    return found if start >= 0 and len(found) == _LENGTH else None
