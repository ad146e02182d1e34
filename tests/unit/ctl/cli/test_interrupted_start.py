# SPDX-License-Identifier: GPL-2.0
"""Ctrl-C while a command starts: it ends without a word, wherever it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from ipttctl import cli
from ipttctl.cli.exit_codes import INTERRUPTED

#: says on standard output when the imports begin
START = """
import sys
class Told:
    def find_spec(name, path, target=None):
        if name == "ipttctl.cli":
            print(flush=True)
sys.meta_path.insert(0, Told)
sys.argv[1:] = ["--version"]
from ipttctl.__main__ import main
main()
"""


def started(action: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """A command that has just begun, with this action of SIGINT before."""
    process = subprocess.Popen(
        [sys.executable, "-c", START],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, action),  # noqa: PLW1509  # no threads
    )
    assert process.stdout
    assert process.stdout.readline() == "\n"
    return process


@pytest.mark.parametrize("seconds", [0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5])
def test_an_interrupted_start_says_nothing(seconds: float) -> None:
    with started() as process:
        # the moment is the point
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert told == ""
    assert process.returncode in {-signal.SIGINT, INTERRUPTED, 0}


def test_a_start_goes_on_where_the_signal_is_ignored() -> None:
    with started(signal.SIG_IGN) as process:
        process.send_signal(signal.SIGINT)
        version, _ = process.communicate(timeout=60)
    assert version.startswith("ipttctl ")
    assert process.returncode == 0


def test_a_command_that_runs_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The signal's action is the process's again afterwards."""
    interrupts = []

    def overview(_: object) -> None:
        interrupts.append(signal.getsignal(signal.SIGINT))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("ipttctl.cli.module.overview", overview)
    monkeypatch.setattr("ipttctl.cli._drop_output", lambda: None)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        assert cli.run([]) == INTERRUPTED
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupts == [signal.default_int_handler]
    assert capsys.readouterr().err == ""
