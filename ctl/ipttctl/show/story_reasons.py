# SPDX-License-Identifier: GPL-2.0
"""Plain words for the kernel's drops: by the reason that it gives, or the function that dropped.

Only what is certain has words. Otherwise the reason and the function are shown as they are.
"""

from __future__ import annotations

from typing import Final

#: names of enum skb_drop_reason, without SKB_DROP_REASON_; all that have one meaning
_REASONS: Final = {
    # sockets
    "NO_SOCKET": "no socket",
    "SOCKET_CLOSE": "the socket was closed",
    # sk_filter_trim_cap() asks all three
    "SOCKET_FILTER": (
        "refused by the socket's filter, a BPF program of its control group or a security module"
    ),
    "SOCKET_RCVBUFF": "the socket's buffer is full",
    "SOCKET_BACKLOG": "the socket's backlog is full",
    "PROTO_MEM": "no memory for the protocol left",
    "PACKET_SOCK_ERROR": "the packet socket could not take it",
    "FULL_RING": "a ring buffer is full",
    # what is wrong with the packet
    "PKT_TOO_SMALL": "packet too small",
    "PKT_TOO_BIG": "packet too big (MTU)",
    "HDR_TRUNC": "header cut off",
    "TCP_CSUM": "bad TCP checksum",
    "UDP_CSUM": "bad UDP checksum",
    "ICMP_CSUM": "bad ICMP checksum",
    "IP_CSUM": "bad IP checksum",
    "SKB_CSUM": "bad checksum",
    "IP_INHDR": "bad IP header",
    "IPV6_BAD_EXTHDR": "bad IPv6 extension header",
    "IPV6_TOO_MANY_EXTHDRS": "too many IPv6 extension headers",
    "UNHANDLED_PROTO": "nobody handles the protocol, or one of its options",
    "IP_NOPROTO": "nobody handles the protocol",
    "FRAG_REASM_TIMEOUT": "fragments missing",
    "FRAG_TOO_FAR": "too many packets came between its fragments",
    "DUP_FRAG": "fragment came twice",
    # addresses and routing
    "OTHERHOST": "for another host's hardware address",
    "UNICAST_IN_L2_MULTICAST": "unicast address in a frame for many",
    "IP_RPFILTER": "reverse path filter",
    "IP_LOCAL_SOURCE": "martian: source is an address of this host",
    "IP_INVALID_SOURCE": "martian source",
    "IP_INVALID_DEST": "martian destination",
    "IP_LOCALNET": "martian: loopback address",
    "IP_OUTNOROUTES": "no route",
    "IP_INNOROUTES": "no route",
    "IPV6DISABLED": "IPv6 is off on the device",
    "ARP_PVLAN_DISABLE": "ARP for the network it came from, and proxy_arp_pvlan is off",
    "MAC_INVALID_SOURCE": "the source's hardware address is not valid",
    "LOCAL_MAC": "the source's hardware address is this host's own",
    # neighbours
    "NEIGH_CREATEFAIL": "no entry for the neighbour could be made",
    "NEIGH_FAILED": "neighbour does not answer",
    "NEIGH_QUEUEFULL": "too many packets wait for the neighbour",
    "NEIGH_DEAD": "neighbour entry is gone",
    "NEIGH_HH_FILLFAIL": "the device's header could not be made",
    # programs, policies and queues
    "XFRM_POLICY": "IPsec policy",
    "SECURITY_HOOK": "security module",
    "XDP": "XDP program",
    "BPF_CGROUP_EGRESS": "BPF program of the control group",
    "TAP_FILTER": "BPF filter of the tap device",
    "TAP_TXFILTER": "address filter of the tap device",
    "TC_EGRESS": "traffic control, on its way out",
    "TC_INGRESS": "traffic control, on its way in",
    "TC_CHAIN_NOTFOUND": "traffic control: no such chain",
    "TC_RECLASSIFY_LOOP": "traffic control: classified again too often",
    "QDISC_DROP": "queueing discipline",
    "QDISC_BURST_DROP": "queueing discipline: too many packets at once",
    "FQ_BAND_LIMIT": "queueing discipline fq: the band's limit",
    "FQ_FLOW_LIMIT": "queueing discipline fq: the flow's limit",
    "FQ_HORIZON_LIMIT": "queueing discipline fq: due too far in the future",
    "CPU_BACKLOG": "the CPU's backlog is full, or the flow's share of it",
    # devices
    "DEV_READY": "the device is not ready (not up, say)",
    "DEV_HDR": "bad header of the device's own",
    "RECURSION_LIMIT": "the way through virtual devices is a loop",
    "NOMEM": "no memory",
    "NO_TX_TARGET": "no target to send it to",
    "VXLAN_INVALID_HDR": "bad VXLAN header",
    "VXLAN_VNI_NOT_FOUND": "no VXLAN device for its network identifier",
    "IP_TUNNEL_ECN": "congestion marks of tunnel and packet contradict each other",
    "TUNNEL_TXINFO": "the tunnel's device was not told where to send it",
    "BRIDGE_INGRESS_STP_STATE": "bridge: the port is blocked (STP)",
    "MAC_IEEE_MAC_CONTROL": "bridge: MAC control frames are not forwarded",
    # TCP
    "TCP_FLAGS": "TCP flags that make no sense here",
    "TCP_RESET": "TCP reset that is not valid",
    "TCP_INVALID_SYN": "TCP SYN in a connection",
    "TCP_CLOSE": "TCP socket is closed",
    "TCP_LISTEN_OVERFLOW": "the queue of the listening socket is full",
    "TCP_FASTOPEN": "refused by a socket of TCP fast open",
    "TCP_ABORT_ON_DATA": "TCP data for a socket that nobody reads any more",
    "TCP_ZEROWINDOW": "TCP receive window is 0",
    "TCP_OVERWINDOW": "TCP data beyond the window",
    "TCP_INVALID_SEQUENCE": "TCP sequence number outside of the window",
    "TCP_INVALID_END_SEQUENCE": "TCP segment ends beyond the window",
    "TCP_OLD_SEQUENCE": "TCP sequence number is old (segment came twice)",
    "TCP_INVALID_ACK_SEQUENCE": "TCP acknowledgement outside of the window",
    "TCP_OLD_ACK": "TCP acknowledgement is old",
    "TCP_TOO_OLD_ACK": "TCP acknowledgement is too old",
    "TCP_ACK_UNSENT_DATA": "TCP acknowledgement of what was not sent",
    "TCP_OLD_DATA": "TCP data that is there already",
    "TCP_OFOMERGE": "TCP data that is there already, out of order",
    "TCP_OFO_DROP": "TCP data that is there already",
    "TCP_OFO_QUEUE_PRUNE": "no room for TCP data that came out of order",
    "TCP_RFC7323_PAWS": "TCP timestamp is old (PAWS)",
    "TCP_RFC7323_PAWS_ACK": "TCP timestamp of an acknowledgement is old (PAWS)",
    "TCP_RFC7323_TW_PAWS": "TCP timestamp is old (PAWS), of a connection in TIME_WAIT",
    "TCP_RFC7323_TSECR": "TCP timestamp echo that is not valid",
    "TCP_MINTTL": "time to live below what the socket asks for",
    "TCP_MD5NOTFOUND": "TCP MD5 signature missing",
    "TCP_MD5UNEXPECTED": "TCP MD5 signature that nobody asked for",
    "TCP_MD5FAILURE": "wrong TCP MD5 signature",
    "TCP_AUTH_HDR": "TCP signature options that make no sense",
    "TCP_AONOTFOUND": "TCP-AO signature missing",
    "TCP_AOUNEXPECTED": "TCP-AO signature that nobody asked for",
    "TCP_AOKEYNOTFOUND": "TCP-AO key is not known",
    "TCP_AOFAILURE": "wrong TCP-AO signature",
    # neighbour discovery
    "IPV6_NDISC_FRAG": "neighbour discovery in a fragment",
    "IPV6_NDISC_HOP_LIMIT": "neighbour discovery from beyond the link",
    "IPV6_NDISC_BAD_CODE": "neighbour discovery with a code that is not valid",
    "IPV6_NDISC_BAD_OPTIONS": "neighbour discovery with options that are not valid",
    "IPV6_NDISC_NS_OTHERHOST": "neighbour solicitation for another host",
}

