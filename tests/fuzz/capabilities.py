# SPDX-License-Identifier: GPL-2.0
"""Lays capabilities of this thread down for a while (capset(2); they stay permitted)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_VERSION_3: Final = 0x20080522
_NET_ADMIN: Final = 12
_SYS_ADMIN: Final = 21
_PERFMON: Final = 38
_BPF: Final = 39
_SETS: Final = struct.Struct("=6I")


def _call(name: str, data: ctypes.Array[ctypes.c_char]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    if getattr(libc, name)(header, data):
        raise OSError(ctypes.get_errno(), name)


@contextmanager
def without_bpf() -> Iterator[None]:
    """This thread may administer the network, and neither load nor attach programs."""
    before = ctypes.create_string_buffer(_SETS.size)
    _call("capget", before)
    low, permitted, inheritable, high, permitted2, inheritable2 = _SETS.unpack(before.raw)
    low &= ~(1 << _SYS_ADMIN)
    high &= ~(1 << (_PERFMON - 32) | 1 << (_BPF - 32))
    less = _SETS.pack(low, permitted, inheritable, high, permitted2, inheritable2)
    _call("capset", ctypes.create_string_buffer(less, _SETS.size))
    try:
        yield
    finally:
        _call("capset", before)
