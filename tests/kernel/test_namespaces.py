# SPDX-License-Identifier: GPL-2.0
"""Network namespaces that come, go and get the names and numbers of others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.system import netns
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.assembler import returning
from tests.kernel.support.cli import Running, ipttctl, running, trace_command
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for
from tests.kernel.support.network import Namespace, namespace, send_udp
from tests.kernel.support.nf import netns_of, socket_filter
from tests.kernel.support.short_lived import Life, live

#: accepts what is sent
NFT = "table ip t { chain c { type filter hook output priority 0; accept; }; }"
SHORT = 60
#: the emulator lets a busy processor run for 100 ms before it turns to the next one
SECONDS = 0.5
THREAD = """
import sys, threading
thread = threading.Thread(target=sys.stdin.read)
thread.start()
print(thread.native_id, flush=True)
"""
SENDER = """
from socket import *
socket(AF_INET, SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))
"""


@pytest.fixture(autouse=True)
def place() -> Iterator[Namespace]:
    """A namespace whose tables count packets over its loopback, so that names have a directory."""
    with _tables("web") as made:
        yield made


@contextmanager
def _tables(name: str) -> Iterator[Namespace]:
    with namespace(name) as made:
        made.iptables("-A", "OUTPUT", "-j", "ACCEPT")
        yield made


def _send(where: Namespace, port: int) -> None:
    where.call(send_udp, "127.0.0.1", port, [b"x"])


def _shown(events: list[dict[str, Any]]) -> dict[int, set[tuple[int, str | None]]]:
    """Port -> the namespaces shown in events of packets to that port."""
    shown: dict[int, set[tuple[int, str | None]]] = {}
    for event in events:
        where = event["netns_cookie"], event["netns_name"]
        shown.setdefault(event["destination_port"], set()).add(where)
    return shown


def _lives_until_a_number_is_used_again() -> list[Life]:
    """Three lives at least: a busy machine frees the number of one that is gone later."""
    lives: list[Life] = []
    while len(lives) < 3 or len({life.identity.inode for life in lives}) == len(lives):
        assert len(lives) < SHORT, "no number was used again"
        lives.append(live(f"next{len(lives)}", 9000 + len(lives), SECONDS))
    return lives


def test_one_after_the_other() -> None:
    """The next namespace gets the number of the last one at once, but not its name."""
    # reading the rules of a namespace keeps it, and its number, for a while
    with trace_command("--proto", "udp", "--no-rules") as trace:
        lives = _lives_until_a_number_is_used_again()
        wait_for(lambda: trace.out().count('"exit"') >= 2 * len(lives), what="the events")
        shown = _shown(trace.finish())
    assert shown == {9000 + i: {(life.identity.cookie, f"next{i}")} for i, life in enumerate(lives)}


def test_many_that_live_for_a_moment() -> None:
    # see above
    with trace_command("--proto", "udp", "--no-rules") as trace:
        lives = [live(f"short{i}", 9000 + i, SECONDS) for i in range(SHORT)]
        wait_for(lambda: trace.out().count('"exit"') >= 2 * SHORT, what="the events")
        shown = _shown(trace.finish())
    assert len({life.identity.inode for life in lives}) < SHORT
    expected = {9000 + i: {(lives[i].identity.cookie, f"short{i}")} for i in range(SHORT)}
    shortest = min(life.seconds for life in lives)
    assert shown == expected, f"the shortest lived for {shortest:.3f} s"


def test_what_is_gone_before_anybody_can_look_has_no_name_or_its_own() -> None:
    with trace_command("--proto", "udp") as trace:
        lives = [live(f"short{i}", 9000 + i, 0) for i in range(SHORT // 4)]
        wait_for(lambda: trace.out().count('"exit"') >= SHORT // 2, what="the events")
        shown = _shown(trace.finish())
    for i, life in enumerate(lives):
        cookie = life.identity.cookie
        assert shown[9000 + i] <= {(cookie, None), (cookie, f"short{i}")}


def _replace(place: Namespace, running: Running) -> netns.Identity:
    """Delete a namespace, have another one get its number, and make one of the same name."""
    run("ip", "netns", "delete", place.name)
    running.wait_for_text("network namespace web is gone; waiting for the next of this name")
    live("stranger", 9100, SECONDS)
    run("ip", "netns", "add", place.name)
    running.wait_for_text("network namespace web is there again: followed from here on")
    run("ip", "-n", place.name, "link", "set", "lo", "up")
    place.iptables("-A", "OUTPUT", "-j", "ACCEPT")
    return netns.resolve(place.name)


def test_trace_follows_a_name(place: Namespace) -> None:
    first = netns.resolve(place.name)
    with trace_command("-N", place.name, "--proto", "udp") as trace:
        _send(place, 9001)
        second = _replace(place, trace)
        _send(place, 9002)
        wait_for(lambda: '"destination_port":9002' in trace.out(), what="an event")
        events = trace.finish()
        assert trace.err().count(" is gone") == 1, trace.err()
    assert first.cookie != second.cookie
    assert _shown(events) == {9001: {(first.cookie, "web")}, 9002: {(second.cookie, "web")}}


def test_trace_follows_a_name_at_chains(place: Namespace) -> None:
    """The link is in the namespace: packets elsewhere are not even counted."""
    place.run("nft", NFT)
    with namespace("elsewhere") as elsewhere, Controller() as controller:
        elsewhere.run("nft", NFT)
        with running(
            *(
                "trace",
                "--lines",
                "--backend",
                "nft",
                "-N",
                place.name,
                "--proto",
                "udp",
                "-o",
                "json",
            )
        ) as trace:
            trace.wait_for_text("tracing: link")
            _send(elsewhere, 9000)
            _send(place, 9001)
            [link] = controller.links()
            # the datagram and the ICMP error that it brings about
            assert link.stats.packets == 2
            _replace(place, trace)
            place.run("nft", NFT)
            _send(elsewhere, 9000)
            _send(place, 9002)
            wait_for(lambda: '"destination_port":9002' in trace.out(), what="an event")
            [moved] = controller.links()
            assert moved.id != link.id
            events = trace.finish()
            assert "detached" not in trace.err(), trace.err()
    assert {event["destination_port"] for event in events} == {9001, 9002}


def test_events_follow_a_name(place: Namespace) -> None:
    with trace_command("--proto", "udp"), running("events", "--netns", "web", "-o", "json") as seen:
        seen.wait_for_text("listening")
        _send(place, 9001)
        second = _replace(place, seen)
        _send(place, 9002)
        wait_for(lambda: '"destination_port":9002' in seen.out(), what="an event")
        shown = _shown(seen.finish())
    assert shown.keys() == {9001, 9002}
    assert shown[9002] == {(second.cookie, "web")}


def test_a_name_that_another_gets_at_once(place: Namespace) -> None:
    """Processes keep the first namespace alive: it is not gone, but no longer has the name web."""
    with trace_command("-N", "web", "--proto", "udp") as trace, _process_in(place) as inside:
        run("ip", "netns", "delete", place.name)
        run("ip", "netns", "add", place.name)
        trace.wait_for_text("network namespace web is another one now: followed from here on")
        assert " is gone" not in trace.err()
        old = f"/proc/{inside.pid}/ns/net"
        with running("trace", "--lines", "-N", old, "-o", "json") as other:
            other.wait_for_text("tracing: link")
            run("nsenter", f"--net={old}", sys.executable, "-c", SENDER)
            wait_for(lambda: '"exit"' in other.out(), what="an event")
            assert {event["netns_name"] for event in other.finish()} == {None}
        assert trace.finish() == []


@contextmanager
def _process_in(place: Namespace) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stays in a namespace."""
    with subprocess.Popen(
        ["ip", "netns", "exec", place.name, "sleep", "infinity"], stdout=subprocess.PIPE
    ) as process:
        try:
            inode = place.inode
            path = Path(f"/proc/{process.pid}/ns/net")
            wait_for(lambda: path.stat().st_ino == inode, what="the process")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("form", ["number", "identity", "path", "process"])
