# SPDX-License-Identifier: GPL-2.0
"""Words of random rules that need kernel modules: connection tracking, limits, NAT and more."""

from __future__ import annotations

from typing import Final

from ipttctl.verify.words import INET, IP, IP4, IP6, PREROUTING, Vocabulary, Word, WordKind

_FULL: Final = Vocabulary.FULL
_ROUTED: Final = frozenset({"prerouting", "input", "forward", "output", "postrouting"})
_V4: Final = frozenset({"ip"})
_V6: Final = frozenset({"ip6"})
_NETDEV: Final = frozenset({"netdev"})
_REJECTING: Final = frozenset({"input", "forward", "output"})
_COPYING: Final = frozenset({"forward", "output"})
_LOOKED_UP: Final = frozenset({"prerouting", "input", "forward"})


def _matches(
    families: frozenset[str], *templates: str, hooks: frozenset[str] = _ROUTED
) -> tuple[Word, ...]:
    return tuple(Word(t, families, WordKind.MATCH, _FULL, hooks) for t in templates)


def _statements(
    families: frozenset[str],
    *templates: str,
    hooks: frozenset[str] = _ROUTED,
    chain_type: str = "",
    kind: WordKind = WordKind.STATEMENT,
) -> tuple[Word, ...]:
    return tuple(Word(t, families, kind, _FULL, hooks, chain_type) for t in templates)


def _final(
    families: frozenset[str],
    *templates: str,
    hooks: frozenset[str] = _ROUTED,
    chain_type: str = "",
) -> tuple[Word, ...]:
    return _statements(
        families, *templates, hooks=hooks, chain_type=chain_type, kind=WordKind.FINAL
    )


_ANY_HOOK: Final = _ROUTED | {"ingress", "egress"}

MATCHES: Final = (
    *_matches(
        INET,
        "ct state new",
        "ct state established,related",
        "ct state invalid,untracked",
        "ct mark <op><mark>",
        "ct mark & 0x3 != 0",
        "ct direction original",
        "ct status confirmed",
        "ct status & dnat == dnat",
        "ct protocol { tcp, udp }",
        "ct original packets > 1",
        "ct bytes > 100",
        "ct zone 0",
        "meta l4proto tcp ct original proto-dst <port>",
    ),
    *_matches(INET, "meta secpath missing", hooks=_LOOKED_UP),
    *_matches(_V4, "ct original saddr <client>", "ct reply saddr <server>"),
    *_matches(_V6, "ct original saddr <client6>", "ct reply saddr <server6>"),
    *_matches(
        INET,
        "fib daddr type { local, unicast }",
        "fib daddr . iif type local",
        "fib saddr . iif oif exists",
        'fib saddr oif "<device>"',
        'fib daddr oifname "<device>"',
        hooks=_LOOKED_UP,
    ),
    *_matches(
        IP,
        "limit rate <small>/day burst <small> packets",
        "limit rate over 1/day burst <small> packets",
        "limit rate over 1 bytes/day burst <size> bytes",
        "quota over <size> bytes",
        "quota until 300 bytes",
        "numgen inc mod 3 <few>",
        "numgen inc mod 2 0",
        hooks=_ANY_HOOK,
    ),
    *_matches(
        IP4,
        "jhash ip saddr . ip daddr mod 3 seed 0xdeadbeef <few>",
        hooks=_ANY_HOOK,
    ),
    *_matches(IP6, "jhash ip6 saddr mod 2 seed 0xdeadbeef 0", hooks=_ANY_HOOK),
    *_matches(
        INET,
        "meta l4proto udp socket transparent 0",
        "meta l4proto udp socket mark 0",
        hooks=frozenset({"prerouting", "input"}),
    ),
    *_matches(
        frozenset({"bridge"}), 'meta ibrname "br0"', "meta ibrpvid 0", hooks=frozenset({"input"})
    ),
)

