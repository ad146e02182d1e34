# SPDX-License-Identifier: GPL-2.0
"""Instructions of BPF bytecode: find and change the 64-bit immediate loads."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

INSTRUCTION_SIZE: Final = 8

_INSTRUCTION: Final = struct.Struct("=BBhi")
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1


@dataclass(frozen=True)
class WideLoad:
    """A 64-bit immediate load: two instructions from ``index`` on."""

    index: int
    source: int
    value: int


def wide_loads(instructions: bytes | bytearray) -> list[WideLoad]:
    """Find the 64-bit immediate loads in bytecode."""
    loads = []
    index, count = 0, len(instructions) // INSTRUCTION_SIZE
    while index < count:
        code, registers, _, low = _INSTRUCTION.unpack_from(instructions, index * INSTRUCTION_SIZE)
        if code != _LD_IMM64 or index + 1 >= count:
            index += 1
            continue
        *_, high = _INSTRUCTION.unpack_from(instructions, (index + 1) * INSTRUCTION_SIZE)
        value = (high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF)
        loads.append(WideLoad(index, _source_register(registers), value))
        index += 2
    return loads


def set_wide_load(instructions: bytearray, index: int, value: int) -> None:
    """Give the 64-bit immediate load at ``index`` another value, taken modulo 2**64."""
    for half in range(2):
        word = value >> 32 * half & 0xFFFFFFFF
        struct.pack_into("=I", instructions, (index + half) * INSTRUCTION_SIZE + 4, word)


def is_map_load(load: WideLoad) -> bool:
    """Whether a 64-bit immediate load names a map by its descriptor."""
    return load.source == _PSEUDO_MAP_FD


def _source_register(registers: int) -> int:
    # The two four-bit fields of the byte swap places on big-endian machines.
    return registers >> 4 if struct.pack("=H", 1)[0] else registers & 0xF
