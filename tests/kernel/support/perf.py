# SPDX-License-Identifier: GPL-2.0
"""Counting events of perf_event_open(2)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NR_PERF_EVENT_OPEN = 298  # x86-64
_TRACEPOINT = 2
_ENABLE, _SET_BPF = 0x2400, 0x40042408
#: size of struct perf_event_attr up to sample_max_stack
_ATTRIBUTES_SIZE = 112


def _open(kind: int, config: int, cpu: int, config1: int = 0) -> int:
    head = struct.pack("=IIQQQQQIIQ", kind, _ATTRIBUTES_SIZE, config, 0, 0, 0, 0, 0, 0, config1)
    attributes = ctypes.create_string_buffer(head, _ATTRIBUTES_SIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    # any process, one CPU, no group
    fd = int(libc.syscall(_NR_PERF_EVENT_OPEN, attributes, -1, cpu, -1, 0))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"perf_event_open: {os.strerror(number)}")
    return fd


@contextmanager
def tracepoint(number: int, cpu: int) -> Iterator[int]:
    """A descriptor that counts the hits of a tracepoint on a CPU."""
    fd = _open(_TRACEPOINT, number, cpu)
    try:
        yield fd
    finally:
        os.close(fd)


def count(fd: int) -> int:
    """The count of an event."""
    return int.from_bytes(os.read(fd, 8), "little")


@contextmanager
def program_at_kprobe(program: int, function: str, *, at_return: bool) -> Iterator[None]:
    """Run a BPF program at the entry or return of a function, on every CPU."""
    kind = int(Path("/sys/bus/event_source/devices/kprobe/type").read_text())
    name = ctypes.create_string_buffer(function.encode())
    fd = _open(kind, int(at_return), 0, ctypes.addressof(name))
    try:
        fcntl.ioctl(fd, _SET_BPF, program)
        fcntl.ioctl(fd, _ENABLE, 0)
        yield
    finally:
        os.close(fd)
