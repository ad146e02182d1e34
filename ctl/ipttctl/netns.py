# SPDX-License-Identifier: GPL-2.0
"""Network namespaces: from what people call them to inode numbers, and back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from ipttctl.errors import UsageError

NAMED: Final = (Path("/run/netns"), Path("/var/run/netns"))
"""Where `ip netns` keeps namespaces by name."""

OWN: Final = Path("/proc/self/ns/net")
"""The network namespace of the caller."""

_SCAN_INTERVAL: Final = 1.0


def own() -> int:
    """The inode number of the caller's network namespace."""
    return OWN.stat().st_ino


def resolve(text: str, directories: Iterable[Path] = NAMED) -> int:
    """The inode number of a namespace given as a number, a name or a path.

    Raises:
        UsageError: there is no such namespace, or the path is of something else.
    """
    return int(text) if text.isdecimal() else _named(text, directories).stat().st_ino


def find(text: str, directories: Iterable[Path] = NAMED) -> Path:
    """A file by which a namespace, given as ``resolve`` takes it, can be opened.

    Raises:
        UsageError: there is none, or the path is of something else.
    """
    if not text.isdecimal():
        return _named(text, directories)
    device = OWN.stat().st_dev
    for path in (OWN, *_named_files(directories), *Path("/proc").glob("[0-9]*/ns/net")):
        # what is not a namespace, and processes that end meanwhile
        with suppress(OSError):
            status = path.stat()
            if (status.st_dev, status.st_ino) == (device, int(text)):
                return path
    raise UsageError(
        f"no name and no process has network namespace {text}", "see `ip netns` and `lsns -t net`"
    )


def socket_in(namespace: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in a network namespace that is given by a descriptor.

    A thread goes there and makes it: setns(2) is for one thread, and a child process would be a
    copy of all that the caller has in memory.

    Raises:
        OSError: the caller may not enter it, or it is no network namespace.
    """
    from pyroute2.netns import setns  # noqa: PLC0415  # slow to import

    def make() -> socket.socket:
        setns(namespace)
        return socket.socket(family, kind, protocol)

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(make).result()


def _named_files(directories: Iterable[Path]) -> Iterator[Path]:
    for directory in directories:
        with suppress(OSError):
            yield from sorted(directory.iterdir())


def _named(text: str, directories: Iterable[Path]) -> Path:
    candidates = [Path(text)] if "/" in text else [directory / text for directory in directories]
    for path in candidates:
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_dev != OWN.stat().st_dev:
            raise UsageError(f"{path} is not a network namespace", "see `ip netns`")
        return path
    raise UsageError(
        f"there is no network namespace '{text}'",
        "give an inode number, a name from `ip netns` or a path such as /proc/PID/ns/net",
    )


class NamespaceNames:
    """Names of namespaces by inode number, as `ip netns` gave them.

    Kept until an unknown number comes; then they are read again, once a second at most.
    """

    def __init__(self, directories: Iterable[Path] = NAMED) -> None:
        self._directories = tuple(directories)
        self._names: dict[int, str] = {}
        self._scanned = float("-inf")

    def name(self, inode: int) -> str | None:
        """The name of a namespace, or None if it has none."""
        if inode not in self._names and time.monotonic() - self._scanned >= _SCAN_INTERVAL:
            self._scan()
        return self._names.get(inode)

    def _scan(self) -> None:
        self._names = {}
        for directory in self._directories:
            try:
                self._names |= {p.stat().st_ino: p.name for p in sorted(directory.iterdir())}
            except OSError:
                continue
        self._scanned = time.monotonic()
