# SPDX-License-Identifier: GPL-2.0
"""Classic BPF: tcpdump expressions, compiled by libpcap, and instructions as text."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from ipttctl.errors import ProgramError, UsageError, os_reason

SNAPLEN: Final = 262144
"""Return value of an accepting filter; any non-zero value accepts."""

LONGEST: Final = 4096
"""Most instructions of a filter (BPF_MAXINSNS)."""

_DLT_RAW: Final = 12
_NETMASK_UNKNOWN: Final = 0xFFFFFFFF
#: struct sock_filter: code, jt, jf, k (linux/filter.h)
_SOCK_FILTER: Final = struct.Struct("=HBBI")
_INSTRUCTIONS: Final = re.compile(r"\d+(?:,\d+ \d+ \d+ \d+)+")


class _BpfProgram(ctypes.Structure):
    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.c_void_p))


@cache
def _libpcap() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libpcap.so.0.8")
    except OSError as error:
        raise ProgramError(
            f"cannot use libpcap: {os_reason(error)}", "run: apt install libpcap0.8"
        ) from None
    handle = ctypes.c_void_p
    library.pcap_open_dead.restype = handle
    library.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
    library.pcap_close.restype = None
    library.pcap_close.argtypes = [handle]
    library.pcap_geterr.restype = ctypes.c_char_p
    library.pcap_geterr.argtypes = [handle]
    library.pcap_compile.restype = ctypes.c_int
    library.pcap_compile.argtypes = [
        handle,
        ctypes.POINTER(_BpfProgram),
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_uint32,
    ]
    library.pcap_freecode.restype = None
    library.pcap_freecode.argtypes = [ctypes.POINTER(_BpfProgram)]
    return library


def instructions(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """The code, jt, jf and k of each of an array of ``struct sock_filter``."""
    yield from _SOCK_FILTER.iter_unpack(code)


def filter_text(code: bytes) -> str:
    """Write an array of ``struct sock_filter`` as text that ``compile_filter`` takes.

    The form is that of ``tcpdump -ddd``, with commas for line ends, as in
    ``iptables -m bpf --bytecode``.
    """
    found = [" ".join(map(str, one)) for one in instructions(code)]
    return ",".join([str(len(found)), *found])


def _assemble(text: str) -> bytes:
    """Assemble instructions given as text. The kernel checks their meaning."""
    count, *found = text.split(",")
    if count.lstrip("0") != str(len(found)):
        raise ProgramError(f"the filter says that it has {count} instructions and has {len(found)}")
    _check_length(len(found))
    code = bytearray()
    for instruction in found:
        try:
            code += _SOCK_FILTER.pack(*map(int, instruction.split(" ")))
        except (struct.error, ValueError):
            raise ProgramError(
                f"'{instruction}' is no instruction of a filter",
                "it is code, jt, jf and k, of 16, 8, 8 and 32 bits",
            ) from None
    return bytes(code)


def _check_length(length: int) -> None:
    if length > LONGEST:
        raise ProgramError(
            f"the filter has {length} instructions, the kernel takes {LONGEST}",
            "make it shorter",
        )


def compile_filter(expression: str, *, optimize: bool = True) -> bytes:
    """Compile a tcpdump expression into an array of ``struct sock_filter``.

    Instructions, as ``filter_text`` and ``tcpdump -ddd`` write them, are accepted too.

    The filter sees a packet from its IP header on. ``ip`` and ``ip6`` both work; expressions about
    the link layer (``ether``, ``vlan``) are refused by libpcap. libpcap resolves names of hosts,
    ports and protocols.

    Raises:
        UsageError: the expression is empty.
        ProgramError: libpcap refuses it, the instructions are malformed, or they are too many.
    """
    if not expression.strip():
        raise UsageError("the filter is empty", "leave it out to trace every packet")
    if "\0" in expression:
        raise UsageError("the filter has a NUL character in it")
    if _INSTRUCTIONS.fullmatch(expression):
        return _assemble(expression)
    library = _libpcap()
    handle = library.pcap_open_dead(_DLT_RAW, SNAPLEN)
    if not handle:
        raise ProgramError("libpcap has no memory for a filter")
    try:
        program = _BpfProgram()
        text = os.fsencode(expression)
        if library.pcap_compile(handle, program, text, int(optimize), _NETMASK_UNKNOWN) != 0:
            message = library.pcap_geterr(handle).decode(errors="replace")
            raise ProgramError(f"filter '{expression}': {message}", "see: man 7 pcap-filter")
        try:
            length = program.bf_len
            _check_length(length)
            return ctypes.string_at(program.bf_insns, length * _SOCK_FILTER.size)
        finally:
            library.pcap_freecode(program)
    finally:
        library.pcap_close(handle)
