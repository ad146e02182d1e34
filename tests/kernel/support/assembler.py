# SPDX-License-Identifier: GPL-2.0
"""Tiny BPF programs, assembled by hand: compiling one for each test takes too long in a guest."""

from __future__ import annotations

import struct

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

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

# helpers by number (enum bpf_func_id)
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
KTIME_GET_NS = 5
TRACE_PRINTK = 6
SKB_STORE_BYTES = 9
TAIL_CALL = 12
CLONE_REDIRECT = 13
GET_CURRENT_PID_TGID = 14
GET_CURRENT_UID_GID = 15
REDIRECT = 23
PERF_EVENT_OUTPUT = 25
GET_STACKID = 27
GET_CURRENT_TASK = 35
PROBE_WRITE_USER = 36
SK_REDIRECT_MAP = 52
OVERRIDE_RETURN = 58
MSG_REDIRECT_MAP = 60
GET_STACK = 67
SPIN_LOCK = 93
SPIN_UNLOCK = 94
SEND_SIGNAL = 109
PROBE_READ_USER = 112
PROBE_READ_KERNEL = 113
TCP_SEND_ACK = 116
RINGBUF_OUTPUT = 130
COPY_FROM_USER = 148
REDIRECT_NEIGH = 152
REDIRECT_PEER = 155
GET_CURRENT_TASK_BTF = 158
FOR_EACH_MAP_ELEM = 164
SYS_BPF = 166
GET_FUNC_IP = 173
GET_ATTACH_COOKIE = 174
LOOP = 181
KPTR_XCHG = 194

_MAP_FD, _LOCAL_CALL, _KERNEL_FUNCTION, _LOCAL_FUNCTION = 1, 1, 2, 4


def instruction(
    code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """One struct bpf_insn."""
    return struct.pack("=BBhi", code, src << 4 | dst, offset, immediate)


def mov(dst: int, immediate: int) -> bytes:
    return instruction(0xB7, dst, immediate=immediate)


def mov_reg(dst: int, src: int) -> bytes:
    return instruction(0xBF, dst, src)


def load_wide(dst: int, value: int) -> bytes:
    """Set dst to a 64-bit number."""
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    return struct.pack("=BBhI", 0x18, dst, 0, low) + struct.pack("=BBhI", 0, 0, 0, high)


def add(dst: int, immediate: int) -> bytes:
    return instruction(0x07, dst, immediate=immediate)


def load(dst: int, src: int, offset: int = 0) -> bytes:
    """Set dst to the 64 bits at src + offset."""
    return instruction(0x79, dst, src, offset)


def store(dst: int, src: int, offset: int = 0) -> bytes:
    """Set the 64 bits at dst + offset to src."""
    return instruction(0x7B, dst, src, offset)


def store_number(dst: int, offset: int, immediate: int) -> bytes:
    """Set the 64 bits at dst + offset to a number."""
    return instruction(0x7A, dst, 0, offset, immediate)


def stack_address(dst: int, offset: int) -> bytes:
    """Set dst to the address of a place below the frame pointer."""
    return mov_reg(dst, R10) + add(dst, offset)


def jump_if_equal(dst: int, immediate: int, skip: int) -> bytes:
    """Skip ``skip`` instructions if dst is ``immediate``."""
    return instruction(0x15, dst, 0, skip, immediate)


def jump_unless_equal(dst: int, immediate: int, skip: int) -> bytes:
    """Skip ``skip`` instructions unless dst is ``immediate``."""
    return instruction(0x55, dst, 0, skip, immediate)


def load_reg(dst: int, register: str) -> bytes:
    """Set dst to the register in the context; r1 must hold the context."""
    return load(dst, R1, REGS[register])


def load_map(dst: int, map_fd: int) -> bytes:
    return instruction(0x18, dst, _MAP_FD, immediate=map_fd) + instruction(0)


def load_function(dst: int, distance: int) -> bytes:
    """Set dst to the function ``distance`` instructions after the first half of this one."""
    return instruction(0x18, dst, _LOCAL_FUNCTION, immediate=distance - 1) + instruction(0)


def read_stack(slot: int) -> bytes:
    """Set r0 to the 64 bits at a stack slot at the function's entry; slot 0: the return address."""
    return load_reg(R3, "sp") + add(R3, 8 * slot) + read_at_r3()


def read_at_r3(helper: int = PROBE_READ_KERNEL) -> bytes:
    """Set r0 to the 64 bits at the address in r3, or 0."""
    return (
        store_number(R10, -24, 0)
        + stack_address(R1, -24)
        + mov(R2, 8)
        + call(helper)
        + load(R0, R10, -24)
    )


def load_packet_byte(offset: int) -> bytes:
    """Set r0 to a byte of a socket filter's packet, which r6 holds; end if there is none."""
    return instruction(0x30, immediate=offset)


def load_context_word(dst: int, offset: int) -> bytes:
    """Set dst to 32 bits of the context that r1 holds."""
    return instruction(0x61, dst, R1, offset)


def store_context_word(offset: int, src: int) -> bytes:
    """Set 32 bits of the context that r1 holds to src."""
    return instruction(0x63, R1, src, offset)


def spinning(iterations: int, value: int) -> bytes:
    """A program that counts down from a number and returns ``value``: two instructions a step."""
    step = add(R1, -1)
    return mov(R1, iterations) + step + instruction(0x55, R1, 0, -2) + returning(value)


def call(helper: int) -> bytes:
    return instruction(0x85, immediate=helper)


def call_function(distance: int) -> bytes:
    """Call the function that begins ``distance`` instructions after this one."""
    return instruction(0x85, 0, _LOCAL_CALL, immediate=distance - 1)


def call_module(number: int, place: int) -> bytes:
    """Call a function of a module: its type's number, and its place among the descriptors."""
    return instruction(0x85, 0, _KERNEL_FUNCTION, place, number)


EXIT = instruction(0x95)


def length(code: bytes) -> int:
    """The number of instructions in a piece of code."""
    return len(code) // 8


def returning(value: int) -> bytes:
    """A program that returns ``value``."""
    return mov(R0, value) + EXIT


def counting(map_fd: int, value: int = 1) -> bytes:
    """A program that adds one to element 0 of an array of 64-bit numbers and returns ``value``."""
    body = look_up(map_fd, 0)
    increment = mov(R1, 1) + instruction(0xDB, R0, R1, 0, 0)  # lock *(u64 *)r0 += r1
    return body + jump_if_equal(R0, 0, 2) + increment + mov(R0, value) + EXIT


def look_up(map_fd: int, key: int) -> bytes:
    """Set r0 to the address of the value of a key of four bytes."""
    return (
        store_number(R10, -8, key)
        + load_map(R1, map_fd)
        + stack_address(R2, -8)
        + call(MAP_LOOKUP_ELEM)
    )


def storing(map_fd: int, what: bytes, value: int = 1) -> bytes:
    """A program that stores r0 after the instructions ``what`` in element 0 of an array."""
    body = what + store(R10, R0, -16) + look_up(map_fd, 0)
    keep = load(R1, R10, -16) + store(R0, R1)
    return body + jump_if_equal(R0, 0, 2) + keep + mov(R0, value) + EXIT
