# SPDX-License-Identifier: GPL-2.0
"""`ipttctl trace` and the other commands, as users type them, on real packets."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipttproto import TABLE_SLOTS
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.cli import IPTTCTL, ipttctl, running, trace_command
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    MODULE,
    load_module,
    run,
    trust_walk,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Namespace, Network, namespace, send_udp

RULE_LINE = re.compile(
    r"^(?P<time>\S+) +0x(?P<skb>[0-9a-f]{16}) +(?P<netns>\d+\S*) +(?P<pid>\d+|-) +\d+ +"
    r"(?P<interface>\S+) +(?P<mac>\S+) +(?P<length>\d+) +(?P<packet>\S+) +"
    r"ipttrace=\[pf=PF_INET6? in=(?P<in>\S*) out=(?P<out>\S*) table=(?P<table>\w+) "
    r"chain=(?P<chain>\w+) hook=(?P<hook>\d) rulenum=(?P<rulenum>\d+)( kind=(return|policy))?\]"
    r"( rule=\[(?P<rule>.*)\]| rule uncertain \(.*\))$"
)
EXIT_LINE = re.compile(
    r" iptables=\[pf=PF_INET6? table=(?P<table>\w+) hook=(?P<hook>\w+) verdict=(?P<verdict>\S+) "
    r"cost=(?P<cost>[\d.]+)µs rules=\d+\]$"
)


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace whose tables count packets over its loopback."""
    with namespace("place") as made:
        made.iptables("-A", "OUTPUT", "-j", "ACCEPT")
        made.ip6tables("-A", "OUTPUT", "-j", "ACCEPT")
        yield made


