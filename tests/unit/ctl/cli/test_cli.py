# SPDX-License-Identifier: GPL-2.0
"""The command line with a module in user space: output, exit status, end of commands."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.cli.commands import PLACES
from ipttctl.cli.exit_codes import EXIT_CODES
from ipttctl.errors import IpttctlError, PrivilegeError, RefusedPrivilegeError
from ipttctl.link.wire import Connection
from ipttproto import Command, SwapAck
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
    when_attached,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering")

DOCUMENT = Path(__file__).parents[4] / "docs" / "exit-codes.md"


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


def test_errors_module_of_another_protocol(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.STATS] = lambda *_: [status(major=2)]
    assert run(["links"]) == 3
    assert "do not understand each other" in capsys.readouterr().err


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

    assert {kind.exit_code for kind in tree(IpttctlError)} == {*range(1, 8), *range(10, 16), 20, 21}


@pytest.mark.parametrize("name", PLACES)
def test_summary_of_a_command_is_the_first_line_of_its_help(name: str) -> None:
    place, summary = PLACES[name]
    file, function = place.split(".")
    command = getattr(import_module(f"ipttctl.cli.{file}"), function)
    assert summary == command.__doc__.splitlines()[0]


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
            "swap-ack": SwapAck.PUBLISHED,
        }
    ]


@pytest.mark.parametrize(("option", "sent"), [("--wait", None), ("--expedite", SwapAck.EXPEDITED)])
def test_swap_waits_if_asked_to(
    module: FakeModule, tmp_path: Path, option: str, sent: SwapAck | None
) -> None:
    """One link, or those of a file."""
    assert run(["swap", "3", "--fd", "rule=7", option]) == 0
    file = tmp_path / "changes"
    file.write_text('[{"link": 3, "fd": {"rule": 7}}]')
    module.handlers[Command.TRANSACT] = lambda *_: [link()]
    assert run(["swap", "--txn", str(file), option]) == 0
    requests = module.requested(Command.SWAP) + module.requested(Command.TRANSACT)
    assert [request.get("swap-ack") for request in requests] == [sent, sent]


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


@pytest.mark.parametrize("line", ["events -c 2", "events", "trace --lines -c 2", "trace --lines"])
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
    head, *found = [json.loads(line) for line in lines]
    assert head["stream"] == "links"
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
    assert re.fullmatch(r"module 0\.1\.0 protocol 1\.0, build [0-9a-f]{8} walk verified", first)
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
        (
            {"walk": 2, "walk-compared": 1, "spine-walk": 1},
            " walk verified, along the spine unverified",
        ),
        ({"walk": 2, "walk-compared": 1, "spine-walk": 2}, " walk verified"),
        ({}, ""),
    ],
)
def test_walk_in_the_status(
    walk: dict[str, int], shown: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = {name: value for name, value in status().items() if "walk" not in name}
    module.handlers[Command.STATS] = lambda *_: [reply | walk]
    assert run(["stats"]) == 0
    [heading, *_] = capsys.readouterr().out.splitlines()
    assert re.sub(r"^module \S+ protocol \S+ build \w+", "", heading) == shown


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
        "from ipttctl.cli import printing, run\n"
        "import ipttctl.cli.module as m\n"
        "def flood(*_):\n"
        "    while True: printing.lines(['x' * 1000])\n"
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