_UNREAD: Final = "nobody had read it when the socket was closed"
_QUEUE: Final = (
    "by the queue's program, a function behind it, or as the queue, a device or a route is gone"
)

#: a program's verdict, and that of a function behind the queue, look alike
_QUEUES: Final = {
    "nf_queue": "nobody listens there, or it could not take it (full, say)",
    "nf_reinject": _QUEUE,
    "nfqnl_reinject": _QUEUE,
}
OF_QUEUES: Final = frozenset(_QUEUES)
"""Functions of the kernel that drop packets which are in a queue for a program."""

#: functions where the kernel gives no reason: all for which they drop so
_FUNCTIONS: Final = {
    **_QUEUES,
    # routing
    "ip_error": "a route or rule forbids it, or IP is off on the device",
    "ip_rcv_finish": "refused by routing (as a martian, say), or for its IP options",
    "ip_rcv_finish_core": "refused by routing (as a martian, say), or for its IP options",
    "dst_discard_out": (
        "blackhole route, its route is gone, IPsec has no key for it, or IPv6 without a payload"
    ),
    "ip_mc_output": "multicast with a time to live of 0",
    "ip_fragment": "bigger than the MTU, and must not be fragmented",
    "ip_expire": "fragments missing",
    "ip6_xmit": "bigger than the MTU",
    "ip6_finish_output2": "multicast that must not leave this host",
    "ip6_mc_input": "multicast that this host does not take",
    # neighbours
    "arp_error_report": "neighbour does not answer",
    "ndisc_error_report": "neighbour does not answer",
    "arp_rcv": "malformed ARP message",
    "neigh_blackhole": "neighbour entry is gone",
    "neigh_connected_output": "the device's header could not be made",
    "neigh_resolve_output": "the device's header could not be made",
    "pneigh_enqueue": "too many messages wait for the proxy of neighbours",
    # devices
    "__dev_queue_xmit": "the device is down or stopped, or the way through it is a loop",
    "enqueue_to_backlog": "the device is down",
    "validate_xmit_skb": "the device cannot send it: segments, checksum or encryption",
    # bridges
    "br_flood": "bridge: no port to send it to",
    "br_multicast_flood": "bridge: no port to send it to",
    "br_forward": "bridge: the port may not send it (own port, STP, VLAN, isolation)",
    "br_dev_queue_push_xmit": (
        "bridge: too big for the port, the port is down, or its VLAN header is malformed"
    ),
    "br_pass_frame_up": "bridge: its VLAN is not one of the bridge itself",
    "br_handle_vlan": "bridge: its VLAN is not known where it leaves, or has no tunnel",
    "__allowed_ingress": "bridge: its VLAN is not allowed at the port",
    "br_allowed_ingress": "bridge: its VLAN is not allowed at the port",
    # it calls the functions of the hook itself: no event tells which of them dropped
    "br_handle_frame": (
        "bridge: the port is blocked (STP), an address is not valid, or a function at PREROUTING"
    ),
    "br_handle_frame_finish": (
        "bridge: the port is off, learning or locked, or a multicast message is malformed"
    ),
    # transport, IPsec
    "tcp_v4_do_rcv": "answered by a reset, or its SYN cookie made no connection",
    "tcp_v6_do_rcv": "answered by a reset, or its SYN cookie made no connection",
    "xfrm_input": "IPsec did not accept it",
    # sockets
    "inet_sock_destruct": _UNREAD,
    "udp_destruct_common": _UNREAD,
}

