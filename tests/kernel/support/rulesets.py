# SPDX-License-Identifier: GPL-2.0
"""A ruleset for a router: jumps, gotos, returns, marks, NAT, rejects."""

from __future__ import annotations

import re
from collections.abc import Iterator


def router_rules(first_rule: str) -> str:
    """All four tables for the router of ``network``, for iptables-restore.

    ``first_rule`` comes first in raw's PREROUTING and OUTPUT: a TRACE target, or a rule without
    effect that takes its number. Ports distinguish the test packets: 1000 and up are accepted,
    2000 dropped, 3000 rejected, 4000 redirected to another port, 5000 logged.
    """
    lines = ["*raw", ":PREROUTING ACCEPT", ":OUTPUT ACCEPT", ":early -"]
    lines += [f"-A {chain} {first_rule}" for chain in ("PREROUTING", "OUTPUT")]
    lines += ["-A PREROUTING -j early", "-A PREROUTING -p udp --dport 1003 -j CT --notrack"]
    lines += [f"-A early -p udp --dport {1000 + n} -j RETURN" for n in range(4)]
    lines += ["-A early -s 10.77.1.0/24", "COMMIT"]

    lines += ["*mangle", ":PREROUTING ACCEPT", ":FORWARD ACCEPT", ":POSTROUTING ACCEPT"]
    lines += [":INPUT ACCEPT", ":OUTPUT ACCEPT", ":paint -", ":paint2 -", ":paint3 -"]
    lines += ["-A PREROUTING -p udp -j paint", "-A PREROUTING -p icmp -j MARK --set-mark 0x10"]
    lines += [f"-A paint -p udp --dport {1000 + n} -j MARK --set-mark {n + 1}" for n in range(6)]
    lines += ["-A paint -m mark --mark 2 -j paint2", "-A paint -p udp --dport 1002 -g paint3"]
    lines += ["-A paint -m mark ! --mark 0 -j CONNMARK --save-mark"]
    lines += ["-A paint2 -j paint3", "-A paint2 -p udp --dport 1001 -j RETURN", "-A paint2"]
    lines += ["-A paint3 -p udp -j TTL --ttl-set 33", "-A paint3 -p tcp -j DROP"]
    lines += ["-A FORWARD -o r2 -p udp -j DSCP --set-dscp 8"]
    lines += ["-A POSTROUTING -m mark --mark 3 -j MARK --or-mark 0x100", "COMMIT"]

    lines += ["*nat", ":PREROUTING ACCEPT", ":INPUT ACCEPT", ":OUTPUT ACCEPT"]
    lines += [":POSTROUTING ACCEPT", ":redirects -"]
    lines += ["-A PREROUTING -p udp -j redirects", "-A PREROUTING -p tcp --dport 81 -j REDIRECT"]
    lines += ["-A redirects -p udp --dport 4000 -j DNAT --to-destination 10.77.2.2:1000"]
    lines += ["-A redirects -p udp --dport 4001 -j DNAT --to-destination 10.77.2.2:1001"]
    lines += ["-A redirects -p udp --dport 1002 -j RETURN"]
    lines += ["-A POSTROUTING -o r2 -p udp --dport 1000 -j MASQUERADE"]
    lines += ["-A POSTROUTING -o r2 -p udp --dport 1001 -j SNAT --to-source 10.77.2.1", "COMMIT"]

    lines += ["*filter", ":INPUT ACCEPT", ":FORWARD DROP", ":OUTPUT ACCEPT"]
    lines += [":a -", ":b -", ":c -", ":log -", ":gone -"]
    lines += ["-A INPUT -p icmp -m length --length 100:110 -j DROP", "-A INPUT -p icmp"]
    lines += ["-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"]
    lines += ["-A FORWARD -p icmp -j ACCEPT", "-A FORWARD -p udp -j a", "-A FORWARD -p tcp -j gone"]
    lines += ["-A a -p udp --dport 5000 -j log", "-A a -p udp --dport 2000:2010 -j DROP"]
    lines += ["-A a -p udp --dport 1000:1999 -j b", "-A a -p udp --dport 3000 -g gone"]
    lines += [f"-A a -p udp --sport {6000 + n}" for n in range(4)]
    lines += ["-A b -m mark --mark 2 -j c", "-A b -p udp --dport 1000 -j ACCEPT"]
    lines += ["-A b -m mark --mark 0x103 -j ACCEPT", "-A b -g c"]
    lines += ["-A c -p udp --dport 1001 -j RETURN", "-A c -p udp --dport 1002:1005 -j ACCEPT"]
    lines += [
        "-A log -j LOG --log-prefix diff:",
        "-A log -m limit --limit 1000/s",
        "-A log -j RETURN",
    ]
    lines += [
        "-A gone -p udp -j REJECT --reject-with icmp-port-unreachable",
        "-A gone -p tcp -j REJECT --reject-with tcp-reset",
        "-A gone -j DROP",
    ]
    lines += ["COMMIT"]
    return "\n".join(lines) + "\n"


def count_rules(rules: str) -> int:
    return sum(line.startswith("-A ") for line in rules.splitlines())


TRACE_LINE = re.compile(
    r"TRACE: (?P<table>\w+):(?P<chain>\w+):(?P<kind>\w+):(?P<rulenum>\d+) IN=(?P<in>\S*) "
    r"OUT=(?P<out>\S*) .*?LEN=(?P<length>\d+) .*?PROTO=(?P<protocol>\w+)"
)


def trace_lines(log: list[str]) -> Iterator[re.Match[str]]:
    """The lines of the TRACE target among lines of the kernel's log."""
    for line in log:
        if match := TRACE_LINE.search(line):
            yield match
