# SPDX-License-Identifier: GPL-2.0
"""Hand-made bytecode, and the data that a compiler would have added."""

from __future__ import annotations

import struct
from typing import Any

from ipttctl.bpf.specs import CollectionSpec, MapSpec, ProgramSpec, const_marker

EXIT = bytes.fromhex("9500000000000000")


def wide(value: int, *, register: int = 0, source: int = 0) -> bytes:
    """A 64-bit immediate load."""
    low, high = value & 0xFFFFFFFF, value >> 32
    head = struct.pack("=BBhI", 0x18, register | source << 4, 0, low)
    return head + struct.pack("=BBhI", 0, 0, 0, high)


def example_spec() -> CollectionSpec:
    """Two programs, one map, two constants."""
    return CollectionSpec(
        programs={
            "first": ProgramSpec("first", wide(const_marker("limit")) + wide(7) + EXIT),
            "second": ProgramSpec(
                "second",
                wide(0, register=1, source=1) + wide(const_marker("flag")) + EXIT,
                {0: "m"},
            ),
        },
        maps={"m": MapSpec("m", type=1, key_size=4, value_size=8, max_entries=16)},
        constants={"limit": 64, "flag": 8},
    )


def compiled(fd: int = 42) -> dict[str, Any]:
    """The answer of the compiler process for such a source."""
    return {
        "license": "GPL",
        "programs": {
            "first": (wide(const_marker("limit")) + EXIT).hex(),
            "second": (EXIT + wide(fd, register=1, source=1) + EXIT).hex(),
        },
        "maps": {
            "m": {
                "fd": fd,
                "type": 1,
                "key_size": 4,
                "value_size": 8,
                "max_entries": 16,
                "flags": 0,
            }
        },
        "read": [],
    }
