# SPDX-License-Identifier: GPL-2.0
"""Netfilter's hooks by name: families, the hooks of each, standard priorities.

The numbers are those of include/uapi/linux/netfilter*.h.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ipttctl.errors import UsageError, os_reason
from ipttctl.netns import Namespace
from ipttproto import Hook, LinkFlag, NfMode


class NfFamily(enum.IntEnum):
    """Protocol families of netfilter (NFPROTO_*)."""

    INET = 1
    """IPv4 and IPv6."""
    IPV4 = 2
    ARP = 3
    NETDEV = 5
    """A device's own hooks."""
    BRIDGE = 7
    IPV6 = 10


_IP_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting")

HOOKS: Final[Mapping[NfFamily, Mapping[str, int]]] = MappingProxyType(
    {
        NfFamily.INET: {name: n for n, name in enumerate((*_IP_HOOKS, "ingress"))},
        NfFamily.IPV4: {name: n for n, name in enumerate(_IP_HOOKS)},
        NfFamily.ARP: {"in": 0, "out": 1, "forward": 2},
        NfFamily.NETDEV: {"ingress": 0},
        NfFamily.BRIDGE: {name: n for n, name in enumerate(_IP_HOOKS)},
        NfFamily.IPV6: {name: n for n, name in enumerate(_IP_HOOKS)},
    }
)
"""Family -> the names of its hooks -> their numbers."""

FAMILY_NAMES: Final[Mapping[str, NfFamily]] = MappingProxyType(
    {
        "inet": NfFamily.INET,
        "inet4": NfFamily.IPV4,
        "ipv4": NfFamily.IPV4,
        "ip": NfFamily.IPV4,
        "inet6": NfFamily.IPV6,
        "ipv6": NfFamily.IPV6,
        "ip6": NfFamily.IPV6,
        "arp": NfFamily.ARP,
        "bridge": NfFamily.BRIDGE,
        "netdev": NfFamily.NETDEV,
    }
)
"""What people call a family; the first name of each is the one that is printed."""

_OTHER_HOOK_NAMES: Final = {
    "pre_routing": "prerouting",
    "local_in": "input",
    "local_out": "output",
    "post_routing": "postrouting",
}

PRIORITIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "first": -(1 << 31),
        "raw_before_defrag": -450,
        "conntrack_defrag": -400,
        "raw": -300,
        "selinux_first": -225,
        "conntrack": -200,
        "mangle": -150,
        "dstnat": -100,
        "filter": 0,
        "security": 50,
        "srcnat": 100,
        "selinux_last": 225,
        "conntrack_helper": 300,
        "last": (1 << 31) - 1,
        "conntrack_confirm": (1 << 31) - 1,
    }
)
"""Standard priorities of every family but bridge (enum nf_ip_hook_priorities)."""

BRIDGE_PRIORITIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "first": -(1 << 31),
        "dstnat": -300,
        "filter": -200,
        "brnf": 0,
        "out": 100,
        "srcnat": 300,
        "last": (1 << 31) - 1,
    }
)
"""Standard priorities of the bridge family (enum nf_br_hook_priorities)."""

HOOK_SYNTAX: Final = "nf:FAMILY/HOOK[@PRIORITY]"
"""How a netfilter hook is written; ``NfHook.parse`` reads it and ``str`` writes it."""

_HOOK: Final = re.compile(r"nf:(?P<family>[^/@]+)/(?P<hook>[^/@]+)(?:@(?P<priority>[^@]+))?")


