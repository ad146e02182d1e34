# SPDX-License-Identifier: GPL-2.0
"""Words for the kernel's drops, each with the line of Linux 6.1 that it is taken from."""

from __future__ import annotations

from typing import Final

import pytest

from ipttctl.show.story_reasons import _FUNCTIONS, _IN_FUNCTIONS, drop_words

MARTIAN = "refused by routing (as a martian, say), or for its IP options"
NO_HEADER = "the device's header could not be made"
NO_PORT = "bridge: no port to send it to"
NOT_PORT = "bridge: its VLAN is not allowed at the port"
QUEUE = "by the queue's program, a function behind it, or as the queue, a device or a route is gone"
TCP_REFUSED = "answered by a reset, or its SYN cookie made no connection"
UNREAD = "nobody had read it when the socket was closed"

#: function that drops without a reason -> words, all of its lines that do (Linux 6.1.192)
FUNCTIONS: Final = {
    "ip_error": (
        "a route or rule forbids it, or IP is off on the device",
        "net/ipv4/route.c:996 !in_dev; 1016 EINVAL, 1019 EHOSTUNREACH, 1027 EACCES of the route",
    ),
    "ip_rcv_finish": (MARTIAN, "net/ipv4/ip_input.c:424, with ip_rcv_finish_core() inlined"),
    "ip_rcv_finish_core": (
        MARTIAN,
        "net/ipv4/ip_input.c:365 ip_route_input_noref(), 387 ip_rcv_options()",
    ),
    "dst_discard_out": (
        "blackhole route, its route is gone, IPsec has no key for it, or IPv6 without a payload",
        "net/core/dst.c:32, set in 153; ipv6/route.c:1115, 2715, exthdrs.c:884; ipv4/route.c:2909",
    ),
    "ip_mc_output": ("multicast with a time to live of 0", "net/ipv4/ip_output.c:401 ttl == 0"),
    "ip_fragment": (
        "bigger than the MTU, and must not be fragmented",
        "net/ipv4/ip_output.c:595 IP_DF && !ignore_df",
    ),
    "ip_expire": ("fragments missing", "net/ipv4/ip_fragment.c:202 the timer of fragments"),
    "ip6_xmit": ("bigger than the MTU", "net/ipv6/ip6_output.c:378 -EMSGSIZE"),
    "ip6_finish_output2": (
        "multicast that must not leave this host",
        "net/ipv6/ip6_output.c:100 hop_limit == 0, 108 IPV6_ADDR_SCOPE_NODELOCAL",
    ),
    "ip6_mc_input": (
        "multicast that this host does not take",
        "net/ipv6/ip6_input.c:590 !deliver, 515 the device of its VRF is gone",
    ),
    "arp_error_report": ("neighbour does not answer", "net/ipv4/arp.c:297 neigh_invalidate()"),
    "ndisc_error_report": ("neighbour does not answer", "net/ipv6/ndisc.c:734 neigh_invalidate()"),
    "arp_rcv": ("malformed ARP message", "net/ipv4/arp.c:982 its length, 986 those of addresses"),
    "neigh_blackhole": ("neighbour entry is gone", "net/core/neighbour.c:95 neigh_flush_dev()"),
    "neigh_connected_output": (NO_HEADER, "net/core/neighbour.c:1600 dev_hard_header() < 0"),
    "neigh_resolve_output": (NO_HEADER, "net/core/neighbour.c:1576 dev_hard_header() < 0"),
    "pneigh_enqueue": (
        "too many messages wait for the proxy of neighbours",
        "net/core/neighbour.c:1668 qlen > PROXY_QLEN",
    ),
    "__dev_queue_xmit": (
        "the device is down or stopped, or the way through it is a loop",
        "net/core/dev.c:4426 !IFF_UP, netif_xmit_stopped(), recursion_alert",
    ),
    "enqueue_to_backlog": ("the device is down", "net/core/dev.c:4820 !netif_running()"),
    "validate_xmit_skb": (
        "the device cannot send it: segments, checksum or encryption",
        "net/core/dev.c:3826 out_kfree_skb",
    ),
    "br_flood": (NO_PORT, "net/bridge/br_forward.c:237 !prev"),
    "br_multicast_flood": (NO_PORT, "net/bridge/br_forward.c:336 !prev"),
    "br_forward": (
        "bridge: the port may not send it (own port, STP, VLAN, isolation)",
        "net/bridge/br_forward.c:171 should_deliver()",
    ),
    "br_dev_queue_push_xmit": (
        "bridge: too big for the port, the port is down, or its VLAN header is malformed",
        "net/bridge/br_forward.c:36 is_skb_forwardable(), 45 vlan_get_protocol_and_depth()",
    ),
    "br_pass_frame_up": (
        "bridge: its VLAN is not one of the bridge itself",
        "net/bridge/br_input.c:54 br_allowed_egress()",
    ),
    "br_handle_vlan": (
        "bridge: its VLAN is not known where it leaves, or has no tunnel",
        "net/bridge/br_vlan.c:497 !v, 525 br_handle_egress_vlan_tunnel()",
    ),
    "__allowed_ingress": (NOT_PORT, "net/bridge/br_vlan.c:637 no PVID, no VLAN, or its state"),
    "br_allowed_ingress": (NOT_PORT, "net/bridge/br_vlan.c:637 __allowed_ingress() inlined"),
    "br_handle_frame": (
        "bridge: the port is blocked (STP), an address is not valid, or a function at PREROUTING",
        "net/bridge/br_input.c:325 h_source, 366 pause frames, 418 the port's state; 269 NF_DROP",
    ),
    "br_handle_frame_finish": (
        "bridge: the port is off, learning or locked, or a multicast message is malformed",
        "net/bridge/br_input.c:91, 99, 111 the port; 136 br_multicast_rcv(); 141 learning",
    ),
    "tcp_v4_do_rcv": (TCP_REFUSED, "net/ipv4/tcp_ipv4.c:1701 cookie, 1720 tcp_v4_send_reset()"),
    "tcp_v6_do_rcv": (TCP_REFUSED, "net/ipv6/tcp_ipv6.c:1505, as with IPv4"),
    "xfrm_input": ("IPsec did not accept it", "net/xfrm/xfrm_input.c:746 all of its checks"),
    "nf_queue": (
        "nobody listens there, or it could not take it (full, say)",
        "net/netfilter/nf_queue.c:261 -ESRCH, errors of __nf_queue() and of the queue's outfn()",
    ),
    "nf_reinject": (
        QUEUE,
        "net/netfilter/nf_queue.c:367 verdict, nf_iterate(), nf_reroute(); nfqnl_flush()",
    ),
    "nfqnl_reinject": (QUEUE, "net/netfilter/nfnetlink_queue.c, with nf_reinject() inlined"),
    "inet_sock_destruct": (UNREAD, "net/ipv4/af_inet.c:136 sk_receive_queue, 137 sk_error_queue"),
    "udp_destruct_common": (UNREAD, "net/ipv4/udp.c:1673 reader_queue, sk_receive_queue"),
}

