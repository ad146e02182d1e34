# SPDX-License-Identifier: GPL-2.0
"""The instructions of instrumented code that a system call executed, from KCOV.

A generic-netlink request is handled in its sender's system call, so that the thread's own trace
holds all of it (Documentation/dev-tools/kcov.rst).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

KCOV: Final = Path("/sys/kernel/debug/kcov")

# include/uapi/linux/kcov.h
_INIT_TRACE: Final = 0x80086301
_ENABLE: Final = 0x6364
_DISABLE: Final = 0x6365
_TRACE_PC: Final = 0
_WORD: Final = 8
#: size of the buffer in words; the kernel drops the rest
_WORDS: Final = 1 << 16


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mapped(fd: int, size: int) -> int:
    """Map a file and return its address; Python's own mmap takes debugfs files for empty."""
    libc = _libc()
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(
        None,
        ctypes.c_size_t(size),
        mmap.PROT_READ | mmap.PROT_WRITE,
        mmap.MAP_SHARED,
        fd,
        ctypes.c_long(0),
    )
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "cannot map KCOV's buffer")
    return int(address)


class Kcov:
    """The trace of one thread, the one that calls ``trace``."""

    def __init__(self, device: Path = KCOV) -> None:
        self._fd = os.open(device, os.O_RDWR)
        try:
            fcntl.ioctl(self._fd, _INIT_TRACE, _WORDS)
            self._address = _mapped(self._fd, _WORDS * _WORD)
        except BaseException:
            os.close(self._fd)
            raise
        buffer = (ctypes.c_uint64 * _WORDS).from_address(self._address)
        self._words = memoryview(buffer).cast("B").cast("Q")

    @contextmanager
    def trace(self) -> Iterator[set[int]]:
        """A set that holds, after the block, the addresses that the block executed."""
        passed: set[int] = set()
        fcntl.ioctl(self._fd, _ENABLE, _TRACE_PC)
        try:
            self._words[0] = 0
            yield passed
        finally:
            passed.update(self._words[1 : 1 + self._words[0]])
            fcntl.ioctl(self._fd, _DISABLE, 0)

    def close(self) -> None:
        """Free the buffer."""
        self._words.release()
        _libc().munmap(ctypes.c_void_p(self._address), ctypes.c_size_t(_WORDS * _WORD))
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
