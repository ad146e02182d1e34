# SPDX-License-Identifier: GPL-2.0
"""BPF maps, as objects that own a file descriptor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ipttctl import bpf
from ipttctl.errors import ProgramError
from ipttctl.specs import MapSpec


class Map:
    """A BPF map with keys and values as bytes. It owns a descriptor.

    A value of a per-CPU map is that of every possible CPU, one after the other, each rounded up to
    eight bytes.
    """

    def __init__(self, fd: int) -> None:
        """Take over ``fd``, which must be a map's."""
        self._fd = fd
        self.info = bpf.map_info(fd)

    @classmethod
    def create(cls, spec: MapSpec) -> Self:
        """Make the map that a spec describes.

        Raises:
            ProgramError: the kernel refuses its sizes.
            PrivilegeError: the caller may not make maps.
        """
        return cls(
            bpf.create_map(
                spec.name,
                map_type=spec.type,
                key_size=spec.key_size,
                value_size=spec.value_size,
                max_entries=spec.max_entries,
                flags=spec.flags,
            )
        )

    @classmethod
    def from_pinned(cls, path: str | os.PathLike[str]) -> Self:
        """A map that is pinned in a BPF file system.

        Raises:
            ProgramError: nothing is there, or something else.
        """
        fd = bpf.open_pinned(Path(path))
        if bpf.object_kind(fd) != bpf.ObjectKind.MAP:
            os.close(fd)
            raise ProgramError(f"{path} is not a BPF map")
        return cls(fd)

    @property
    def fd(self) -> int:
        """The descriptor; it stays the map's.

        Raises:
            ProgramError: the map is closed.
        """
        if self._fd < 0:
            raise ProgramError("the map is closed")
        return self._fd

    @property
    def value_size(self) -> int:
        """Bytes of a value as ``lookup`` and ``update`` take it."""
        if self.info.type in bpf.PER_CPU:
            return (self.info.value_size + 7) // 8 * 8 * bpf.possible_cpus()
        return self.info.value_size

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        return bpf.lookup(self.fd, self._sized(key), self.value_size)

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key.

        Raises:
            ProgramError: the map is full, or the sizes are wrong.
        """
        if len(value) != self.value_size:
            raise ProgramError(
                f"a value of map {self.info.name} has {self.value_size} bytes, not {len(value)}"
            )
        bpf.update(self.fd, self._sized(key), value)

    def delete(self, key: bytes) -> bool:
        """Remove a key; False if it was not there."""
        return bpf.delete(self.fd, self._sized(key))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values. Keys that come or go meanwhile may be left out or come twice."""
        key = bpf.next_key(self.fd, None, self.info.key_size)
        while key is not None:
            value = self.lookup(key)
            if value is not None:
                yield key, value
            key = bpf.next_key(self.fd, key, self.info.key_size)

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Give the map a name in a BPF file system, so that it stays."""
        bpf.pin(self.fd, Path(path))

    def close(self) -> None:
        """Give the descriptor back; more than once does no harm."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _sized(self, key: bytes) -> bytes:
        if len(key) != self.info.key_size:
            raise ProgramError(
                f"a key of map {self.info.name} has {self.info.key_size} bytes, not {len(key)}"
            )
        return key