FORBIDDEN = "no route, or one that forbids it"
UNREACHABLE = "no route, or one that says unreachable"
#: reason and function -> words, the line that gives it (Linux 6.1.192)
IN_FUNCTIONS: Final = {
    ("IP_INHDR", "ip_forward"): ("time to live exceeded", "net/ipv4/ip_forward.c:178"),
    ("IP_INHDR", "ip6_forward"): ("hop limit exceeded", "net/ipv6/ip6_output.c:566"),
    ("IP_INHDR", "ip6_rcv_core"): (
        "bad IPv6 header, or an address that may not come in",
        "net/ipv6/ip6_input.c:296, from 214 loopback, 229 and 250 scope, 258 multicast source",
    ),
    ("IP_INADDRERRORS", "ip_error"): (
        "not for this host, and forwarding is off",
        "net/ipv4/route.c:1003 !IN_DEV_FORWARD()",
    ),
    ("IP_INADDRERRORS", "ip6_forward"): (
        "forwarding is off, or its source may not be forwarded (link-local, say)",
        "net/ipv6/ip6_output.c:680, from 520 forwarding, 637 and 640 the source",
    ),
    ("IP_INADDRERRORS", "ip6_pkt_drop"): (
        "its destination is no address (::)",
        "net/ipv6/route.c:4555 IPV6_ADDR_ANY",
    ),
    ("IP_INADDRERRORS", "ip6_protocol_deliver_rcu"): (
        "nobody here has joined the multicast group",
        "net/ipv6/ip6_input.c:426 !ipv6_chk_mcast_addr()",
    ),
    ("IP_INNOROUTES", "ip6_pkt_drop"): (FORBIDDEN, "net/ipv6/route.c:4559, for all four callers"),
    ("IP_OUTNOROUTES", "ip6_pkt_drop"): (FORBIDDEN, "net/ipv6/route.c:4562, for all four callers"),
    ("IP_INNOROUTES", "ip6_pkt_discard"): (UNREACHABLE, "net/ipv6/route.c:4578 ICMPV6_NOROUTE"),
    ("IP_OUTNOROUTES", "ip6_pkt_discard_out"): (UNREACHABLE, "net/ipv6/route.c:4584"),
    ("IP_INNOROUTES", "ip6_pkt_prohibit"): (
        "a route prohibits it",
        "net/ipv6/route.c:4589 ICMPV6_ADM_PROHIBITED",
    ),
    ("IP_OUTNOROUTES", "ip6_pkt_prohibit_out"): (
        "a route prohibits it",
        "net/ipv6/route.c:4595 ICMPV6_ADM_PROHIBITED",
    ),
    ("INVALID_PROTO", "icmp_rcv"): (
        "ICMP for many, of a kind that is not answered then",
        "net/ipv4/icmp.c:1335 and 1342 RTCF_BROADCAST | RTCF_MULTICAST",
    ),
    ("UNHANDLED_PROTO", "icmp_rcv"): (
        "ICMP of a type that nobody handles",
        "net/ipv4/icmp.c:1317 type > NR_ICMP_TYPES",
    ),
    ("UNHANDLED_PROTO", "__netif_receive_skb_core"): (
        "nobody handles the protocol",
        "net/core/dev.c:5612",
    ),
    ("QUEUE_PURGE", "inet_sock_destruct"): (
        UNREAD,
        "include/linux/skbuff.h:3385 __skb_queue_purge() of Linux 6.12",
    ),
}


