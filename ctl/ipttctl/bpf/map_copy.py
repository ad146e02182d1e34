# SPDX-License-Identifier: GPL-2.0
"""Copy the entries of one map to another, many at a time where the kernel can."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.libbpf import libbpf
from ipttctl.bpf.maps import Map
from ipttctl.bpf.syscalls import MapType
from ipttctl.errors import ProgramError

#: entries read at once; more if a hash map has more in one bucket
_BATCH: Final = 256
#: bytes of a hash map's place between two batches; other maps have a key there
_PLACE: Final = 4
#: errno of an operation that a type of map does not have, which has no name outside the kernel
_ENOTSUPP: Final = 524
#: the kernel has no batches for the map, or cannot go on because its keys change too fast
_ONE_BY_ONE: Final = frozenset(
    {-errno.EINVAL, -errno.EINTR, -errno.EAGAIN, -errno.EOPNOTSUPP, -_ENOTSUPP}
)
_ARRAYS: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
_OF_DESCRIPTORS: Final = frozenset(
    {MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS}
)


@dataclass(frozen=True)
class _Entries:
    """Entries as the kernel takes them: all keys, and all values, one behind the other.

    ``again``: they are the first ones again, after a reading that could not go on.
    """

    count: int
    keys: bytes
    values: bytes
    again: bool = False


def copy_entries(source: Map, target: Map) -> int:
    """Copy all entries of a map to another; returns their number.

    Keys that the other map has already get the new values; its other keys stay. The maps may be
    written meanwhile: each entry is copied as it is when it is read.

    Raises:
        ProgramError: the maps' keys or values differ in size, they have no keys, or the target is
            read-only or full. Entries that were copied by then stay.
    """
    _check(source, target)
    copied = 0
    for entries in _read(source):
        done, number = _write(target, entries)
        copied = done if entries.again else copied + done
        if number:
            raise _failure(target, copied, number)
    return copied


def _check(source: Map, target: Map) -> None:
    if source.info.id == target.info.id:
        raise ProgramError(f"both are map {source.info.id} ({source.name})")
    for one in (source, target):
        if not one.info.key_size:
            raise ProgramError(f"map {one.name} is of type {one.type}, which has no keys")
        if one.info.type in _OF_DESCRIPTORS:
            raise ProgramError(f"map {one.name} is of type {one.type}: its values are objects")
    for what, has, wants in (
        ("key", source.info.key_size, target.info.key_size),
        ("value", source.value_size, target.value_size),
    ):
        if has != wants:
            raise ProgramError(
                f"a {what} of map {source.name} has {has} bytes, and one of map {target.name} "
                f"{wants}",
                "only maps with the same sizes can be copied",
            )
    elements, room = source.info.max_entries, target.info.max_entries
    if {source.info.type, target.info.type} <= _ARRAYS and elements > room:
        raise ProgramError(
            f"map {source.name} has {elements} elements, and map {target.name} {room}",
            "raise its max_entries",
        )
    syscalls.require_writable(target.fd)


def _read(source: Map) -> Iterator[_Entries]:
    """All entries, in batches; one at a time if the kernel has none for this map."""
    size, room = _BATCH, max(_PLACE, source.info.key_size)
    before: ctypes.Array[ctypes.c_char] | None = None
    while True:
        after = ctypes.create_string_buffer(room)
        keys = ctypes.create_string_buffer(size * source.info.key_size)
        values = ctypes.create_string_buffer(size * source.value_size)
        count = ctypes.c_uint32(size)
        place = (before, after)
        result = _batch("lookup", source.fd, *place, keys, values, ctypes.byref(count))
        if result == -errno.ENOSPC:
            size *= 2
            continue
        if result in _ONE_BY_ONE:
            again = before is not None
            for key, value in source.items():
                yield _Entries(1, key, value, again)
                again = False
            return
        if result < 0 and result != -errno.ENOENT:
            raise ProgramError(f"cannot read map {source.name}: {os.strerror(-result)}")
        if count.value:
            yield _Entries(
                count.value,
                keys.raw[: count.value * source.info.key_size],
                values.raw[: count.value * source.value_size],
            )
        if result == -errno.ENOENT:
            return
        before = after


def _write(target: Map, entries: _Entries) -> tuple[int, int]:
    """Write entries; returns how many were, and the error of the next one or 0."""
    count = ctypes.c_uint32(entries.count)
    result = _batch("update", target.fd, entries.keys, entries.values, ctypes.byref(count))
    if result not in _ONE_BY_ONE:
        return (entries.count, 0) if result == 0 else (count.value, -result)
    key_size, value_size = target.info.key_size, target.value_size
    for at in range(entries.count):
        key = entries.keys[at * key_size : (at + 1) * key_size]
        value = entries.values[at * value_size : (at + 1) * value_size]
        result = _call("bpf_map_update_elem", target.fd, key, value, ctypes.c_uint64(0))
        if result:
            return at, -result
    return entries.count, 0


def _failure(target: Map, copied: int, number: int) -> ProgramError:
    where = f"after {copied} entries" if copied else "before the first entry"
    if number in {errno.E2BIG, errno.ENOSPC}:
        return ProgramError(
            f"map {target.name} is full {where}, or has no such index", "raise its max_entries"
        )
    return ProgramError(f"cannot write to map {target.name} {where}: {os.strerror(number)}")


def _batch(operation: str, fd: int, *arguments: object) -> int:
    return _call(f"bpf_map_{operation}_batch", fd, *arguments, None)


def _call(function: str, fd: int, *arguments: object) -> int:
    """Call libbpf on a map; returns its result, or the negative errno."""
    result = int(getattr(libbpf(), function)(ctypes.c_int(fd), *arguments))
    return -ctypes.get_errno() if result == -1 else result
