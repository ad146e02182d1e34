# SPDX-License-Identifier: GPL-2.0
"""The names behind an event's numbers, for every form of output."""

from __future__ import annotations

import errno
import socket
from enum import IntEnum
from functools import lru_cache
from typing import Final

from ipttctl import families
from ipttctl.escape import word
from ipttctl.events import protocols
from ipttctl.events.records import EventRecord
from ipttproto import ArpOperation, EventFlag, Kind, TcpFlag, Verdict

VERDICTS: Final = tuple(verdict.name for verdict in Verdict if not verdict.of_nftables)
"""Netfilter verdicts by number."""

COST: Final = "\0"
"""Stands for a cost in the text of a decision, which is the same for many packets but for that."""

NOT_CONSULTED: Final = "not consulted: connection known"
"""The outcome for a packet that NAT handles without asking a table or chain."""

_PROTOCOL_FAMILIES: Final = {4: "PF_INET", 6: "PF_INET6"}
ARP: Final = 0x0806
IPV6: Final = 0x86DD
_IPV4: Final = 0x0800

_ETHERTYPES: Final = {0x8100: "VLAN", 0x8863: "PPPoE-discovery", 0x8864: "PPPoE", 0x88CC: "LLDP"}
_ARP_OPERATIONS: Final = {int(operation): operation.name.lower() for operation in ArpOperation}

_TCP_FLAGS: Final = tuple(flag.name or "" for flag in reversed(TcpFlag))
_KINDS: Final = {int(kind): kind.name.lower() for kind in Kind}
_NFT_VERDICTS: Final = {int(v): v.name.lower() for v in Verdict if v.of_nftables}
_NFT_TO_CHAIN: Final = frozenset({Verdict.JUMP, Verdict.GOTO})
#: a plain number: the operators of IntFlag take longer than all else of a new flow's text
_NO_TRANSPORT: Final = int(EventFlag.FRAGMENT | EventFlag.TRUNCATED)
_OUTWARD: Final = {"output", "postrouting", "out", "egress"}


@lru_cache(maxsize=4096)
def text(name: bytes) -> str:
    """A name from the kernel, which may hold any byte."""
    return name.decode(errors="backslashreplace")


@lru_cache(maxsize=4096)
def address(raw: bytes, version: int | None) -> str:
    """An IP or ARP address in its usual notation."""
    if version == 6:
        return socket.inet_ntop(socket.AF_INET6, raw)
    return socket.inet_ntop(socket.AF_INET, raw[:4])


def version(record: EventRecord) -> int | None:
    """The packet's IP version; None for any other protocol."""
    return families.ip_version(record.pf) or {_IPV4: 4, IPV6: 6}.get(record.ethertype)


def ethertype(number: int) -> str:
    """``LLDP(0x88cc)``, or the number alone."""
    name = _ETHERTYPES.get(number)
    return f"{name}(0x{number:04x})" if name else f"0x{number:04x}"


def arp_operation(number: int) -> str:
    """``request`` for 1."""
    return _ARP_OPERATIONS.get(number, str(number))


def mac(raw: bytes) -> str:
    """A hardware address in its usual notation."""
    return raw.hex(":")


def kind(record: EventRecord) -> str:
    """``rule``, ``return``, ``policy``, ``exit``, ``packet``, ``chain_rule``..."""
    return _KINDS.get(record.kind, str(record.kind))


def verdict(record: EventRecord) -> str:
    """``ACCEPT``, ``DROP(EPERM)``, ``QUEUE(3,bypass)``..., for an exit or a packet event."""
    number, data = record.verdict, record.verdict_data
    name = verdict_name(number)
    if number == Verdict.DROP and data:
        return f"{name}({error_name(data)})"
    if number == Verdict.QUEUE:
        return f"{name}({data}{',bypass' if record.flags & EventFlag.QUEUE_BYPASS else ''})"
    return name


def verdict_name(number: int) -> str:
    """``ACCEPT`` for 1."""
    return VERDICTS[number] if number < len(VERDICTS) else str(number)


def error_name(number: int) -> str:
    """``EPERM`` for 1."""
    return errno.errorcode.get(number, str(number))


def chain_decision(record: EventRecord) -> str:
    """``accept``, ``drop(EPERM)``, ``jump NAME``, ``queue 3,bypass``... of an event at a chain.

    The end of a chain decides ``return``.
    """
    number, data = record.verdict, record.verdict_data
    name = decision_name(number)
    if number in _NFT_TO_CHAIN:
        return f"{name} {word(record.target)}"
    if number == Verdict.QUEUE:
        return f"{name} {data}{',bypass' if record.flags & EventFlag.QUEUE_BYPASS else ''}"
    return f"{name}({error_name(data)})" if number == Verdict.DROP and data else name


def decision_name(number: int) -> str:
    """The word of nft for a verdict: ``accept`` for 1, ``continue`` for what goes on."""
    return _NFT_VERDICTS.get(number) or verdict_name(number).lower()


def hook(record: EventRecord) -> str:
    """``OUTPUT`` for hook 3 of an IP family."""
    return families.hook_name(record.pf, record.hook).upper()


def protocol_family(number: int) -> str:
    """``PF_INET`` for 2."""
    version = families.ip_version(number)
    return str(number) if version is None else _PROTOCOL_FAMILIES[version]


def tcp_flags(bits: int) -> str:
    """TCP flags as ``ACK,PSH``, from the highest bit to the lowest; empty if none is set."""
    return ",".join(name for i, name in enumerate(_TCP_FLAGS) if bits & 0x80 >> i)


def has_ports(record: EventRecord) -> bool:
    """Whether the event has ports, read from the packet's transport header."""
    return record.protocol in protocols.WITH_PORTS and has_transport(record)


def is_icmp(record: EventRecord) -> bool:
    """Whether the event has an ICMP or ICMPv6 packet's type and code."""
    return record.protocol in {protocols.ICMP, protocols.ICMPV6} and has_transport(record)


def has_transport(record: EventRecord) -> bool:
    """Whether the event was read from a packet with its transport header."""
    return not int(record.flags) & _NO_TRANSPORT


def interface(record: EventRecord) -> tuple[bytes, int]:
    """(name, index) of the hook's interface: the one the packet came in by, or goes out by."""
    if families.hook_name(record.pf, record.hook) in _OUTWARD:
        return record.out_name, record.out_ifindex
    return record.in_name, record.in_ifindex


def cost(nanoseconds: int) -> str:
    """``1.234µs``."""
    return f"{nanoseconds / 1000:.3f}µs"


def namespace(inode: int, name: str | None) -> str:
    """A network namespace: ``4026532355(blue)``, or the number if it has no name."""
    return f"{inode}({word(name)})" if name else str(inode)


def member(value: int) -> str:
    """The printed name of an enumeration's member; the number itself if it is unknown."""
    return value.name.lower() if isinstance(value, IntEnum) else str(value)
