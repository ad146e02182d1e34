# SPDX-License-Identifier: GPL-2.0
"""Keys and values of a map as text and JSON: by the map's types if it has any, else by size.

Without types, 1, 2, 4 and 8 bytes are a number in host byte order, and everything else is
``0a:00:..``. An IPv4 address is accepted for a number of four bytes, an IPv6 address for 16 bytes,
both in network byte order.

Keys of an LPM trie whose data have the size of an address are written ``10.0.0.0/8``, unless the
types say that they are something else.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.btf import Array, Btf, Int, Struct, Type
from ipttctl.bpf.syscalls import MapInfo, MapType
from ipttctl.bpf.values import ORDER, decode, encode, is_address, parse_hex
from ipttctl.errors import UsageError

_NUMBERS: Final = frozenset({1, 2, 4, 8})
_BYTE: Final = Int("__u8", 1)
_PREFIX: Final = 4
"""Bytes of the prefix length at the beginning of an LPM trie's key."""

_ADDRESSES: Final = {4: ("IPv4", "10.0.0.0/8"), 16: ("IPv6", "fd00::/8")}
"""Size of a key's data in bytes -> the kind of address it is a prefix of, and an example."""


class MapFormat:
    """Keys and values of a map, as bytes and as values for people and JSON.

    The value of a per-CPU map is a list with one element for each possible CPU. A written value
    that is not such a list goes to every CPU.
    """

    def __init__(self, info: MapInfo, key: Type | None = None, value: Type | None = None) -> None:
        """Use the types of key and value if they are given and of the right size."""
        self.info = info
        self.key_type = key if key and key.size == info.key_size else None
        self.value_type = value if value and value.size == info.value_size else None
        self._key = self.key_type or _plain(info.key_size)
        self._value = self.value_type or _plain(info.value_size)
        self._lpm = info.type == MapType.LPM_TRIE and _is_prefix(self.key_type, info.key_size)

    @classmethod
    def of_map(cls, info: MapInfo) -> MapFormat:
        """The format of a map in the kernel.

        Raises:
            ProgramError: the map's types cannot be read.
        """
        if not info.btf:
            return cls(info)
        with Btf.by_id(info.btf) as types:
            key = types.type(info.key_type) if info.key_type else None
            value = types.type(info.value_type) if info.value_type else None
        return cls(info, key, value)

    def key(self, data: bytes) -> Any:
        """A key in the form for people and JSON."""
        return _prefix(data) if self._lpm else decode(self._key, data)

    def key_bytes(self, given: Any) -> bytes:
        """The bytes of a key in the form for people or JSON.

        Raises:
            UsageError: it cannot be one.
        """
        if self.info.type == MapType.LPM_TRIE and isinstance(given, str):
            found = _prefix_bytes(given, self.info.key_size)
            if found is not None:
                return found
            if self._lpm and parse_hex(given) is None and not given.startswith("{"):
                name, example = _ADDRESSES[self.info.key_size - _PREFIX]
                raise UsageError(f"key: '{given}' is no {name} prefix", f"such as {example}")
        return encode(self._key, _parsed(self._key, given), "key")

    def value(self, data: bytes) -> Any:
        """A value in the form for people and JSON."""
        if self.info.type not in syscalls.PER_CPU:
            return decode(self._value, data)
        size = self.info.value_size
        starts = range(0, len(data), _step(size))
        return [decode(self._value, data[at : at + size]) for at in starts]

    def value_bytes(self, given: Any) -> bytes:
        """The bytes of a value in the form for people or JSON.

        Raises:
            UsageError: it cannot be one.
        """
        if self.info.type not in syscalls.PER_CPU:
            return encode(self._value, _parsed(self._value, given), "value")
        cpus = syscalls.possible_cpus()
        given = _parsed(self._value, given, lists=True)
        try:
            values = [encode(self._value, given, "value")] * cpus
        except UsageError:
            # a list can be one CPU's value, or those of all CPUs
            if not isinstance(given, list):
                raise
            if len(given) != cpus:
                raise UsageError(
                    f"value: the map has one for each of {cpus} CPUs, not {len(given)}"
                ) from None
            values = [encode(self._value, v, f"value[{cpu}]") for cpu, v in enumerate(given)]
        return b"".join(value.ljust(_step(len(value)), b"\0") for value in values)


def _plain(size: int) -> Type:
    """A type for data of which only the size is known."""
    if size in _NUMBERS:
        return Int(f"__u{8 * size}", size)
    return Array(f"__u8[{size}]", size, _BYTE, size)


def _step(size: int) -> int:
    """Bytes from one CPU's value to the next CPU's."""
    return (size + 7) // 8 * 8


def _parsed(kind: Type, given: Any, *, lists: bool = False) -> Any:
    """The value that a text stands for: parsed as JSON if the type has parts, else as it is.

    Raises:
        UsageError: the text is broken JSON.
    """
    if not isinstance(given, str) or not given.lstrip().startswith(("{", "[", '"')):
        return given
    if not lists and not isinstance(kind, Struct | Array):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise UsageError(f"'{given}' is not JSON: {error}") from None


def _is_prefix(kind: Type | None, size: int) -> bool:
    """Whether an LPM trie's key, with or without a type, is an IP network."""
    if size - _PREFIX not in _ADDRESSES:
        return False
    if kind is None:
        return True
    if not isinstance(kind, Struct) or len(kind.members) != 2:
        return False
    data = kind.members[1].type
    if isinstance(data, Array) and isinstance(data.element, Int):
        return data.element.size == 1 or data.size == 16
    return isinstance(data, Int) or is_address(data)


def _prefix(data: bytes) -> str:
    length = int.from_bytes(data[:_PREFIX], ORDER)
    return f"{ipaddress.ip_address(data[_PREFIX:])}/{length}"


def _prefix_bytes(text: str, key_size: int) -> bytes | None:
    """The key for ``10.0.0.0/8`` or an address; None if it is neither, or of the other family.

    Bits after the prefix, which the kernel ignores, are cleared.
    """
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
    packed = network.network_address.packed
    if len(packed) != key_size - _PREFIX:
        return None
    return network.prefixlen.to_bytes(_PREFIX, ORDER) + packed
