# SPDX-License-Identifier: GPL-2.0
"""Where fields lie in the running kernel's structs, from its own type information (BTF)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ipttctl.bpf import libbpf
from ipttctl.errors import ProgramError

_KIND_STRUCT: Final = 4
_KIND_UNION: Final = 5
_MODIFIERS: Final = frozenset({8, 9, 10, 11, 18})
"""Kinds that only name or qualify another type: typedef, volatile, const, restrict, type tag."""


class _Type(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    )


class _Member(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    )


@dataclass(frozen=True)
class _Field:
    name: str
    type: int
    bits: int
    bit_field: bool


class _Btf:
    """The kernel's types while its handle lives."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self._library = library
        self._handle = ctypes.c_void_p(handle)

    def structure(self, name: str) -> int:
        """The type number of a struct by its name, negative where there is none."""
        kind = ctypes.c_uint32(_KIND_STRUCT)
        number = self._library.btf__find_by_name_kind(self._handle, name.encode(), kind)
        return int(number)

    def find(self, number: int, name: str) -> tuple[int, int] | None:
        """Offset in bits and type of a member, those of unnamed members included."""
        for member in self._members(number):
            if member.name == name and not member.bit_field:
                return member.bits, member.type
            if not member.name and (inner := self.find(member.type, name)):
                return member.bits + inner[0], inner[1]
        return None

    def _members(self, number: int) -> Iterator[_Field]:
        address = self._address(number)
        kind = _Type.from_address(address)
        while kind.info >> 24 & 0x1F in _MODIFIERS:
            address = self._address(kind.size_or_type)
            kind = _Type.from_address(address)
        if kind.info >> 24 & 0x1F not in {_KIND_STRUCT, _KIND_UNION}:
            return
        packed = bool(kind.info >> 31)
        members = _Member * (kind.info & 0xFFFF)
        for member in members.from_address(address + ctypes.sizeof(_Type)):
            text = self._library.btf__name_by_offset(self._handle, member.name_off)
            bits = member.offset & 0xFFFFFF if packed else member.offset
            yield _Field(text.decode(), member.type, bits, packed and member.offset >> 24 != 0)

    def _address(self, number: int) -> int:
        return int(self._library.btf__type_by_id(self._handle, ctypes.c_uint32(number)))


@contextmanager
def _kernel_btf() -> Iterator[_Btf]:
    library = libbpf()
    library.btf__load_vmlinux_btf.restype = ctypes.c_void_p
    library.btf__type_by_id.restype = ctypes.c_void_p
    library.btf__name_by_offset.restype = ctypes.c_char_p
    handle = library.btf__load_vmlinux_btf()
    if not handle:
        raise ProgramError(
            f"kernel {os.uname().release} has no type information (/sys/kernel/btf/vmlinux)",
            "it takes one with CONFIG_DEBUG_INFO_BTF, as the distributions' are",
        )
    try:
        yield _Btf(library, handle)
    finally:
        library.btf__free(ctypes.c_void_p(handle))


def field_offsets(names: Iterable[str]) -> dict[str, int]:
    """Byte offsets of fields such as ``sk_buff.len`` or ``net.ns.inum``.

    Raises:
        ProgramError: the kernel has no type information, or no such field.
    """
    offsets: dict[str, int] = {}
    with _kernel_btf() as btf:
        for name in names:
            structure, *path = name.split(".")
            bits, number = 0, btf.structure(structure)
            for member in path:
                found = btf.find(number, member) if number > 0 else None
                if found is None:
                    raise ProgramError(
                        f"kernel {os.uname().release} has no field {name}",
                        "the program has to change for this kernel",
                    )
                bits, number = bits + found[0], found[1]
            offsets[name] = bits // 8
    return offsets