_BY_TCP: Final = (
    "used up by TCP, or refused without a reason: its connection is over (TIME_WAIT), it is not for"
    " this host, or its TTL is too low for the socket"
)
_USED_UP: Final = {
    "tcp_v4_rcv": _BY_TCP,
    "tcp_v6_rcv": _BY_TCP,
    "icmpv6_rcv": "used up by ICMPv6, which handled or ignored it",
}

_TTL: Final = "time to live exceeded"
_HOPS: Final = "hop limit exceeded"
_FORBIDDEN: Final = "a route prohibits it"
_DISCARDED: Final = "no route, or one that says unreachable"

#: reasons that mean something else in a function
_IN_FUNCTIONS: Final = {
    ("IP_INHDR", "ip_forward"): _TTL,
    ("IP_INHDR", "ip6_forward"): _HOPS,
    # also for addresses: of the loopback, multicast sources
    ("IP_INHDR", "ip6_rcv_core"): "bad IPv6 header, or an address that may not come in",
    ("IP_INADDRERRORS", "ip_error"): "not for this host, and forwarding is off",
    ("IP_INADDRERRORS", "ip6_forward"): (
        "forwarding is off, or its source may not be forwarded (link-local, say)"
    ),
    ("IP_INADDRERRORS", "ip6_pkt_drop"): "its destination is no address (::)",
    ("IP_INADDRERRORS", "ip6_protocol_deliver_rcu"): "nobody here has joined the multicast group",
    # routes that say unreachable, and those that prohibit
    ("IP_INNOROUTES", "ip6_pkt_drop"): "no route, or one that forbids it",
    ("IP_OUTNOROUTES", "ip6_pkt_drop"): "no route, or one that forbids it",
    ("IP_INNOROUTES", "ip6_pkt_discard"): _DISCARDED,
    ("IP_OUTNOROUTES", "ip6_pkt_discard_out"): _DISCARDED,
    ("IP_INNOROUTES", "ip6_pkt_prohibit"): _FORBIDDEN,
    ("IP_OUTNOROUTES", "ip6_pkt_prohibit_out"): _FORBIDDEN,
    ("INVALID_PROTO", "icmp_rcv"): "ICMP for many, of a kind that is not answered then",
    ("UNHANDLED_PROTO", "icmp_rcv"): "ICMP of a type that nobody handles",
    ("UNHANDLED_PROTO", "__netif_receive_skb_core"): "nobody handles the protocol",
    ("QUEUE_PURGE", "inet_sock_destruct"): _UNREAD,
}
_UNSAID: Final = frozenset({"", "NOT_SPECIFIED", "NOT_DROPPED_YET"})


def used_up_words(function: str) -> str:
    """What became of a packet that was freed as if dropped, by a function that had handled it."""
    plain = function.partition(".")[0]
    return f"{_USED_UP.get(plain, 'used up by the kernel')} ({function})"


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
