# SPDX-License-Identifier: GPL-2.0
"""A cache of compiled sources on disk, so that the next process need not run bpfcc.

Root loads its content into the kernel. Therefore the directory is its owner's alone, and an entry
that somebody else could have written is not read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import bpfcc
from ipttctl.bpf.files_read import FilesRead
from ipttctl.bpf.private_dirs import check_private, make_private

DAYS_KEPT: Final = 90
"""Entries not used for this many days are removed."""

BYTES_KEPT: Final = 64 << 20
"""Limit on all entries together, in bytes; the least recently used are removed first."""

_FORMAT: Final = 6
"""Version of the entries' format; raise it when the format changes."""

_ENVIRONMENT: Final = "IPTTCTL_CACHE"
_DIRECTORIES: Final = (Path("/var/cache/ipttctl"), Path("/run/ipttctl/cache"))
#: entries, also those of former formats, temporary files, and locks of processes that were killed
_OURS: Final = re.compile(
    r"\.?[0-9a-f]{32}(-[0-9a-f]{16})?\.json(\.\d+\.[0-9a-f]{8})?|\.[0-9a-f]{32}\.lock"
)


def source_key(source: bytes, directories: Sequence[Path], cflags: Sequence[str]) -> str:
    """A hash of all inputs known before a compilation, which excludes the headers it will read."""
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
    """A directory of entries. Entries of one key differ in the files they were compiled from."""

    def __init__(self, directory: Path) -> None:
        """Use ``directory``, which nobody else may be able to write to."""
        self._directory = directory

    @classmethod
    def open(cls) -> Self | None:
        """The cache of this system, or None if nothing can be written there.

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
        """The specs stored under a key whose files are unchanged in these directories.

        The one that was used last comes first: looking at another one takes reading all its files.

        Raises:
            ProgramError: others can write to an entry.
        """
        for entry in sorted(self._directory.glob(f"{key}-*.json"), key=_used, reverse=True):
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

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Wait until no other process compiles what will have this key.

        So many that begin together compile once, if each looks again when its turn has come. A
        process that dies ends its turn. Where nothing can be locked nobody waits.
        """
        lock = self._directory / f".{key}.lock"
        try:
            file = _private_file(str(lock), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        except OSError:
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            # who waits for it looks again before it compiles: no harm if others make another
            with suppress(OSError):
                lock.unlink()
            os.close(file)

    def store(self, key: str, files: FilesRead, spec: Mapping[str, Any]) -> None:
        """Store a spec, whole or not at all. A failure is ignored: it costs another compilation."""
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
        """Remove entries that are too old or too many, but never ``newest``."""
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


def _used(entry: Path) -> int:
    """The time at which an entry was used last; 0 if it is gone."""
    with suppress(OSError):
        return entry.stat().st_mtime_ns
    return 0
