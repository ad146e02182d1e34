# SPDX-License-Identifier: GPL-2.0
"""``ipttctl run`` against a user-space implementation of the module."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from ipttctl.cli import run
from ipttproto import Command
from tests.unit.ctl.support import (
    FakeModule,
    link,
    no_such_link,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering")


def test_run_ends_as_its_command_does(
    module: FakeModule, capfd: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.DETACH] = lambda *_: [link(stats={"events": 77})]
    line = ["run", "--fd", "rule=7", "--family", "4", "-o", "json"]
    assert run([*line, "--", "sh", "-c", "echo $IPTTCTL_LINK; exit 9"]) == 9
    captured = capfd.readouterr()
    assert captured.out == "3\n"
    before, waiting, after = captured.err.splitlines()
    assert "no IPv6 tables" in waiting
    assert (json.loads(before)["events"], json.loads(after)["events"]) == (20, 77)
    assert module.requested(Command.DETACH) == [{"link": 3}]
    [asked] = module.requested(Command.ATTACH)
    assert asked["family"] == 2


def test_run_when_somebody_else_detached_the_link(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.DETACH] = no_such_link
    assert run(["run", "--fd", "rule=7", "true"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "link 3 was detached by somebody else"


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("/no/such/command", 127, "there is no command '/no/such/command'"),
        ("no-such-command", 127, "there is no command 'no-such-command'"),
        ("/dev/null", 126, "cannot execute '/dev/null': Permission denied"),
    ],
)
def test_run_of_what_does_not_run(
    command: str,
    status: int,
    words: str,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["run", "--fd", "rule=7", "--", command, "-x"]) == status
    assert f"ipttctl: {words}" in capsys.readouterr().err
    assert module.requested(Command.DETACH) == [{"link": 3}]


def test_the_command_ignores_what_was_ignored_but_what_python_does(
    module: FakeModule, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of SIGPIPE and SIGXFSZ nobody knows how they were."""
    own = (signal.SIGPIPE, signal.SIGXFSZ)
    others = (signal.SIGTTOU, signal.SIGUSR2)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (*own, *others)}
    try:
        line = ["run", "--fd", "rule=7", "--", "grep", "SigIgn", "/proc/self/status"]
        assert run(line) == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ignored = int(capfd.readouterr().out.split()[1], 16)
    assert [bool(ignored >> number - 1 & 1) for number in own] == [False, False]
    assert [bool(ignored >> number - 1 & 1) for number in others] == [True, True]
    assert module.requested(Command.DETACH) == [{"link": 3}]


@contextmanager
def wrapped(script: str) -> Iterator[subprocess.Popen[str]]:
    """A shell below the code of `ipttctl run`, in a session of its own that ends with the block."""
    code = (
        "import os, signal, sys\nfrom ipttctl.cli.run_command import _run\n"
        # a shell cannot trap signals that were ignored when it started, as by nohup
        "for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):\n"
        "    signal.signal(number, signal.SIG_DFL)\n"
        f"sys.exit(_run(['sh', '-c', {script!r}], dict(os.environ)))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
)
def test_run_passes_signals_on(number: signal.Signals) -> None:
    script = f"trap 'exit 7' {number.value}; echo ready; while :; do sleep 0.05; done"
    with wrapped(script) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == 7


def test_run_tells_which_signal_ended_its_command() -> None:
    with wrapped("kill -KILL $$") as process:
        assert process.wait(30) == 128 + signal.SIGKILL


def test_run_does_not_pass_a_signal_of_its_command_back() -> None:
    script = "trap 'exit 7' USR1; kill -USR1 $PPID; sleep 0.3; exit 8"
    with wrapped(script) as process:
        assert process.wait(30) == 8


def test_run_keeps_its_programs_to_itself(module: FakeModule) -> None:
    """The command inherits descriptors that the caller left open, except those for ipttctl."""
    del module
    with tempfile.TemporaryFile() as ours, tempfile.TemporaryFile() as its:
        for file in (ours, its):
            os.set_inheritable(file.fileno(), True)
        kept, passed = (f"/proc/self/fd/{file.fileno()}" for file in (ours, its))
        command = f"[ ! -e {kept} ] && [ -e {passed} ] && exit 7"
        assert run(["run", "--fd", f"rule={ours.fileno()}", "--", "sh", "-c", command]) == 7


IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGCHLD)


@pytest.mark.parametrize("ignored", [IGNORED, ()])
def test_run_leaves_signals_as_they_were(ignored: Sequence[signal.Signals]) -> None:
    """Ignored signals stay ignored, as under nohup, and the exit status is known all the same."""
    code = (
        "import os, signal, sys\nfrom ipttctl.cli.run_command import _run\n"
        "statuses = [_run(['cat', '/proc/self/status'], dict(os.environ)),"
        " _run(['sh', '-c', 'exit 5'], dict(os.environ))]\n"
        "sys.exit(10 * statuses[0] + statuses[1])"
    )

    def ignore() -> None:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        preexec_fn=ignore,
        check=False,
    )
    assert done.returncode == 5
    masks = dict(re.findall(r"^Sig(Ign|Blk):\s+(\w+)$", done.stdout, re.MULTILINE))
    found = {number for number in signal.valid_signals() if int(masks["Ign"], 16) >> number - 1 & 1}
    assert found & {*IGNORED, signal.SIGPIPE} == set(ignored)
    assert int(masks["Blk"], 16) == 0
