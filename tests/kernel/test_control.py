# SPDX-License-Identifier: GPL-2.0
"""The commands that control links, as users type them: netfilter hooks, swaps, owners, events."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.btf import Types
from tests.kernel.support.cli import ipttctl, running
from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for
from tests.kernel.support.loader import loaded_btf, typed_map
from tests.kernel.support.maps import PERCPU_ARRAY
from tests.kernel.support.network import Namespace, Network, namespace, send_udp
from tests.kernel.support.nf import ICMP, all_but, of_protocol, socket_filter

pytestmark = pytest.mark.usefixtures("no_links")


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace with its loopback."""
    with namespace("control") as made:
        # with a match: without one it would be reported as the chain's end
        made.iptables("-A", "OUTPUT", "-d", "127.0.0.0/8", "-j", "ACCEPT")
        yield made


@pytest.fixture
def accept(make_program: MakeProgram) -> Program:
    """A program that selects every packet."""
    return socket_filter(make_program, asm.returning(1), name="accept")


def made(*arguments: str) -> dict[str, Any]:
    """The output of a command that prints one object."""
    done = ipttctl(*arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def attached(program: Program, hook: str, place: Namespace, *options: str) -> dict[str, Any]:
    """A persistent link at a hook of a namespace."""
    return made(
        "attach", "--hook", hook, "--netns", place.name, "--id", f"packet={program.id}",
        "--persist", *options,
    )  # fmt: skip  # pairs together


def detached(link: dict[str, Any]) -> dict[str, Any]:
    return made("detach", str(link["link"]))


def test_packets_at_a_hook_as_text(place: Namespace, accept: Program) -> None:
    """The example of the manual: attached to a hook, and followed by another process."""
    with running(
        "attach", "--hook", "nf:inet4/local_out@raw", "--netns", place.name,
        "--fd", f"packet={accept.fd}", pass_fds=[accept.fd],
    ) as owner:  # fmt: skip  # pairs together
        owner.wait_for_text("\n")
        number = owner.out().split()[0].removeprefix("link=")
        assert re.match(
            rf"link=\d+ gen=1 hook=nf:inet4/output@raw netns={place.inode}\({place.name}\) "
            rf"mode=observe packet={accept.id}\(accept\) packet\.tag=[0-9a-f]{{16}} packet\.runs=0 "
            rf"owner={owner.process.pid}\(\w+\) packets=0 selected=0 events=0$",
            owner.out().strip(),
        ), owner.out()
        with running("events", "--link", number, "-c", "2") as events:
            events.wait_for_text("listening")
            place.ping("127.0.0.2")
            assert events.process.wait(COMMAND_TIMEOUT) == 0
        assert owner.stop() == 0
    request, reply = events.out().splitlines()[1:]
    assert f" {place.inode}({place.name}) " in request
    assert " lo(1) " in request
    assert re.search(r" 127\.0\.0\.1 -> 127\.0\.0\.2 ICMP request +nf=\[", request)
    assert request.endswith(" nf=[hook=nf:inet4/output@raw in= out=lo verdict=ACCEPT]")
    assert " 127.0.0.2 -> 127.0.0.1 ICMP reply " in reply
    assert events.err().splitlines()[-1] == "2 events, 2 packets, lost 0"
    assert ipttctl("links").stdout == ""


def test_arp_and_what_is_not_ip(net: Network, accept: Program) -> None:
    arp = attached(accept, "nf:arp/in", net.router)
    ingress = attached(accept, "nf:netdev/ingress", net.router, "--device", "r1")
    with running("events", "-o", "json", "--netns", net.router.name) as events:
        events.wait_for_text("listening")
        net.left.run("ip", "neighbour", "flush", "dev", "eth0")
        net.left.ping(net.router_address)
        net.left.call(_send_lldp)
        wait_for(lambda: '"ethertype":35020' in events.out(), what="LLDP arrives")
        found = events.finish()
    question = next(
        e for e in found if e["link"] == arp["link"] and e["arp_operation"] == "request"
    )
    assert (question["hook"], question["hook_family"], question["in_name"]) == ("IN", "arp", "r1")
    assert (question["source"], question["destination"]) == (net.left_address, net.router_address)
    assert (question["family"], question["protocol"], question["table"]) == (None, None, None)
    by_type = {e["ethertype"]: e for e in found if e["link"] == ingress["link"]}
    assert by_type[0x0806]["source"] == net.left_address
    assert by_type[0x0800]["destination"] == net.router_address
    other = by_type[0x88CC]
    assert (other["source"], other["hook"], other["hook_family"]) == (None, "INGRESS", "netdev")
    assert [detached(link)["drops"] for link in (arp, ingress)] == [0, 0]


def _send_lldp() -> None:
    import socket  # noqa: PLC0415 - runs in a child

    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind(("eth0", 0x88CC))
        sender.send(bytes.fromhex("0180c200000e020000000001 88cc") + bytes(46))


def test_a_filter_reports_its_drops(place: Namespace, make_program: MakeProgram) -> None:
    program = socket_filter(make_program, all_but(ICMP), name="no_ping")
    link = attached(program, "nf:inet4/output", place, "--mode", "filter", "--report-drops")
    with running("events", "-o", "json", "--verdict", "drop") as events:
        events.wait_for_text("listening")
        place.call(send_udp, "127.0.0.1", 9, [b"x"])
        place.ping("127.0.0.1", check=False)
        wait_for(lambda: "\n" in events.out(), what="the drop")
        found = events.finish()
    assert {(e["protocol"], e["verdict"], e["kind"]) for e in found} == {(1, "DROP", "packet")}
    gone = detached(link)
    assert (gone["mode"], gone["report_drops"]) == ("filter", True)
    assert gone["drops"] == gone["events"] == len(found)
    place.ping("127.0.0.1")


def test_what_has_gone_is_told(accept: Program) -> None:
    """A namespace and a device disappear under a command that waits, and under a link."""
    with namespace("short") as short:
        short.run("ip", "link", "add", "dummy7", "type", "dummy")
        given = ("--id", f"packet={accept.id}", "--netns", short.name)
        with ExitStack() as stack:
            changes = stack.enter_context(running("events", "--links"))
            # it misses the attaches from before
            changes.wait_for_text("listening")
            ingress = ("--hook", "nf:inet/ingress", "--device", "dummy7")
            first = stack.enter_context(running("attach", *given, "--hook", "nf:inet6/input"))
            second = stack.enter_context(running("attach", *given, *ingress))
            for command in (first, second):
                command.wait_for_text("\n")
            assert " device=dummy7(" in second.out()
            short.run("ip", "link", "delete", "dummy7")
            second.wait_for_text("its device is gone")
            run("ip", "netns", "delete", short.name)
            first.wait_for_text("its network namespace is gone")
            wait_for(lambda: changes.out().count("\n") == 4, what="four changes")
            listed = ipttctl("links").stdout
            assert sorted(re.findall(r" gone=(\w+) ", listed)) == ["device", "netns"]
            assert [command.stop() for command in (first, second)] == [0, 0]
        # for namespace(), which deletes it
        run("ip", "netns", "add", short.name)
    lines = changes.out().splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["attached"] * 2 + ["changed"] * 2
    assert " gone=device " in lines[2]
    assert " gone=netns " in lines[3]


def generations() -> dict[int, int]:
    """The generations of all links."""
    lines = ipttctl("links", "-o", "json").stdout.splitlines()
    return {value["link"]: value["generation"] for value in map(json.loads, lines)}


def test_links_are_swapped_together_or_not_at_all(
    place: Namespace, accept: Program, make_program: MakeProgram, tmp_path: Path
) -> None:
    other = socket_filter(make_program, asm.returning(0), name="other")
    links = [attached(accept, f"nf:inet4/output@{n}", place)["link"] for n in range(3)]
    file = tmp_path / "swap.yaml"
    changes = [{"link": number, "id": {"packet": other.id}} for number in links]
    file.write_text(json.dumps([*changes[:2], {**changes[2], "expect-gen": 2}]))
    refused = ipttctl("swap", "--txn", str(file))
    assert refused.returncode == 7, refused.stderr
    assert set(generations().values()) == {1}

    file.write_text(json.dumps([*changes[:2], {**changes[2], "link": 999999}]))
    refused = ipttctl("swap", "--txn", str(file))
    assert refused.returncode == 6, refused.stderr
    assert set(generations().values()) == {1}

    file.write_text(
        "".join(f"- link: {n}\n  id: packet={other.id}\n  expect-gen: 1\n" for n in links)
    )
    done = ipttctl("swap", "--txn", str(file), "-o", "json")
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(v["link"], v["generation"], v["programs"]["packet"]["name"]) for v in shown] == [
        (number, 2, "other") for number in links
    ]


