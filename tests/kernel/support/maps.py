# SPDX-License-Identifier: GPL-2.0
"""Maps for hand-made programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ipttctl.bpf.syscalls import create_map, lookup

ARRAY, PROG_ARRAY, PERCPU_ARRAY, SOCKMAP = 2, 3, 6, 15


@contextmanager
def one_element_map(map_type: int = ARRAY, value_size: int = 8) -> Iterator[int]:
    """A map with one element whose key has four bytes; its file descriptor."""
    fd = create_map(
        "test", map_type=map_type, key_size=4, value_size=value_size, max_entries=1, flags=0
    )
    try:
        yield fd
    finally:
        os.close(fd)


def element(fd: int) -> int:
    """The number in element 0 of an array of 64-bit numbers."""
    return int.from_bytes(lookup(fd, bytes(4), 8) or b"", "little")