def test_each_function_has_its_evidence() -> None:
    assert FUNCTIONS.keys() == _FUNCTIONS.keys()
    assert IN_FUNCTIONS.keys() == _IN_FUNCTIONS.keys()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_drops_without_a_reason(function: str) -> None:
    words, _ = FUNCTIONS[function]
    assert drop_words("NOT_SPECIFIED", 2, function) == f"{words} ({function})"
    # the compiler gives copies of functions names of their own
    assert drop_words("NOT_SPECIFIED", 2, f"{function}.isra.0") == f"{words} ({function}.isra.0)"
    # a reason says more than the function, even one that has no words
    assert drop_words("NEW_ONE", 300, function) == f"NEW_ONE in {function}"


@pytest.mark.parametrize("key", IN_FUNCTIONS, ids="-".join)
def test_a_reason_with_its_own_meaning_in_a_function(key: tuple[str, str]) -> None:
    reason, function = key
    words, _ = IN_FUNCTIONS[key]
    assert (
        drop_words(f"SKB_DROP_REASON_{reason}", 9, function) == f"{words} ({reason} in {function})"
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("IP_RPFILTER", "reverse path filter"),
        ("IP_INVALID_SOURCE", "martian source"),
        ("IP_INVALID_DEST", "martian destination"),
        ("IP_INNOROUTES", "no route"),
        ("NO_SOCKET", "no socket"),
        ("NEIGH_FAILED", "neighbour does not answer"),
        ("TCP_CSUM", "bad TCP checksum"),
        ("SOCKET_RCVBUFF", "the socket's buffer is full"),
        ("TCP_LISTEN_OVERFLOW", "the queue of the listening socket is full"),
        ("TCP_CLOSE", "TCP socket is closed"),
        ("XDP", "XDP program"),
        ("TC_INGRESS", "traffic control, on its way in"),
        ("QDISC_DROP", "queueing discipline"),
        ("XFRM_POLICY", "IPsec policy"),
        ("PKT_TOO_BIG", "packet too big (MTU)"),
        ("BRIDGE_INGRESS_STP_STATE", "bridge: the port is blocked (STP)"),
        ("UNHANDLED_PROTO", "nobody handles the protocol, or one of its options"),
        ("OTHERHOST", "for another host's hardware address"),
    ],
)
def test_the_causes_that_people_ask_for(reason: str, words: str) -> None:
    assert drop_words(reason, 9, "f") == f"{words} ({reason} in f)"