def test_trace_ends_with_what_it_was_told(form: str, place: Namespace) -> None:
    """A namespace that is not given by its name cannot come again."""
    with _process_in(place) as inside:
        identity = netns.resolve(place.name)
        text = {
            "number": str(identity.inode),
            "identity": str(identity),
            "path": str(place.path),
            "process": f"/proc/{inside.pid}/ns/net",
        }[form]
        with running("trace", "--lines", "-N", text, "-o", "json") as trace:
            trace.wait_for_text("tracing: link")
            _send(place, 9001)
            run("ip", "netns", "delete", place.name)
            inside.kill()
            inside.wait()
            assert trace.process.wait(COMMAND_TIMEOUT) == 0
        run("ip", "netns", "add", place.name)
    assert f"network namespace {text} is gone\n" in trace.err()
    assert "2 packets" in trace.err() or "1 packet" in trace.err()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-N", "12345"), "no name and no process has network namespace 12345"),
        (("-N", "none-such"), "there is no network namespace 'none-such'"),
        (("-N", "/proc/self/ns/mnt"), "/proc/self/ns/mnt is not a network namespace"),
        (("-p", "999999"), "there is no process 999999"),
    ],
)
def test_trace_refuses_what_does_not_exist(arguments: tuple[str, ...], says: str) -> None:
    done = ipttctl("trace", "--lines", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"ipttctl: {says}")
    assert done.stderr.count("\n") == 1


