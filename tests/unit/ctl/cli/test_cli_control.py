# SPDX-License-Identifier: GPL-2.0
"""The commands that control links, with a module in user space."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main
from rich.console import Console

from ipttctl.bpf import syscalls
from ipttctl.cli import app, run
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import Link
from ipttctl.show.link_table import print_links
from ipttctl.show.render_text import link_line
from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Command, Kind
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    chain_link,
    event,
    events_message,
    link,
    nf_link,
    no_such_link,
    notification,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering")

OWN_NETNS = netns.resolve(str(netns.OWN))
NF = "--hook nf:inet4/local_out"


def transaction(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not a list of 1 to 32 changes"),
        ("link: 3", "is not a list of 1 to 32 changes"),
        ("[]", "is not a list of 1 to 32 changes"),
        ("[" + "{link: 3, fd: rule=7}," * 33 + "]", "is not a list of 1 to 32 changes"),
        ("{", "is neither YAML nor JSON"),
        (
            "- {link: 3, fd: rule=7}\n- fd: rule=7\n  fd: rule=8",
            "changes, line 3, column 3: the key 'fd' is there twice in one object",
        ),
        ("- &a [*a]", "line 1, column 3: an alias in this names this itself"),
        ("[3]", "change 1 is not an object"),
        ("[{fd: rule=7}]", "change 1: link is not the id or the name of a link"),
        ("[{link: 0, fd: rule=7}]", "change 1: '0' is neither the id nor the name of a link"),
        ("[{link: true, fd: rule=7}]", "change 1: link is not the id or the name of a link"),
        ("[{link: 3, fd: rule=7, label: a}]", "change 1: --label: 'a' is not KEY=VALUE"),
        ("[{link: 3, fd: rule=7, label: {a: [1]}}]", "change 1: label: [1] is neither text nor"),
        ("[{link: 3}]", "change 1: no program is given"),
        ("[{link: 3, fd: rule=7}, {link: 4, fd: 7}]", "change 2: --fd: '7' is not SLOT=VALUE"),
        ("[{link: 3, fd: {bogus: 7}}]", "change 1: --fd: there is no slot 'bogus'"),
        ("[{link: 3, fd: {rule: [7]}}]", "change 1: fd: [7] is neither text nor a number"),
        ("[{link: 3, fd: null}]", "change 1: fd: None is neither text nor a number"),
        ("[{link: 3, fd: rule=7, cookie: [1, 2]}]", "change 1: cookie takes one value"),
        ("[{link: 3, fd: rule=7, expect-gen: x}]", "change 1: expect-gen is not a number"),
        ("[{link: 3, fd: rule=7, expect-prog: {rule: x}}]", "--expect-prog: 'x' is not a number"),
        ("[{link: 3, fd: rule=7, what: 1}]", "change 1: there is no key 'what'; there are: link, "),
        ("[{link: 3, fd: rule=7}, {link: 3, fd: rule=8}]", "link 3 is there twice"),
    ],
)
def test_errors_in_a_transaction(
    text: str, sentence: str, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["swap", "--txn", transaction(tmp_path / "changes", text)]) == 2
    assert sentence in capsys.readouterr().err
    assert module.requested(Command.TRANSACT) == []


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        ("confirm 3", errno.ENODATA, 15),
        ("confirm 3", errno.EALREADY, 13),
        ("confirm txn:7", errno.ENOENT, 6),
        ("rollback web", errno.ENODATA, 15),
        ("rollback 3", errno.ECANCELED, 14),
        ("rollback txn:7", errno.EALREADY, 13),
        ("rollback 3 --expect-gen 2", errno.ESTALE, 7),
        ("rollback 3", errno.EBUSY, 1),
        ("swap 3 --fd rule=7", errno.EINPROGRESS, 12),
        ("confirm 3 --expect-gen 2", errno.ESTALE, 7),
        ("confirm 3", errno.ENOENT, 6),
        ("history 3", errno.ENOENT, 6),
        ("adopt 3", errno.EBUSY, 1),
        ("adopt 3", errno.ENOENT, 6),
        ("swap 3 --fd rule=7", errno.EBUSY, 1),
        ("links 3", errno.ENOENT, 6),
        ("run --fd rule=7 -- true", errno.EBUSY, 1),
    ],
)
def test_errors_refusals(
    line: str, number: int, code: int, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(number, {"message": "the module's sentence"})

    for command in set(Command) - {Command.STATS}:
        module.handlers[command] = refuse
    assert run(line.split()) == code
    captured = capsys.readouterr()
    assert re.fullmatch(rf"ipttctl: .+the module's sentence \[{errno.errorcode[number]}\].*\n",
                        captured.err)  # fmt: skip  # plain
    assert captured.out == ""


#: commands that print nothing, or what is not text or JSON alone
SILENT = ("map set", "map delete", "agent", "record", "export", "query")


def commands() -> list[str]:
    """Every command, those of groups included."""
    top = typer.main.get_command(app)
    found = []
    for name, command in getattr(top, "commands").items():  # noqa: B009 - of a group, at run time
        found += [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert ("--output <text|json>" in text) is (command not in SILENT)
    assert text.startswith(f"Usage: ipttctl {command} ")
    assert text.isascii()


def test_help_tells_which_exit_status_run_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "126 if it cannot be executed, 127 if there is no such command" in text
    assert "Exit status: COMMAND's; or that of ipttctl" in text


def test_attach_to_a_netfilter_hook(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [nf_link()]
    line = "attach --fd packet=7 --hook nf:netdev/ingress@-10 --device lo --mode filter"
    assert run([*line.split(), "--report-drops", "--persist"]) == 0
    [asked] = module.requested(Command.ATTACH)
    assert asked.pop("netns-fd") > 2
    assert asked == {
        "hook": 2,
        "family": 5,
        "hooknum": 0,
        "priority": -10,
        "ifindex": 1,
        "mode": 2,
        "flags": 3,
        "programs": {"program": [{"slot": 4, "fd": 7}]},
    }
    assert capsys.readouterr().out.startswith("link=4 gen=1 hook=nf:netdev/ingress@-10 netns=")


@pytest.mark.parametrize("told", [[], ["--netns", "/proc/self/ns/net"]])
def test_attach_takes_our_namespace_unless_told(told: list[str], module: FakeModule) -> None:
    """The test examines the descriptor while the request is answered: it is closed afterwards."""
    inodes = []

    def attach(_: Command, asked: dict[str, Any]) -> Sequence[dict[str, Any]]:
        inodes.append(os.fstat(asked["netns-fd"]).st_ino)
        return [nf_link()]

    module.handlers[Command.ATTACH] = attach
    assert run(["attach", "--fd", "packet=7", *NF.split(), "--persist", *told]) == 0
    assert inodes == [OWN_NETNS.inode]


def test_attach_tells_that_the_hook_has_gone(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        for change in (nf_link(gone=1), nf_link(gone=1, **{"owner-pid": 9}), nf_link(link=9)):
            module.multicast(notification(Command.LINK_CHANGED, change))
        module.multicast(notification(Command.LINK_DETACHED, nf_link(gone=1, reason=1)))
        return [nf_link()]

    module.handlers[Command.ATTACH] = attach
    module.handlers[Command.GET] = lambda *_: [nf_link()]
    assert run(["attach", "--fd", "packet=7", *NF.split()]) == 10
    assert capsys.readouterr().err.splitlines() == [
        (
            "link 4 is at no hook any more: its network namespace is gone; it stays until it is "
            "detached"
        ),
        "ipttctl: link 4 was detached by somebody else",
    ]


def test_attach_tells_which_tables_came(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        module.multicast(notification(Command.LINK_CHANGED, link(armed=0)))
        module.multicast(notification(Command.LINK_CHANGED, link(armed=3)))
        module.multicast(notification(Command.LINK_DETACHED, link(reason=1)))
        return [link(armed=3)]

    module.handlers[Command.ATTACH] = attach
    module.handlers[Command.GET] = lambda *_: [link(armed=3)]
    assert run(["attach", "--fd", "rule=7"]) == 10
    assert capsys.readouterr().err.splitlines() == [
        "no IPv4 tables: ip_tables is not loaded; waiting for it",
        "no IPv6 tables: ip6_tables is not loaded; waiting for it",
        "ipttctl: link 3 was detached by somebody else",
    ]


def test_attach_to_chains(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [chain_link()]
    line = r"attach --fd rule=7 --hook chain:inet/a\x2fb/out --persist"
    assert run(line.split()) == 0
    assert run(["attach", "--fd", "rule=7", "--hook", "chain", "--persist"]) == 0
    one, everywhere = module.requested(Command.ATTACH)
    # without --netns in all namespaces
    rest = {"hook": 3, "flags": 1, "programs": {"program": [{"slot": 2, "fd": 7}]}}
    assert one == {"family": 1, "table": "a/b", "chain": "out", **rest}
    assert everywhere == rest
    assert capsys.readouterr().out.startswith("link=5 gen=2 hook=chain:inet/filter/out netns=")


def test_attach_tells_when_nf_tables_comes_and_goes(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    def attach(*_: Any) -> Sequence[dict[str, Any]]:
        for change in ({}, {"armed": 0}, {"armed": 0, "owner-pid": 9}, {"armed": 8}, {"gone": 1}):
            module.multicast(notification(Command.LINK_CHANGED, chain_link(**change)))
        module.multicast(notification(Command.LINK_DETACHED, chain_link(reason=1)))
        return [chain_link(armed=0)]

    module.handlers[Command.ATTACH] = attach
    module.handlers[Command.GET] = lambda *_: [chain_link(armed=0)]
    assert run(["attach", "--fd", "rule=7", "--hook", "chain"]) == 10
    waiting = "no chains of nftables: nf_tables is not loaded; waiting for it"
    first, again, gone, last = capsys.readouterr().err.splitlines()
    assert (first, again) == (waiting, waiting)
    assert gone.startswith("link 5 sees no packets any more: its network namespace is gone;")
    assert last == "ipttctl: link 5 was detached by somebody else"


def test_adopt_holds_the_link(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    def adopt(_: Command, asked: dict[str, Any]) -> Sequence[dict[str, Any]]:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return [link(link=asked["link"])]

    module.handlers[Command.ADOPT] = adopt
    module.handlers[Command.GET] = lambda *_: [link(link=8)]
    assert run(["adopt", "8", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["link"] == 8
    assert module.requested(Command.ADOPT) == [{"link": 8}]


def test_confirm(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["confirm", "8"]) == 0
    assert capsys.readouterr().out.startswith("link=8 ")
    assert run(["confirm", "8", "--expect-gen", "2"]) == 0
    assert module.requested(Command.CONFIRM) == [{"link": 8}, {"link": 8, "expect-generation": 2}]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("30s", 30000), ("500ms", 500), ("1.5m", 90000), ("24h", 86400000), ("1ms", 1)],
)
def test_swap_rollback(text: str, milliseconds: int, module: FakeModule) -> None:
    assert run(["swap", "3", "--fd", "rule=7", "--rollback-after", text]) == 0
    [asked] = module.requested(Command.SWAP)
    assert asked["rollback-after"] == milliseconds


def test_swap_with_guards(module: FakeModule) -> None:
    line = ["swap", "3", "--fd", "rule=7", "--guard", "drops < 10/s for 5s", "--guard", "lost<1"]
    assert run(line) == 0
    [asked] = module.requested(Command.SWAP)
    assert "rollback-after" not in asked
    assert asked["guard"] == [
        {"counter": 6, "comparison": 1, "threshold": 10, "per-time": 1000, "window": 5000,
         "minimum": 1},
        {"counter": 5, "comparison": 1, "threshold": 1, "minimum": 1},
    ]  # fmt: skip  # pairs together


def test_rollback(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.ROLLBACK] = lambda *_: [link(), link(link=8)]
    assert run(["rollback", "web", "--expect-gen", "2", "--reason", "bad", "--force"]) == 0
    assert capsys.readouterr().out.count("\nlink=8 ") == 1
    assert run(["rollback", "txn:7"]) == 0
    assert run(["confirm", "txn:7"]) == 0
    assert module.requested(Command.ROLLBACK) == [
        {"name": "web", "expect-generation": 2, "reason-text": "bad", "force": 1},
        {"transaction": 7},
    ]
    assert module.requested(Command.CONFIRM) == [{"transaction": 7}]


YAML = """
- link: 3
  fd: {rule: 7, exit: 8}
  cookie: 0x10
  expect-gen: 2
  expect-prog: {entry: 0}
