# SPDX-License-Identifier: GPL-2.0
"""BPF maps, as objects that own a file descriptor."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Btf
from ipttctl.bpf.descriptors import ClosedError, Closing, owned_descriptor
from ipttctl.bpf.map_format import MapFormat
from ipttctl.bpf.specs import MapSpec
from ipttctl.errors import ProgramError

_ARRAYS: Final = frozenset({syscalls.MapType.ARRAY, syscalls.MapType.PERCPU_ARRAY})
_OF_DESCRIPTORS: Final = frozenset(
    {syscalls.MapType.PROG_ARRAY, syscalls.MapType.ARRAY_OF_MAPS, syscalls.MapType.HASH_OF_MAPS}
)


class Map(Closing):
    """A BPF map that owns a descriptor: close it, or use it as a context manager.

    ``get``, ``set``, ``remove`` and ``dump`` use the form for people and JSON (see
    ``map_format``); the other methods use bytes. As bytes, a per-CPU map's value holds the values
    of all possible CPUs in order, each padded to a multiple of eight bytes.

    Threads may share a map, and close it while others use it. Each method but ``dump`` and
    ``items`` is one step to the kernel; a value that is read and written back is two.
    """

    def __init__(self, fd: int) -> None:
        """Take ownership of ``fd``, which must be a map's."""
        self._descriptor = owned_descriptor(fd)
        try:
            self.info = syscalls.map_info(fd)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, spec: MapSpec, types: Btf | None = None) -> Self:
        """Create the map that a spec describes, with its ``types``.

        Raises:
            ProgramError: the kernel refuses its sizes.
            PrivilegeError: the caller may not create maps.
        """
        # a map of variables has a type for its values only
        described = types.load() if types and spec.value_type else None
        return cls(
            syscalls.create_map(
                spec.name,
                map_type=spec.type,
                key_size=spec.key_size,
                value_size=spec.value_size,
                max_entries=spec.max_entries,
                flags=spec.flags,
                types=(
                    None
                    if described is None
                    else syscalls.MapTypes(described, spec.key_type, spec.value_type)
                ),
            )
        )

    @classmethod
    def from_id(cls, identifier: int) -> Self:
        """A map by its id, as bpftool shows it.

        Raises:
            ProgramError: there is no map with this id.
            PrivilegeError: the caller lacks CAP_SYS_ADMIN.
        """
        return cls(syscalls.map_by_id(identifier))

    @classmethod
    def from_pinned(cls, path: str | os.PathLike[str]) -> Self:
        """A map that is pinned in a BPF file system.

        Raises:
            ProgramError: nothing is pinned there, or something else.
        """
        fd = syscalls.open_pinned(Path(path))
        if syscalls.object_kind(fd) != syscalls.ObjectKind.MAP:
            os.close(fd)
            raise ProgramError(f"{path} is not a BPF map")
        return cls(fd)

    @property
    def fd(self) -> int:
        """The descriptor; the map keeps ownership.

        Raises:
            ProgramError: the map is closed.
        """
        with self._held() as fd:
            return fd

    @property
    def name(self) -> str:
        """The map's name in the kernel, at most 15 characters."""
        return self.info.name

    @property
    def type(self) -> str:
        """The map's type as bpftool names it, such as ``lpm_trie``."""
        return syscalls.map_type_name(self.info.type)

    @cached_property
    def format(self) -> MapFormat:
        """The format of keys and values; by size alone if the map's types cannot be read."""
        with suppress(ProgramError):
            return MapFormat.of_map(self.info)
        return MapFormat(self.info)

    def get(self, key: Any) -> Any:
        """The value of a key, or None. In an LPM trie, the value of the longest matching prefix.

        Raises:
            UsageError: it cannot be a key of this map.
        """
        self._require_keys("read")
        value = self.lookup(self.format.key_bytes(key))
        return None if value is None else self.format.value(value)

    def set(self, key: Any, value: Any) -> None:
        """Set the value of a key.

        Raises:
            UsageError: the key or the value does not fit this map.
            ProgramError: the map is full or read-only, or its values are objects.
        """
        self._require_writable()
        if self.info.type in _OF_DESCRIPTORS:
            raise ProgramError(f"map {self.name} is of type {self.type}: its values are objects")
        self.update(self.format.key_bytes(key), self.format.value_bytes(value))

    def remove(self, key: Any) -> bool:
        """Remove a key; False if it was not there.

        Raises:
            UsageError: it cannot be a key of this map.
            ProgramError: the map is read-only, or an array.
        """
        self._require_writable()
        if self.info.type in _ARRAYS:
            raise ProgramError(
                f"map {self.name} is an array, whose elements stay", "set the element to 0"
            )
        return self.delete(self.format.key_bytes(key))

    def dump(self) -> Iterator[tuple[Any, Any]]:
        """All keys and values, in the form for people and JSON; otherwise like ``items``."""
        self._require_keys("read")
        for key, value in self.items():
            yield self.format.key(key), self.format.value(value)

    @property
    def value_size(self) -> int:
        """Bytes of a value as ``lookup`` and ``update`` take it."""
        if self.info.type in syscalls.PER_CPU:
            return (self.info.value_size + 7) // 8 * 8 * syscalls.possible_cpus()
        return self.info.value_size

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        with self._held() as fd:
            return syscalls.lookup(fd, self._sized(key), self.value_size)

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key.

        Raises:
            ProgramError: the map is full, or the sizes are wrong.
        """
        if len(value) != self.value_size:
            raise ProgramError(
                f"a value of map {self.info.name} has {self.value_size} bytes, not {len(value)}"
            )
        with self._held() as fd:
            syscalls.update(fd, self._sized(key), value)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False if it was not there."""
        with self._held() as fd:
            return syscalls.delete(fd, self._sized(key))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values. Keys added or removed meanwhile may be left out."""
        seen: set[bytes] = set()
        key = self._next_key(None)
        # after a key that is gone the kernel starts again: in a changing map, for ever
        for _ in range(2 * self.info.max_entries):
            if key is None:
                return
            if key not in seen:
                seen.add(key)
                value = self.lookup(key)
                if value is not None:
                    yield key, value
            key = self._next_key(key)

    def duplicate(self) -> Self:
        """The same map, with a descriptor of its own."""
        with self._held() as fd:
            return type(self)(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Pin the map in a BPF file system, so that it stays."""
        with self._held() as fd:
            syscalls.pin(fd, Path(path))

    def close(self) -> None:
        """Close the descriptor. Closing more than once does no harm."""
        self._descriptor.close()

    @contextmanager
    def _held(self) -> Iterator[int]:
        """The descriptor, kept open within the block."""
        with ExitStack() as stack:
            try:
                fd = stack.enter_context(self._descriptor)
            except ClosedError:
                raise ProgramError("the map is closed") from None
            yield fd

    def _next_key(self, key: bytes | None) -> bytes | None:
        with self._held() as fd:
            return syscalls.next_key(fd, key, self.info.key_size)

    def _require_keys(self, done: str) -> None:
        if not self.info.key_size:
            raise ProgramError(
                f"map {self.name} is of type {self.type}, which is not {done} by keys"
            )

    def _require_writable(self) -> None:
        self._require_keys("written")
        # checked first: a complaint about the value would mislead
        with self._held() as fd:
            syscalls.require_writable(fd)

    def _sized(self, key: bytes) -> bytes:
        if len(key) != self.info.key_size:
            raise ProgramError(
                f"a key of map {self.info.name} has {self.info.key_size} bytes, not {len(key)}"
            )
        return key
