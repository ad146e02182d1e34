# SPDX-License-Identifier: GPL-2.0
"""The layout of a fixed-size construct Struct in C, in YNL, in numpy and for struct.

It covers what such records need: native integers, enumerations, byte arrays and strings.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from construct import Array, Bytes, Construct, FormatField, Renamed, Struct

if TYPE_CHECKING:
    import numpy as np

    IntegerField = FormatField[int, int]
else:
    IntegerField = FormatField

#: struct format letter of a native construct integer, in the standard sizes -> (C type, YNL type,
#: numpy type)
_INTEGERS: Final = {
    "B": ("__u8", "u8", "u1"),
    "H": ("__u16", "u16", "u2"),
    "L": ("__u32", "u32", "u4"),
    "Q": ("__u64", "u64", "u8"),
    "l": ("__s32", "s32", "i4"),
    "q": ("__s64", "s64", "i8"),
}


class Chars(Bytes):
    """A C string in an array of ``length`` bytes, padded with NUL."""


class EnumField(IntegerField):
    """An integer field whose values or bits have ``names``; it parses to the plain number."""

    def __init__(self, base: IntegerField, names: type[enum.IntEnum] | type[enum.IntFlag]) -> None:
        # construct's stubs only know its __new__
        super().__init__(base.fmtstr[0], base.fmtstr[1])  # type: ignore[call-arg]  # see above
        self.names = names


@dataclass(frozen=True)
class Field:
    """A member of a record: its name, offset and size in bytes, types and description."""

    name: str
    offset: int
    size: int
    c_type: str
    count: int | None
    ynl_type: str
    numpy_type: Any
    names: type[enum.IntEnum] | type[enum.IntFlag] | None
    doc: str


def fields(record: Struct) -> list[Field]:
    """The members of ``record`` in order; TypeError for a format without a C type."""
    found = []
    offset = 0
    for member in record.subcons:
        if not isinstance(member, Renamed):
            raise TypeError("a member of a record has no name")
        if not member.docs:
            raise TypeError(f"{member.name} has no doc")
        found.append(_field(member, offset))
        offset += member.sizeof()
    return found


def dtype(record: Struct) -> np.dtype[np.void]:
    """The numpy structured type of ``record``, member by member at the same offsets."""
    from ipttproto.arrays import np  # noqa: PLC0415  # numpy: 60 ms

    members = fields(record)
    return np.dtype(
        {
            "names": [m.name for m in members],
            "formats": [m.numpy_type for m in members],
            "offsets": [m.offset for m in members],
            "itemsize": record.sizeof(),
        }
    )


def row_format(record: Struct, only: Collection[str] | None = None) -> str:
    """The members of ``record`` for the module struct, after the byte order; bytes stay bytes.

    With ``only``, the other members are passed over.
    """
    return "".join(
        _letters(member) if only is None or member.name in only else f"{member.sizeof()}x"
        for member in record.subcons
    )


def packer(record: Struct) -> struct.Struct:
    """The record for the module struct, which takes a hundredth of construct's time."""
    return struct.Struct(f"={row_format(record)}")


def _letters(member: Construct[Any, Any]) -> str:
    while isinstance(member, Renamed):
        member = member.subcon
    if isinstance(member, FormatField):
        return member.fmtstr[1]
    if isinstance(member, Array):
        return _letters(member.subcon) * (member.sizeof() // member.subcon.sizeof())
    return f"{member.sizeof()}s"


def _field(member: Renamed[Any, Any], offset: int) -> Field:
    inner: Construct[Any, Any] = member.subcon
    while isinstance(inner, Renamed):
        inner = inner.subcon
    size = member.sizeof()
    names: type[enum.IntEnum] | type[enum.IntFlag] | None = None
    count: int | None = None
    numpy_type: Any
    if isinstance(inner, Chars):
        # the kernel's own client knows no strings in structs, whatever its schema says
        c_type, ynl_type, numpy_type, count = "char", "binary", f"S{size}", size
    elif isinstance(inner, Bytes):
        c_type, ynl_type, numpy_type, count = "__u8", "binary", ("u1", (size,)), size
    elif isinstance(inner, Array):
        element = _field(Renamed(inner.subcon, newname=member.name), offset)
        c_type, count = element.c_type, size // element.size
        ynl_type, numpy_type = "binary", (element.numpy_type, (count,))
    elif isinstance(inner, FormatField):
        c_type, ynl_type, numpy_type = _INTEGERS[inner.fmtstr[1]]
        names = getattr(inner, "names", None)
    else:
        raise TypeError(f"{member.name}: {inner!r} has no C type")
    doc = " ".join((member.docs or "").split())
    return Field(str(member.name), offset, size, c_type, count, ynl_type, numpy_type, names, doc)
