# SPDX-License-Identifier: GPL-2.0
"""A module of the kernel with another description of its types (BTF) than its code has.

To whoever reads that, it is a module of another build, with its structures laid out another way.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.support.kernel import run

#: offset of the section headers; size and number of these, index of that with the names
_ELF_SECTIONS = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SECTION_NAME = b".BTF\0"

_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_STRUCT, _UNION = 4, 5
#: bytes after a type, and for each of its elements (linux/btf.h)
_ONCE = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


@dataclass(frozen=True)
class Types:
    """The types that a module adds to those of the kernel; changes go to ``data``."""

    data: bytearray
    base: int
    """Length of the kernel's own strings, which number those of the module."""

    def struct(self, name: str) -> int:
        """The beginning of a struct."""
        for place, named, info, _ in self._types():
            if info >> 24 & 0x1F == _STRUCT and self._text(named) == name:
                return place
        raise AssertionError(f"nothing describes struct {name}")

    def member(self, structure: str, name: str) -> int:
        """The beginning of a member of a struct."""
        place = self.struct(structure)
        count = _TYPE.unpack_from(self.data, place)[1] & 0xFFFF
        first = place + _TYPE.size
        for member in range(first, first + count * _MEMBER.size, _MEMBER.size):
            if self._text(_MEMBER.unpack_from(self.data, member)[0]) == name:
                return member
        raise AssertionError(f"nothing describes {structure}.{name}")

    def number(self, place: int) -> int:
        """The number at a place."""
        return int(struct.unpack_from("=I", self.data, place)[0])

    def change(self, place: int, number: int) -> None:
        """Write a number to a place."""
        struct.pack_into("=I", self.data, place, number)

    def _types(self) -> Iterator[tuple[int, int, int, int]]:
        _, _, _, header, at, length, _, _ = _HEADER.unpack_from(self.data)
        place, end = header + at, header + at + length
        while place < end:
            name, info, other = _TYPE.unpack_from(self.data, place)
            yield place, name, info, other
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            place += _TYPE.size + _ONCE.get(kind, 0) + _EACH.get(kind, 0) * count

    def _text(self, number: int) -> str:
        if number < self.base:
            return _kernel_text(number)
        _, _, _, header, _, _, strings, _ = _HEADER.unpack_from(self.data)
        start = header + strings + number - self.base
        return self.data[start : self.data.index(0, start)].decode()


def _kernel_types() -> bytes:
    return Path("/sys/kernel/btf/vmlinux").read_bytes()


def _kernel_text(number: int) -> str:
    data = _kernel_types()
    _, _, _, header, _, _, strings, _ = _HEADER.unpack_from(data)
    start = header + strings + number
    return data[start : data.index(0, start)].decode()


Change = Callable[[Types], None]


def module_file(name: str) -> bytes:
    """The file of a module, uncompressed, without the signature behind it."""
    path = Path(run("modinfo", "-n", name).strip())
    data = path.read_bytes()
    if path.suffix == ".xz":
        data = lzma.decompress(data)
    headers, size, count, _ = _ELF_SECTIONS.unpack_from(data)
    # the section headers are the last part of a relocatable file
    return data[: headers + size * count]


def _section(data: bytes | bytearray, name: bytes) -> tuple[int, int, int]:
    """Beginning and length of a section, and the place of its name; 0 if there is none."""
    headers, size, count, names = _ELF_SECTIONS.unpack_from(data)
    table = _SECTION.unpack_from(data, headers + names * size)[4]
    for index in range(count):
        named, _, _, _, offset, length, *_ = _SECTION.unpack_from(data, headers + index * size)
        if data.startswith(name, table + named):
            return offset, length, table + named
    return 0, 0, 0


def has_types(name: str) -> bool:
    """Whether a module describes its types."""
    return bool(_section(module_file(name), _SECTION_NAME)[1])


def with_changed_types(name: str, change: Change) -> bytes:
    """The file of a module that describes its types another way."""
    data = bytearray(module_file(name))
    offset, length, _ = _section(data, _SECTION_NAME)
    kernel = _kernel_types()
    types = Types(data[offset : offset + length], _HEADER.unpack_from(kernel)[7])
    change(types)
    data[offset : offset + length] = types.data
    return bytes(data)


def without_types(name: str) -> bytes:
    """The file of a module that does not describe its types."""
    data = bytearray(module_file(name))
    _, _, named = _section(data, _SECTION_NAME)
    data[named : named + 4] = b".NON"
    return bytes(data)
