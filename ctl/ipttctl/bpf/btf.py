# SPDX-License-Identifier: GPL-2.0
"""Types as compilers and the kernel describe them (BTF), read with libbpf.

A ``Btf`` holds libbpf's handle on one set of types: close it, or use it in ``with``. ``Type``
values read from it are plain and outlive it.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Self

from ipttctl.bpf.descriptors import Closing
from ipttctl.bpf.libbpf import libbpf
from ipttctl.errors import ProgramError


class _Kind(enum.IntEnum):
    """BTF_KIND_* (include/uapi/linux/btf.h), those that types of data need."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    TYPE_TAG = 18
    ENUM64 = 19


#: the keyword in front of a type's name -> the kinds that it can be
_NAMED: Final = {
    "": (_Kind.TYPEDEF, _Kind.INT),
    "enum": (_Kind.ENUM, _Kind.ENUM64),
}
_QUALIFIERS: Final = frozenset({_Kind.VOLATILE, _Kind.CONST, _Kind.RESTRICT, _Kind.TYPE_TAG})
_MODIFIERS: Final = _QUALIFIERS | {_Kind.TYPEDEF}
_KINDS: Final = frozenset(map(int, _Kind))
_INT_SIGNED: Final = 1
_INT_CHAR: Final = 2
_INT_BOOL: Final = 4
_NETWORK_ORDER: Final = frozenset({"__be16", "__be32", "__be64"})
_INT_SIZES: Final = frozenset({1, 2, 4, 8, 16})
_SIZE_MAX: Final = 0xFFFFFFFF
#: depth of nesting that the kernel follows (MAX_RESOLVE_DEPTH); object files may have cycles
_DEPTH_MAX: Final = 32


# --- types ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Type:
    """A type: its name in the source (may be empty) and its size in bytes."""

    name: str
    size: int

    def __str__(self) -> str:
        return self.name or "?"


@dataclass(frozen=True)
class Int(Type):
    """An integer; ``network`` says that its type is a big-endian one (__be16, __be32, __be64)."""

    signed: bool = False
    boolean: bool = False
    char: bool = False
    network: bool = False


@dataclass(frozen=True)
class Float(Type):
    """A floating-point number."""


@dataclass(frozen=True)
class Pointer(Type):
    """A pointer to any type."""


@dataclass(frozen=True)
class Enum(Type):
    """An enumeration: its values by name."""

    signed: bool
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Array(Type):
    """``count`` elements of a type."""

    element: Type
    count: int


@dataclass(frozen=True)
class Member:
    """A member of a struct or union: where it begins in bits, and its width if it is a bit field.

    A member without a name is a struct or union whose members count as the outer one's.
    """

    name: str
    type: Type
    bits: int
    width: int = 0


@dataclass(frozen=True)
class Struct(Type):
    """A struct, a union, or the variables of a section of an object file."""

    members: tuple[Member, ...]
    union: bool = False


@dataclass(frozen=True)
class RawMember:
    """A member whose type is known by its number only."""

    name: str
    type: int
    bits: int
    width: int


# --- libbpf's side -------------------------------------------------------------------------------


class _Type(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    )

    @property
    def kind(self) -> _Kind | int:
        number = int(self.info) >> 24 & 0x1F
        return _Kind(number) if number in _KINDS else number

    @property
    def count(self) -> int:
        return int(self.info) & 0xFFFF

    @property
    def flag(self) -> bool:
        return bool(self.info >> 31)


