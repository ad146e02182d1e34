# SPDX-License-Identifier: GPL-2.0
"""`ipttctl trace` shows the rule itself: as it was when the packet passed, and whose it is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.kernel.support.cli import Running, running, trace_command
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for
from tests.kernel.support.kube_rulesets import (
    Service,
    kube_proxy_iptables,
    kube_proxy_nftables,
    services,
)
from tests.kernel.support.network import Namespace, namespace

SERVICES = int(os.environ.get("IPTT_SERVICES", "200"))
"""Services of Kubernetes, of each of which there are some eight rules."""


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        yield made


def nft(where: Namespace, text: str) -> None:
    run("ip", "netns", "exec", where.name, "nft", "-f", "-", text=text)


def send(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, suppress(PermissionError):
        sender.sendto(b"x", ("127.0.0.1", port))


def connect(address: str, port: int) -> None:
    with socket.socket() as client:
        client.settimeout(2)
        with suppress(OSError):
            client.connect((address, port))


def rules(trace: Running) -> list[dict[str, Any]]:
    """The events of rules of nftables so far."""
    return [event for event in trace.records() if event["kind"] == "chain_rule"]


def texts(trace: Running, count: int) -> list[str]:
    """The texts of the rules of the first events, or why there are none."""
    wait_for(lambda: len(rules(trace)) >= count, what=f"{count} rules")
    return [event["rule"] or f"none: {event['rule_note']}" for event in rules(trace)]


def shown_after_sending(place: Namespace, trace: Running) -> bool:
    """Send a packet; whether nft's text of its rule is shown."""
    seen = len(rules(trace))
    place.call(send, 7)
    texts(trace, seen + 1)
    return bool(rules(trace)[-1]["rule_syntax"] == "nft")


def test_a_rule_is_shown_as_it_was(place: Namespace) -> None:
    nft(
        place,
        """table inet t {
            chain c {
                type filter hook output priority 0
                udp dport 7 counter comment "the first"
            }
        }""",
    )
    with trace_command("-N", place.name, "--backend", "nft", "--proto", "udp") as trace:
        # the first packets begin to follow the namespace's rules: they may be too early
        wait_for(lambda: shown_after_sending(place, trace), what="a text")
        before = len(rules(trace))
        assert rules(trace)[-1]["rule"] == 'udp dport 7 counter comment "the first"'
        handle = rules(trace)[0]["rule_handle"]
        nft(place, f"replace rule inet t c handle {handle} udp dport 7 accept")
        place.call(send, 7)
        place.iptables_nft("-A", "OUTPUT", "-p", "udp", "-m", "comment", "--comment", "a b")
        place.call(send, 7)
        shown = texts(trace, before + 3)
        assert {event["rule_handle"] for event in rules(trace)} >= {handle}
        trace.finish()
    assert sorted(shown[before:]) == sorted(
        [
            "udp dport 7 accept",
            '-A OUTPUT -p udp -m comment --comment "a b"',
            "udp dport 7 accept",
        ]
    )


def test_observers_are_shown_the_rule_too(place: Namespace) -> None:
    text = 'udp dport 7 counter comment "the first"'
    chain = f"type filter hook output priority 0\n{text}\n"
    nft(place, f"table inet t {{\nchain c {{\n{chain}}}\n}}")
    chosen = ("events", "-o", "json", "--netns", place.name, "--hook", "chain:inet")
    with (
        trace_command("-N", place.name, "--backend", "nft", "--proto", "udp") as trace,
        running(*chosen) as events,
        running(*chosen, "--no-rules") as bare,
    ):
        for observer in (events, bare):
            observer.wait_for_text("listening")
        wait_for(lambda: shown_after_sending(place, trace), what="a text")
        wait_for(lambda: shown_after_sending(place, events), what="a text")
        seen, without = events.finish(), bare.finish()
        trace.finish()
    assert [event["rule"] for event in seen if event["kind"] == "chain_rule"][-1] == text
    assert len(without) == len(seen)
    assert not any(event["rule"] or event["rule_note"] for event in without)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_the_rules_of_kube_proxy_are_named(place: Namespace, mode: str) -> None:
    every = services(SERVICES)
    routes = ("10.244.0.0/16", "10.96.0.0/12")
    for route in routes:
        place.run("ip", "route", "add", "local", route, "dev", "lo")
    if mode == "iptables":
        load = ("ip", "netns", "exec", place.name, "iptables-nft-restore")
        run(*load, text=kube_proxy_iptables(every))
    else:
        nft(place, kube_proxy_nftables(every))
    chosen = [every[0], every[-2]]
    if mode == "iptables":
        # in the other mode a service without endpoints is an element of a map, not a rule
        chosen.append(every[9])
    expression = " or ".join(f"dst host {service.address}" for service in chosen)
    with trace_command("-N", place.name, "--backend", "nft", *expression.split()) as trace:
        for service in chosen:
            # the ruleset is read table by table
            wait_for(partial(_named, place, trace, service), COMMAND_TIMEOUT, "a name")
        trace.finish()


def _named(place: Namespace, trace: Running, service: Service) -> bool:
    """Whether an event of connections to a service names it."""
    place.call(connect, service.address, service.port)
    name = f"{service.namespace}/{service.name}"
    return any(
        name in event["owner_about"]
        for event in rules(trace)
        if event["destination"] == service.address and event["owner"] == "kube-proxy"
    )
