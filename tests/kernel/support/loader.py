# SPDX-License-Identifier: GPL-2.0
"""Loads programs of any type and with any flags, through bpf(2) itself."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_NR_BPF = 321  # x86-64
_PROG_LOAD = 5

SOCKET_FILTER, KPROBE, TRACEPOINT, PERF_EVENT, RAW_TRACEPOINT = 1, 2, 5, 7, 17
F_SLEEPABLE = 1 << 4
TRACE_KPROBE_MULTI, TRACE_UPROBE_MULTI, TRACE_KPROBE_SESSION = 42, 48, 56


@contextmanager
def loaded(
    instructions: bytes, program_type: int = KPROBE, *, flags: int = 0, attach_type: int = 0
) -> Iterator[int]:
    """A program's file descriptor; OSError if it does not load."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    gpl = ctypes.create_string_buffer(b"GPL")
    # the head of union bpf_attr for BPF_PROG_LOAD, up to expected_attach_type
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        program_type, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(gpl),
        0, 0, 0, 0, flags, b"hostile", 0, attach_type,
    )  # fmt: skip
    buffer = ctypes.create_string_buffer(attributes, 128)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_NR_BPF, _PROG_LOAD, buffer, len(buffer))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "the kernel does not load the program")
    try:
        yield fd
    finally:
        os.close(fd)