class _Array(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("index_type", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
    )


class _Member(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
    )


class _Enum(ctypes.Structure):
    _fields_ = (("name_off", ctypes.c_uint32), ("value", ctypes.c_uint32))


class _Enum64(ctypes.Structure):
    _fields_ = (
        ("name_off", ctypes.c_uint32),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
    )


class _Variable(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("offset", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
    )


@cache
def _library() -> ctypes.CDLL:
    """Load libbpf, with the result types of its BTF functions declared."""
    library = libbpf()
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.btf__load_vmlinux_btf.restype = pointer
    for name, result, arguments in (
        ("btf__load_from_kernel_by_id", pointer, (ctypes.c_uint32,)),
        ("btf__new", pointer, (ctypes.c_char_p, ctypes.c_uint32)),
        ("btf__type_by_id", pointer, (pointer, ctypes.c_uint32)),
        ("btf__type_cnt", ctypes.c_uint32, (pointer,)),
        ("btf__name_by_offset", text, (pointer, ctypes.c_uint32)),
        ("btf__find_by_name_kind", ctypes.c_int32, (pointer, text, ctypes.c_uint32)),
        ("btf__resolve_size", ctypes.c_int64, (pointer, ctypes.c_uint32)),
        ("btf__raw_data", pointer, (pointer, ctypes.POINTER(ctypes.c_uint32))),
        ("btf__load_into_kernel", ctypes.c_int, (pointer,)),
        ("btf__fd", ctypes.c_int, (pointer,)),
        ("btf__free", None, (pointer,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Btf(Closing):
    """A set of numbered types."""

    def __init__(self, handle: int, *, borrowed: bool = False) -> None:
        """Take ownership of libbpf's handle, unless it is ``borrowed``."""
        self._handle = handle
        self._owner = not borrowed
        self._known: dict[int, Type] = {}
        self._depth = 0

    @classmethod
    def of_kernel(cls) -> Self:
        """The running kernel's own types.

        Raises:
            ProgramError: the kernel has none.
        """
        handle = _library().btf__load_vmlinux_btf()
        if not handle:
            raise ProgramError(
                f"kernel {os.uname().release} has no type information (/sys/kernel/btf/vmlinux)",
                "it takes one with CONFIG_DEBUG_INFO_BTF, as the distributions' are",
            )
        return cls(handle)

    @classmethod
    def by_id(cls, identifier: int) -> Self:
        """Types loaded into the kernel, by their BTF id, as a map's information gives it.

        Raises:
            ProgramError: no types have this id (any more), or the caller may not read them.
        """
        handle = _library().btf__load_from_kernel_by_id(identifier)
        if not handle:
            reason = os.strerror(ctypes.get_errno())
            raise ProgramError(f"cannot read the types (BTF) of id {identifier}: {reason}")
        return cls(handle)

    @classmethod
    def from_data(cls, data: bytes) -> Self:
        """Types from raw BTF, as the method ``data`` returns it.

        Raises:
            ProgramError: the BTF is broken.
        """
        handle = _library().btf__new(data, len(data))
        if not handle:
            raise ProgramError(f"the types (BTF) are broken: {os.strerror(ctypes.get_errno())}")
        return cls(handle)

    def data(self) -> bytes:
        """The types as raw BTF, the form that the kernel takes."""
        size = ctypes.c_uint32()
        address = _library().btf__raw_data(self._handle, ctypes.byref(size))
        return ctypes.string_at(address, size.value) if address else b""

    def load(self) -> int | None:
        """Load the types into the kernel; returns a descriptor, which stays ours, or None."""
        library = _library()
        if library.btf__fd(self._handle) < 0 and library.btf__load_into_kernel(self._handle) < 0:
            return None
        return int(library.btf__fd(self._handle))

    def structure(self, name: str) -> int:
        """The number of a struct by its name; negative if there is none."""
        return self._find(name, _Kind.STRUCT)

    def section(self, name: str) -> Struct | None:
        """The variables of an object file's section, such as ``.rodata``; None without it."""
        number = self._find(name, _Kind.DATASEC)
        found = self.type(number) if number > 0 else None
        return found if isinstance(found, Struct) else None

    def named(self, name: str) -> Type | None:
        """A type by its name in C, such as ``enum colour`` or ``__be16``; None without it.

        Raises:
            ProgramError: as for ``type``.
        """
        keyword, _, plain = name.rpartition(" ")
        for kind in _NAMED.get(keyword, ()):
            number = self._find(plain, kind)
            if number > 0:
                return self.type(number)
        return None

    def type(self, number: int) -> Type:
        """A type by its number; 0 is void.

        Raises:
            ProgramError: there is no such number, it is not a type of data (a function, say), or
                no compiler makes such a type (a struct that contains itself, say).
        """
        if number not in self._known:
            self._depth += 1
            try:
                if self._depth > _DEPTH_MAX:
                    raise _broken(f"more than {_DEPTH_MAX} lie in one another")
                self._known[number] = self._read(number)
            finally:
                self._depth -= 1
        return self._known[number]

    def members(self, number: int) -> Iterator[RawMember]:
        """The members of a struct or union, through typedefs; none of any other type."""
        head, address = self._skip(number, _MODIFIERS)
        if head.kind not in {_Kind.STRUCT, _Kind.UNION}:
            return
        for member in (_Member * head.count).from_address(address):
            at, width = member.offset, 0
            if head.flag:
                at, width = at & 0xFFFFFF, at >> 24
            yield RawMember(self._name(member.name_off), member.type, at, width)

    def close(self) -> None:
        """Release the handle. Closing more than once does no harm."""
        handle, self._handle = self._handle, 0
        if handle and self._owner:
            _library().btf__free(handle)

    def _find(self, name: str, kind: int) -> int:
        return int(_library().btf__find_by_name_kind(self._handle, name.encode(), kind))

    def _head(self, number: int) -> tuple[_Type, int]:
        """A type's header, and the address of the data after it."""
        address = _library().btf__type_by_id(self._handle, number)
        if not address:
            raise ProgramError(f"there is no type {number}")
        return _Type.from_address(address), address + ctypes.sizeof(_Type)

    def _skip(self, number: int, kinds: frozenset[_Kind]) -> tuple[_Type, int]:
        head, rest = self._head(number)
        for _ in range(_DEPTH_MAX):
            if head.kind not in kinds:
                return head, rest
            head, rest = self._head(head.size_or_type)
        raise _broken(f"more than {_DEPTH_MAX} name one another")

    def _name(self, offset: int) -> str:
        name: bytes | None = _library().btf__name_by_offset(self._handle, offset)
        return name.decode(errors="replace") if name else ""

    def _read(self, number: int) -> Type:  # noqa: PLR0911 - one for each kind
        if number == 0:
            return Type("void", 0)
        head, rest = self._skip(number, _QUALIFIERS)
        name, size = self._name(head.name_off), int(head.size_or_type)
        match head.kind:
            case _Kind.INT | _Kind.ENUM | _Kind.ENUM64 if size not in _INT_SIZES:
                raise _broken(f"'{name}' has {size} bytes")
            case _Kind.INT:
                encoding = ctypes.c_uint32.from_address(rest).value >> 24
                return Int(
                    name,
                    size,
                    signed=bool(encoding & _INT_SIGNED),
                    boolean=bool(encoding & _INT_BOOL),
                    char=bool(encoding & _INT_CHAR) or name == "char",
                )
            case _Kind.FLOAT:
                return Float(name, size)
            case _Kind.PTR:
                return Pointer("pointer", ctypes.sizeof(ctypes.c_uint64))
            case _Kind.ENUM | _Kind.ENUM64:
                return self._enum(head, rest, name)
            case _Kind.ARRAY:
                return self._array(_Array.from_address(rest))
            case _Kind.STRUCT | _Kind.UNION:
                return self._struct(number, head, name)
            case _Kind.DATASEC:
                variables = (_Variable * head.count).from_address(rest)
                return Struct(name, size, tuple(map(self._variable, variables)))
            case _Kind.VAR:
                return self.type(head.size_or_type)
            case _Kind.TYPEDEF:
                return _named(name, self.type(head.size_or_type))
            case kind:
                raise ProgramError(f"type {number} ({name}) is of kind {kind}, which is not data")

    def _array(self, array: _Array) -> Array:
        element, count = self.type(array.type), int(array.count)
        if element.size * count > _SIZE_MAX:
            raise _broken(f"an array has {element.size * count} bytes")
        if not element.size:
            count = 0  # the elements have no bytes: any count is right, and a large one is dear
        return Array(f"{element}[{count}]", element.size * count, element, count)

    def _struct(self, number: int, head: _Type, name: str) -> Struct:
        size, union = int(head.size_or_type), head.kind == _Kind.UNION
        members = tuple(
            Member(m.name, self.type(m.type), m.bits, m.width) for m in self.members(number)
        )
        for member in members:
            whole = 8 * member.type.size
            if member.bits + (member.width or whole) > 8 * size or member.width > whole:
                raise _broken(f"'{member.name}' does not fit into '{name}'")
        keyword = "union" if union else "struct"
        return Struct(f"{keyword} {name}".rstrip(), size, members, union)

    def _enum(self, head: _Type, rest: int, name: str) -> Enum:
        if head.kind == _Kind.ENUM:
            width = 32
            raw = [(e.name_off, e.value) for e in (_Enum * head.count).from_address(rest)]
        else:
            width = 64
            wide = (_Enum64 * head.count).from_address(rest)
            raw = [(e.name_off, e.high << 32 | e.low) for e in wide]
        # the header's flag says that the values are signed
        sign = 1 << width - 1 if head.flag else 0
        values = tuple((self._name(offset), (value ^ sign) - sign) for offset, value in raw)
        return Enum(f"enum {name}".rstrip(), int(head.size_or_type), head.flag, values)

    def _variable(self, variable: _Variable) -> Member:
        head, _ = self._head(variable.type)
        return Member(self._name(head.name_off), self.type(variable.type), 8 * variable.offset)


def _broken(why: str) -> ProgramError:
    return ProgramError(f"the types (BTF) are broken: {why}")


def _named(name: str, target: Type) -> Type:
    """The type behind a typedef, under the typedef's name if it has none or is a number."""
    if isinstance(target, Int):
        return replace(target, name=name, network=target.network or name in _NETWORK_ORDER)
    if isinstance(target, Struct | Enum) and target.name in {"struct", "union", "enum"}:
        return replace(target, name=name)
    return target
