# SPDX-License-Identifier: GPL-2.0
"""Loads programs of any type, with any flags and BTF types, with bpf(2) itself."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ipttctl.bpf.syscalls import update
from ipttctl.bpf.verifier_log import verifier_reason

_NR_BPF = 321  # x86-64
_FUNC, _ARRAY_OF_MAPS = 12, 12
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
    descriptors: Sequence[int] = (),
    explain: bool = True,
) -> Iterator[int]:
    """A program's file descriptor; LoadError if it does not load.

    ``functions`` are (first instruction, type in ``btf``) of each function; ``attach_btf_id`` is
    the program's target, in the kernel's types or in those of ``attach_program``. Instructions
    refer to ``descriptors`` by index, of maps and of modules' types. To ``explain`` a refusal, the
    verifier is asked a second time.
    """
    code = ctypes.create_string_buffer(instructions, len(instructions))
    gpl = ctypes.create_string_buffer(b"GPL")
    packed = b"".join(struct.pack("=II", *function) for function in functions)
    info = ctypes.create_string_buffer(packed, len(packed)) if packed else None
    array = (ctypes.c_int * len(descriptors))(*descriptors)

    def load(log: ctypes.Array[ctypes.c_char] | None) -> int:
        # the head of union bpf_attr for BPF_PROG_LOAD, up to fd_array
        attributes = struct.pack(
            "=IIQQIIQII16sIIIIQIIQIIIIQ",
            program_type, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(gpl),
            1 if log else 0, len(log) if log else 0, ctypes.addressof(log) if log else 0,
            0, flags, b"hostile", 0, attach_type,
            btf, 8 if functions else 0, ctypes.addressof(info) if info else 0, len(functions),
            0, 0, 0, attach_btf_id, attach_program,
            0, ctypes.addressof(array) if descriptors else 0,
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
            reason = verifier_reason(log.value.decode(errors="replace"))
            raise LoadError(error.errno or errno.EIO, reason) from None
        raise LoadError(error.errno or errno.EIO, "loads at the second attempt") from None
    try:
        yield fd
    finally:
        os.close(fd)


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
def map_of_maps(inner: int) -> Iterator[int]:
    """An array of one map, which holds another one."""
    fd = bpf(_MAP_CREATE, struct.pack("=IIIIII", _ARRAY_OF_MAPS, 4, 4, 1, 0, inner))
    try:
        update(fd, bytes(4), inner.to_bytes(4, "little"))
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


@contextmanager
def module_function(module: str, name: str) -> Iterator[tuple[int, int]]:
    """A function of a module: the descriptor of the module's types, and its number there."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for function in (libbpf.btf__load_vmlinux_btf, libbpf.btf__load_module_btf):
        function.restype = ctypes.c_void_p
    kernel = ctypes.c_void_p(libbpf.btf__load_vmlinux_btf())
    types = ctypes.c_void_p(libbpf.btf__load_module_btf(module.encode(), kernel))
    fd = -1
    try:
        number = int(libbpf.btf__find_by_name_kind(types, name.encode(), _FUNC))
        assert number > 0, f"module {module} has no function {name}: {number}"
        fd = _types_of(libbpf, module)
        yield fd, number
    finally:
        if fd >= 0:
            os.close(fd)
        libbpf.btf__free(types)
        libbpf.btf__free(kernel)


def _types_of(libbpf: ctypes.CDLL, module: str) -> int:
    """A descriptor of the types that the kernel has of a module."""
    number = ctypes.c_uint32(0)
    while not libbpf.bpf_btf_get_next_id(number, ctypes.byref(number)):
        fd = int(libbpf.bpf_btf_get_fd_by_id(number))
        if fd >= 0 and _name_of_types(libbpf, fd) == module:
            return fd
        if fd >= 0:
            os.close(fd)
    raise AssertionError(f"the kernel has no types of module {module}")


def _name_of_types(libbpf: ctypes.CDLL, fd: int) -> str:
    """The name of the module that types are of; empty for other types."""
    name = ctypes.create_string_buffer(64)
    # struct bpf_btf_info
    info = bytearray(struct.pack("=QIIQII", 0, 0, 0, ctypes.addressof(name), len(name), 0))
    buffer = (ctypes.c_char * len(info)).from_buffer(info)
    size = ctypes.c_uint32(len(info))
    if libbpf.bpf_obj_get_info_by_fd(ctypes.c_int(fd), buffer, ctypes.byref(size)):
        return ""
    return name.value.decode()