def test_a_swap_goes_back_unless_it_is_confirmed(
    place: Namespace, accept: Program, make_program: MakeProgram
) -> None:
    """The module swaps back long after the command has ended."""
    other = socket_filter(make_program, asm.returning(0), name="other")
    link = str(attached(accept, "nf:inet4/output", place)["link"])
    given = ("swap", link, "--id", f"packet={other.id}")
    with running("events", "--links", "--link", link) as changes:
        changes.wait_for_text("listening")
        swapped = made(*given, "--rollback-after", "1500ms")
        assert 0 < swapped["rollback_in_s"] <= 1.5
        changes.wait_for_text("swapped action=rollback by=module ")
        kept = made(*given, "--rollback-after", "1h")
        assert kept["generation"] == 4
        busy = ipttctl(*given)
        assert busy.returncode == 12
        assert "[EINPROGRESS]" in busy.stderr
        confirmed = made("confirm", link)
        assert (confirmed["generation"], confirmed["rollback_in_s"]) == (4, None)
        nothing = ipttctl("confirm", link)
        assert nothing.returncode == 13
        assert "[EALREADY]" in nothing.stderr
        wait_for(lambda: changes.out().count("\n") == 5, what=changes.out())
        assert changes.stop() == 0
    before, first, back, again, confirmation = changes.out().splitlines()
    assert before.startswith(f"listed link={link} gen=1 ")
    assert re.match(
        r"swapped action=swap by=\d+\(\w+\) uid=0 link=\d+ gen=2 .* rollback-in=", first
    )
    assert re.match(r"swapped action=rollback by=module link=\d+ gen=3 ", back)
    assert f" packet={accept.id}(accept) " in back
    assert " gen=4 " in again
    assert confirmation.startswith("changed link=")
    assert " rollback-in=" not in confirmation
    text = ipttctl("history", link).stdout
    actions = re.findall(r"^gen=(\d) action=(\w+) ", text, re.MULTILINE)
    assert actions == [("1", "attach"), ("2", "swap"), ("3", "rollback"), ("4", "swap")]
    lines = ipttctl("history", link, "-o", "json").stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["uid"] for entry in entries] == [0, 0, None, 0]
    assert [entry["programs"]["packet"]["id"] for entry in entries] == [
        accept.id, other.id, accept.id, other.id,
    ]  # fmt: skip  # a line of them
    times = [entry["time_ns"] for entry in entries]
    assert times == sorted(times)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_adopted_link_goes_with_its_owner(
    place: Namespace, accept: Program, number: int
) -> None:
    link = attached(accept, "nf:inet4/output", place)
    assert link["persistent"]
    with running("adopt", str(link["link"]), "-o", "json") as owner:
        owner.wait_for_text("\n")
        adopted = json.loads(owner.out())
        assert (adopted["link"], adopted["owner_pid"]) == (link["link"], owner.process.pid)
        assert adopted["owner_portid"]
        again = ipttctl("adopt", str(link["link"]))
        assert again.returncode == 1
        assert "[EBUSY]" in again.stderr
        assert f"owner={owner.process.pid}(" in ipttctl("links").stdout
        assert owner.stop(number) == (-number if number == signal.SIGKILL else 0)
    wait_for(lambda: ipttctl("links").stdout == "", what="the link is gone")


