# SPDX-License-Identifier: GPL-2.0
"""Standard error without a reader: every command works and ends as usual."""

from __future__ import annotations

import errno
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.errors import ProgramError
from ipttctl.link.wire import Connection
from ipttctl.programs import trace as trace_programs
from ipttproto import Command
from tests.unit.ctl.support import (
    FakeModule,
    event,
    events_message,
    link,
    no_such_link,
    notification,
)

pytestmark = pytest.mark.usefixtures("left_open")

#: commands, and the requests that the module answers with ENOENT
COMMANDS: Sequence[tuple[str, Sequence[Command]]] = [
    ("links", ()),
    ("links 3", (Command.GET,)),
    ("links --measure 0.01 --bogus", ()),
    ("stats -o json", ()),
    ("attach --fd rule=7", ()),
    ("attach --fd rule=7 --persist", (Command.ATTACH,)),
    ("adopt 3", ()),
    ("swap 3 --fd rule=7", ()),
    ("confirm 3", (Command.CONFIRM,)),
    ("history 3", (Command.HISTORY,)),
    ("detach 3", (Command.DETACH,)),
    ("detach", ()),
    ("events -c 1", ()),
    ("events --links -c 1", ()),
    ("trace -c 1", ()),
    ("trace -4 -6", ()),
    ("diff /no/such/file", ()),
    ("apply /no/such/file", ()),
    ("maps 3", (Command.GET,)),
    ("map dump bogus", ()),
    ("run --fd rule=7 -- sh -c 'exit 9'", ()),
    ("run --fd rule=7 -- sh -c 'exit 9'", (Command.DETACH,)),
    ("run --fd rule=7 -- /no/such/command", ()),
    ("run --fd rule=7 -- /dev/null", ()),
]


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Any, *, on_compile: Callable[[], None]) -> Any:
        on_compile()
        raise ProgramError("it does not compile")

    monkeypatch.setattr(trace_programs, "load_trace_programs", load)


def answers(module: FakeModule, refused: Sequence[Command]) -> None:
    """Set the answers of the module, the same for each run."""

    def done(*_: Any) -> Any:
        return [link()]

    def attached(*_: Any) -> Any:
        for message in (Command.LINK_ATTACHED, Command.LINK_DETACHED):
            module.multicast(notification(message, link(reason=1)))
        return [link()]

    module.handlers |= dict.fromkeys(
        (Command.GET, Command.SWAP, Command.CONFIRM, Command.DETACH), done
    )
    module.handlers |= {Command.ATTACH: attached, Command.ADOPT: attached}
    module.handlers |= dict.fromkeys(refused, no_such_link)


def broken_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def full_device() -> int:
    return os.open("/dev/full", os.O_WRONLY)


@pytest.fixture(params=[broken_pipe, full_device, None])
def dead(request: pytest.FixtureRequest) -> Iterator[io.TextIOWrapper | None]:
    """A standard error that accepts nothing, or none as after 2>&-."""
    if request.param is None:
        yield None
        return
    file = open(request.param(), "w", errors="backslashreplace", buffering=1)  # noqa: PTH123, SIM115 - of a descriptor, closed below
    yield file
    with suppress(OSError):
        file.close()


@pytest.mark.parametrize(("line", "refused"), COMMANDS)
def test_a_command_does_what_it_would(
    line: str,
    refused: Sequence[Command],
    dead: io.TextIOWrapper | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def outcome() -> tuple[int, str, list[tuple[Command, dict[str, Any]]]]:
        module = FakeModule()
        monkeypatch.setattr(Connection, "open", module.connect)
        answers(module, refused)
        messages = (events_message([event()]), notification(Command.LINK_ATTACHED, link()))
        module.when_connected(2, *messages)
        try:
            status = run(shlex.split(line))
        finally:
            module.close()
        return status, capfd.readouterr().out, module.requests

    usual = outcome()
    monkeypatch.setattr(sys, "stderr", dead)
    assert outcome() == usual


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError(errno.EMFILE, "Too many open files", "/etc/x"), "/etc/x: Too many open files"),
        (OSError("it is closed"), "it is closed"),
    ],
)
def test_an_error_of_the_system_is_a_sentence(
    error: OSError,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Python adds a number in brackets."""

    def fail() -> Connection:
        raise error

    monkeypatch.setattr(Connection, "open", fail)
    assert run(["links"]) == 1
    assert capsys.readouterr().err == f"ipttctl: {sentence}\n"


@pytest.mark.parametrize("dead", [broken_pipe, full_device, None])
def test_the_exit_status_is_the_commands_own(dead: Callable[[], int] | None) -> None:
    """An interpreter that cannot write at its end exits with 120."""
    code = "from ipttctl.cli import main; main()"
    if dead is None:
        code = (
            f"import os; os.close(2); os.execl({sys.executable!r}, 'x', '-c', {code!r}, 'detach')"
        )
    number = full_device() if dead is None else dead()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, "detach"],
            stdout=subprocess.PIPE,
            stderr=number,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            check=False,
        )
    finally:
        os.close(number)
    assert (done.returncode, done.stdout) == (2, b"")
