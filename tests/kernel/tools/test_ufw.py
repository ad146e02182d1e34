# SPDX-License-Identifier: GPL-2.0
"""ufw, with iptables-nft and with iptables-legacy."""

from __future__ import annotations

import re
from typing import Any

from tests.kernel.support.both_traces import SYN, connect, listening, trying, watched
from tests.kernel.support.box import Box
from tests.kernel.support.cli import trace_command
from tests.kernel.support.network import Network
from tests.kernel.test_differential import kernel_logging
from tests.kernel.tools.packets import TOOLS

#: a line of the TRACE target about a TCP packet
LOGGED = re.compile(
    r"TRACE: (?P<table>\w+):(?P<chain>\S+):(?P<kind>\w+):(?P<rulenum>\d+) .* SPT=(?P<port>\d+) "
)
Step = tuple[str, str, str, int]


def enable(router: Box) -> None:
    """Allow and reject a port, and leave the others to the default."""
    router.run("ufw", "allow", "8080/tcp")
    router.run("ufw", "reject", "8082/tcp")
    router.run("ufw", "--force", "enable")


def test_rules_are_named(net: Network, router: Box) -> None:
    enable(router)
    allowed, other, rejected, forwarded = packets = TOOLS["ufw"]
    with (
        listening(net.router, 8080, 8081, 8082),
        watched(router, net.left, net.router_address) as watch,
    ):
        ports = watch.sends(
            trying(net.left, net.router_address, 8080, allowed),
            trying(net.left, net.router_address, 8081, other),
            trying(net.left, net.router_address, 8082, rejected),
            trying(net.left, net.right_address, 8080, forwarded),
        )
        watch.confirm(ports, packets)


def test_rules_of_legacy_tables_are_numbered(net: Network, router: Box) -> None:
    for tool in ("iptables", "ip6tables"):
        router.run("update-alternatives", "--set", tool, f"/usr/sbin/{tool}-legacy")
    enable(router)
    syn = ("-p", "tcp", "--tcp-flags", "SYN,ACK", "SYN")
    net.router.iptables("-t", "raw", "-A", "PREROUTING", *syn, "-j", "TRACE")
    options = ("-N", net.router.name, "--backend", "legacy", *SYN.split())
    with (
        listening(net.router, 8080, 8081, 8082),
        kernel_logging() as log,
        trace_command(*options) as trace,
    ):
        net.left.call(connect, net.router_address, 8080, 5001, "answered")
        net.left.call(connect, net.router_address, 8081, 5002, "silent")
        net.left.call(connect, net.router_address, 8082, 5003, "refused")
        events = trace.finish()
        logged = [match for line in log.new_lines() if (match := LOGGED.search(line))]
    for port, verdict, chain in (
        (5001, "ACCEPT", "ufw-user-input"),
        (5002, "DROP", "INPUT"),
        (5003, "DROP", "ufw-user-input"),
    ):
        steps = [_step(m.groupdict()) for m in logged if int(m["port"]) == port]
        seen = [e for e in events if e["source_port"] == port]
        # the target does not log the rule that begins its trace, nor a table's verdict
        told = [_step(e) for e in seen if e["kind"] != "exit"][1:]
        assert told == steps
        assert steps[-1][:2] == ("filter", chain)
        assert [e["verdict"] for e in seen if e["kind"] == "exit"][-1] == verdict


def _step(of: dict[str, Any]) -> Step:
    return of["table"], of["chain"], of["kind"], int(of["rulenum"])