def test_run_is_a_link_for_a_command(place: Namespace, accept: Program) -> None:
    given = (
        "run", "--hook", "nf:inet4/output", "--netns", place.name, "--id", f"packet={accept.id}"
    )  # fmt: skip  # pairs together
    ping = f"ip netns exec {place.name} ping -n -q -c 1 127.0.0.1 >&2; echo $IPTTCTL_LINK; exit 9"
    done = ipttctl(*given, "-o", "json", "--", "sh", "-c", ping)
    assert done.returncode == 9, done.stderr
    before, after = (json.loads(line) for line in done.stderr.splitlines() if line.startswith("{"))
    assert done.stdout == f"{before['link']}\n"
    assert (before["packets"], before["persistent"]) == (0, False)
    assert after["packets"] == after["slots"]["packet"]["runs"] == after["events"] == 2
    assert generations() == {}
    waiting = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    with running(*given, "--", "sh", "-c", waiting) as command:
        command.wait_for_text("ready")
        assert len(generations()) == 1
        assert command.stop(signal.SIGTERM) == 7
    with running(*given, "--", "sh", "-c", "echo pid $$; exec sleep 1000") as command:
        command.wait_for_text("pid ")
        child = int(command.out().split()[1])
        command.process.kill()
        command.process.wait(COMMAND_TIMEOUT)
        wait_for(lambda: generations() == {}, what="the link is gone")
        # the command goes on as before
        os.kill(child, signal.SIGKILL)
    assert generations() == {}