def _connect(address: str, port: int) -> None:
    """Make a TCP connection that sends a line and is closed by both ends."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, port), family=family) as server,
        socket.create_connection((address, port)) as client,
    ):
        peer, _ = server.accept()
        with peer:
            client.sendall(b"hello\n")
            assert peer.recv(100) == b"hello\n"


def test_text_of_a_trace(place: Namespace) -> None:
    with running("trace", "--lines", "-N", place.name, "-c", "8", fresh=True) as trace:
        trace.wait_for_text("tracing: link")
        place.call(_connect, "127.0.0.1", 7007)
        assert trace.process.wait(COMMAND_TIMEOUT) == 0
    heading, *lines = trace.out().splitlines()
    assert heading.split() == [
        "TIME", "SKB", "NETWORK_NS", "PID", "CPU", "INTERFACE", "DEST_MAC", "IP_LEN", "PKT_INFO",
        "IPTABLES_INFO",
    ]  # fmt: skip  # pairs together
    assert len(lines) == 8
    first = RULE_LINE.match(lines[0])
    assert first, lines[0]
    assert first["netns"] == f"{place.inode}({place.name})"
    assert re.fullmatch(r"T_SYN:127\.0\.0\.1:\d+->127\.0\.0\.1:7007", first["packet"])
    assert (first["table"], first["chain"], first["hook"]) == ("filter", "OUTPUT", "3")
    assert (first["in"], first["out"], first["interface"]) == ("", "lo", "lo(1)")
    assert first["pid"].isdecimal()
    assert first["rule"] in {"-A OUTPUT -j ACCEPT", None}
    ends = [match for line in lines if (match := EXIT_LINE.search(line))]
    assert ends
    assert {end["verdict"] for end in ends} == {"ACCEPT"}
    assert re.search(r"8 events, \d+ packets, lost 0", trace.err())


Send = Callable[[Namespace], object]


def _udp(address: str, port: int) -> Send:
    return lambda where: where.call(send_udp, address, port, [b"x"])


def _ping(address: str, *options: str) -> Send:
    return lambda where: where.ping(address, *options)


@dataclass(frozen=True)
class Selection:
    """Options, a packet that they select and one that they do not.

    ``passages`` is how often the selected one and its answer pass through a table; all events have
    ``common`` in common.
    """

    options: tuple[str, ...]
    wanted: Send
    other: Send
    passages: int
    common: dict[str, object]


SELECTIONS = [
    Selection(
        ("-H", "127.0.0.2"), _udp("127.0.0.2", 9), _udp("127.0.0.3", 9), 2,
        {"destination": "127.0.0.2"},
    ),
    Selection(
        ("-H", "127.7.0.0/16"), _udp("127.7.255.254", 9), _udp("127.8.0.1", 9), 2,
        {"destination": "127.7.255.254"},
    ),
    # more than the half of an address that a program compares at once
    Selection(
        ("-H", "::/127"), _ping("::1", "-s", "24"), _udp("127.0.0.1", 9), 4, {"family": 6},
    ),
    Selection(
        ("--ipaddr", "::1", "--proto", "udp"), _udp("::1", 9), _udp("127.0.0.1", 9), 2,
        {"destination": "::1", "protocol": 17},
    ),
    Selection(("--proto", "icmp"), _ping("127.0.0.1"), _udp("127.0.0.1", 9), 4, {"protocol": 1}),
    Selection(("--proto", "icmp6"), _ping("::1"), _ping("127.0.0.1"), 4, {"protocol": 58}),
    Selection(("-P", "99"), _udp("::1", 99), _udp("::1", 98), 2, {"destination_port": 99}),
    Selection(("-P", "domain"), _udp("::1", 53), _udp("::1", 54), 2, {"destination_port": 53}),
    Selection(
        ("--icmpid", "777"), _ping("127.0.0.1", "-e", "777"), _ping("127.0.0.1", "-e", "778"), 4,
        {"icmp_id": 777},
    ),
    Selection(("-6",), _ping("::1"), _ping("127.0.0.1"), 4, {"family": 6}),
    Selection(
        ("udp port 53 and host 127.0.0.9",), _udp("127.0.0.9", 53), _udp("127.0.0.8", 53), 2,
        {"destination": "127.0.0.9", "destination_port": 53},
    ),
    Selection(
        ("udp", "port", "53", "and", "host", "127.0.0.9"), _udp("127.0.0.9", 53),
        _udp("127.0.0.8", 53), 2, {"destination": "127.0.0.9"},
    ),
]  # fmt: skip  # pairs together


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: " ".join(s.options))
def test_options_select(place: Namespace, selection: Selection) -> None:
    """An option selects one of two packets, in all of its passages, and nothing else."""
    # nobody listens: without this rule the kernel would answer with ICMP
    place.iptables("-A", "INPUT", "-p", "udp", "-j", "DROP")
    place.ip6tables("-A", "INPUT", "-p", "udp", "-j", "DROP")
    with trace_command("-N", str(place.inode), *selection.options) as trace:
        selection.other(place)
        selection.wanted(place)
        selection.other(place)
        events = trace.finish()
    for event in events:
        assert {name: event[name] for name in selection.common} == selection.common
    assert [event["kind"] for event in events].count("exit") == selection.passages
    assert len(events) > selection.passages


def test_pid_selects_the_sender(place: Namespace) -> None:
    def send_slowly(go: str) -> None:
        wait_for(lambda: Path(go).exists(), timeout=120)
        send_udp("127.0.0.1", 9, [b"x"] * 3)

    go = f"/run/go-{os.getpid()}"
    sender = place.start(send_slowly, go)
    try:
        with trace_command("-p", str(sender.pid)) as trace:
            place.ping("127.0.0.1")
            Path(go).touch()
            sender.join(30)
            events = trace.finish()
    finally:
        Path(go).unlink(missing_ok=True)
    assert {event["pid"] for event in events} == {sender.pid}
    assert {event["hook"] for event in events} == {"OUTPUT"}
    assert len([event for event in events if event["kind"] == "exit"]) == 3


def test_second_trace_does_not_compile(place: Namespace) -> None:
    for _ in range(2):
        with trace_command("-N", place.name) as trace:
            place.ping("127.0.0.1")
            assert trace.finish()
    assert "compiling" not in trace.err()


def test_trace_ends_with_its_link(place: Namespace) -> None:
    with running("trace", "--lines", "-N", place.name) as trace:
        # one for each back end
        wait_for(lambda: trace.err().count("tracing: link ") == 2 and trace.err().endswith("\n"))
        links = [line.split()[0] for line in trace.err().split("tracing: link ")[1:]]
        for link in links:
            done = ipttctl("detach", link)
            assert done.returncode == 0, done.stderr
        assert trace.process.wait(COMMAND_TIMEOUT) == 0
    for link in links:
        assert f"link {link} was detached by somebody else" in trace.err()


def test_attach_swap_events_detach(place: Namespace, make_program: MakeProgram) -> None:
    one, two = make_program(name="one"), make_program(name="two")
    slots = [slot.name.lower() for slot in TABLE_SLOTS]
    given = [text for slot in slots for text in ("--fd", f"{slot}={one.fd}")]
    with running("attach", *given, "-o", "json", pass_fds=[one.fd]) as owner:
        owner.wait_for_text("\n")
        link = json.loads(owner.out())
        assert (link["generation"], link["programs"]["rule"]["name"]) == (1, "one")
        with running("events", "-o", "json", "--link", str(link["link"])) as events:
            events.wait_for_text("listening")
            place.ping("127.0.0.1")
            swapped = ipttctl(
                "swap", str(link["link"]), "--id", f"exit={two.id}", "--expect-gen", "1",
                "-o", "json",
            )  # fmt: skip  # pairs together
            assert json.loads(swapped.stdout)["generation"] == 2, swapped.stderr
            place.ping("127.0.0.1")
            seen = events.finish()
        again = ipttctl("swap", str(link["link"]), "--id", f"exit={one.id}", "--expect-gen", "1")
        assert again.returncode == 7
        assert "generation" in again.stderr
        shown = ipttctl("links", "-o", "json")
        assert [json.loads(line)["generation"] for line in shown.stdout.splitlines()] == [2]
        assert owner.stop() == 0
    assert ipttctl("links", "-o", "json").stdout == ""
    generations = [event["generation"] for event in seen]
    assert generations == sorted(generations)
    assert set(generations) == {1, 2}
    assert {event["kind"] for event in seen if event["generation"] == 2} == {"exit"}
    for cpu in {event["cpu"] for event in seen}:
        numbers = [event["sequence"] for event in seen if event["cpu"] == cpu]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_persistent_link_and_pinned_program(place: Namespace, make_program: MakeProgram) -> None:
    program = make_program(name="pinned")
    path = Path("/sys/fs/bpf/test-pinned")
    program.pin(path)
    try:
        made = ipttctl("attach", "--pinned", f"exit={path}", "--persist", "-o", "json")
        assert made.returncode == 0, made.stderr
        link = json.loads(made.stdout)
        assert link["persistent"]
        assert str(link["link"]) in ipttctl().stdout
        refused = ipttctl("module", "unload")
        assert refused.returncode == 3
        assert f"{link['link']}" in refused.stderr
        gone = ipttctl("detach", "--all")
        assert gone.returncode == 0, gone.stderr
        place.ping("127.0.0.1")
    finally:
        path.unlink()


CLANG_PROGRAM = """
#include <linux/types.h>
typedef __u32 u32;
__attribute__((section("kprobe/ipt_do_table"), used))
int select_everything(void *ctx) { return 1; }
char LICENSE[] __attribute__((section("license"))) = "GPL";
"""


def test_object_of_clang_loaded_by_bpftool(place: Namespace, tmp_path: Path) -> None:
    """The object file needs no bpfcc and no Python: bpftool pins it, and the pin is attached."""
    source, target = tmp_path / "plain.c", tmp_path / "plain.o"
    source.write_text(CLANG_PROGRAM)
    run("clang", "-target", "bpf", "-O2", "-I/usr/include/x86_64-linux-gnu", "-c", str(source),
        "-o", str(target))  # fmt: skip  # pairs together
    path = Path("/sys/fs/bpf/plain")
    run("bpftool", "prog", "load", str(target), str(path), "type", "kprobe")
    try:
        with running(
            "attach",
            *(f"--pinned={slot.name.lower()}={path}" for slot in TABLE_SLOTS),
            "-o",
            "json",
        ) as owner:
            owner.wait_for_text("\n")
            link = json.loads(owner.out())["link"]
            place.ping("127.0.0.1")
            (shown,) = ipttctl("links", str(link), "-o", "json").stdout.splitlines()
            assert json.loads(shown)["events"] > 0
            assert owner.stop() == 0
    finally:
        path.unlink()


def test_controller_in_another_namespace(place: Namespace) -> None:
    """The family and the controller's socket are in the initial namespace, wherever it runs."""

    def links() -> None:
        done = ipttctl("links", fresh=True)
        assert done.returncode == 0, done.stderr

    place.call(links, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("attach", "--fd", "rule=77"), 4, "fd 77 is not open in this process"),
        (("attach", "--fd", "entry=0"), 4, "fd 0"),
        (("attach", "--fd", "middle=3"), 2, "no slot 'middle'"),
        (("attach", "--id", "exit=4000000"), 4, "no BPF program with id 4000000"),
        (("attach", "--pinned", "exit=/sys/fs/bpf/none"), 4, "/sys/fs/bpf/none"),
        (("swap", "999999", "--id", "exit=1"), 4, "id 1"),
        (("detach", "999999"), 6, "no such link"),
        (("trace", "tcp prot 80"), 4, "syntax error"),
        (("trace", "-H", "10.0.0.300"), 2, "10.0.0.300"),
        (("trace", "-N", "nowhere"), 2, "nowhere"),
    ],
)
def test_one_line_says_what_was_wrong(arguments: tuple[str, ...], status: int, words: str) -> None:
    done = ipttctl(*arguments)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ipttctl: ")
    assert words in line
    assert done.stdout == ""


