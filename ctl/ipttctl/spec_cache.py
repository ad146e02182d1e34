# SPDX-License-Identifier: GPL-2.0
"""Compiled sources on disk, so that another process neither compiles nor imports bpfcc.

What lies there is loaded into the kernel by root: the directory is its owner's alone, and nothing
is read that somebody else could have written.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ipttctl import bpfcc
from ipttctl.errors import ProgramError
from ipttctl.private_dirs import check_private, make_private

_FORMAT: Final = 4
"""Goes up when the entries' content changes."""

_ENVIRONMENT: Final = "IPTTCTL_CACHE"
_DIRECTORIES: Final = (Path("/var/cache/ipttctl"), Path("/run/ipttctl/cache"))


def source_key(source: Path, *, include: Sequence[Path] = (), cflags: Sequence[str] = ()) -> str:
    """A hash of everything that a compilation depends on.

    That is the source, the headers in its directories, the options, the kernel and bpfcc.

    Raises:
        ProgramError: there is no such source.
    """
    kernel = os.uname()
    digest = hashlib.sha256()

    def add(*parts: bytes | str) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)

    add(str(_FORMAT), kernel.release, kernel.version, kernel.machine, bpfcc.version())
    add(*(os.environ.get(name, "") for name in ("BCC_KERNEL_SOURCE", "BCC_LINUX_VERSION_CODE")))
    add(*cflags, bpfcc.COMPILER.read_bytes())
    try:
        add(source.read_bytes())
        for header in headers([source.parent, *include]):
            add(header.name, header.read_bytes())
    except OSError as error:
        raise ProgramError(f"cannot read BPF source {error.filename}: {error.strerror}") from None
    return digest.hexdigest()[:32]


def headers(directories: Sequence[Path]) -> list[Path]:
    """The headers in directories, in an order that is always the same."""
    return [header for directory in directories for header in sorted(directory.glob("*.h"))]


def entry(key: str) -> Path | None:
    """Where the entry of a key is or would be; None where nothing can be written.

    Raises:
        ProgramError: others can write there.
    """
    directory = _directory()
    return directory / f"{key}.json" if directory else None


def read(path: Path) -> bytes | None:
    """An entry's content, or None where there is none.

    Raises:
        ProgramError: others can write to it.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return None
    check_private(path)
    return content


def write(path: Path, content: bytes) -> None:
    """Store an entry, whole or not at all; one that cannot be costs the next compilation."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        # Path.open() knows no opener.
        with open(temporary, "xb", opener=_private_file) as file:
            file.write(content)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _directory() -> Path | None:
    """Where compiled specs are kept, or None where nothing can be written.

    Raises:
        ProgramError: others can write there.
    """
    chosen = os.environ.get(_ENVIRONMENT)
    for directory in (Path(chosen),) if chosen else _DIRECTORIES:
        try:
            make_private(directory)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    return None