def measured(place: Namespace) -> dict[int, Any]:
    """The links, by id, with what was measured while packets came."""

    def run_times() -> list[int]:
        lines = ipttctl("links", "-o", "json").stdout.splitlines()
        return [json.loads(line)["slots"]["packet"]["run_time_ns"] for line in lines]

    before = run_times()
    with running("links", "--measure", "20", "-o", "json") as measuring:
        switch = Path("/proc/sys/kernel/bpf_stats_enabled")
        assert switch.read_text() == "0\n"

        def timed() -> bool:
            place.ping("127.0.0.1")
            return all(now > then for now, then in zip(run_times(), before, strict=True))

        wait_for(timed, timeout=COMMAND_TIMEOUT, what="run times")
        # the end of the interval is under the test's control
        assert measuring.stop() == 0
    return {value["link"]: value for value in map(json.loads, measuring.out().splitlines())}


def test_run_times_are_measured_for_an_interval(
    place: Namespace, accept: Program, make_program: MakeProgram
) -> None:
    slow = socket_filter(make_program, asm.spinning(100_000, 1), name="slow")
    links = [attached(program, "nf:inet4/output", place)["link"] for program in (accept, slow)]
    # a run may be interrupted: by the host too, for long
    for _ in range(5):
        shown = measured(place)
        fast_one, slow_one = (shown[link]["measured"]["slots"]["packet"] for link in links)
        if slow_one["ns_per_run"] > 10 * fast_one["ns_per_run"]:
            break
    assert fast_one["runs"] > 0
    assert slow_one["ns_per_run"] > 10_000
    assert slow_one["ns_per_run"] > 10 * fast_one["ns_per_run"] > 0
    before = shown[links[1]]["slots"]["packet"]["run_time_ns"]
    place.ping("127.0.0.1")
    after = made("links", str(links[1]))["slots"]["packet"]
    assert after["run_time_ns"] == before
    text = ipttctl("links", str(links[1])).stdout
    assert f" packet.runs={after['runs']} packet.ns={before} " in text


