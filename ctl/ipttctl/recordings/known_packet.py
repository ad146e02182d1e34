# SPDX-License-Identifier: GPL-2.0
"""Packets as far as the events of a recording show them.

An IPv6 packet is taken to have no extension headers, but for the fragment header of a later
fragment: events tell the protocol behind them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ipttctl.bpf.filter_run import PartlyKnown
from ipttctl.events import protocols
from ipttctl.families import IP
from ipttproto import EventFlag, Kind

_IPV4, _IPV6 = 0x0800, 0x86DD
_FAMILIES: Final = frozenset(map(int, IP.values()))
_WITH_TTL: Final = frozenset({Kind.SPINE_FUNCTION, Kind.SPINE_EXIT})
"""Kinds of events that tell TTL and TOS."""

_FRAGMENT_HEADER: Final = 44
#: messages of multicast listeners, which come behind a header of hop-by-hop options
_BEHIND_OPTIONS: Final = frozenset({130, 131, 132, 143})
_LENGTH_MAX: Final = 0xFFFF
_IPV6_HEADER: Final = 40


class Shown(NamedTuple):
    """The members of an event that show its packet, and where, in the order of the record."""

    netns_cookie: int
    pid: int
    length: int
    sport: int
    dport: int
    icmp_id: int
    ethertype: int
    flags: int
    ttl: int
    tos: int
    kind: int
    pf: int
    protocol: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    saddr: bytes
    daddr: bytes

    @property
    def is_ip(self) -> bool:
        """Whether filters are asked about it: they are not about ARP and other protocols."""
        return self.ethertype in {_IPV4, _IPV6}

    @property
    def cut(self) -> bool:
        """Whether there is no transport header."""
        return bool(self.flags & (EventFlag.FRAGMENT | EventFlag.TRUNCATED))


def shown_packets(shown: Shown) -> Iterator[PartlyKnown]:
    """The packet that an event shows; several if it is one of these."""
    if shown.ethertype == _IPV6:
        yield _ipv6(shown)
    elif shown.flags & EventFlag.FRAGMENT:
        # it has an offset, of which at least one bit is set
        for bit in range(13):
            yield _ipv4(shown, 1 << bit, 1 << bit)
    else:
        yield _ipv4(shown, 0, 0x1FFF)


class _Bits:
    """Bytes, and which of their bits are known."""

    def __init__(self, size: int) -> None:
        self.bits = bytearray(size)
        self.known = bytearray(size)

    def put(self, at: int, value: int, size: int = 1, mask: int | None = None) -> None:
        """Know a number, or its bits in ``mask``."""
        which = (1 << 8 * size) - 1 if mask is None else mask
        self.bits[at : at + size] = (value & which).to_bytes(size)
        self.known[at : at + size] = which.to_bytes(size)

    def both(self) -> tuple[bytes, bytes]:
        """The bits, and which are known."""
        return bytes(self.bits), bytes(self.known)


def _ipv4(shown: Shown, offset: int, offset_known: int) -> PartlyKnown:
    head = _Bits(20)
    # the length of the header is in no event
    head.put(0, 0x40, mask=0xF0)
    head.put(6, offset, 2, mask=offset_known)
    # elsewhere it may have been padded by a link
    if shown.pf in _FAMILIES and shown.length <= _LENGTH_MAX:
        head.put(2, shown.length, 2)
    if shown.kind in _WITH_TTL:
        head.put(1, shown.tos)
        head.put(8, shown.ttl)
    if _has_addresses(shown):
        head.put(9, shown.protocol)
        head.put(12, int.from_bytes(shown.saddr[:4]), 4)
        head.put(16, int.from_bytes(shown.daddr[:4]), 4)
    return PartlyKnown(shown.length, *head.both(), _transport(shown).both())


def _ipv6(shown: Shown) -> PartlyKnown:
    head = _Bits(_IPV6_HEADER)
    head.put(0, 0x60, mask=0xF0)
    length = shown.length - _IPV6_HEADER
    if shown.pf in _FAMILIES and 0 <= length <= _LENGTH_MAX:
        head.put(4, length, 2)
    if shown.kind in _WITH_TTL:
        head.put(0, 0x60 | shown.tos >> 4)
        head.put(1, shown.tos << 4, mask=0xF0)
        head.put(7, shown.ttl)
    if not _has_addresses(shown):
        return PartlyKnown(shown.length, *head.both())
    head.put(8, int.from_bytes(shown.saddr), 16)
    head.put(24, int.from_bytes(shown.daddr), 16)
    transport = _transport(shown)
    if shown.flags & EventFlag.FRAGMENT:
        head.put(6, _FRAGMENT_HEADER)
        transport = _Bits(1)
        transport.put(0, shown.protocol)
    elif not _is_behind_options(shown):
        head.put(6, shown.protocol)
    bits, known = (a + b for a, b in zip(head.both(), transport.both(), strict=True))
    return PartlyKnown(shown.length, bits, known)


def _has_addresses(shown: Shown) -> bool:
    """Whether the event has seen the IP header; it need not be there in a packet that is cut."""
    return not shown.flags & EventFlag.TRUNCATED or any(shown.saddr) or any(shown.daddr)


def _is_behind_options(shown: Shown) -> bool:
    """Whether something is between the header of IPv6 and the one that the event tells."""
    if shown.flags & EventFlag.TRUNCATED:
        return True
    return shown.protocol == protocols.ICMPV6 and shown.icmp_type in _BEHIND_OPTIONS


def _transport(shown: Shown) -> _Bits:
    """The transport header; what an event does not tell of it is not known."""
    if shown.cut or (shown.ethertype == _IPV6 and _is_behind_options(shown)):
        return _Bits(0)
    if shown.protocol in {protocols.ICMP, protocols.ICMPV6}:
        echo = protocols.echo(shown.protocol, shown.icmp_type)
        found = _Bits(6 if echo else 2)
        found.put(0, shown.icmp_type)
        found.put(1, shown.icmp_code)
        if echo:
            found.put(4, shown.icmp_id, 2)
        return found
    if shown.protocol not in protocols.WITH_PORTS:
        return _Bits(0)
    found = _Bits(14 if shown.protocol == protocols.TCP else 4)
    found.put(0, shown.sport, 2)
    found.put(2, shown.dport, 2)
    if shown.protocol == protocols.TCP:
        found.put(13, shown.tcp_flags)
    return found
