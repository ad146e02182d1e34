# SPDX-License-Identifier: GPL-2.0
"""BPF maps, as objects that own a file descriptor."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Btf
from ipttctl.bpf.map_format import MapFormat
from ipttctl.bpf.specs import MapSpec
from ipttctl.errors import ProgramError
from ipttctl.system.descriptors import ClosedError, Closing, owned_descriptor

_ARRAYS: Final = frozenset({syscalls.MapType.ARRAY, syscalls.MapType.PERCPU_ARRAY})
_OF_DESCRIPTORS: Final = frozenset(
    {syscalls.MapType.PROG_ARRAY, syscalls.MapType.ARRAY_OF_MAPS, syscalls.MapType.HASH_OF_MAPS}
)


class Map(Closing):
    """A BPF map. It owns a descriptor: close it, or use it as a context manager.

    ``get``, ``set``, ``remove`` and ``dump`` take and give values as people and JSON write them
    (see ``map_format``), the others bytes. In those a value of a per-CPU map is that of every
    possible CPU, one after the other, each rounded up to eight bytes.
    """

    def __init__(self, fd: int) -> None:
        """Take over ``fd``, which must be a map's."""
        self._descriptor = owned_descriptor(fd)
        try:
            self.info = syscalls.map_info(fd)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, spec: MapSpec, types: Btf | None = None) -> Self:
        """Make the map that a spec describes, with its ``types``.

        Raises:
            ProgramError: the kernel refuses its sizes.
            PrivilegeError: the caller may not make maps.
        """
        # a map of data alone has a type for its values only
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
            ProgramError: there is none.
            PrivilegeError: the caller may not (CAP_SYS_ADMIN).
        """
        return cls(syscalls.map_by_id(identifier))

    @classmethod
    def from_pinned(cls, path: str | os.PathLike[str]) -> Self:
        """A map that is pinned in a BPF file system.

        Raises:
            ProgramError: nothing is there, or something else.
        """
        fd = syscalls.open_pinned(Path(path))
        if syscalls.object_kind(fd) != syscalls.ObjectKind.MAP:
            os.close(fd)
            raise ProgramError(f"{path} is not a BPF map")
        return cls(fd)

    @property
    def fd(self) -> int:
        """The descriptor; it stays the map's.

        Raises:
            ProgramError: the map is closed.
        """
        try:
            with self._descriptor as fd:
                return fd
        except ClosedError:
            raise ProgramError("the map is closed") from None

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
        """How its keys and values are written; by their sizes alone if its types cannot be read."""
        with suppress(ProgramError):
            return MapFormat.of_map(self.info)
        return MapFormat(self.info)

    def get(self, key: Any) -> Any:
        """The value of a key, or None. In an LPM trie that of the longest prefix that fits.

        Raises:
            UsageError: it cannot be a key of this map.
        """
        self._require_keys("read")
        value = self.lookup(self.format.key_bytes(key))
        return None if value is None else self.format.value(value)

    def set(self, key: Any, value: Any) -> None:
        """Set the value of a key.

        Raises:
            UsageError: they cannot be key and value of this map.
            ProgramError: the map is full, read-only, or of descriptors.
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
        """All keys and values, as ``items``."""
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
        return syscalls.lookup(self.fd, self._sized(key), self.value_size)

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key.

        Raises:
            ProgramError: the map is full, or the sizes are wrong.
        """
        if len(value) != self.value_size:
            raise ProgramError(
                f"a value of map {self.info.name} has {self.value_size} bytes, not {len(value)}"
            )
        syscalls.update(self.fd, self._sized(key), value)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False if it was not there."""
        return syscalls.delete(self.fd, self._sized(key))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values. Keys that come or go meanwhile may be left out."""
        seen: set[bytes] = set()
        key = syscalls.next_key(self.fd, None, self.info.key_size)
        # the kernel begins anew behind a key that has gone: in a map that changes, for ever
        for _ in range(2 * self.info.max_entries):
            if key is None:
                return
            if key not in seen:
                seen.add(key)
                value = self.lookup(key)
                if value is not None:
                    yield key, value
            key = syscalls.next_key(self.fd, key, self.info.key_size)

    def duplicate(self) -> Self:
        """The same map with a descriptor of its own."""
        return type(self)(fcntl.fcntl(self.fd, fcntl.F_DUPFD_CLOEXEC, 0))

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the map a name in a BPF file system, so that it stays."""
        syscalls.pin(self.fd, Path(path))

    def close(self) -> None:
        """Give the descriptor back; more than once does no harm."""
        self._descriptor.close()

    def _require_keys(self, done: str) -> None:
        if not self.info.key_size:
            raise ProgramError(
                f"map {self.name} is of type {self.type}, which is not {done} by keys"
            )

    def _require_writable(self) -> None:
        self._require_keys("written")
        # said before what is wrong with a value
        syscalls.require_writable(self.fd)

    def _sized(self, key: bytes) -> bytes:
        if len(key) != self.info.key_size:
            raise ProgramError(
                f"a key of map {self.info.name} has {self.info.key_size} bytes, not {len(key)}"
            )
        return key
