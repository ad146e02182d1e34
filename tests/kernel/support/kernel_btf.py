# SPDX-License-Identifier: GPL-2.0
"""The types of the kernel's own functions and of its modules', for programs that need them."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ipttctl.bpf.libbpf import libbpf

_HEADER = struct.Struct("=HBBIIIII")
_HEAD = struct.Struct("=III")

_PTR, _STRUCT, _CONST, _FUNC, _FUNC_PROTO = 2, 4, 10, 12, 13
#: bytes after the head of a type, and for each of its elements (linux/btf.h)
_ONCE = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


class _Info(ctypes.Structure):
    # struct bpf_btf_info
    _fields_ = (
        ("btf", ctypes.c_uint64),
        ("btf_size", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_uint64),
        ("name_len", ctypes.c_uint32),
        ("kernel_btf", ctypes.c_uint32),
    )


@contextmanager
def module_types(module: str | None) -> Iterator[int]:
    """A descriptor of a module's types; without a module 0, for the kernel's own."""
    if module is None:
        yield 0
        return
    fd = _open_types(module)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_types(module: str) -> int:
    following = ctypes.c_uint32(0)
    while libbpf().bpf_btf_get_next_id(following, ctypes.byref(following)) == 0:
        fd = int(libbpf().bpf_btf_get_fd_by_id(following))
        name = ctypes.create_string_buffer(64)
        info = _Info(name=ctypes.addressof(name), name_len=len(name))
        size = ctypes.c_uint32(ctypes.sizeof(info))
        libbpf().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size))
        if info.kernel_btf and name.value.decode() == module:
            return fd
        os.close(fd)
    raise FileNotFoundError(f"the kernel has no types of module {module}")


def function_type(name: str, module: str | None) -> int:
    """The number of a function in the types of the kernel or of a module."""
    library = ctypes.CDLL("libbpf.so.1")
    library.btf__load_vmlinux_btf.restype = library.btf__load_module_btf.restype = ctypes.c_void_p
    kernel = ctypes.c_void_p(library.btf__load_vmlinux_btf())
    own = ctypes.c_void_p(library.btf__load_module_btf(module.encode(), kernel) if module else None)
    number = int(library.btf__find_by_name_kind(own if module else kernel, name.encode(), _FUNC))
    library.btf__free(own)
    library.btf__free(kernel)
    if number <= 0:
        raise FileNotFoundError(f"{module or 'the kernel'} has no type of a function {name}")
    return number


@cache
def kernel_functions_taking(structure: str) -> frozenset[str]:
    """The kernel's own functions with a pointer to a struct among their parameters."""
    return functions_taking(structure, Path("/sys/kernel/btf/vmlinux").read_bytes())


def functions_taking(structure: str, data: bytes) -> frozenset[str]:
    """The functions in BTF types with a pointer to a struct among their parameters."""
    _, _, _, header, types_at, types_length, strings_at, _ = _HEADER.unpack_from(data)
    strings = header + strings_at

    def text(offset: int) -> bytes:
        return data[strings + offset : data.index(0, strings + offset)]

    wanted = structure.encode()
    targets: set[int] = set()  # the struct, and its const variant
    references: dict[int, tuple[int, int]] = {}
    prototypes: dict[int, tuple[int, ...]] = {}
    functions: list[tuple[int, int]] = []
    place, end, number = header + types_at, header + types_at + types_length, 0
    while place < end:
        number += 1
        name, info, other = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if kind == _STRUCT and text(name) == wanted:
            targets.add(number)
        elif kind in (_PTR, _CONST):
            references[number] = kind, other
        elif kind == _FUNC_PROTO:
            prototypes[number] = struct.unpack_from(f"={2 * count}I", data, place)[1::2]
        elif kind == _FUNC:
            functions.append((name, other))
        place += _ONCE.get(kind, 0) + _EACH.get(kind, 0) * count
    targets |= {n for n, (kind, other) in references.items() if kind == _CONST and other in targets}
    pointers = {n for n, (kind, other) in references.items() if kind == _PTR and other in targets}
    return frozenset(
        text(name).decode()
        for name, prototype in functions
        if not pointers.isdisjoint(prototypes[prototype])
    )