STATEMENTS: Final = (
    *_final(INET, "ct state vmap { invalid : continue, new : return, established : accept }"),
    *_statements(
        INET,
        "ct mark set <mark>",
        "ct mark set meta mark",
        "meta mark set ct mark",
        "ct mark set ct mark or 0x4",
    ),
    *_statements(
        IP,
        'log prefix "one " group <group>',
        "log group 2 snaplen 20",
        "meta mark set numgen inc mod 4",
        "meta mark set numgen inc mod 2 map { 0 : 1, 1 : 2 }",
        hooks=_ANY_HOOK,
    ),
    *_statements(IP4, "meta mark set jhash ip saddr mod 4 seed 0xdeadbeef", hooks=_ANY_HOOK),
    *_statements(INET, "notrack", hooks=frozenset({"prerouting"})),
    *_statements(INET, "notrack", hooks=frozenset({"output"})),
    # before routing, copies could be routed to us again, and meet the rule again
    *_statements(_V4, 'dup to <server> device "r2"', 'dup to <client> device "r1"', hooks=_COPYING),
    *_statements(
        _V6, 'dup to <server6> device "r2"', 'dup to <client6> device "r1"', hooks=_COPYING
    ),
    *_statements(_NETDEV, 'dup to "r2"', hooks=frozenset({"ingress"})),
    *_statements(_NETDEV, 'dup to "r1"', hooks=frozenset({"egress"})),
    *_final(_NETDEV, 'fwd to "r2"', hooks=frozenset({"ingress"})),
    *_final(INET, "queue", "queue to 3", "queue flags bypass to 5", "queue flags bypass to 4-6"),
    *_final(_V4, "reject", "reject with icmp type host-prohibited", hooks=_REJECTING),
    *_final(_V6, "reject", "reject with icmpv6 type addr-unreachable", hooks=_REJECTING),
    *_final(
        frozenset({"inet"}),
        "reject",
        "reject with icmpx type port-unreachable",
        "reject with icmpx type admin-prohibited",
        hooks=_REJECTING,
    ),
    *_final(INET, "meta l4proto tcp reject with tcp reset", hooks=_REJECTING),
    # the router's own segments would be answered through lo without end
    *_final(
        INET,
        'iifname "r1" meta l4proto tcp synproxy mss 1460 wscale 7 timestamp sack-perm',
        'iifname "r1" meta l4proto tcp synproxy mss 1000',
        hooks=frozenset({"input", "forward"}),
    ),
    *_final(
        _V4 | _V6,
        "meta l4proto udp tproxy to :53",
        "meta l4proto tcp tproxy to :80",
        hooks=PREROUTING,
        chain_type="filter",
    ),
    *_final(
        _V4,
        "ip daddr 10.77.2.0/24 dnat to <server>",
        "ip daddr 10.77.2.0/24 meta l4proto { tcp, udp } dnat to <server>:<port>",
        "redirect",
        "meta l4proto { tcp, udp } redirect to :53",
        hooks=PREROUTING,
        chain_type="nat",
    ),
    *_final(
        _V6,
        "ip6 daddr fd77:2::/64 dnat to <server6>",
        "ip6 daddr fd77:2::/64 meta l4proto { tcp, udp } dnat to [<server6>]:<port>",
        "meta l4proto { tcp, udp } redirect to :53",
        hooks=PREROUTING,
        chain_type="nat",
    ),
    *_final(
        frozenset({"inet"}),
        "ip daddr 10.77.2.0/24 dnat ip to <server>",
        "ip6 daddr fd77:2::/64 dnat ip6 to <server6>",
        "meta l4proto { tcp, udp } redirect to :53",
        hooks=PREROUTING,
        chain_type="nat",
    ),
    *_final(INET, "masquerade", hooks=frozenset({"postrouting"}), chain_type="nat"),
    *_final(_V4, "snat to 10.77.2.1", hooks=frozenset({"postrouting"}), chain_type="nat"),
    *_final(_V6, "snat to fd77:2::1", hooks=frozenset({"postrouting"}), chain_type="nat"),
)

FULL: Final = MATCHES + STATEMENTS
