# SPDX-License-Identifier: GPL-2.0
"""Constants of loaded programs, which a map beside each program tells: ``.rodata``.

libbpf makes that map for an object file. bpfcc has no read-only data: there a constant is a number
in the instructions. So that people can still see it, a program of a source is bound to a map that
says the same, with the same types.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from ipttctl.bpf.btf import Btf, Enum, Int, Struct, Type
from ipttctl.bpf.constants import constant_type
from ipttctl.bpf.libbpf import libbpf
from ipttctl.bpf.maps import Map
from ipttctl.bpf.programs import Program
from ipttctl.bpf.specs import CollectionSpec, MapSpec
from ipttctl.bpf.syscalls import MapType
from ipttctl.bpf.values import ORDER
from ipttctl.errors import IpttctlError, ProgramError

NAME: Final = ".rodata"
"""Name of the map, or the end of its name."""

#: BPF_F_RDONLY_PROG: programs cannot write to it
_READ_ONLY: Final = 1 << 7
_SIGNED, _CHAR, _BOOL = 1, 2, 4
_GLOBAL_VARIABLE: Final = 1


def constants_of(program: int) -> dict[str, Any]:
    """The constants of a loaded program, by its id; empty if it has none, or they have no types.

    Raises:
        ProgramError: there is no such program.
        PrivilegeError: the caller may not open programs and maps by id (CAP_SYS_ADMIN).
    """
    found: dict[str, Any] = {}
    with Program.from_id(program) as opened:
        for identifier in opened.maps():
            with Map.from_id(identifier) as one:
                if NAME in one.name and isinstance(one.format.value_type, Struct):
                    found |= one.get(0) or {}
    # text that the compiler made has such names
    return {n: value for n, value in found.items() if "." not in n and not n.startswith("___")}


def bind_constants(spec: CollectionSpec, programs: Mapping[str, Program]) -> None:
    """Bind the programs of a source to a map that tells the constants they were loaded with.

    Nothing depends on it: if the kernel refuses, the programs are as good without.
    """
    types = {}
    for name in spec.constants:
        with suppress(ProgramError):
            types[name] = constant_type(spec, name)
    known = {name: kind for name, kind in types.items() if isinstance(kind, Int | Enum)}
    if not known:
        return
    with suppress(IpttctlError), _Types() as built:
        number, content = built.describe(known, spec.values)
        described = MapSpec(NAME, MapType.ARRAY, 4, len(content), 1, _READ_ONLY, value_type=number)
        with Map.create(described, built) as made:
            made.update(bytes(4), content)
            library = libbpf()
            library.bpf_map_freeze(made.fd)
            for program in programs.values():
                library.bpf_prog_bind_map(program.fd, made.fd, None)


class _Types(Btf):
    """Types that are being made."""

    def __init__(self) -> None:
        library = libbpf()
        library.btf__new_empty.restype = ctypes.c_void_p
        super().__init__(library.btf__new_empty() or 0)

    def describe(self, types: Mapping[str, Type], values: Mapping[str, int]) -> tuple[int, bytes]:
        """Add a section of constants; returns its number, and its content."""
        content = bytearray()
        variables = []
        for name, kind in types.items():
            content += bytes(-len(content) % kind.size)
            number = self._add("var", _text(name), _GLOBAL_VARIABLE, self._type(kind))
            variables.append((number, len(content), kind.size))
            content += (values.get(name, 0) % (1 << 8 * kind.size)).to_bytes(kind.size, ORDER)
        section = self._add("datasec", _text(NAME), len(content))
        for variable in variables:
            self._add("datasec_var_info", *variable)
        return section, bytes(content)

    def _type(self, kind: Type) -> int:
        if isinstance(kind, Enum):
            number = self._add("enum", _text(kind.name.removeprefix("enum ")), kind.size)
            for name, value in kind.values:
                self._add("enum_value", _text(name), ctypes.c_int64(value))
            return number
        assert isinstance(kind, Int)
        encoding = _SIGNED * kind.signed | _CHAR * kind.char | _BOOL * kind.boolean
        if not kind.network:
            return self._add("int", _text(kind.name), ctypes.c_size_t(kind.size), encoding)
        plain = self._add("int", _text(f"__u{8 * kind.size}"), ctypes.c_size_t(kind.size), encoding)
        return self._add("typedef", _text(kind.name), plain)

    def _add(self, what: str, *arguments: object) -> int:
        """Add something; returns the number of a type.

        Raises:
            ProgramError: libbpf refuses.
        """
        function = getattr(libbpf(), f"btf__add_{what}")
        number = int(function(ctypes.c_void_p(self._handle), *arguments))
        if number < 0:
            raise ProgramError(f"cannot describe constants: {what}")
        return number


def _text(name: str) -> ctypes.c_char_p:
    return ctypes.c_char_p(name.encode())