def test_trace_ends_with_its_process(place: Namespace) -> None:
    with _process_in(place) as inside:
        with running("trace", "--lines", "-p", str(inside.pid), "-o", "json") as trace:
            trace.wait_for_text("tracing: link")
            inside.kill()
            assert trace.process.wait(COMMAND_TIMEOUT) == 0
        assert f"process {inside.pid} has ended\n" in trace.err()


def test_trace_of_a_thread_is_refused() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        thread = int(process.stdout.readline())
        done = ipttctl("trace", "-p", str(thread))
        process.communicate("")
    assert (done.returncode, f"{thread} is a thread of a process" in done.stderr) == (2, True)


@pytest.mark.usefixtures("no_links")
def test_links_of_a_namespace_that_went(make_program: MakeProgram) -> None:
    """The link stays, and is shown with the name that it had until another namespace has it."""
    accept = socket_filter(make_program, returning(1), name="accept")
    run_given = ("--hook", "nf:inet4/output", "--netns", "web", "--id", f"packet={accept.id}")
    assert ipttctl("attach", *run_given, "--persist").returncode == 0
    [before] = _links()
    identity = netns.resolve("web")
    assert (before["netns"], before["netns_cookie"]) == (identity.inode, identity.cookie)
    assert before["netns_name"] == "web"
    with running("events", "--links", "-o", "json") as changes:
        changes.wait_for_text("listening")
        run("ip", "netns", "delete", "web")
        changes.wait_for_text('"gone":"netns"')
        listed, change = changes.finish()
    assert [link["link"] for link in listed["links"]] == [before["link"]]
    assert change["netns_cookie"] == identity.cookie
    run("ip", "netns", "add", "web")
    [after] = _links()
    assert (after["netns_cookie"], after["netns_name"]) == (identity.cookie, None)


def _links() -> list[dict[str, Any]]:
    return [json.loads(line) for line in ipttctl("links", "-o", "json").stdout.splitlines()]


@pytest.mark.usefixtures("no_links")
def test_saved_state_is_of_the_namespace_that_it_names(
    place: Namespace, make_program: MakeProgram, tmp_path: Path
) -> None:
    """A name means the namespace that has it now; a number never means a later one."""
    accept = socket_filter(make_program, returning(1), name="accept")
    given = ("--hook", "nf:inet4/output", "--id", f"packet={accept.id}", "--persist")
    assert ipttctl("attach", *given, "--netns", "web").returncode == 0
    with _process_in(place) as inside:
        named = tmp_path / "named.yaml"
        named.write_text(ipttctl("save").stdout)
        assert "netns: web\n" in named.read_text()
        assert ipttctl("diff", str(named)).returncode == 0
        run("ip", "netns", "delete", "web")
        numbered = tmp_path / "numbered.yaml"
        numbered.write_text(ipttctl("save").stdout)
        identity = netns.resolve(f"/proc/{inside.pid}/ns/net")
        assert f"netns: {identity}\n" in numbered.read_text()
        assert ipttctl("diff", str(numbered)).returncode == 0
    wait_for(lambda: _links()[0]["gone"], what="the namespace is gone")

    # the next namespaces get its number and its name
    run("ip", "netns", "add", "web")
    others: list[str] = []
    try:
        while netns.resolve("web").inode != identity.inode and len(others) < 50:
            others.append(f"other{len(others)}")
            run("ip", "netns", "add", others[-1])
            if (Path("/run/netns") / others[-1]).stat().st_ino == identity.inode:
                break
        refused = ipttctl("apply", str(numbered))
        assert refused.returncode == 2
        assert f"network namespace {identity} is gone" in refused.stderr
        assert ipttctl("diff", str(named)).returncode == 9
        assert ipttctl("apply", str(named)).returncode == 0
        assert ipttctl("diff", str(named)).returncode == 0
        there = {(link["netns_cookie"], link["gone"]) for link in _links()}
        assert there == {(identity.cookie, "netns"), (netns.resolve("web").cookie, None)}
    finally:
        for name in others:
            run("ip", "netns", "delete", name)


def test_only_what_goes_is_told(controller: Controller) -> None:
    with controller.namespaces_going() as going:
        life = live("moment", 9000, SECONDS)
        told = going.read(COMMAND_TIMEOUT)
    assert told == [life.identity]


@pytest.mark.usefixtures("no_links")
def test_what_a_place_holds_is_let_go(place: Namespace, make_program: MakeProgram) -> None:
    """A namespace found through a process is the right one even if another gets its number."""
    accept = socket_filter(make_program, returning(1), name="accept")
    with _process_in(place) as inside:
        hook = NfHook.parse("nf:inet4/output", netns=netns.find(f"/proc/{inside.pid}/ns/net"))
        inside.send_signal(signal.SIGKILL)
        inside.wait()
        with Controller() as controller:
            link = controller.attach(hook, ProgramSet({Slot.PACKET: accept.fd}))
            assert netns_of(link).cookie == netns.resolve("web").cookie
