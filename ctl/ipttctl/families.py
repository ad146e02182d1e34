# SPDX-License-Identifier: GPL-2.0
"""Netfilter's protocol families by name: the hooks of each, and standard priorities.

The numbers of priorities are those of include/uapi/linux/netfilter*.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

from ipttctl.errors import UsageError
from ipttproto.netfilter import ArpHook, HookNumber, InetHook, NetdevHook
from ipttproto.netfilter import NfFamily as NfFamily  # noqa: PLC0414 - exported with its names


def _named(hooks: Iterable[HookNumber]) -> dict[str, HookNumber]:
    return {hook.name.lower(): hook for hook in hooks}


_IP_HOOKS: Final = _named(hook for hook in InetHook if hook is not InetHook.INGRESS)

HOOKS: Final[Mapping[NfFamily, Mapping[str, HookNumber]]] = MappingProxyType(
    {
        NfFamily.INET: _named(InetHook),
        NfFamily.IPV4: _IP_HOOKS,
        NfFamily.ARP: _named(ArpHook),
        NfFamily.NETDEV: _named([NetdevHook.INGRESS]),
        NfFamily.BRIDGE: _IP_HOOKS,
        NfFamily.IPV6: _IP_HOOKS,
    }
)
"""Family -> the names of the hooks that links can be at -> their numbers."""

#: hooks that only chains of nftables are at: of inet tables, those at ingress see packets of IP as
#: of their own family
_HOOKS_OF_CHAINS: Final[Mapping[NfFamily, Iterable[HookNumber]]] = MappingProxyType(
    {
        NfFamily.NETDEV: [NetdevHook.EGRESS],
        NfFamily.IPV4: [InetHook.INGRESS],
        NfFamily.IPV6: [InetHook.INGRESS],
    }
)

HOOK_NUMBERS: Final[Mapping[tuple[int, int], HookNumber]] = MappingProxyType(
    {
        (family, hook): hook
        for family, hooks in HOOKS.items()
        for hook in (*hooks.values(), *_HOOKS_OF_CHAINS.get(family, ()))
    }
)
"""(family, number) -> the hook, of those that events name."""

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
"""Name -> family; the first name of each family is the printed one."""

NFT_FAMILIES: Final[Mapping[int, str]] = MappingProxyType(
    {
        NfFamily.INET: "inet",
        NfFamily.IPV4: "ip",
        NfFamily.ARP: "arp",
        NfFamily.NETDEV: "netdev",
        NfFamily.BRIDGE: "bridge",
        NfFamily.IPV6: "ip6",
    }
)
"""Family -> the name that nft has for it."""

IP: Final[Mapping[Literal[4, 6], NfFamily]] = MappingProxyType({4: NfFamily.IPV4, 6: NfFamily.IPV6})
"""IP version -> its family."""

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


def parse_priority(family: NfFamily, text: str) -> int:
    """A priority by its number or its standard name in a family.

    Raises:
        UsageError: the text is neither.
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


def nft_family_name(family: int) -> str:
    """The name that nft has for a family: ``ip`` for IPv4; its number if it is unknown."""
    return NFT_FAMILIES.get(family, str(family))


@lru_cache
def family_name(family: int) -> str:
    """The printed name of a family; its number if it is unknown."""
    return next((name for name, value in FAMILY_NAMES.items() if value == family), str(family))


def hook_number(family: NfFamily, name: str) -> HookNumber | None:
    """A hook in a family by its name, or None."""
    return HOOKS[family].get(_OTHER_HOOK_NAMES.get(name, name))


@lru_cache
def hook_name(family: int, hooknum: int) -> str:
    """The printed name of a hook in a family; its number if it is unknown."""
    hook = HOOK_NUMBERS.get((family, hooknum))
    return str(hooknum) if hook is None else hook.name.lower()


@lru_cache
def priority_name(family: int, priority: int) -> str:
    """The standard name of a priority in a family, or its number."""
    names = BRIDGE_PRIORITIES if family == NfFamily.BRIDGE else PRIORITIES
    return next((name for name, value in names.items() if value == priority), str(priority))


@lru_cache
def ip_version(family: int) -> Literal[4, 6] | None:
    """The IP version of a family; None if it has both or neither."""
    return next((version for version, known in IP.items() if known == family), None)