def test_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the checkout may belong to a user whom root does not trust
    built = shutil.copy(os.environ["IPTTRACE_KO"], str(tmp_path))
    monkeypatch.setenv("IPTTRACE_KO", built)
    unload_module()
    try:
        done = ipttctl("trace")
        assert done.returncode == 3
        assert "module load" in done.stderr
        done = ipttctl("module", "load", fresh=True)
        assert done.returncode == 0, done.stderr
        assert MODULE in run("lsmod")
    finally:
        if MODULE in run("lsmod"):
            trust_walk()
        else:
            load_module()


def test_unprivileged() -> None:
    """The user has no capability, but owns a checkout that others may not read."""
    done = subprocess.run(
        ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *IPTTCTL, "links"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip  # plain options together
    assert done.returncode == 5, done.stderr
    assert "root" in done.stderr


def test_trace_of_a_forwarded_connection(net: Network) -> None:
    """A router rewrites the destination: its tables appear in order, in one namespace."""
    net.router.iptables("-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", "53", "-j", "DNAT",
                        "--to", net.right_address)  # fmt: skip  # pairs together
    net.router.iptables("-A", "FORWARD", "-p", "udp", "-j", "DROP")
    with trace_command("-N", net.router.name, "--proto", "udp") as trace:
        net.left.call(send_udp, net.router_address, 53, [b"question"])
        events = trace.finish()
    assert [(e["table"], e["hook"], e["kind"], e["verdict"]) for e in events] == [
        ("nat", "PREROUTING", "rule", None),
        ("nat", "PREROUTING", "exit", "ACCEPT"),
        ("filter", "FORWARD", "rule", None),
        ("filter", "FORWARD", "exit", "DROP"),
    ]
    assert events[0]["destination"] == net.router_address
    assert events[2]["destination"] == net.right_address
    assert {e["in_name"] for e in events} == {"r1"}
    assert events[0]["dest_mac"]
    assert {e["pid"] for e in events} == {None}
