# SPDX-License-Identifier: GPL-2.0
"""The back ends that hold rules in a network namespace, found without loading or making any."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from ipttctl.families import IP, NfFamily
from ipttctl.rules.netlink import Asking
from ipttctl.rules.origin import of_iptables
from ipttctl.system.netns import within

LEGACY_FAMILIES: Final = (NfFamily.IPV4, NfFamily.IPV6, NfFamily.ARP)
"""Families whose legacy tables can be seen; those of ebtables cannot, without making them."""

_NAMES: Final = {
    NfFamily.IPV4: "ip_tables_names",
    NfFamily.IPV6: "ip6_tables_names",
    NfFamily.ARP: "arp_tables_names",
}
#: socket family, level and option of GET_INFO (include/uapi/linux/netfilter_*/)
_GET_INFO: Final = {
    NfFamily.IPV4: (socket.AF_INET, socket.IPPROTO_IP, 64),
    NfFamily.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6, 64),
    NfFamily.ARP: (socket.AF_INET, socket.IPPROTO_IP, 96),
}
_NAME_LENGTH: Final = 31
_MODULE: Final = Path("/sys/module/nf_tables")
_NO_MODULES: Final = Path("/proc/modules")
_BUILT_IN: Final = "kernel/net/netfilter/nf_tables.ko"


@dataclass(frozen=True)
class NftTable:
    """A table of nftables; ``iptables`` if iptables-nft or its kin wrote it."""

    family: int
    name: str
    rules: int
    iptables: bool


@dataclass(frozen=True)
class LegacyTable:
    """A table of the old iptables.

    ``entries`` and ``hooks`` are the kernel's numbers of entries and of built-in chains.
    """

    family: int
    name: str
    entries: int
    hooks: int

    @property
    def rules(self) -> int:
        """The number of rules, with one or two more for each chain of a user."""
        return max(0, self.entries - self.hooks - 1)


@dataclass(frozen=True)
class Backends:
    """The tables of a network namespace, of every back end."""

    nft: tuple[NftTable, ...]
    legacy: tuple[LegacyTable, ...]

    @property
    def empty(self) -> bool:
        """Whether no back end holds a rule."""
        return not any(t.rules for t in self.nft) and not any(t.rules for t in self.legacy)


def backends(namespace: int) -> Backends:
    """The back ends that hold rules in the namespace behind a descriptor.

    Raises:
        OSError: the caller may not enter it.
        KernelError: the kernel refuses.
        ChangedError: the ruleset changes faster than it can be read.
        TooLargeError: it is too large.
    """
    return Backends(_nft_tables(namespace), tuple(legacy_tables(namespace)))


@dataclass(frozen=True)
class Holders:
    """Whether the back ends that ``trace`` sees hold rules in a network namespace."""

    legacy: bool
    nft: bool


def holders(namespace: int) -> Holders:
    """Which back ends hold rules in the namespace behind a descriptor; cheap with any number.

    A chain of a user in a legacy table counts as a rule.

    Raises:
        OSError: the caller may not enter it.
        KernelError: the kernel refuses.
    """
    tables = legacy_tables(namespace)
    legacy = any(table.rules for table in tables if table.family in IP.values())
    if not nft_present():
        return Holders(legacy, nft=False)
    with Asking(namespace) as asking:
        return Holders(legacy, asking.any_rule())


def nft_present(
    module: Path = _MODULE, modules: Path = _NO_MODULES, directory: Path | None = None
) -> bool:
    """Whether nf_tables is there already: asking it anything would load it."""
    if module.exists() or not modules.exists():
        return True
    return _built_in(directory or Path("/lib/modules") / os.uname().release)


@lru_cache(maxsize=1)
def _built_in(directory: Path) -> bool:
    """Whether nf_tables is part of the kernel, by the kernel's list of modules that are."""
    with suppress(OSError):
        return _BUILT_IN in (directory / "modules.builtin").read_text()
    return False


def _nft_tables(namespace: int) -> tuple[NftTable, ...]:
    if not nft_present():
        return ()
    with Asking(namespace) as asking:
        snapshot = asking.snapshot()
    counts = Counter((rule.family, rule.table) for rule in snapshot.rules)
    return tuple(
        NftTable(
            table.family,
            table.name,
            counts[table.family, table.name],
            of_iptables(
                table.family,
                table.name,
                (c for c in snapshot.chains if (c.family, c.table) == (table.family, table.name)),
            ),
        )
        for table in snapshot.tables
    )


def legacy_tables(namespace: int) -> list[LegacyTable]:
    """The legacy tables that exist in the namespace behind a descriptor.

    Raises:
        OSError: the caller may not enter it.
    """

    def found() -> list[LegacyTable]:
        tables = []
        for family in LEGACY_FAMILIES:
            for name in _legacy_names(family):
                # what has gone meanwhile is none
                with suppress(OSError):
                    tables.append(_legacy_table(family, name))
        return tables

    return within(namespace, found)


def _legacy_names(family: NfFamily) -> list[str]:
    """The names of the legacy tables of this thread's namespace; reading them makes none."""
    try:
        # /proc/net is that of the process, and not of a thread
        data = Path("/proc/thread-self/net", _NAMES[family]).read_bytes()
    except OSError:
        return []
    return [line.decode(errors="surrogateescape") for line in data.split(b"\n") if line]


def _legacy_table(family: NfFamily, name: str) -> LegacyTable:
    kind, level, option = _GET_INFO[family]
    wire_name = name.encode(errors="surrogateescape")[:_NAME_LENGTH].ljust(32, b"\0")
    # name, valid hooks, entries and underflows of the hooks, number of entries, size
    hooks = 3 if family is NfFamily.ARP else 5
    layout = struct.Struct(f"=32sI{2 * hooks}III")
    # Python's getsockopt() cannot hand over the name
    answer = ctypes.create_string_buffer(wire_name.ljust(layout.size, b"\0"), layout.size)
    length = ctypes.c_uint(layout.size)
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(sock.fileno(), level, option, answer, ctypes.byref(length)):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    values = layout.unpack(answer.raw)
    return LegacyTable(family, name, values[-2], values[1].bit_count())
