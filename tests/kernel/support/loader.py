# SPDX-License-Identifier: GPL-2.0
"""Loads programs of any type, with any flags and BTF types, with bpf(2) itself."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_NR_BPF = 321  # x86-64
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN, _BTF_LOAD = 0, 5, 17, 18
_ATTRIBUTES_SIZE = 128
_LOG_SIZE = 1 << 20

SOCKET_FILTER, KPROBE, SCHED_CLS, TRACEPOINT, XDP, PERF_EVENT, CGROUP_SKB = 1, 2, 3, 5, 6, 7, 8
RAW_TRACEPOINT, TRACING, STRUCT_OPS, EXT, LSM, SYSCALL, NETFILTER = 17, 26, 27, 28, 29, 31, 32
F_SLEEPABLE = 1 << 4
TRACE_FENTRY, TRACE_FEXIT, MODIFY_RETURN, LSM_MAC, NETFILTER_ATTACH = 24, 25, 26, 27, 45
TRACE_KPROBE_MULTI, TRACE_UPROBE_MULTI, TRACE_KPROBE_SESSION = 42, 48, 56


class LoadError(OSError):
    """The kernel does not load the program; ``log`` is the verifier's."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(number, os.strerror(number))
        self.log = log

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.log}"


def bpf(command: int, attributes: bytes) -> int:
    """The system call; OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES_SIZE)
    result = int(libc.syscall(_NR_BPF, command, buffer, len(buffer)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


@contextmanager
def loaded(
    instructions: bytes,
    program_type: int = KPROBE,
    *,
    flags: int = 0,
    attach_type: int = 0,
    btf: int = 0,
    functions: Sequence[tuple[int, int]] = (),
    attach_btf_id: int = 0,
    attach_program: int = 0,
    explain: bool = True,
) -> Iterator[int]:
    """A program's file descriptor; LoadError if it does not load.

    ``functions`` are (first instruction, type in ``btf``) of each function; ``attach_btf_id`` is
    the program's target, in the kernel's types or in those of ``attach_program``. To
    ``explain`` a refusal, the verifier is asked a second time.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    gpl = ctypes.create_string_buffer(b"GPL")
    packed = b"".join(struct.pack("=II", *function) for function in functions)
    info = ctypes.create_string_buffer(packed, len(packed)) if packed else None

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        # the head of union bpf_attr for BPF_PROG_LOAD, up to attach_prog_fd
        attributes = struct.pack(
            "=IIQQIIQII16sIIIIQIIQIII",
            program_type, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(gpl),
            1 if log else 0, len(log) if log else 0, ctypes.addressof(log) if log else 0,
            0, flags, b"hostile", 0, attach_type,
            btf, 8 if functions else 0, ctypes.addressof(info) if info else 0, len(functions),
            0, 0, 0, attach_btf_id, attach_program,
        )  # fmt: skip  # pairs together
        return bpf(_PROG_LOAD, attributes)

    try:
        fd = load(None)
    except OSError as error:
        if not explain:
            raise LoadError(error.errno or errno.EIO, "") from None
        log = ctypes.create_string_buffer(_LOG_SIZE)
        try:
            os.close(load(log))
        except OSError:
            raise LoadError(error.errno or errno.EIO, _last_line(log.value)) from None
        raise LoadError(error.errno or errno.EIO, "loads at the second attempt") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _last_line(log: bytes) -> str:
    """The verifier's reason: its last line before the instruction counts."""
    lines = [line for line in log.decode(errors="replace").splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("processed ", "verification time"))]
    return reasons[-1] if reasons else ""


@contextmanager
def loaded_btf(blob: bytes) -> Iterator[int]:
    """The descriptor of a BTF object."""
    buffer = ctypes.create_string_buffer(blob, len(blob))
    log = ctypes.create_string_buffer(1 << 16)
    attributes = struct.pack(
        "=QQIII", ctypes.addressof(buffer), ctypes.addressof(log), len(blob), len(log), 1
    )
    try:
        fd = bpf(_BTF_LOAD, attributes)
    except OSError as error:
        raise LoadError(error.errno or errno.EIO, log.value.decode(errors="replace")) from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def typed_map(
    map_type: int, value_size: int, *, btf: int, key_type: int, value_type: int
) -> Iterator[int]:
    """A map of one element with a key of four bytes and BTF types."""
    attributes = struct.pack(
        "=IIIIIII16sIIII",
        map_type, 4, value_size, 1, 0, 0, 0, b"hostile", 0, btf, key_type, value_type,
    )  # fmt: skip  # pairs together
    fd = bpf(_MAP_CREATE, attributes)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def attached(program: int, tracepoint: str | None = None) -> Iterator[None]:
    """A program attached to a tracepoint, or to the function that it was loaded for."""
    name = ctypes.create_string_buffer(tracepoint.encode()) if tracepoint else None
    place = ctypes.addressof(name) if name else 0
    fd = bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", place, program))
    try:
        yield
    finally:
        os.close(fd)


def kernel_type(name: str, attach_type: int) -> int:
    """The number of a program's target in the kernel's types, by attach type."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    number = int(libbpf.libbpf_find_vmlinux_btf_id(name.encode(), attach_type))
    if number <= 0:
        raise OSError(-number, f"the kernel has no type for {name}")
    return number


def kernel_struct(name: str) -> int:
    """The number of a struct in the kernel's types."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    libbpf.btf__load_vmlinux_btf.restype = ctypes.c_void_p
    types = ctypes.c_void_p(libbpf.btf__load_vmlinux_btf())
    try:
        return int(libbpf.btf__find_by_name_kind(types, name.encode(), 4))
    finally:
        libbpf.btf__free(types)
