# SPDX-License-Identifier: GPL-2.0
"""Transport protocols: their names, those with ports, and the names of ICMP types."""

from __future__ import annotations

from typing import Final

ICMP: Final = 1
TCP: Final = 6
UDP: Final = 17
ICMPV6: Final = 58

NAMES: Final = {
    0: "HOPOPT",
    ICMP: "ICMP",
    2: "IGMP",
    4: "IPIP",
    TCP: "TCP",
    UDP: "UDP",
    33: "DCCP",
    41: "IPv6",
    43: "ROUTING",
    44: "FRAGMENT",
    46: "RSVP",
    47: "GRE",
    50: "ESP",
    51: "AH",
    ICMPV6: "ICMPv6",
    59: "NONE",
    60: "DSTOPTS",
    88: "EIGRP",
    89: "OSPF",
    97: "ETHERIP",
    103: "PIM",
    108: "IPCOMP",
    112: "VRRP",
    115: "L2TP",
    132: "SCTP",
    135: "MH",
    136: "UDPLITE",
    137: "MPLS",
}
"""Protocol number -> its name, as used by `iptables -p`."""

WITH_PORTS: Final = frozenset({TCP, UDP, 33, 132, 136})
"""Protocols whose headers begin with two ports."""

_ECHO: Final = {(ICMP, 8): "request", (ICMP, 0): "reply", (ICMPV6, 128): "request"} | {
    (ICMPV6, 129): "reply"
}

#: names of `iptables -p icmp -h`
_ICMP_TYPES: Final = {
    3: "destination-unreachable",
    4: "source-quench",
    5: "redirect",
    9: "router-advertisement",
    10: "router-solicitation",
    11: "time-exceeded",
    12: "parameter-problem",
    13: "timestamp-request",
    14: "timestamp-reply",
}
#: names of `ip6tables -p icmpv6 -h`; for MLD those of nft
_ICMPV6_TYPES: Final = {
    1: "destination-unreachable",
    2: "packet-too-big",
    3: "time-exceeded",
    4: "parameter-problem",
    130: "mld-query",
    131: "mld-report",
    132: "mld-done",
    133: "router-solicitation",
    134: "router-advertisement",
    135: "neighbour-solicitation",
    136: "neighbour-advertisement",
    137: "redirect",
    143: "mld2-report",
}
_TYPES: Final = {ICMP: _ICMP_TYPES, ICMPV6: _ICMPV6_TYPES}

#: codes of the types that say little without
_CODES: Final = {
    (ICMP, 3, 0): "network-unreachable",
    (ICMP, 3, 1): "host-unreachable",
    (ICMP, 3, 2): "protocol-unreachable",
    (ICMP, 3, 3): "port-unreachable",
    (ICMP, 3, 4): "fragmentation-needed",
    (ICMP, 3, 9): "network-prohibited",
    (ICMP, 3, 10): "host-prohibited",
    (ICMP, 3, 13): "communication-prohibited",
    (ICMPV6, 1, 0): "no-route",
    (ICMPV6, 1, 1): "communication-prohibited",
    (ICMPV6, 1, 3): "address-unreachable",
    (ICMPV6, 1, 4): "port-unreachable",
}


def transport(number: int) -> str:
    """``TCP`` for 6; ``P_99`` for one without a name."""
    return NAMES.get(number, f"P_{number}")


def echo(protocol: int, icmp_type: int) -> str | None:
    """``request`` or ``reply`` for a ping, None for any other packet."""
    return _ECHO.get((protocol, icmp_type))


def icmp(protocol: int, icmp_type: int, code: int) -> str:
    """Type and code: ``request``, ``port-unreachable``, ``redirect/1``; ``44/0`` without a name."""
    if name := echo(protocol, icmp_type) or _CODES.get((protocol, icmp_type, code)):
        return name
    name = _TYPES.get(protocol, {}).get(icmp_type)
    if name is None:
        return f"{icmp_type}/{code}"
    return f"{name}/{code}" if code else name
