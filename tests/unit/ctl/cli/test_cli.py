# SPDX-License-Identifier: GPL-2.0
"""The command line with a module in user space: output, exit status, end of commands."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli import EXIT_CODES, run
from ipttctl.cli import trace as trace_command
from ipttctl.errors import IpttctlError, KernelError, PrivilegeError, RefusedPrivilegeError
from ipttctl.link.wire import Connection
from ipttctl.programs import trace
from ipttctl.programs import trace as trace_programs
from ipttctl.rules import backends
from ipttctl.rules.backends import Holders
from ipttctl.system import netns
from ipttproto import TABLE_SLOTS, Command, Hook, Kind, Walk
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    event,
    events_message,
    in_traffic,
    interrupt_when_handled,
    link,
    no_such_link,
    notification,
    status,
)

pytestmark = pytest.mark.usefixtures("left_open")

DOCUMENT = Path(__file__).parents[4] / "docs" / "exit-codes.md"


@pytest.fixture(autouse=True)
def _module(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "open", module.connect)
    for command in (Command.ATTACH, Command.SWAP, Command.DETACH, Command.GET):
        module.handlers[command] = lambda *_: [link()]
    # those of this machine are nobody's concern
    monkeypatch.setattr(backends, "holders", lambda _: Holders(legacy=True, nft=True))
    monkeypatch.setattr(netns, "named", lambda: iter(()))


class FakeProgram:
    """A program that was loaded."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False

    def close(self) -> None:
        """Record it."""
        self.closed = True


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options with which programs were loaded."""
    asked: list[Any] = []

    def load(options: Any, *, on_compile: Callable[[], None] | None = None) -> Any:
        asked.append(options)
        if on_compile:
            on_compile()
        return {slot: FakeProgram(10 + slot) for slot in TABLE_SLOTS}

    monkeypatch.setattr(trace_programs, "load_trace_programs", load)
    return asked


def when_attached(module: FakeModule, *messages: bytes) -> None:
    """Send messages as soon as a link is requested."""

    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        for message in messages:
            module.multicast(message)
        return [link(generation=1)]

    module.handlers[Command.ATTACH] = attach


@pytest.mark.parametrize(
    ("number", "code", "remedy"),
    [
        (errno.ENOENT, 6, "; see `ipttctl links`"),
        (errno.ESTALE, 7, "; see `ipttctl links` for what it is now"),
        (errno.EPERM, 5, f"; {RefusedPrivilegeError.hint}"),
        (errno.EINVAL, 1, ""),
    ],
)
def test_errors_refusals(
    number: int, code: int, remedy: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(number, {"message": "the module's sentence"})

    module.handlers[Command.SWAP] = refuse
    assert run(["swap", "3", "--fd", "rule=7"]) == code
    name = errno.errorcode[number]
    assert capsys.readouterr().err == (
        f"ipttctl: swapping link 3: the module's sentence [{name}]{remedy}\n"
    )


def test_errors_module_of_another_build(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(fingerprint=1)]
    assert run(["links"]) == 3
    assert "different builds" in capsys.readouterr().err


def test_errors_module_that_talks_nonsense(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.multicast(b"")
    module.handlers[Command.GET] = lambda *_: [{"link": 3}]
    assert run(["links"]) == 0
    assert capsys.readouterr().out.startswith("link=3 gen=0 ")


def test_errors_privilege_comes_before_everything_else(
    monkeypatch: pytest.MonkeyPatch, programs: list[Any]
) -> None:
    def refuse() -> Any:
        raise PrivilegeError("no")

    monkeypatch.setattr(Connection, "open", refuse)
    for line in ("links", "trace nonsense", "attach --id rule=1", "attach --pinned rule=/x"):
        assert run(line.split()) == 5
    assert programs == []


def test_errors_exit_codes_are_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    plain = {int(number): text.replace("`", "") for number, text in rows}
    assert plain == EXIT_CODES


def test_errors_every_error_has_a_documented_code() -> None:
    def tree(kind: type[IpttctlError]) -> Iterator[type[IpttctlError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from tree(child)

    assert {kind.exit_code for kind in tree(IpttctlError)} == {*range(1, 8), 10}


def test_errors_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{number} {meaning}" in text for number, meaning in EXIT_CODES.items())


def test_links_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["links"]) == 0
    assert capsys.readouterr().out.startswith("link=3 gen=2 hook=table ")


def test_links_json(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.GET] = lambda *_: [link(), link(link=5)]
    assert run(["links", "-o", "json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["link"] for line in lines] == [3, 5]


def test_links_one(module: FakeModule) -> None:
    assert run(["links", "3"]) == 0
    assert module.requested(Command.GET) == [{"link": 3}]


def test_links_one_that_is_gone(module: FakeModule) -> None:
    module.handlers[Command.GET] = no_such_link
    assert run(["links", "3"]) == 6


def test_links_swap(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    line = "swap 3 --fd rule=7 --fd exit=8 --cookie 0x10 --expect-gen 2 --expect-prog entry=0"
    assert run(line.split()) == 0
    assert capsys.readouterr().out.startswith("link=3 gen=2 ")
    assert module.requested(Command.SWAP) == [
        {
            "link": 3,
            "expect-generation": 2,
            "expect-program": [{"slot": 1, "id": 0}],
            "programs": {
                "program": [{"slot": 2, "fd": 7}, {"slot": 3, "fd": 8}],
                "cookie": 16,
            },
        }
    ]


def test_links_detach_all(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.GET] = lambda *_: [link(), link(link=5)]
    module.handlers[Command.DETACH] = lambda _, asked: [link(link=asked["link"])]
    assert run(["detach", "--all"]) == 0
    assert re.findall(r"^link=(\d+)", capsys.readouterr().out, re.MULTILINE) == ["3", "5"]


def test_links_detach_all_passes_over_what_went_meanwhile(module: FakeModule) -> None:
    module.handlers[Command.DETACH] = no_such_link
    assert run(["detach", "--all"]) == 0


def test_attach_persist_returns_at_once(module: FakeModule) -> None:
    assert run(["attach", "--fd", "rule=7", "--persist", "--family", "6"]) == 0
    [asked] = module.requested(Command.ATTACH)
    assert (asked["flags"], asked["family"]) == (1, 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_attach_holds_the_link_until_a_signal(
    number: int, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        # the command must be ready for a signal before the link exists
        os.kill(os.getpid(), number)
        return [link(generation=1)]

    module.handlers[Command.ATTACH] = attach
    before = signal.getsignal(number)
    assert run(["attach", "--fd", "rule=7"]) == 0
    assert capsys.readouterr().out.startswith("link=3 ")
    assert signal.getsignal(number) == before


def test_attach_ends_when_somebody_else_detaches_it(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    when_attached(
        module,
        notification(Command.LINK_DETACHED, link(link=9)),
        notification(Command.LINK_DETACHED, link(reason=1)),
    )
    assert run(["attach", "--fd", "rule=7"]) == 10
    assert capsys.readouterr().err.endswith("\nipttctl: link 3 was detached by somebody else\n")


def test_attach_ends_if_the_link_is_gone_before_it_looks(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [link()]
    module.handlers[Command.GET] = lambda *_: [link(link=9)]
    assert run(["attach", "--fd", "rule=7"]) == 10
    assert "link 3 was detached by somebody else" in capsys.readouterr().err


def test_trace_ends_after_a_count(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    exit_event = event(kind=Kind.EXIT, verdict=1)
    when_attached(
        module,
        events_message([event(link=4)], sequence=0),
        events_message([event(), exit_event, event()], sequence=1),
    )
    assert run(["trace", "-c", "2"]) == 0
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
        ("", False, False, "no rules in {}: neither iptables-legacy nor nftables holds any"),
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
    trace_command._tell_no_rules(
        number if chosen else None, trace_command.Backend(backend) if backend else None
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
                f"no rules in {where}: neither iptables-legacy nor nftables holds any"
                for where in ("this network namespace", "network namespace n0")
            ],
        ),
        (
            trace_command.Backend.LEGACY,
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
    backend: trace_command.Backend | None,
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
    trace_command._tell_no_rules(None, backend)
    assert capsys.readouterr().err.splitlines() == said


@pytest.mark.parametrize("error", [PermissionError(), KernelError("reading", errno.EIO)])
def test_trace_goes_on_where_nobody_can_tell_of_rules(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: int) -> Any:
        raise error

    monkeypatch.setattr(backends, "holders", refuse)
    trace_command._tell_no_rules(None, None)
    trace_command._tell_no_rules("nowhere", None)
    assert not capsys.readouterr().err


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
    assert run(["trace", "-c", "1", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequence"] == 1


def test_trace_options_reach_programs_and_link(module: FakeModule, programs: list[Any]) -> None:
    when_attached(module, events_message([event()]))
    pid = os.getpid()
    line = f"trace -c 1 -H ::1 --proto icmp6 -P 80 --icmpid 7 -p {pid} -N {netns.own()} -6"
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
    assert run(["trace", "-c", "1", "--backend", backend]) == 0
    assert [asked["hook"] for asked in module.requested(Command.ATTACH)] == [hook]


def test_trace_without_a_verified_walk(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del programs
    module.walk = Walk.DIFFERS
    when_attached(module, events_message([event()]))
    assert run(["trace", "-c", "1"]) == 0
    assert "rules of nftables are not seen: on this kernel" in capsys.readouterr().err
    assert [asked["hook"] for asked in module.requested(Command.ATTACH)] == [Hook.TABLE]
    assert run(["trace", "-c", "1", "--backend", "nft"]) == 3


def test_trace_takes_a_filter_of_several_words(module: FakeModule, programs: list[Any]) -> None:
    del programs
    when_attached(module, events_message([event()] * 4))
    words = "udp port 53 and host 10.1.0.1"
    assert run(["trace", "-c", "1", words]) == 0
    assert run(["trace", *words.split()[:3], "-c", "1", *words.split()[3:]]) == 0
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
    assert run(["trace", "-c", "1", *line.split()]) == 0
    [options] = programs
    network = options.address and str(options.address)
    assert (network, options.protocol, options.port) == expected


def test_trace_filter_that_does_not_compile(module: FakeModule) -> None:
    assert run(["trace", "no such filter"]) == 4
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
    assert run(["trace", "-o", "json", "--backend", "legacy"]) == 0
    captured = capsys.readouterr()
    found = [json.loads(line) for line in captured.out.splitlines()]
    assert [value["sequence"] for value in found] == [0, 1, 2, 7, 8]
    assert captured.err.splitlines()[-1] == (
        "5 events, 1 packet, lost 4 (1 by this observer, 3 ring full)"
    )


def test_trace_ends_when_somebody_else_detaches_the_link(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del programs
    when_attached(module, notification(Command.LINK_DETACHED, link(reason=1)))
    assert run(["trace"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == ("link 3 was detached by somebody else")
    assert module.requested(Command.DETACH) == []


def test_events_follows_every_link_with_its_columns(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.when_connected(2, events_message([event(), event(link=4, generation=2)]))
    assert run(["events", "-c", "2"]) == 0
    captured = capsys.readouterr()
    header, *lines = captured.out.splitlines()
    at = header.split().index("LINK")
    assert [line.split()[at : at + 2] for line in lines] == [["3", "1"], ["4", "2"]]
    assert captured.err == "listening\n2 events, 1 packet, lost 0\n"


@pytest.mark.parametrize("line", ["events -c 2", "events", "trace -c 2", "trace"])
def test_events_and_trace_end_in_traffic_that_does_not(
    line: str, module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del programs
    statuses = in_traffic(module)
    if "-c" in line:
        # `trace` has asked for the state of the walk before: one more status, and so one more event
        for connections, sequence in ((2, 3), (3, 4)):
            module.when_connected(connections, events_message([event()] * 2, sequence=sequence))
    else:
        interrupt_when_handled()
    assert run(line.split()) == 0
    assert "lost 0" in capsys.readouterr().err
    assert next(statuses) < 20


def test_events_of_a_link_that_is_gone(module: FakeModule) -> None:
    module.handlers[Command.GET] = no_such_link
    assert run(["events", "--link", "8"]) == 6


def test_events_link_changes(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    changes = (Command.LINK_ATTACHED, Command.LINK_DETACHED)
    module.when_connected(2, *(notification(command, link()) for command in changes))
    assert run(["events", "--links", "-c", "2", "-o", "json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["change"] for one in found] == ["list", "attached", "detached"]
    assert (found[0]["overrun"], [one["link"] for one in found[0]["links"]]) == (False, [3])


def test_events_begin_with_the_chosen_links(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.GET] = lambda *_: [link(), link(link=5), link(link=4)]
    module.when_connected(
        2,
        notification(Command.LINK_SWAPPED, link(link=4)),
        notification(Command.LINK_CHANGED, link()),
    )
    assert run(["events", "--links", "--link", "5", "--link", "3", "-c", "1"]) == 0
    captured = capsys.readouterr()
    assert [line.split(" gen=")[0] for line in captured.out.splitlines()] == [
        "listed link=3",
        "listed link=5",
        "changed link=3",
    ]
    assert captured.err == "listening\n"


def test_events_stats(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.STATS] = lambda *_: [status([7], [(1, 2, 3)])]
    assert run(["stats"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"module 0\.1\.0 protocol [0-9a-f]{8} walk verified", first)
    assert last.split() == ["0", "7", "1", "2", "3"]
    assert run(["stats", "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["walk"], found["walk_compared"]) == ("verified", True)
    [cpu] = found["cpus"]
    assert cpu == {"cpu": 0, "events": 7, "lost_ring": 1, "lost_memory": 2, "lost_nested": 3}


@pytest.mark.parametrize(
    ("walk", "shown"),
    [
        ({"walk": 1}, " walk unverified (nobody compared it with this series of kernels)"),
        ({"walk": 3, "walk-compared": 1}, " walk differs"),
        ({"walk": 2, "walk-layout": 3, "walk-refusal": "no"}, " walk refused"),
        ({}, ""),
    ],
)
def test_walk_in_the_status(
    walk: dict[str, int], shown: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = {name: value for name, value in status().items() if not name.startswith("walk")}
    module.handlers[Command.STATS] = lambda *_: [reply | walk]
    assert run(["stats"]) == 0
    [heading, *_] = capsys.readouterr().out.splitlines()
    assert re.sub(r"^module \S+ protocol \w+", "", heading) == shown


def test_overview_not_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ipttctl.host import module  # noqa: PLC0415 - fixtures bear the name

    monkeypatch.setattr(module, "_SYSFS", tmp_path)
    monkeypatch.setattr(module, "require_privilege", lambda: None)
    for line in ([], ["module"], ["module", "status"]):
        assert run(line) == 0
        assert capsys.readouterr().out == "module: not loaded; run `ipttctl module load`\n"
        assert run([*line, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["loaded"] is False


def test_overview_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ipttctl.host import module  # noqa: PLC0415 - fixtures bear the name

    (tmp_path / "ipttrace").mkdir()
    monkeypatch.setattr(module, "_SYSFS", tmp_path)
    monkeypatch.setattr(module, "require_privilege", lambda: None)
    assert run([]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("module: loaded, 0 references, version 0.1.0, protocol ")
    assert first.endswith(", walk verified")
    assert (second, third[:15]) == ("links: 1", "  link=3 gen=2 ")


def test_closed_pipe_ends_quietly() -> None:
    script = (
        "import sys, time\n"
        "from ipttctl.cli import output, run\n"
        "import ipttctl.cli.module as m\n"
        "def flood(*_):\n"
        "    while True: output.lines(['x' * 1000])\n"
        "m.overview = flood\n"
        "sys.exit(run([]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        begin = time.monotonic()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""
        assert time.monotonic() - begin < 30


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
    assert run(["trace", "-c", "2", *arguments]) == 0
    lines = terminal.getvalue().splitlines()
    assert lines[0].startswith(first)
    assert len(lines) == count
    assert programs


def test_trace_columns_to_a_pipe(
    module: FakeModule, programs: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    when_attached(module, events_message([event()]))
    assert run(["trace", "-c", "1", "--columns", "PKT_INFO,CPU"]) == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["PKT_INFO", "CPU"]
    assert line.split() == ["T_ACK,PSH:192.168.1.138:22->192.168.1.12:53030", "0"]
    assert programs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trace --columns when", "--columns: there is no column 'when'; they are time, skb"),
        ("events --columns time,time", "--columns: 'time' is given twice"),
        ("trace --columns time -o json", "--columns: -o json has no columns"),
        ("events --links --columns time", "--columns is of packets; leave out --links"),
    ],
)
def test_columns_that_make_no_sense(
    line: str, message: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"ipttctl: {message}")
    assert not module.requests
