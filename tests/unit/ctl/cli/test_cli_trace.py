# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace --lines`` against a user-space implementation of the module."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli import run, trace_places
from ipttctl.errors import KernelError
from ipttctl.programs import trace
from ipttctl.programs import trace as trace_programs
from ipttctl.rules import backends
from ipttctl.rules.backends import Holders
from ipttctl.system import netns, nf_queues
from ipttproto import Command, Feature, Hook, Kind, Walk
from tests.unit.ctl.support import (
    FakeModule,
    event,
    events_message,
    interrupt_when_handled,
    link,
    notification,
    status,
    when_attached,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering")


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("arguments", "features", "limits"),
    [
        ([], sum(Feature), {"budget-events": 200_000, "budget-cpu": 500}),
        ([], 0, None),
        (["--governor", "off"], sum(Feature), None),
        (["--governor", "2%", "--sample", "1/9"], sum(Feature), {"sample": 9, "budget-cpu": 20}),
        (["--limit-rate", "5"], 0, "leave out events of whole packets"),
    ],
)
def test_a_trace_is_governed(
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    features: int,
    limits: Any,
) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(features=Feature(features))]
    when_attached(module, events_message([event()]))
    known = isinstance(limits, str)
    assert run(["trace", "--lines", "--backend", "legacy", "-c", "1", *arguments]) == (
        3 if known else 0
    )
    if known:
        assert limits in capsys.readouterr().err
    else:
        [attached] = module.requested(Command.ATTACH)
        assert attached["programs"].get("limits") == limits


