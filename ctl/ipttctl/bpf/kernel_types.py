# SPDX-License-Identifier: GPL-2.0
"""Offsets of fields in the running kernel's structs, from its type information (BTF)."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ipttctl.bpf.btf import Btf
from ipttctl.errors import ProgramError


def field_offsets(names: Iterable[str]) -> dict[str, int]:
    """Byte offsets of fields such as ``sk_buff.len`` or ``net.ns.inum``.

    Raises:
        ProgramError: the kernel has no type information or no such field.
    """
    offsets: dict[str, int] = {}
    with Btf.of_kernel() as types:
        for name in names:
            structure, *path = name.split(".")
            bits, number = 0, types.structure(structure)
            for member in path:
                found = _find(types, number, member) if number > 0 else None
                if found is None:
                    raise ProgramError(
                        f"kernel {os.uname().release} has no field {name}",
                        "the program has to change for this kernel",
                    )
                bits, number = bits + found[0], found[1]
            offsets[name] = bits // 8
    return offsets


def _find(types: Btf, number: int, name: str) -> tuple[int, int] | None:
    """Offset in bits and type number of a member, which may lie in an unnamed member."""
    for member in types.members(number):
        if member.name == name and not member.width:
            return member.bits, member.type
        if not member.name and (inner := _find(types, member.type, name)):
            return member.bits + inner[0], inner[1]
    return None
