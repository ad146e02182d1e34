# SPDX-License-Identifier: GPL-2.0
"""Tiny BPF programs, assembled by hand: a guest has no time to compile one for each test."""

from __future__ import annotations

import struct

R0, R1, R2, R3, R10 = 0, 1, 2, 3, 10

#: offsets in struct pt_regs of x86-64 (arch/x86/include/asm/ptrace.h)
REGS = {
    "di": 112,
    "si": 104,
    "dx": 96,
    "cx": 88,
    "r8": 72,
    "r9": 64,
    "ax": 80,
    "sp": 152,
    "ip": 128,
}

MAP_LOOKUP_ELEM = 1
PROBE_READ_KERNEL = 113
GET_ATTACH_COOKIE = 174
GET_FUNC_IP = 173
OVERRIDE_RETURN = 58
TAIL_CALL = 12


def instruction(
    code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """One struct bpf_insn."""
    return struct.pack("=BBhi", code, src << 4 | dst, offset, immediate)


def mov(dst: int, immediate: int) -> bytes:
    return instruction(0xB7, dst, immediate=immediate)


def mov_reg(dst: int, src: int) -> bytes:
    return instruction(0xBF, dst, src)


def load_reg(dst: int, register: str) -> bytes:
    """Dst = the register of the context; r1 must hold the context."""
    return instruction(0x79, dst, R1, REGS[register])


def load_map(dst: int, map_fd: int) -> bytes:
    return instruction(0x18, dst, 1, immediate=map_fd) + instruction(0)


def read_stack(slot: int) -> bytes:
    """r0 = the 64 bits at a slot of the stack when the function was entered; 0 holds the return."""
    return (
        load_reg(R3, "sp")
        + instruction(0x07, R3, immediate=8 * slot)
        + mov_reg(R1, R10)
        + instruction(0x07, R1, immediate=-24)
        + instruction(0x7A, R10, 0, -24, 0)
        + mov(R2, 8)
        + call(PROBE_READ_KERNEL)
        + instruction(0x79, R0, R10, -24)
    )


def call(helper: int) -> bytes:
    return instruction(0x85, immediate=helper)


EXIT = instruction(0x95)


def returning(value: int) -> bytes:
    """A program that returns ``value``."""
    return mov(R0, value) + EXIT


def counting(map_fd: int, value: int = 1) -> bytes:
    """A program that adds one to element 0 of an array of 64-bit numbers and returns ``value``."""
    body = (
        instruction(0x7A, R10, 0, -8, 0)  # *(u64 *)(r10 - 8) = 0
        + load_map(R1, map_fd)
        + mov_reg(R2, R10)
        + instruction(0x07, R2, immediate=-8)
        + call(MAP_LOOKUP_ELEM)
    )
    add = mov(R1, 1) + instruction(0xDB, R0, R1, 0, 0)  # lock *(u64 *)r0 += r1
    return body + instruction(0x15, R0, 0, 2, 0) + add + mov(R0, value) + EXIT


def storing(map_fd: int, what: bytes, value: int = 1) -> bytes:
    """A program that stores r0 of the instructions ``what`` in element 0 of an array."""
    body = (
        what
        + instruction(0x7B, R10, R0, -16)  # *(u64 *)(r10 - 16) = r0
        + instruction(0x7A, R10, 0, -8, 0)
        + load_map(R1, map_fd)
        + mov_reg(R2, R10)
        + instruction(0x07, R2, immediate=-8)
        + call(MAP_LOOKUP_ELEM)
    )
    store = instruction(0x79, R1, R10, -16) + instruction(0x7B, R0, R1, 0)
    return body + instruction(0x15, R0, 0, 2, 0) + store + mov(R0, value) + EXIT
