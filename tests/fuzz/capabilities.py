# SPDX-License-Identifier: GPL-2.0
"""Drop capabilities of this thread, temporarily or for good (capset(2))."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

NET_ADMIN: Final = 12
PERFMON: Final = 38
BPF: Final = 39

_VERSION_3: Final = 0x20080522
_SYS_ADMIN: Final = 21
#: effective, permitted, inheritable: of capabilities 0 to 31, then from 32 on
_SETS: Final = struct.Struct("=6I")


def _call(name: str, data: ctypes.Array[ctypes.c_char]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    if getattr(libc, name)(header, data):
        raise OSError(ctypes.get_errno(), name)


@contextmanager
def without_bpf() -> Iterator[None]:
    """Let this thread administer the network, but neither load nor attach programs."""
    before = ctypes.create_string_buffer(_SETS.size)
    _call("capget", before)
    low, permitted, inheritable, high, permitted2, inheritable2 = _SETS.unpack(before.raw)
    low &= ~(1 << _SYS_ADMIN)
    high &= ~(1 << (PERFMON - 32) | 1 << (BPF - 32))
    less = _SETS.pack(low, permitted, inheritable, high, permitted2, inheritable2)
    _call("capset", ctypes.create_string_buffer(less, _SETS.size))
    try:
        yield
    finally:
        _call("capset", before)


def keep_only(*capabilities: int) -> None:
    """Keep only these capabilities of the thread, which must have them now, for good."""
    wanted = sum(1 << number for number in capabilities)
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    _call("capset", ctypes.create_string_buffer(_SETS.pack(low, low, 0, high, high, 0), _SETS.size))