def test_observers_choose(place: Namespace, accept: Program, make_program: MakeProgram) -> None:
    """Each observer sees the events that it asked for; a stopped one loses only its own events."""
    tables = make_program(name="tables")
    table = made("attach", "--id", f"entry={tables.id}", "--id", f"rule={tables.id}", "--id",
                 f"exit={tables.id}", "--family", "4", "--persist")  # fmt: skip  # pairs together
    out = attached(accept, "nf:inet4/output", place)
    into = attached(socket_filter(make_program, of_protocol(ICMP)), "nf:inet4/input", place)
    every = [str(link["link"]) for link in (table, out, into)]
    choices: dict[tuple[str, ...], set[tuple[int, str, str]]] = {
        ("--link", every[0], "--link", every[2]): {
            (table["link"], "rule", "OUTPUT"), (table["link"], "policy", "INPUT"),
            (table["link"], "exit", "OUTPUT"), (table["link"], "exit", "INPUT"),
            (into["link"], "packet", "INPUT"),
        },
        ("--hook", "nf"): {(out["link"], "packet", "OUTPUT"), (into["link"], "packet", "INPUT")},
        ("--hook", "nf:inet4/output", "--hook", "nf:inet4/input@raw"): {
            (out["link"], "packet", "OUTPUT")
        },
        ("--hook", "input", "--verdict", "accept"): {
            (table["link"], "exit", "INPUT"), (into["link"], "packet", "INPUT"),
        },
        ("--rule", "filter/OUTPUT/1"): {(table["link"], "rule", "OUTPUT")},
        ("--rule", "filter/OUTPUT"): {
            (table["link"], "rule", "OUTPUT"), (table["link"], "exit", "OUTPUT")
        },
        ("--verdict", "drop"): set(),
    }  # fmt: skip  # a line for each
    with running("events", "-o", "json") as stopped, ExitStack() as stack:
        stopped.wait_for_text("listening")
        stopped.process.send_signal(signal.SIGSTOP)
        observers = [
            (stack.enter_context(running("events", "-o", "json", *choice)), wanted)
            for choice, wanted in choices.items()
        ]
        for observer, _ in observers:
            observer.wait_for_text("listening")
        place.ping("127.0.0.1")
        for observer, wanted in observers:
            found = {(e["link"], e["kind"], e["hook"]) for e in observer.finish()}
            assert found == wanted
            assert ", lost 0" in observer.err()
        stopped.process.send_signal(signal.SIGCONT)
        late = stopped.finish()
    assert {e["link"] for e in late} == {table["link"], out["link"], into["link"]}
    assert ", lost 0" in stopped.err()


def test_payloads_are_shown_by_their_type(place: Namespace, make_program: MakeProgram) -> None:
    """A payload is shown as a struct if its map has BTF types, and in hex if not."""
    types = Types()
    value = types.struct("seen", 8, [("count", types.u32, 0), ("mark", types.s32, 4)])
    with (
        loaded_btf(types.blob()) as btf,
        typed_map(PERCPU_ARRAY, 8, btf=btf, key_type=types.u32, value_type=value) as described,
    ):
        program = socket_filter(make_program, _leaving(described), name="leaving")
        link = attached(program, "nf:inet4/output", place, "--payload", "hostile")
        assert link["payload_size"] == 8
        with running("events", "-o", "json", "-c", "1") as events, running("events") as text:
            for command in (events, text):
                command.wait_for_text("listening")
            place.ping("127.0.0.1")
            assert events.process.wait(COMMAND_TIMEOUT) == 0
            text.wait_for_text('payload={"count":7,"mark":-2}')
            assert text.stop() == 0
        (event,) = events.records()
        assert event["payload"] == "07000000feffffff"
        assert event["payload_value"] == {"count": 7, "mark": -2}
        detached(link)
        wrong = ipttctl("attach", "--hook", "nf:inet4/output", "--id", f"packet={program.id}",
                        "--payload", "nothing")  # fmt: skip  # pairs together
        assert wrong.returncode == 4
        assert "the program set has no map nothing; there are: hostile (" in wrong.stderr


def _leaving(map_fd: int) -> bytes:
    """A program that stores 7 and -2 in an element and asks for an event."""
    keep = asm.load_wide(asm.R1, 0xFFFFFFFE_00000007) + asm.store(asm.R0, asm.R1)
    body = asm.look_up(map_fd, 0)
    return body + asm.jump_if_equal(asm.R0, 0, asm.length(keep)) + keep + asm.returning(1)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("confirm", "999999"), 6, "no such link"),
        (("history", "999999"), 6, "no such link"),
        (("adopt", "999999"), 6, "no such link"),
        (("links", "999999"), 6, "no such link"),
        (("events", "--link", "999999"), 6, "no such link"),
        (("attach", "--hook", "nf:netdev/egress", "--fd", "packet=3"), 2, "no hook 'egress'"),
        (("attach", "--hook", "nf:ip/input", "--fd", "rule=0"), 2, "has no slot 'rule'"),
        (("run", "--fd", "packet=77", "--hook", "nf:ip/input", "--", "true"), 4, "fd 77"),
    ],
)
def test_one_line_says_what_was_wrong(arguments: tuple[str, ...], status: int, words: str) -> None:
    done = ipttctl(*arguments)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("ipttctl: ")
    assert words in line
    assert done.stdout == ""
