# SPDX-License-Identifier: GPL-2.0
"""Chain names that iptables refuses and the kernel accepts: bytes of its rules are replaced."""

from __future__ import annotations

import ctypes
import os
import socket
import struct

_SOL_IP = 0
#: enum of linux/netfilter_ipv4/ip_tables.h; GET_INFO and SET_REPLACE have the same number
_SET_REPLACE = _GET_INFO = 64
_GET_ENTRIES = 65
#: struct ipt_getinfo: name, valid hooks, entry and underflow of each hook, entries, their size
_INFO = struct.Struct("32sI5I5III")
#: struct ipt_get_entries before its table: name, size
_HEADER = struct.Struct("32sI4x")
#: struct ipt_replace before its entries; the last is a pointer to the old counters
_REPLACE = struct.Struct("32sIII5I5IIP")
_COUNTERS = 16


def rename_chain(table: str, old: bytes, new: bytes) -> None:
    """Rename a chain of the caller's network namespace; the new name has the same length."""
    assert len(old) == len(new)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as rules:
        name = table.encode()
        info = _INFO.unpack(_get(rules, _GET_INFO, name.ljust(_INFO.size, b"\0")))
        hooks, count, size = info[1:12], info[12], info[13]
        asked = _HEADER.pack(name, size) + bytes(size)
        entries = _get(rules, _GET_ENTRIES, asked)[_HEADER.size :]
        assert entries.count(old) == 1
        counters = ctypes.create_string_buffer(count * _COUNTERS)
        head = _REPLACE.pack(
            name, hooks[0], count, size, *hooks[1:], count, ctypes.addressof(counters)
        )
        rules.setsockopt(_SOL_IP, _SET_REPLACE, head + entries.replace(old, new))


def _get(rules: socket.socket, option: int, asked: bytes) -> bytes:
    """getsockopt(2) of an option that first reads the buffer."""
    libc = ctypes.CDLL(None, use_errno=True)
    value = ctypes.create_string_buffer(asked, len(asked))
    length = ctypes.c_uint32(len(asked))
    if libc.getsockopt(rules.fileno(), _SOL_IP, option, value, ctypes.byref(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value.raw
