# SPDX-License-Identifier: GPL-2.0
"""The kernel's own numbers that events carry: of netfilter, of TCP and of ARP.

They are those of include/uapi/linux/netfilter*.h, tcp.h and if_arp.h. The C header and the YNL spec
do not repeat them.
"""

from __future__ import annotations

import enum
from typing import TypeAlias


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


class InetHook(enum.IntEnum):
    """Hooks of IPv4, IPv6 and bridges (NF_INET_*, NF_BR_*)."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4
    INGRESS = 5
    """Of IPv4 and IPv6: a device's hook, as tables of the family inet have it."""


class ArpHook(enum.IntEnum):
    """Hooks of ARP (NF_ARP_*)."""

    IN = 0
    OUT = 1
    FORWARD = 2


class NetdevHook(enum.IntEnum):
    """Hooks of devices (NF_NETDEV_*)."""

    INGRESS = 0
    EGRESS = 1


HookNumber: TypeAlias = InetHook | ArpHook | NetdevHook
"""A hook in its family."""


class Verdict(enum.IntEnum):
    """Verdicts of netfilter (NF_*), and those that only rules of nftables have (NFT_*)."""

    DROP = 0
    ACCEPT = 1
    STOLEN = 2
    QUEUE = 3
    REPEAT = 4
    STOP = 5
    CONTINUE = 0xFFFFFFFF
    """Of a rule: the next one follows."""
    JUMP = 0xFFFFFFFD
    GOTO = 0xFFFFFFFC
    RETURN = 0xFFFFFFFB

    @property
    def of_nftables(self) -> bool:
        """Whether only rules of nftables have it."""
        return self > Verdict.STOP


class TcpFlag(enum.IntFlag):
    """Flags of TCP: byte 13 of its header."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16
    URG = 32
    ECE = 64
    CWR = 128


class ArpOperation(enum.IntEnum):
    """Operations of ARP (ARPOP_*)."""

    REQUEST = 1
    REPLY = 2