@dataclass(frozen=True)
class NfHook:
    """A netfilter hook to attach to.

    ``family`` is one of ``NfFamily`` and ``hook`` the hook's number in it, see ``HOOKS``. Links
    of a lower ``priority`` see a packet first, of equal ones the link that was attached last. At 0
    of a bridge's forward hook, a link misses IP packets that br_netfilter hands to iptables: what
    comes behind that one in its priority is passed over (br_nf_hook_thresh).

    ``netns`` is a network namespace: one that was found, a descriptor or a path; None is the
    initial one. Ingress
    hooks are of a ``device``, by its name there or its index. With ``NfMode.FILTER`` the program
    drops packets by returning 0; ``report_drops`` makes each of them an event.
    """

    family: NfFamily
    hook: int
    priority: int = 0
    netns: Namespace | int | str | Path | None = None
    device: int | str | None = None
    mode: NfMode = NfMode.OBSERVE
    report_drops: bool = False

    @property
    def of_device(self) -> bool:
        """Whether it is a hook of a single device."""
        return hook_name(self.family, self.hook) == "ingress"

    def __str__(self) -> str:
        return hook_text(self.family, self.hook, self.priority)

    @classmethod
    def parse(cls, text: str, **options: Any) -> NfHook:
        """The hook that ``nf:FAMILY/HOOK[@PRIORITY]`` names; ``options`` are further members.

        Without a priority it is the one called ``filter``.

        Raises:
            UsageError: there is no such family, hook or priority.
        """
        match = _HOOK.fullmatch(text)
        if match is None:
            raise UsageError(f"'{text}' is not a netfilter hook", f"write {HOOK_SYNTAX}")
        family = FAMILY_NAMES.get(match["family"])
        if family is None:
            raise UsageError(
                f"there is no family '{match['family']}'", f"use one of {', '.join(FAMILY_NAMES)}"
            )
        number = hook_number(family, match["hook"])
        if number is None:
            raise UsageError(
                f"family {match['family']} has no hook '{match['hook']}'",
                f"use one of {', '.join(HOOKS[family])}",
            )
        priority = parse_priority(family, match["priority"] or "filter")
        return cls(family, number, priority, **options)

    def attributes(self) -> dict[str, Any]:
        """What an attach request says of the place, devices and namespaces aside."""
        attributes: dict[str, Any] = {
            "hook": Hook.NF,
            "family": int(self.family),
            "hooknum": self.hook,
            "priority": self.priority,
            "mode": self.mode,
        }
        if self.report_drops:
            attributes["flags"] = int(LinkFlag.REPORT_DROPS)
        return attributes

    def open_netns(self) -> int | None:
        """A new descriptor of the namespace; None for the initial one.

        Raises:
            UsageError: it cannot be opened.
        """
        if self.netns is None:
            return None
        try:
            if isinstance(self.netns, Namespace):
                return os.dup(self.netns.fileno())
            if isinstance(self.netns, int):
                return os.dup(self.netns)
            return os.open(self.netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"the network namespace {self.netns} cannot be opened: {os_reason(error)}",
                "see `ip netns`",
            ) from None


def parse_priority(family: NfFamily, text: str) -> int:
    """A priority by its number or its standard name in a family.

    Raises:
        UsageError: it is neither.
    """
    names = BRIDGE_PRIORITIES if family is NfFamily.BRIDGE else PRIORITIES
    if text in names:
        return names[text]
    try:
        number = int(text)
    except ValueError:
        number = 1 << 32
    if not -(1 << 31) <= number < 1 << 31:
        raise UsageError(
            f"'{text}' is not a priority", f"give a number of 32 bits or one of {', '.join(names)}"
        )
    return number


def hook_text(family: int, hooknum: int, priority: int) -> str:
    """A hook as ``NfHook.parse`` reads it."""
    place = f"nf:{family_name(family)}/{hook_name(family, hooknum)}"
    return f"{place}@{priority_name(family, priority)}"


@lru_cache
def family_name(family: int) -> str:
    """What a family is called in print; its number if we do not know it."""
    return next((name for name, value in FAMILY_NAMES.items() if value == family), str(family))


def hook_number(family: NfFamily, name: str) -> int | None:
    """The number of a hook of a family by its name, or None."""
    return HOOKS[family].get(_OTHER_HOOK_NAMES.get(name, name))


@lru_cache
def hook_name(family: int, hooknum: int) -> str:
    """What a hook of a family is called in print; its number if we do not know it."""
    hooks = next((names for known, names in HOOKS.items() if known == family), {})
    return next((name for name, value in hooks.items() if value == hooknum), str(hooknum))


@lru_cache
def priority_name(family: int, priority: int) -> str:
    """The standard name of a priority in a family, or its number."""
    names = BRIDGE_PRIORITIES if family == NfFamily.BRIDGE else PRIORITIES
    return next((name for name, value in names.items() if value == priority), str(priority))
