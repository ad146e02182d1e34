# SPDX-License-Identifier: GPL-2.0
"""A packet in a few words: protocol, addresses, ports or types."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from ipttctl.events import describe, protocols
from ipttctl.events.records import EventRecord
from ipttproto import EventFlag, JoinedBatches, Kind

#: protocol -> the first letter of its packets; other protocols have their names
_LETTERS: Final = {
    protocols.TCP: "T",
    protocols.UDP: "U",
    protocols.ICMP: "I",
    protocols.ICMPV6: "I",
}

#: kinds of events whose packets can have any protocol
_OF_ANY: Final = frozenset({Kind.PACKET, Kind.DISAGREE})

_MEMBERS: Final = (
    *("pf", "ethertype", "flags", "saddr", "daddr", "protocol", "sport", "dport"),
    *("tcp_flags", "icmp_type", "icmp_code", "arp_operation"),
)


def text_keys(events: JoinedBatches) -> Sequence[Hashable]:
    """For each event a key that is equal only for packets with equal words."""
    keys = events.keys(_MEMBERS)
    kinds = events.values("kind")
    if _OF_ANY.isdisjoint(kinds):
        return keys
    return list(zip(keys, [kind in _OF_ANY for kind in kinds], strict=True))


def packet_text(record: EventRecord) -> str:
    """Protocol and addresses: ``T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030``.

    At netfilter hooks, where packets can have any protocol, the addresses come first:
    ``10.0.2.15 -> 223.5.5.5 ICMP request``; so they do at chains, if it is not IP.
    """
    version = describe.version(record)
    if record.kind in _OF_ANY or version is None:
        return _any_packet(record, version)
    source = describe.address(record.saddr, version)
    destination = describe.address(record.daddr, version)
    if version == 6:
        source, destination = f"[{source}]", f"[{destination}]"
    if describe.has_ports(record):
        source, destination = f"{source}:{record.sport}", f"{destination}:{record.dport}"
    what = _LETTERS.get(record.protocol) or protocols.transport(record.protocol)
    return f"{'_'.join([what, *_details(record)])}:{source}->{destination}"


def _any_packet(record: EventRecord, version: int | None) -> str:
    is_arp = record.ethertype == describe.ARP
    if version is None and not is_arp:
        return f"ethertype {describe.ethertype(record.ethertype)}"
    source = describe.address(record.saddr, version)
    destination = describe.address(record.daddr, version)
    if is_arp:
        what = [f"ARP {describe.arp_operation(record.arp_operation)}"]
    else:
        what = [protocols.transport(record.protocol)]
        if describe.has_ports(record):
            what.append(f"{record.sport}->{record.dport}")
        what += _details(record)
    return f"{source} -> {destination} {' '.join(what)}"


def _details(record: EventRecord) -> list[str]:
    """Words on the transport header, or on why it is missing; empty if there is nothing to say."""
    if not describe.has_transport(record):
        return ["fragment" if record.flags & EventFlag.FRAGMENT else "truncated"]
    if record.protocol == protocols.TCP:
        flags = describe.tcp_flags(record.tcp_flags)
        return [flags] if flags else []
    if describe.is_icmp(record):
        return [protocols.icmp(record.protocol, record.icmp_type, record.icmp_code)]
    return []
