# SPDX-License-Identifier: GPL-2.0
"""The same traffic under iptables' own TRACE target and under `ipttctl trace`: the same steps.

The router of ``network`` has the ruleset. Each test packet has a length of its own, to distinguish
its steps from those of others in the kernel's log, and each is sent after the one before has
left.
"""

from __future__ import annotations

import errno
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ipttproto import Kind
from tests.kernel.support.cli import trace_command
from tests.kernel.support.kernel import KernelLog, kernel_log, run
from tests.kernel.support.network import Network, network
from tests.kernel.support.observing import Step
from tests.kernel.support.rulesets import count_rules, router_rules, trace_lines

TRACE = "-j TRACE"
NOTHING = "-m comment --comment nothing"
PORTS = (1000, 1001, 1002, 1003, 1004, 1005, 2000, 2010, 3000, 4000, 4001, 5000, 6000)

PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP"}

#: (length, protocol): one test packet, and the reply with the same length
Key = tuple[int, str]
Sequences = dict[Key, list[Step]]


def _udp(address: str, port: int, length: int, source_port: int) -> None:
    """Send one datagram whose IP packet has ``length`` bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", source_port))
        sender.sendto(bytes(length - 28), (address, port))


def _refused_connection(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        assert client.connect_ex((address, 80)) == errno.ECONNREFUSED


def send_traffic(net: Network) -> int:
    """Send datagrams to every port, twice from the same source; ping the router and right."""
    length = 200
    for round_number in range(2):
        for number, port in enumerate(PORTS):
            # the second round finds the connection tracked, except with notrack
            net.left.call(_udp, net.right_address, port, length, 6000 + number)
            length += 1
        for size in (74, 300 + round_number):
            net.left.ping(net.router_address, "-s", str(size), check=False)
            net.left.ping(net.right_address, "-s", str(size + 10), check=False)
    # rejected by the router itself, with a packet that it sends while it handles this one
    net.left.call(_refused_connection, net.right_address)
    return length - 200


@contextmanager
def kernel_logging() -> Iterator[KernelLog]:
    """Log TRACE lines of every namespace in the kernel's log, but not on the console."""
    run("modprobe", "nf_log_syslog")
    run("sysctl", "-qw", "net.netfilter.nf_log_all_netns=1")
    run("dmesg", "-n", "1")
    try:
        with kernel_log() as log:
            yield log
    finally:
        run("dmesg", "-n", "5")


def _by_kernel_log() -> Sequences:
    sequences: Sequences = defaultdict(list)
    with network() as net, kernel_logging() as log:
        net.router.restore(router_rules(TRACE))
        send_traffic(net)
        for match in trace_lines(log.new_lines()):
            kind = Kind[match["kind"].upper()]
            sequences[int(match["length"]), match["protocol"]].append(
                Step(match["table"], match["chain"], kind, int(match["rulenum"]))
            )
    return sequences


def _by_ipttctl() -> Sequences:
    sequences: Sequences = defaultdict(list)
    with network() as net:
        net.router.restore(router_rules(NOTHING))
        with trace_command("-N", net.router.name, "-4") as trace:
            send_traffic(net)
            events = trace.finish()
    for event in events:
        kind = Kind[event["kind"].upper()]
        step = Step(event["table"], event["chain"], kind, event["rulenum"])
        # the kernel logs neither the rule that begins the trace, nor a table's verdict, nor a table
        # that NAT does not consult
        begins = (
            step.table == "raw" and step.rulenum == 1 and step.chain in {"PREROUTING", "OUTPUT"}
        )
        if kind not in {Kind.EXIT, Kind.KNOWN} and not begins:
            sequences[event["length"], PROTOCOLS[event["protocol"]]].append(step)
    return sequences


def test_same_steps_as_the_trace_target() -> None:
    assert count_rules(router_rules(TRACE)) >= 60
    expected = _by_kernel_log()
    seen = _by_ipttctl()
    udp = [key for key in expected if key[1] == "UDP"]
    assert len(udp) == 2 * len(PORTS)
    assert sum(map(len, expected.values())) > 500
    assert set(seen) == set(expected)
    for key, steps in expected.items():
        assert seen[key] == steps, f"packet of {key[0]} bytes, {key[1]}"


def test_the_ruleset_is_walked() -> None:
    """The packets reach chains three deep, gotos and returns, on which the comparison relies."""
    with network() as net, kernel_logging() as log:
        net.router.restore(router_rules(TRACE))
        send_traffic(net)
        steps = {(m["table"], m["chain"], m["kind"]) for m in trace_lines(log.new_lines())}
    assert {("mangle", "paint3", "rule"), ("filter", "c", "rule")} <= steps
    assert {("filter", "gone", "rule"), ("filter", "log", "rule")} <= steps
    assert {("nat", "redirects", "return"), ("mangle", "paint", "return")} <= steps
    # the router's own answers: sent from inside the table that rejects
    assert ("raw", "OUTPUT", "policy") in steps
    assert {table for table, _, _ in steps} == {"raw", "mangle", "nat", "filter"}
    assert any(kind == "policy" for _, _, kind in steps)
