# SPDX-License-Identifier: GPL-2.0
"""Completion in real use: a user types in a shell and presses the tab key."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from installer import completion

PROMPT = "what-next:"
SPELT = "what-''next:"
"""The prompt, spelt so that the shell's echo of its definition is not taken for it."""

SECONDS = 120

SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "source {script}; bind 'set enable-bracketed-paste off'; PS1={prompt}",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath=({directory} $fpath); autoload -Uz compinit; compinit -D -u; PS1={prompt}",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "source {script}; function fish_prompt; echo -n {prompt}; end",
    ),
}
"""The command line and the first input of each shell."""


class Terminal:
    """A user's terminal with a shell."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._process, self._ours = pty.fork()
        if self._process == 0:
            os.execvpe(command[0], command, environment)
        self.shown = ""

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._ours, text.encode())

    def look(self) -> None:
        """Read the output of the shell, if any comes soon."""
        if select.select([self._ours], [], [], 0.2)[0]:
            self.shown += os.read(self._ours, 65536).decode(errors="replace")

    def wait_for_prompt(self) -> None:
        """Wait until the shell has finished a command."""
        deadline = time.monotonic() + SECONDS
        while PROMPT not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self.look()

    def close(self) -> None:
        """Close the terminal, and kill the shell."""
        os.close(self._ours)
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An ``ipttctl`` that completes, and otherwise only records its arguments."""
    path = tmp_path / "bin" / "ipttctl"
    path.parent.mkdir()
    path.write_text(
        "#!/bin/sh\n"
        f'[ -z "$_IPTTCTL_COMPLETE" ] || exec {sys.executable} -m ipttctl "$@"\n'
        f'echo "$@" >{tmp_path}/asked.new\nmv {tmp_path}/asked.new {tmp_path}/asked\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("typed", ["doct", "attach --pers", "module unl"])
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes(shell: str, typed: str, tmp_path: Path, program: Path) -> None:
    command, setup = SHELLS[shell]
    assert shutil.which(shell), f"apt install {shell}"
    script = tmp_path / "functions" / "_ipttctl"
    script.parent.mkdir()
    script.write_text(completion.script(shell))
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": ":".join(sys.path),
    }
    terminal = Terminal(command, environment)
    try:
        ready = setup.format(script=script, directory=script.parent, prompt=SPELT)
        terminal.type(f"{ready}\n")
        terminal.wait_for_prompt()
        terminal.type(f"ipttctl {typed}\t\n")
        asked = tmp_path / "asked"
        deadline = time.monotonic() + SECONDS
        while not asked.exists():
            assert time.monotonic() < deadline, terminal.shown
            terminal.look()
    finally:
        terminal.close()
    whole = {"doct": "doctor", "attach --pers": "attach --persist", "module unl": "module unload"}
    assert asked.read_text().split() == whole[typed].split()
