# SPDX-License-Identifier: GPL-2.0
"""Settings of the throw-away namespaces, below /proc/sys: nothing is sent by itself or by rate."""

from __future__ import annotations

from typing import Final

FOREVER: Final = "86400"

#: everywhere, before there are devices
SYSCTLS: Final = {
    "net/ipv4/icmp_ratemask": "0",
    "net/ipv4/ipfrag_time": FOREVER,
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/all/accept_ra": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv6/conf/default/mldv1_unsolicited_report_interval": "1",
    # this version's reports are sent soon, whatever the settings of the initial namespace
    "net/ipv6/conf/all/force_mld_version": "1",
    "net/ipv6/conf/default/force_mld_version": "1",
    "net/ipv6/icmp/ratemask": "\n",
    "net/ipv6/icmp/ratelimit": "0",
    "net/ipv6/auto_flowlabels": "0",
    "net/ipv6/ip6frag_time": FOREVER,
}

#: in the router alone: others would send back what reaches them by mistake
ROUTER_SYSCTLS: Final = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
