# SPDX-License-Identifier: GPL-2.0
"""Compiled sources on disk, so that another process neither compiles nor imports bpfcc.

What lies there is loaded into the kernel by root: the directory is its owner's alone, and nothing
is read that somebody else could have written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import bpfcc
from ipttctl.bpf.files_read import FilesRead
from ipttctl.system.private_dirs import check_private, make_private

DAYS_KEPT: Final = 90
"""Entries that were not used for so long go."""

BYTES_KEPT: Final = 64 << 20
"""Size of all entries together; the least recently used go first."""

_FORMAT: Final = 5
"""Goes up when the entries' content changes."""

_ENVIRONMENT: Final = "IPTTCTL_CACHE"
_DIRECTORIES: Final = (Path("/var/cache/ipttctl"), Path("/run/ipttctl/cache"))
#: entries and what becomes one, also of former formats
_OURS: Final = re.compile(r"\.?[0-9a-f]{32}(-[0-9a-f]{16})?\.json(\.\d+\.[0-9a-f]{8})?")


def source_key(source: bytes, directories: Sequence[Path], cflags: Sequence[str]) -> str:
    """A hash of all that is known before a compilation: not of the headers that it will read."""
    kernel = os.uname()
    digest = hashlib.sha256()

    def add(*parts: bytes | str) -> None:
        for part in parts:
            data = part.encode(errors="surrogateescape") if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)

    add(str(_FORMAT), kernel.release, kernel.version, kernel.machine, bpfcc.version())
    add(*(os.environ.get(name, "") for name in ("BCC_KERNEL_SOURCE", "BCC_LINUX_VERSION_CODE")))
    add(str(len(directories)), *cflags, bpfcc.COMPILER.read_bytes(), source)
    return digest.hexdigest()[:32]


class SpecCache:
    """A directory of entries. A key can have several, which differ in the files they came from."""

    def __init__(self, directory: Path) -> None:
        """Take a directory that nobody else can write to."""
        self._directory = directory

    @classmethod
    def open(cls) -> Self | None:
        """The cache of this system, or None where nothing can be written.

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
                return cls(directory)
        return None

    def find(self, key: str, directories: Sequence[Path]) -> Iterator[Any]:
        """What was stored of a key for files that are as they are now in these directories.

        Raises:
            ProgramError: others can write to an entry.
        """
        for entry in self._directory.glob(f"{key}-*.json"):
            try:
                content = entry.read_bytes()
            except OSError:
                continue
            check_private(entry)
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                stored = json.loads(content)
                if FilesRead(stored["read"], stored["absent"]).are_the_same(directories):
                    with suppress(OSError):
                        os.utime(entry)
                    yield stored["spec"]

    def store(self, key: str, files: FilesRead, spec: Mapping[str, Any]) -> None:
        """Keep a spec, whole or not at all; one that cannot be costs the next compilation."""
        origin = {"read": dict(files.hashes), "absent": list(files.absent)}
        digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()[:16]
        entry = self._directory / f"{key}-{digest}.json"
        temporary = entry.with_name(f".{entry.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            # Path.open() knows no opener.
            with open(temporary, "x", opener=_private_file) as file:
                json.dump({**origin, "spec": spec}, file)
            temporary.replace(entry)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
        self._prune(entry)

    def _prune(self, newest: Path) -> None:
        """Remove what is too old or too much, but never the newest."""
        found = []
        for path in self._directory.iterdir():
            if _OURS.fullmatch(path.name) and path != newest:
                with suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        oldest, size = time.time() - DAYS_KEPT * 86400, 0
        for used, bytes_of_it, path in sorted(found, reverse=True):
            size += bytes_of_it
            if used < oldest or size > BYTES_KEPT:
                with suppress(OSError):
                    path.unlink()


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
