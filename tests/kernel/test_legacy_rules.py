# SPDX-License-Identifier: GPL-2.0
"""Rules of iptables-legacy: the generation of each table, and each rule as it was."""

from __future__ import annotations

import errno
import json
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ipttctl.errors import KernelError
from ipttctl.events.records import EventRecord, decode_events
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttctl.system import netns
from ipttproto import EventBatch, EventFlag, Kind, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import Running, running, trace_command
from tests.kernel.support.kernel import (
    loaded_modules,
    remove_module,
    wait_for,
    wait_for_no_redirection,
)
from tests.kernel.support.network import Namespace, event, namespace

IPV4, IPV6 = 2, 10
NF_INET_LOCAL_OUT = 3
#: seconds between two bursts, and between two datagrams
_PAUSE, _PACE = 0.1, 0.02


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("place") as made:
        yield made


@contextmanager
def linked(controller: Controller, make_program: MakeProgram) -> Iterator[Link]:
    """A link at all tables that selects every packet and emits every event."""
    program = make_program().fd
    link = controller.attach(
        TableHook(), ProgramSet(dict.fromkeys((Slot.ENTRY, Slot.RULE, Slot.EXIT), program))
    )
    try:
        yield link
    finally:
        controller.detach(link.id)


def generation(
    controller: Controller, place: Namespace, table: str = "filter", family: int = IPV4
) -> int:
    """The generation of a table that nobody replaces."""
    with netns.find(str(place.path)) as found:
        answer = controller.ruleset(found.fileno(), family, table)
    assert not answer.replacing
    return answer.generation


def refusal(controller: Controller, place: Namespace, *asked: Any) -> tuple[int, str]:
    """The errno and the sentence with which a question is refused."""
    with netns.find(str(place.path)) as found, pytest.raises(KernelError) as refused:
        controller.ruleset(found.fileno(), *asked)
    return refused.value.errno, refused.value.extack


# --- generations ----------------------------------------------------------------------------------


