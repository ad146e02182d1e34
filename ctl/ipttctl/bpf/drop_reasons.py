# SPDX-License-Identifier: GPL-2.0
"""Names of the reasons for which the running kernel drops packets, from its types (BTF).

Numbers differ from kernel to kernel. Above 16 bits they are a subsystem's own: its number, then
that of the reason. Subsystems have enumerations of their own, often in a module.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Self

from ipttctl.bpf.btf import Btf, Enum
from ipttctl.bpf.libbpf import libbpf
from ipttctl.errors import ProgramError

_CORE: Final = "enum skb_drop_reason"
#: enumerators that are no reasons
_NO_REASONS: Final = frozenset({"SKB_DROP_REASON_MAX", "SKB_DROP_REASON_SUBSYS_MASK"})
_PREFIXES: Final = ("SKB_DROP_REASON_", "SKB_")
_SUBSYSTEM: Final = 0xFFFF0000
_NUMBERS: Final = 0xFFFFFFFF
#: enumerations of subsystems, and the modules in which they may be
_OF_SUBSYSTEMS: Final = {
    "enum mac80211_drop_reason": "mac80211",
    "enum ovs_drop_reason": "openvswitch",
}


class DropReasons:
    """The kernel's names of reasons, by number."""

    def __init__(
        self, core: Mapping[int, str], subsystems: Mapping[int, str] | None = None
    ) -> None:
        """Take names; those of subsystems are looked for at the first number of one, without."""
        self._core = core
        self._subsystems = subsystems

    @classmethod
    def of_kernel(cls) -> Self | None:
        """The names of the running kernel; None if it has no type information, or no reasons."""
        with suppress(ProgramError), Btf.of_kernel() as types:
            core = _reasons(types, _CORE)
            if core:
                return cls(core)
        return None

    def name(self, number: int) -> str | None:
        """The name of a reason as the kernel prints it, such as ``NETFILTER_DROP``.

        None if the number has none that is known.
        """
        if not number & _SUBSYSTEM:
            return self._core.get(number)
        if self._subsystems is None:
            self._subsystems = _of_subsystems()
        return self._subsystems.get(number)


def _reasons(types: Btf, name: str) -> dict[int, str]:
    found = types.named(name)
    values = found.values if isinstance(found, Enum) else ()
    reasons: dict[int, str] = {}
    for called, number in values:
        if called not in _NO_REASONS:
            prefix = next((p for p in _PREFIXES if called.startswith(p)), "")
            # the first of several names of a number, as BTF has them
            reasons.setdefault(number & _NUMBERS, called.removeprefix(prefix))
    return reasons


def _of_subsystems() -> dict[int, str]:
    """The reasons of subsystems that are in the kernel, or in modules that are loaded."""
    found: dict[int, str] = {}
    library = libbpf()
    pointer = ctypes.c_void_p
    load, load_module = library.btf__load_vmlinux_btf, library.btf__load_module_btf
    load.restype = load_module.restype = pointer
    load_module.argtypes = (ctypes.c_char_p, pointer)
    kernel = load()
    if not kernel:
        return found
    # a module's types refer to the kernel's, which are closed after them
    with Btf(kernel) as types:
        for name, module in _OF_SUBSYSTEMS.items():
            with suppress(ProgramError):
                found |= _own(_reasons(types, name))
            handle = load_module(module.encode(), kernel)
            if handle:
                with suppress(ProgramError), Btf(handle) as of_module:
                    found |= _own(_reasons(of_module, name))
    return found


def _own(reasons: Mapping[int, str]) -> dict[int, str]:
    """Those among reasons that have a subsystem in their number."""
    return {number: name for number, name in reasons.items() if number & _SUBSYSTEM}
