# SPDX-License-Identifier: GPL-2.0
"""Plain words for the kernel's drops: by the reason that it gives, or the function that dropped.

Only what is certain has words. Otherwise the reason and the function are shown as they are.
"""

from __future__ import annotations

from typing import Final

#: names of enum skb_drop_reason, without SKB_DROP_REASON_
_REASONS: Final = {
    "NO_SOCKET": "no socket",
    "PKT_TOO_SMALL": "packet too small",
    "TCP_CSUM": "bad TCP checksum",
    "UDP_CSUM": "bad UDP checksum",
    "ICMP_CSUM": "bad ICMP checksum",
    "IP_CSUM": "bad IP checksum",
    "SKB_CSUM": "bad checksum",
    "SOCKET_FILTER": "refused by the socket's filter",
    "SOCKET_RCVBUFF": "the socket's buffer is full",
    "SOCKET_BACKLOG": "the socket's backlog is full",
    "PROTO_MEM": "no memory for the protocol left",
    "OTHERHOST": "for another host's hardware address",
    "IP_INHDR": "bad IP header",
    "IP_RPFILTER": "reverse path filter",
    "UNICAST_IN_L2_MULTICAST": "unicast address in a frame for many",
    "XFRM_POLICY": "IPsec policy",
    "IP_NOPROTO": "nobody handles the protocol",
    "IP_OUTNOROUTES": "no route",
    "IP_INNOROUTES": "no route",
    "IP_TTL_EXCEEDED": "time to live exceeded",
    "NEIGH_FAILED": "neighbour does not answer",
    "NEIGH_QUEUEFULL": "too many packets wait for the neighbour",
    "NEIGH_DEAD": "neighbour entry is gone",
    "TC_EGRESS": "traffic control, on its way out",
    "TC_INGRESS": "traffic control, on its way in",
    "QDISC_DROP": "queueing discipline",
    "CPU_BACKLOG": "the CPU's backlog is full",
    "XDP": "XDP program",
    "BPF_CGROUP_EGRESS": "BPF program of the control group",
    "PKT_TOO_BIG": "packet too big",
    "FRAG_REASM_TIMEOUT": "fragments missing",
    "DUP_FRAG": "fragment came twice",
    "FULL_RING": "a ring buffer is full",
    "TCP_INVALID_SEQUENCE": "TCP sequence number outside of the window",
    "TCP_FLAGS": "TCP flags that make no sense",
    "TCP_RESET": "TCP reset that is not valid",
    "TCP_CLOSE": "TCP socket is closed",
    "TCP_OLD_DATA": "TCP data that is there already",
    "IPV6DISABLED": "IPv6 is off",
    "IP_LOCAL_SOURCE": "martian: source is an address of this host",
    "IP_INVALID_SOURCE": "martian source",
    "IP_INVALID_DEST": "martian destination",
    "IP_LOCALNET": "martian: loopback address",
    "DEV_READY": "the device is not up",
}

#: functions that drop for one cause alone, where the kernel gives no reason
_FUNCTIONS: Final = {
    "ip_error": "unreachable: no route, a route that forbids it, or forwarding is off",
    "ip6_pkt_discard": "unreachable: no route, or a route that says so",
    "ip6_pkt_discard_out": "unreachable: no route, or a route that says so",
    "ip6_pkt_prohibit": "route prohibits it",
    "ip6_pkt_prohibit_out": "route prohibits it",
    "ip_rcv_finish": "refused by routing (as a martian, say), or for its IP options",
    "ip_rcv_finish_core": "refused by routing (as a martian, say), or for its IP options",
    "arp_error_report": "neighbour does not answer",
    "ndisc_error_report": "neighbour does not answer",
}

#: a reason that has one meaning in a function, and others elsewhere (ip_forward(), ip6_forward())
_IN_FUNCTIONS: Final = {
    ("IP_INHDR", "ip_forward"): "time to live exceeded",
    ("IP_INHDR", "ip6_forward"): "hop limit exceeded",
}
_UNSAID: Final = frozenset({"", "NOT_SPECIFIED", "NOT_DROPPED_YET"})


def drop_words(reason: str | None, number: int, function: str) -> str:
    """The cause of a drop: ``no socket (NO_SOCKET in udp_queue_rcv)``.

    ``reason`` is the name of the kernel's reason, None if it is not known, ``number`` its number.
    """
    name = (reason or "").removeprefix("SKB_DROP_REASON_")
    unsaid = name in _UNSAID if reason else number <= 1
    plain = function.partition(".")[0]
    if unsaid:
        words = _FUNCTIONS.get(plain)
    else:
        words = _IN_FUNCTIONS.get((name, plain)) or _REASONS.get(name)
    shown = name if reason else f"reason {number}"
    if unsaid:
        shown = ""
    where = f"{shown} in {function}" if shown and function else shown or function
    if words is None:
        return where or "the kernel gives no reason"
    return f"{words} ({where})" if where else words