def test_each_replacement_has_a_generation(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    place.iptables("-A", "OUTPUT", "-p", "udp")
    place.ip6tables("-t", "mangle", "-A", "OUTPUT", "-p", "udp")
    with linked(controller, make_program):
        seen = [generation(controller, place)]
        assert seen[0] > 0
        for change in (
            ("-A", "OUTPUT", "-p", "tcp"),
            ("-R", "OUTPUT", "1", "-p", "icmp"),
            ("-Z",),
            ("-F",),
        ):
            place.iptables(*change)
            seen.append(generation(controller, place))
            # listing replaces nothing
            place.iptables("-nL")
            assert generation(controller, place) == seen[-1]
        assert seen == sorted(set(seen))
        other = generation(controller, place, "mangle", IPV6)
        place.ip6tables("-t", "mangle", "-A", "OUTPUT", "-p", "tcp")
        assert generation(controller, place, "mangle", IPV6) > other


def test_generations_are_never_used_again(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Neither after a time when nobody looked, nor by a table at the same address."""
    place.iptables("-A", "OUTPUT", "-p", "udp")
    seen = set()
    for _ in range(3):
        with linked(controller, make_program):
            seen.add(generation(controller, place))
        wait_for_no_redirection()
    assert len(seen) == 3
    with linked(controller, make_program):
        for number in range(5):
            with namespace(f"brief-{number}") as brief:
                brief.iptables("-A", "OUTPUT", "-p", "udp")
                seen.add(generation(controller, brief))
    assert len(seen) == 8


def test_questions_that_have_no_answer(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    place.iptables("-A", "OUTPUT", "-p", "udp")
    assert refusal(controller, place, IPV4, "filter")[0] == errno.ENODATA
    with linked(controller, make_program):
        assert refusal(controller, place, IPV4, "mangle") == (
            errno.ENOENT,
            "the network namespace has no such legacy table",
        )
        assert refusal(controller, place, 7, "filter")[0] == errno.EAFNOSUPPORT
        with Path("/dev/null").open() as nothing, pytest.raises(KernelError) as refused:
            controller.ruleset(nothing.fileno(), IPV4, "filter")
        assert "not of a network namespace" in refused.value.extack
        # nothing was made by asking
        assert place.run("cat", "/proc/net/ip_tables_names") == "filter\n"
    assert generation_is_refused_soon(controller, place)


def generation_is_refused_soon(controller: Controller, place: Namespace) -> bool:
    """Whether nobody counts any more, once the functions are released."""
    wait_for_no_redirection()
    return refusal(controller, place, IPV4, "filter")[0] == errno.ENODATA


def flood(stop: Any) -> None:
    """Send a datagram to each port in turn, and again, until told to stop."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        port = 0
        while not stop.is_set():
            for _ in range(8):
                port = port % 60_000 + 1
                with suppress(OSError):
                    sender.sendto(b"x", ("127.0.0.1", port))
            # `flood_udp` explains the pauses
            time.sleep(_PAUSE)


def marking(number: int) -> str:
    """A table that marks datagrams with a number."""
    return (
        f"*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n-A OUTPUT -p udp -m comment --comment n{number}"
        f" -j MARK --set-mark {number}\nCOMMIT\n"
    )


def rules_of(batches: Iterable[EventBatch], link: Link) -> list[EventRecord]:
    """The events of rules; the ends of chains are left out."""
    return [
        one for batch in batches for one in decode_events(batch, {link.id}) if one.kind == Kind.RULE
    ]


def marks_by_ruleset(met: list[EventRecord]) -> tuple[dict[int, set[int]], int]:
    """The marks that packets got, by the ruleset that their events name; those uncertain."""
    rulesets: dict[int, set[int]] = {}
    uncertain = 0
    raw: dict[tuple[int, int], EventRecord] = {}
    # a sender may come to another processor between two tables
    for one in sorted(met, key=lambda one: one.time):
        packet = one.skb, one.dport
        if one.table == b"raw":
            raw[packet] = one
        elif one.table == b"mangle":
            before = raw.pop(packet)
            if before.flags & EventFlag.UNCERTAIN:
                uncertain += 1
            else:
                rulesets.setdefault(before.ruleset, set()).add(one.mark)
    return rulesets, uncertain


def test_a_generation_is_one_ruleset(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Each ruleset marks packets with a number of its own, which the next table shows."""
    place.restore(marking(1))
    # as few events as possible: the emulator is slow
    place.iptables("-t", "mangle", "-A", "OUTPUT", "-p", "udp", "-j", "DROP")
    stop = event()
    with controller.events() as stream, linked(controller, make_program) as link:
        met: list[EventRecord] = []
        sender = place.start(flood, stop)
        try:
            for number in range(2, 40):
                place.restore(marking(number))
                met += rules_of(stream.read(0), link)
        finally:
            stop.set()
            sender.join(30)
        met += rules_of(stream.drain(), link)
        assert stream.losses.events == 0
        last = generation(controller, place, "raw")
    rulesets, uncertain = marks_by_ruleset([one for one in met if one.netns == place.inode])
    assert 0 not in rulesets
    assert len(rulesets) > 10
    wrong = {ruleset: marks for ruleset, marks in rulesets.items() if len(marks) > 1}
    assert not wrong
    # the same order as that of the rulesets
    marks = [rulesets[ruleset].pop() for ruleset in sorted(rulesets)]
    assert marks == sorted(marks)
    assert max(rulesets) <= last
    print(f"{len(marks)} rulesets met, {uncertain} packets uncertain")


def restore_again(name: str, rules: str, stop: Any) -> None:
    """Replace a table by the same rules, again and again."""
    place = Namespace(name)
    while not stop.is_set():
        place.restore(rules)


def test_a_replacement_under_way_is_told(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """The kernel searches for the number of each rule, which takes it longer than to replace them.

    An exit's event says whether the rules were replaced between entry and exit.
    """
    many = 4000 * "-A OUTPUT -p udp\n"
    rules = f"*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n{many}COMMIT\n"
    place.restore(rules)
    link = controller.attach(
        TableHook(count_rules=True), ProgramSet({Slot.EXIT: make_program().fd})
    )
    met: list[EventRecord] = []

    def uncertain(port: int) -> bool:
        """Send a datagram; whether the rules were replaced while it went out."""
        place.call(send, "127.0.0.1", port)
        met.extend(one for batch in stream.drain() for one in decode_events(batch, {link.id}))
        [out] = [one for one in met if one.dport == port and one.hook == NF_INET_LOCAL_OUT]
        return bool(out.flags & EventFlag.UNCERTAIN)

    with controller.events() as stream:
        stop = event()
        replacing = place.start(restore_again, place.name, rules, stop)
        try:
            # about one in ten
            raced = next((port for port in range(1000, 1200) if uncertain(port)), None)
        finally:
            stop.set()
            replacing.join(60)
        assert raced
        assert not uncertain(2000)
    assert met[-1].ruleset == generation(controller, place)
    controller.detach(link.id)


# --- texts ----------------------------------------------------------------------------------------


def send(address: str, *ports: int) -> None:
    """Send a datagram to each port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for port in ports:
            with suppress(OSError):
                sender.sendto(b"x", (address, port))


def send_slowly(address: str, ports: list[int]) -> None:
    """Send a datagram to each port, spread over many replacements of the rules.

    That is the pace itself: nothing marks a replacement for the sender.
    """
    for port in ports:
        send(address, port)
        time.sleep(_PACE)


def of_port(trace: Running, port: int) -> list[dict[str, Any]]:
    """The events of a packet of ``send`` that goes out, once it has left its last table."""
    # to parse all lines again and again takes long in the emulator
    word = f'"destination_port":{port},'

    def complete() -> list[dict[str, Any]]:
        lines = trace.out().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n") and word in line]
        ends = [e for e in found if e["kind"] == "exit" and e["hook"] == "OUTPUT"]
        return found if any(e["table"] == "filter" for e in ends) else []

    found = wait_for(complete, timeout=120, what=f"the packet to port {port}")
    assert isinstance(found, list)
    return [e for e in found if e["hook"] == "OUTPUT"]


def saved(place: Namespace, tool: str, table: str) -> dict[tuple[str, int], str]:
    """The rules of a table as they are listed, by chain and number."""
    found: dict[tuple[str, int], str] = {}
    for line in place.run(tool, "-t", table).splitlines():
        if line.startswith("-A "):
            chain = line.split()[1]
            number = 1 + sum(known == chain for known, _ in found)
            found[chain, number] = line
    return found


def until_read(place: Namespace, trace: Running, address: str = "127.0.0.1") -> None:
    """Send packets until the rules that they meet have been read."""
    port = 40_000

    def shown() -> bool:
        nonlocal port
        port += 1
        place.call(send, address, port)
        met = [e for e in of_port(trace, port) if e["kind"] == "rule"]
        return bool(met) and all(e["rule"] for e in met)

    wait_for(shown, timeout=120, what="texts")


MANY = """*raw
:PREROUTING ACCEPT
:OUTPUT ACCEPT
-A OUTPUT -p udp -m comment --comment "first, \\"raw\\"" -j MARK --set-mark 5
COMMIT
*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:mine -
:abcdefghijklmnopqrstuvwxyz-8 -
-A OUTPUT -p tcp -j DROP
-A OUTPUT -p udp -j mine
-A OUTPUT -p udp -m comment --comment "the third"
-A mine -p udp -m multiport --dports 1:60000 -j abcdefghijklmnopqrstuvwxyz-8
-A mine -p udp
-A abcdefghijklmnopqrstuvwxyz-8 -m mark --mark 5
-A abcdefghijklmnopqrstuvwxyz-8 -j RETURN
-A abcdefghijklmnopqrstuvwxyz-8 -j DROP
COMMIT
"""


@pytest.mark.parametrize(
    ("tool", "address"), [("iptables", "127.0.0.1"), ("ip6tables", "::1")], ids=["ipv4", "ipv6"]
)
def test_rules_are_those_that_iptables_lists(place: Namespace, tool: str, address: str) -> None:
    place.restore(MANY, ipv6=tool == "ip6tables")
    listed = {table: saved(place, f"{tool}-legacy-save", table) for table in ("raw", "filter")}
    assert len(listed["filter"]) == 8
    with trace_command("-N", place.name, "--backend", "legacy", "--proto", "udp") as trace:
        until_read(place, trace, address)
        place.call(send, address, 7)
        met = of_port(trace, 7)
        trace.finish()
    steps = [(e["table"], e["chain"], e["rulenum"]) for e in met if e["kind"] != "exit"]
    deep = "abcdefghijklmnopqrstuvwxyz-8"
    assert steps == [
        ("raw", "OUTPUT", 1),
        ("raw", "OUTPUT", 2),
        ("filter", "OUTPUT", 2),
        ("filter", "mine", 1),
        ("filter", deep, 1),
        ("filter", deep, 2),
        ("filter", "mine", 2),
        ("filter", "mine", 3),
        ("filter", "OUTPUT", 3),
        ("filter", "OUTPUT", 4),
    ]
    for one in met:
        # the ends of chains and the policies have no rule
        rule = listed[one["table"]].get((one["chain"], one["rulenum"] or 0))
        assert (one["rule"], one["rule_note"]) == (rule, None), one
        assert one["rule_syntax"] == ("iptables" if rule else None)
        assert one["ruleset"]
        assert one["uncertain"] is False
    assert met[0]["rule"].endswith(
        '--comment "first, \\"raw\\"" -j MARK --set-xmark 0x5/0xffffffff'
    )


ALL = """*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:all -
-A INPUT -p udp -m udp --dport 7 -j all
-A INPUT -p icmp -j ACCEPT
-A INPUT -j DROP
-A all -j DROP
COMMIT
"""


def test_rules_that_match_all_packets_are_to_blame(place: Namespace) -> None:
    """The kernel reports them as the policy, or the end, of their chains."""
    place.restore(ALL)
    wanted = {
        7: 'dropped by filter all 1 "-A all -j DROP"',
        8: 'dropped by filter INPUT 3 "-A INPUT -j DROP"',
    }
    with running("trace", "-N", place.name, "-o", "json", "--proto", "udp") as trace:
        trace.wait_for_text("tracing")

        def told() -> bool:
            for port in wanted:
                place.call(send, "127.0.0.1", port)
            ends = [(one["headers"]["destination_port"], one["end"]) for one in trace.records()]
            known = {
                port: end["text"].partition(",")[0]
                for port, end in ends
                if end["rule"] and end["rule"]["rule"]
            }
            return known == wanted

        wait_for(told, timeout=120, what="texts of rules")
        shown = trace.finish()
    # none was told wrongly before the rules were read
    for one in shown:
        assert one["end"]["rule"]["rule"] or "rule uncertain" in one["end"]["text"], one["end"]


def test_a_rule_is_shown_as_it_was(place: Namespace) -> None:
    place.iptables("-A", "OUTPUT", "-p", "udp", "-m", "comment", "--comment", "one")
    changes = [
        ("-I", "OUTPUT", "-p", "udp", "-m", "comment", "--comment", "two"),
        ("-R", "OUTPUT", "1", "-p", "udp", "-m", "comment", "--comment", "three"),
        ("-Z",),
        ("-D", "OUTPUT", "1"),
        ("-F",),
        ("-A", "OUTPUT", "-p", "udp", "-m", "comment", "--comment", "four"),
    ]
    ports = iter(range(1000, 40_000))
    with trace_command("-N", place.name, "--backend", "legacy", "--proto", "udp") as trace:
        until_read(place, trace)
        for change in changes:
            place.iptables(*change)
            rules = list(saved(place, "iptables-legacy-save", "filter").values())
            read = False
            # the table is read again off the events' path, which may take longer than they wait
            while not read:
                port = next(ports)
                place.call(send, "127.0.0.1", port)
                met = [e for e in of_port(trace, port) if e["kind"] != "exit"]
                read = not any(e["rule_note"] for e in met)
                shown = [e["rule"] for e in met if e["kind"] == "rule"]
                assert shown == (rules if read else [None] * len(rules)), (change, met)
        trace.finish()


def replace(name: str, stop: Any) -> None:
    """Replace the table again and again, each time by one that marks with another number."""
    place = Namespace(name)
    number = 1
    while not stop.is_set():
        number += 1
        place.restore(marking(number))


def test_never_a_wrong_rule(place: Namespace) -> None:
    """The rule's comment has the number of the mark that the rule sets."""
    place.restore(marking(1))
    place.iptables("-A", "OUTPUT", "-p", "udp", "-m", "comment", "--comment", "fixed")
    place.iptables("-t", "mangle", "-A", "OUTPUT", "-p", "udp")
    ports = range(1000, 1060)
    with trace_command("-N", place.name, "--backend", "legacy", "--proto", "udp") as trace:
        until_read(place, trace)
        for round_number in range(2):
            stop = event()
            replacing = place.start(replace, place.name, stop)
            place.call(send_slowly, "127.0.0.1", [port + 1000 * round_number for port in ports])
            stop.set()
            replacing.join(30)
            place.call(send, "127.0.0.1", 50_000 + round_number)
            of_port(trace, 50_000 + round_number)
        shown = trace.finish()
    certain = _compared(shown)
    # those after each round at least
    assert certain >= 2
    fixed = [e for e in shown if e["table"] == "filter" and e["kind"] == "rule"]
    assert {e["rule"] for e in fixed} <= {None, "-A OUTPUT -p udp -m comment --comment fixed"}
    print(f"{certain} rules with text, {len(fixed)} packets")


def _compared(shown: list[dict[str, Any]]) -> int:
    """Compare the rules that set marks with the marks; returns how many had a text."""
    certain = 0
    rules: dict[tuple[str, int], dict[str, Any]] = {}
    for one in shown:
        if one["kind"] != "rule" or one["hook"] != "OUTPUT":
            continue
        packet = one["skb"], one["destination_port"]
        if one["table"] == "raw":
            rules[packet] = one
        elif one["table"] == "mangle":
            met = rules.pop(packet)
            assert bool(met["rule"]) != bool(met["rule_note"]), met
            if met["rule"]:
                certain += 1
                assert re.findall("--comment n([0-9]+)", met["rule"]) == [str(one["mark"])]
    return certain


def remove_with_users(name: str) -> None:
    """Unload a module, and before it those that use it."""
    for line in Path("/proc/modules").read_text().splitlines():
        module, _, _, users, *_ = line.split()
        if module == name:
            for user in users.split(","):
                if user not in {"", "-"} and user in loaded_modules():
                    remove_with_users(user)
            remove_module(name)


def test_x_tables_is_not_kept(controller: Controller, make_program: MakeProgram) -> None:
    """No reference is left to the modules of tables: they unload under a link, and come again."""
    with linked(controller, make_program):
        with namespace("brief") as brief:
            brief.iptables("-A", "OUTPUT", "-p", "udp")
            first = generation(controller, brief)
        remove_with_users("x_tables")
        with namespace("again") as again:
            assert refusal(controller, again, IPV4, "filter")[0] == errno.ENOENT
            assert "x_tables" not in loaded_modules()
            again.iptables("-A", "OUTPUT", "-p", "udp")
            assert generation(controller, again) > first