@pytest.mark.parametrize(
    ("option", "value", "is_not"),
    [("--sample", "5", "1/N"), ("--limit-rate", "5/m", "N/s"), ("--governor", "half", "N/s")],
)
def test_limits_that_are_none_are_told_without_a_module(
    module: FakeModule, capsys: pytest.CaptureFixture[str], option: str, value: str, is_not: str
) -> None:
    assert run(["trace", "--lines", option, value]) == 2
    assert f"{option}: '{value}' is not {is_not}" in capsys.readouterr().err
    assert module.requests == []


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("form", ["text", "json"])
def test_packets_that_are_left_out_are_told(
    module: FakeModule, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """They are no packets that are shown or counted."""
    told = [
        event(kind=Kind.LEFT_OUT, table_handle=0, chain_handle=2, rule_handle=number)
        for number in (3, 5)
    ]
    when_attached(module, events_message([told[0], event(), told[1], event()]))
    counters = {"left-out-rate": 2, "left-out-governor": 6}
    module.handlers[Command.DETACH] = lambda *_: [link(stats=counters)]
    assert run(["trace", "--lines", "--backend", "legacy", "-c", "2", "-o", form]) == 0
    captured = capsys.readouterr()
    said = captured.err.splitlines()
    left_out = "8 packets left out (2 over the rate, 6 by the governor)"
    assert said[-1] == f"2 events, 1 packet, lost 0, {left_out}"
    sentence = "link 3: 7 packets left out (2 over the rate, 5 by the governor) so far"
    assert (sentence in said) == (form == "text")
    if form == "json":
        _, *lines = map(json.loads, captured.out.splitlines())
        assert [one.get("left_out", {}).get("governor") for one in lines] == [3, None, 5, None]
        assert [one["kind"] for one in lines] == ["left_out", "rule", "left_out", "rule"]


def test_trace_ends_after_a_count(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exit_event = event(kind=Kind.EXIT, verdict=1)
    when_attached(
        module,
        events_message([event(link=4)], sequence=0),
        events_message([event(), exit_event, event()], sequence=1),
    )
    assert run(["trace", "--lines", "-c", "2"]) == 0
    captured = capsys.readouterr()
    header, *lines = captured.out.splitlines()
    assert header.split()[0] == "TIME"
    assert ["ipttrace=" in lines[0], "iptables=" in lines[1], len(lines)] == [True, True, 2]
    assert captured.err.splitlines() == [
        "compiling the BPF programs (once; takes some seconds)...",
        "tracing: link 3",
        "no IPv6 tables: ip6_tables is not loaded; waiting for it",
        "2 events, 1 packet, lost 0",
    ]
    assert module.requested(Command.DETACH) == [{"link": 3}]
    assert len(programs) == 1


@pytest.mark.parametrize(
    ("backend", "legacy", "nft", "said"),
    [
        ("", False, False, "no rules in {}, of iptables-legacy or nftables"),
        ("", True, False, None),
        ("", False, True, None),
        ("legacy", True, False, None),
        ("legacy", False, True, "iptables-legacy holds no rules in {}; nftables holds some"),
        ("legacy", False, False, "iptables-legacy holds no rules in {}"),
        ("nft", True, False, "nftables holds no rules in {}; iptables-legacy holds some"),
        ("nft", False, False, "nftables holds no rules in {}"),
        ("nft", False, True, None),
    ],
)
@pytest.mark.parametrize("chosen", [True, False])
def test_trace_says_that_there_are_no_rules(
    backend: str,
    legacy: bool,
    nft: bool,
    said: str | None,
    chosen: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def holders(namespace: int) -> Holders:
        asked.append(os.fstat(namespace).st_ino)
        return Holders(legacy, nft)

    monkeypatch.setattr(backends, "holders", holders)
    number = str(netns.own())
    trace_places.tell_unseen(
        number if chosen else None,
        trace_places.Backend(backend) if backend else None,
        stories=True,
    )
    where = f"network namespace {number}" if chosen else "this network namespace"
    assert capsys.readouterr().err == (f"{said.format(where)}\n" if said else "")
    assert asked == [netns.own()]


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (
            None,
            [
                f"no rules in {where}, of iptables-legacy or nftables"
                for where in ("this network namespace", "network namespace n0")
            ],
        ),
        (
            trace_places.Backend.LEGACY,
            [
                "iptables-legacy holds no rules in this network namespace",
                "iptables-legacy holds no rules in network namespace n0",
                (
                    "iptables-legacy holds no rules in network namespaces n1, n2, n3, n4, n5, n6, "
                    "n7, n8 and 2 more; nftables holds some"
                ),
            ],
        ),
    ],
)
def test_trace_says_so_of_every_namespace_that_it_follows(
    backend: trace_places.Backend | None,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Our own holds none, of the named ones n0 neither; the others hold some of nftables."""

    class Named:
        def __init__(self, number: int) -> None:
            self.path = Path(f"/run/netns/n{number}")
            self.inode = number

        def fileno(self) -> int:
            return -self.inode

    ours = Named(netns.own())
    monkeypatch.setattr(netns, "named", lambda: iter([ours, *map(Named, range(11))]))
    monkeypatch.setattr(
        backends, "holders", lambda namespace: Holders(legacy=False, nft=namespace < 0)
    )
    trace_places.tell_unseen(None, backend, stories=True)
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize("error", [PermissionError(), KernelError("reading", errno.EIO)])
def test_trace_goes_on_where_nobody_can_tell_of_rules(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: int) -> Any:
        raise error

    monkeypatch.setattr(backends, "holders", refuse)
    for namespace in (None, "nowhere"):
        trace_places.tell_unseen(namespace, None, stories=True)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("stories", [True, False])
def test_trace_says_where_queues_keep_hooks_from_being_seen(
    stories: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "holders", lambda _: Holders(legacy=True, nft=True))
    monkeypatch.setattr(netns, "named", lambda: iter(()))
    monkeypatch.setattr(nf_queues, "any_listener", lambda _: True)
    trace_places.tell_unseen(None, None, stories=stories)
    assert (
        "a program listens to a queue in this network namespace: " in capsys.readouterr().err
    ) == stories


def test_trace_listens_once_its_programs_are_there(
    module: FakeModule,
    programs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The events of others do not pile up during the compilation."""
    del programs
    load = trace.load_trace_programs

    def slowly(*arguments: Any, **options: Any) -> Any:
        module.multicast(events_message([event()], sequence=0))
        return load(*arguments, **options)

    monkeypatch.setattr(trace_programs, "load_trace_programs", slowly)
    when_attached(module, events_message([event()], sequence=1))
    assert run(["trace", "--lines", "-c", "1", "-o", "json"]) == 0
    _, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["sequence"] == 1


def test_trace_options_reach_programs_and_link(module: FakeModule, programs: list[Any]) -> None:
    when_attached(module, events_message([event()]))
    pid = os.getpid()
    line = f"trace --lines -c 1 -H ::1 --proto icmp6 -P 80 --icmpid 7 -p {pid} -N {netns.own()} -6"
    assert run([*line.split(), "tcp"]) == 0
    [options] = programs
    assert str(options.address) == "::1/128"
    assert (options.protocol, options.port, options.icmp_id) == (58, 80, 7)
    assert (options.pid, options.netns) == (pid, netns.resolve(str(netns.OWN)).cookie)
    tables, chains = module.requested(Command.ATTACH)
    assert (tables["hook"], tables["family"]) == (Hook.TABLE, 10)
    # packets of IPv6 meet tables of family inet too: the programs choose them
    assert (chains["hook"], chains.get("family"), options.family) == (Hook.CHAIN, None, 10)
    # tables have no namespace: there the entry program chooses
    assert "netns-fd" not in tables
    assert "netns-fd" in chains
    for asked in (tables, chains):
        assert asked["programs"]["filter"]
        assert [p["slot"] for p in asked["programs"]["program"]] == [1, 2, 3]


@pytest.mark.parametrize(("backend", "hook"), [("legacy", Hook.TABLE), ("nft", Hook.CHAIN)])
def test_trace_of_one_backend(
    backend: str, hook: Hook, module: FakeModule, programs: list[Any]
) -> None:
    del programs
    when_attached(module, events_message([event()]))
    assert run(["trace", "--lines", "-c", "1", "--backend", backend]) == 0
    assert [asked["hook"] for asked in module.requested(Command.ATTACH)] == [hook]


def test_trace_without_a_verified_walk(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del programs
    module.walk = Walk.DIFFERS
    when_attached(module, events_message([event()]))
    assert run(["trace", "--lines", "-c", "1"]) == 0
    assert "rules of nftables are not seen: on this kernel" in capsys.readouterr().err
    assert [asked["hook"] for asked in module.requested(Command.ATTACH)] == [Hook.TABLE]
    assert run(["trace", "--lines", "-c", "1", "--backend", "nft"]) == 3


def test_trace_takes_a_filter_of_several_words(module: FakeModule, programs: list[Any]) -> None:
    del programs
    when_attached(module, events_message([event()] * 4))
    words = "udp port 53 and host 10.1.0.1"
    assert run(["trace", "--lines", "-c", "1", words]) == 0
    assert run(["trace", "--lines", *words.split()[:3], "-c", "1", *words.split()[3:]]) == 0
    asked = module.requested(Command.ATTACH)
    assert [attach["programs"]["filter"] for attach in asked] == [compile_filter(words)] * 4


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-H 10.1.0.77/24", ("10.1.0.0/24", None, None)),
        ("-H fd00::/8 -6", ("fd00::/8", None, None)),
        ("-P domain", (None, None, 53)),
        ("-P domain --proto 17", (None, 17, 53)),
        ("-P 8080 --proto esp", (None, 50, 8080)),
        ("--proto ipv6-icmp", (None, 58, None)),
    ],
)
def test_trace_takes_networks_and_names(
    line: str, expected: tuple[Any, ...], module: FakeModule, programs: list[Any]
) -> None:
    when_attached(module, events_message([event()]))
    assert run(["trace", "--lines", "-c", "1", *line.split()]) == 0
    [options] = programs
    network = options.address and str(options.address)
    assert (network, options.protocol, options.port) == expected


def test_trace_filter_that_does_not_compile(module: FakeModule) -> None:
    assert run(["trace", "--lines", "no such filter"]) == 4
    assert module.requested(Command.ATTACH) == []


def test_trace_interrupt_shows_what_waits_and_the_totals(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del programs
    when_attached(module, events_message([event()] * 3, sequence=0))

    def detach(*_: Any) -> Any:
        module.multicast(events_message([event()] * 2, sequence=7, lost=(3, 0, 0)))
        module.handlers[Command.STATS] = lambda *_: [status([9], [(3, 0, 0)])]
        return [link()]

    module.handlers[Command.DETACH] = detach
    interrupt_when_handled()
    assert run(["trace", "--lines", "-o", "json", "--backend", "legacy"]) == 0
    captured = capsys.readouterr()
    _, *found = [json.loads(line) for line in captured.out.splitlines()]
    assert [value["sequence"] for value in found] == [0, 1, 2, 7, 8]
    assert captured.err.splitlines()[-1] == (
        "5 events, 1 packet, lost 4 (1 by this observer, 3 ring full)"
    )


def test_trace_ends_when_somebody_else_detaches_the_link(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del programs
    when_attached(module, notification(Command.LINK_DETACHED, link(reason=1)))
    assert run(["trace", "--lines"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == ("link 3 was detached by somebody else")
    assert module.requested(Command.DETACH) == []


class _Terminal(io.StringIO):
    """A terminal with the width in COLUMNS."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("width", "arguments", "first", "count"),
    [
        ("80", [], "OUTPUT T_ACK,PSH:", 4),
        ("199", [], "OUTPUT T_ACK,PSH:", 3),
        ("200", [], "TIME ", 3),
        ("80", ["--columns", "cpu,pkt_info"], "CPU PKT_INFO", 3),
    ],
)
def test_trace_fits_the_terminal(
    width: str,
    arguments: list[str],
    first: str,
    count: int,
    module: FakeModule,
    programs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := _Terminal())
    when_attached(module, events_message([event(), event(kind=Kind.EXIT, verdict=1)]))
    assert run(["trace", "--lines", "-c", "2", *arguments]) == 0
    lines = terminal.getvalue().splitlines()
    assert lines[0].startswith(first)
    assert len(lines) == count
    assert programs


def test_trace_columns_to_a_pipe(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    when_attached(module, events_message([event()]))
    assert run(["trace", "--lines", "-c", "1", "--columns", "PKT_INFO,CPU"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["PKT_INFO", "CPU"]
    assert line.split() == ["T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030", "0"]
    assert programs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "trace --lines --columns when",
            "--columns: there is no column 'when'; they are time, skb",
        ),
        ("events --columns time,time", "--columns: 'time' is given twice"),
        ("trace --lines --columns time -o json", "--columns: -o json has no columns"),
        ("events --links --columns time", "--columns is of packets; leave out --links"),
    ],
)
def test_columns_that_make_no_sense(
    line: str, message: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"ipttctl: {message}")
    assert not module.requests