- link: 5
  fd: packet=9
"""
JSON = json.dumps(
    [
        {"link": 3, "fd": ["rule=7", "exit=8"], "cookie": "0x10", "expect-gen": 2,
         "expect-prog": "entry=0"},
        {"link": 5, "fd": ["packet=9"]},
    ]
)  # fmt: skip  # pairs together


@pytest.mark.parametrize("text", [YAML, JSON])
@pytest.mark.parametrize("standard_input", [False, True])
def test_swap_several(
    text: str,
    standard_input: bool,
    module: FakeModule,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = transaction(tmp_path / "changes", text)
    if standard_input:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        file = "-"
    assert run(["swap", "--txn", file, "--rollback-after", "2s", "-o", "json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(value["link"], value["generation"]) for value in shown] == [(3, 3), (5, 3)]
    assert module.requested(Command.TRANSACT) == [
        {
            "rollback-after": 2000,
            "change": [
                {
                    "link": 3,
                    "expect-generation": 2,
                    "expect-program": [{"slot": 1, "id": 0}],
                    "programs": {
                        "program": [{"slot": 2, "fd": 7}, {"slot": 3, "fd": 8}],
                        "cookie": 16,
                    },
                },
                {"link": 5, "programs": {"program": [{"slot": 4, "fd": 9}]}},
            ],
        }
    ]


ENTRIES = [
    {"generation": 1, "action": 1, "time": 5, "pid": 7, "uid": 0, "comm": "one"},
    {"generation": 2, "action": 3, "time": 6, "pid": 0, "uid": 0, "comm": ""},
]


def test_history(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.HISTORY] = lambda *_: [
        {"link": 3, "generation": 2, "history": ENTRIES[:1]},
        {"link": 3, "generation": 2, "history": ENTRIES[1:]},
    ]
    assert run(["history", "3"]) == 0
    assert re.findall(r"^gen=(\d) action=(\w+) ", capsys.readouterr().out, re.MULTILINE) == [
        ("1", "attach"),
        ("2", "rollback"),
    ]
    assert run(["history", "3", "-o", "json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [value["comm"] for value in shown] == ["one", None]


def test_links_measures_an_interval(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    opened: list[int] = []

    def enable() -> int:
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[-1]

    monkeypatch.setattr(syscalls, "enable_run_time", enable)
    looks = iter([(9, 900), (12, 1350)])

    def get(*_: Any) -> Sequence[dict[str, Any]]:
        # measuring is on during the listing of links
        os.fstat(opened[-1])
        runs, run_time = next(looks)
        return [nf_link(stats={"slot": [{"slot": 4, "runs": runs, "run-time": run_time}]})]

    module.handlers[Command.GET] = get
    assert run(["links", "--measure", "0.05", "-o", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert measured["seconds"] >= 0.05
    assert measured["slots"] == {"packet": {"runs": 3, "run_time_ns": 450, "ns_per_run": 150.0}}
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(opened[-1])


def table(
    links: Sequence[Link], measured: dict[int, Measurement] | None = None, width: int = 200
) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    print_links(links, measured or {}, console, NamespaceNames(()))
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def test_links_table() -> None:
    links = [Link.from_attributes(link()), Link.from_attributes(nf_link(gone=1))]
    heading, *lines = table(links)
    assert heading.split() == [
        "LINK", "GEN", "HOOK", "OWNER", "PACKETS", "SELECTED", "EVENTS", "LOST", "DROPS", "SLOT",
        "PROGRAM", "TAG", "RUNS", "NS/RUN",
    ]  # fmt: skip  # a line of them
    text = "\n".join(lines)
    for row in (
        r"3 +2 +table +1234\(ipttctl\) +9 +5 +20 +0 +entry +12 trace_entry +0001020304050607 +0$",
        r"^ +no IPv6 tables$|^ +exit +13 +0000000000000000 +0$",
        r"4 +1 +nf:netdev/ingress@-10 +1234\(ipttctl\) +10 +9 +3 +1 +3 +packet +21 drop +\w+ +9$",
        r"^ +netns 4026532201$",
        r"^ +device eth0$",
        r"^ +filter$",
        r"^ +GONE: netns$",
        r"^ +back in 1.5s$",
    ):
        assert re.search(row, text, re.MULTILINE), (row, text)
    measured = {4: Measurement.between(None, links[1], 1.0)}
    assert any(re.search(r" 9 +100$", line) for line in table(links, measured))
    assert table([]) == ["no links"]
    narrow = table(links, width=80)
    assert narrow == [link_line(value) for value in links]


def test_events_are_chosen(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    ours = {"netns_cookie": OWN_NETNS.cookie, "table": b"", "chain": b""}
    events = [
        event(link=3, table=b"raw"),
        event(link=4, kind=Kind.PACKET, verdict=0, **ours),
        event(link=4, kind=Kind.EXIT, verdict=1),
        event(link=5, kind=Kind.PACKET, verdict=0, netns_cookie=7, table=b"", chain=b""),
        event(link=5, kind=Kind.PACKET, verdict=1, **ours),
        event(link=6, kind=Kind.PACKET, verdict=0, **ours),
    ]
    module.when_connected(2, events_message(events))
    line = "events --link 4 --link 5 --hook nf --verdict drop --netns /proc/self/ns/net -c 1"
    assert run([*line.split(), "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(text)["sequence"] for text in captured.out.splitlines()[1:]] == [1]
    assert captured.err.splitlines()[-1] == "1 event, 1 packet, lost 0"


def test_events_of_a_link_that_is_gone(module: FakeModule) -> None:
    module.handlers[Command.GET] = no_such_link
    assert run(["events", "--link", "8", "--link", "9"]) == 6


def test_events_tell_what_changed_links(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only its history tells a rollback from a swap, and the link may go before that is read."""
    module.handlers[Command.HISTORY] = lambda _, asked: (
        [{"history": ENTRIES}] if asked["link"] == 3 else no_such_link()
    )

    changes = [
        (Command.LINK_SWAPPED, link()),
        (Command.LINK_SWAPPED, link(generation=99)),
        (Command.LINK_SWAPPED, link(link=8)),
        (Command.LINK_SWAPPED, link(link=9)),
        (Command.LINK_CHANGED, link(**{"rollback-in": 2500})),
    ]
    module.when_connected(2, *(notification(command, change) for command, change in changes))
    assert run(["events", "--links", "--link", "3", "--link", "8", "-c", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" gen=")[0] for line in lines] == [
        "listed link=3",
        "swapped action=rollback by=module link=3",
        "swapped link=3",
        "swapped link=8",
        "changed link=3",
    ]
    assert " rollback-in=2.500s " in lines[4]


def test_detach_expects_what_it_is_told(module: FakeModule) -> None:
    assert run(["detach", "3", "--expect-gen", "2", "--expect-prog", "entry=12"]) == 0
    assert module.requested(Command.DETACH) == [
        {"link": 3, "expect-generation": 2, "expect-program": [{"slot": 1, "id": 12}]}
    ]
