# SPDX-License-Identifier: GPL-2.0
"""The names behind an event's numbers, for every way of showing it."""

from __future__ import annotations

import errno
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ipttproto import EventFlag, Kind

if TYPE_CHECKING:
    from ipttctl.records import EventRecord

HOOKS: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
"""Netfilter hooks by their number."""

VERDICTS: Final = ("DROP", "ACCEPT", "STOLEN", "QUEUE", "REPEAT", "STOP")
"""Netfilter verdicts by their number."""

PROTOCOL_FAMILIES: Final = {2: "PF_INET", 10: "PF_INET6"}
"""Names of the values of an event's ``pf``."""

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

_TCP_FLAGS: Final = ("CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN")
_ECHO: Final = {(ICMP, 8): "request", (ICMP, 0): "reply", (ICMPV6, 128): "request"} | {
    (ICMPV6, 129): "reply"
}
_KINDS: Final = {int(kind): kind.name.lower() for kind in Kind}
_DROP: Final = 0
_QUEUE: Final = 3
_FIRST_OUT_HOOK: Final = 3


@lru_cache(maxsize=4096)
def text(name: bytes) -> str:
    """A name from the kernel, which may hold any byte."""
    return name.decode(errors="backslashreplace")


@lru_cache(maxsize=4096)
def address(raw: bytes, pf: int) -> str:
    """An address as people write it."""
    if pf == 10:
        return socket.inet_ntop(socket.AF_INET6, raw)
    return socket.inet_ntop(socket.AF_INET, raw[:4])


def mac(raw: bytes) -> str:
    """A hardware address as people write it."""
    return raw.hex(":")


def kind(record: EventRecord) -> str:
    """``rule``, ``return``, ``policy`` or ``exit``."""
    return _KINDS.get(record.kind, str(record.kind))


def verdict(record: EventRecord) -> str:
    """``ACCEPT``, ``DROP``, ``DROP(EPERM)``, ``QUEUE(3)``..., for an exit event."""
    number, data = record.verdict, record.verdict_data
    name = VERDICTS[number] if number < len(VERDICTS) else str(number)
    if number == _DROP and data:
        return f"{name}({error_name(data)})"
    return f"{name}({data})" if number == _QUEUE else name


def error_name(number: int) -> str:
    """``EPERM`` for 1."""
    return errno.errorcode.get(number, str(number))


def hook(number: int) -> str:
    """``OUTPUT`` for 3."""
    return HOOKS[number] if number < len(HOOKS) else str(number)


def protocol_family(number: int) -> str:
    """``PF_INET`` for 2."""
    return PROTOCOL_FAMILIES.get(number, str(number))


def tcp_flags(bits: int) -> str:
    """``ACK,PSH``, from the highest bit to the lowest; empty if none is set."""
    return ",".join(name for i, name in enumerate(_TCP_FLAGS) if bits & 0x80 >> i)


def echo(record: EventRecord) -> str | None:
    """``request`` or ``reply`` of a ping, None for another packet."""
    return _ECHO.get((record.protocol, record.icmp_type))


def has_ports(record: EventRecord) -> bool:
    """Whether the event could read the packet's transport header."""
    return not record.flags & (EventFlag.FRAGMENT | EventFlag.TRUNCATED)


def interface(record: EventRecord) -> tuple[str, int]:
    """(name, index) of the interface that matters at the hook: where it came in, or goes out."""
    if record.hook < _FIRST_OUT_HOOK:
        return text(record.in_name), record.in_ifindex
    return text(record.out_name), record.out_ifindex
