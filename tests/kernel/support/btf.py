# SPDX-License-Identifier: GPL-2.0
"""Types for hand-made programs and maps (include/uapi/linux/btf.h)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_MAGIC = 0xEB9F
_INT, _PTR, _STRUCT, _FWD, _FUNC, _FUNC_PROTO, _TYPE_TAG = 1, 2, 4, 7, 12, 13, 18
_SIGNED = 1 << 24
STATIC, GLOBAL = 0, 1


class Types:
    """Collects types; each method returns the number of the type that it adds."""

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = b"\0"
        self.u32 = self._integer("unsigned int", 4, 0)
        self.s32 = self._integer("int", 4, _SIGNED)
        self.u64 = self._integer("unsigned long long", 8, 0)
        self.void_pointer = self.pointer(0)

    def pointer(self, to: int) -> int:
        """A pointer."""
        return self._add(_PTR, "", 0, to)

    def forward(self, name: str) -> int:
        """A struct without a definition."""
        return self._add(_FWD, name, 0, 0)

    def tagged(self, tag: str, to: int) -> int:
        """A type with a tag."""
        return self._add(_TYPE_TAG, tag, 0, to)

    def struct(self, name: str, size: int, members: Sequence[tuple[str, int, int]]) -> int:
        """A struct of members: name, type, offset in bytes."""
        packed = [struct.pack("=III", self._name(m), t, 8 * at) for m, t, at in members]
        return self._add(_STRUCT, name, len(members), size, b"".join(packed))

    def function(
        self, name: str, parameters: Sequence[tuple[str, int]], linkage: int = STATIC
    ) -> int:
        """A function that returns int."""
        packed = [struct.pack("=II", self._name(name), kind) for name, kind in parameters]
        prototype = self._add(_FUNC_PROTO, "", len(parameters), self.s32, b"".join(packed))
        return self._add(_FUNC, name, linkage, prototype)

    def blob(self) -> bytes:
        """All types, in the form that BPF_BTF_LOAD takes."""
        types = b"".join(self._types)
        header = struct.pack(
            "=HBBIIIII", _MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._strings)
        )
        return header + types + self._strings

    def _integer(self, name: str, size: int, encoding: int) -> int:
        return self._add(_INT, name, 0, size, struct.pack("=I", encoding | 8 * size))

    def _add(self, kind: int, name: str, count: int, what: int, rest: bytes = b"") -> int:
        head = struct.pack("=III", self._name(name), kind << 24 | count, what)
        self._types.append(head + rest)
        return len(self._types)

    def _name(self, name: str) -> int:
        if not name:
            return 0
        place = len(self._strings)
        self._strings += name.encode() + b"\0"
        return place
