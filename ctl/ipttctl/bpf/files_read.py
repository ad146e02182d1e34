# SPDX-License-Identifier: GPL-2.0
"""The files that a compilation read, and whether another one would read the same.

A file below a directory that is searched for headers is known by its path relative to that
directory, so that a source tree can move as a whole. Any other is known by its absolute path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Final, Self

from ipttctl.bpf.private_dirs import way

#: most bytes of a source or an object file; devices such as /dev/zero have no end
_LONGEST: Final = 1 << 26
#: CLOCK_REALTIME_COARSE: the kernel's file timestamps are this clock's, or later
_COARSE_CLOCK: Final = 5
_TICK: Final = 0.001
_TICKS: Final = 1000
_NAMED: Final = re.compile(
    rb"""^[ \t]*\#[ \t]*(?:include|include_next|import)\b[ \t]*[<"]([^>"\n]+)[>"]"""
    rb"""|\b__has_include(?:_next)?[ \t]*\([ \t]*[<"]([^>"\n]+)[>"]""",
    re.MULTILINE,
)


def begin() -> int:
    """The time at which a compilation begins: a file changed from now on has a later timestamp."""
    now = time.time_ns()
    for _ in range(_TICKS):
        if time.clock_gettime_ns(_COARSE_CLOCK) > now:
            return now
        # nothing tells that the clock has moved
        time.sleep(_TICK)
    return 0  # somebody has set the clock back: times of files tell nothing


@dataclass(frozen=True)
class FilesRead:
    """Hashes of the files by place, and the places of files that would also have been read.

    The latter are headers that are missing from a directory searched before the one where they were
    found, or missing everywhere if the source only asks whether there is such a header.
    """

    hashes: Mapping[str, str]
    absent: tuple[str, ...]

    @classmethod
    def of(
        cls, source: bytes, files: Mapping[Path, bytes], directories: Sequence[Path], begun: int
    ) -> Self | None:
        """The files that a compilation has just read, other than its source.

        Args:
            source: the content of the source.
            files: the files, with their content now.
            directories: the directories searched for headers.
            begun: when the compilation began.

        Returns:
            None if a file has changed since then: either version may have been compiled.
            None also if there are no files: the compiler always reads some, and did not say.
        """
        if not files:
            return None
        places = {path: _place(path, directories) for path in files}
        own = [path for path, place in places.items() if not place.startswith("/")]
        names = {name for text in (source, *(files[p] for p in own)) for name in _names(text)}
        searched = dict.fromkeys([*(d.absolute() for d in directories), *(p.parent for p in own)])
        candidates = {directory / name for directory in searched for name in names}
        absent = {path for path in candidates if not path.is_file()}
        try:
            if not all(_is_older(path, begun) for path in {*files, *(candidates - absent)}):
                return None
        except OSError:
            return None
        return cls(
            {place: _hash(files[path]) for path, place in places.items()},
            tuple(sorted(_place(path, directories) for path in absent)),
        )

    def are_the_same(self, directories: Sequence[Path]) -> bool:
        """Whether a compilation that searches these directories would read the same files."""
        try:
            return all(
                _hash(_path(place, directories).read_bytes()) == known
                for place, known in self.hashes.items()
            ) and not any(_path(place, directories).is_file() for place in self.absent)
        except (OSError, IndexError):
            return False


def read_whole(path: Path) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read; EFBIG if it is longer than any source, as devices are.
    """
    with path.open("rb") as opened:
        content = opened.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def read_files(paths: Sequence[str]) -> dict[Path, bytes]:
    """The contents of files; files that are gone are left out."""
    found = {}
    for path in map(Path, paths):
        found[path] = b""
        with suppress(OSError):
            found[path] = path.read_bytes()
    return found


def _names(text: bytes) -> Iterator[str]:
    """The headers that a file includes or asks for."""
    for match in _NAMED.finditer(text):
        yield (match[1] or match[2]).decode(errors="surrogateescape")


def _place(path: Path, directories: Sequence[Path]) -> str:
    for number, directory in enumerate(directories):
        prefix = f"{directory.absolute()}/"
        if str(path).startswith(prefix):
            return f"{number}/{str(path).removeprefix(prefix)}"
    return str(path)


def _path(place: str, directories: Sequence[Path]) -> Path:
    if place.startswith("/"):
        return Path(place)
    number, _, rest = place.partition("/")
    return directories[int(number)].absolute() / rest


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_older(path: Path, moment: int) -> bool:
    """Whether a path has led to the same content since before ``moment``.

    Raises:
        OSError: the path leads nowhere.
    """
    for place, _ in way(path):
        status = place.lstat()
        # ctime equals mtime when a directory only gained or lost a file
        inside = S_ISDIR(status.st_mode) and status.st_ctime_ns == status.st_mtime_ns
        if status.st_ctime_ns > moment and not inside:
            return False
    return True
