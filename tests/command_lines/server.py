# SPDX-License-Identifier: GPL-2.0
"""A server that forks commands as ``cli_server`` does, with the module in user space.

The first argument of a command is the number of a signal that the module sends it before it
answers, or 0. A command that would run until a signal stops it gets one; ``apply`` and ``module``
handle that signal too, but end by themselves, perhaps before it comes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ipttctl import state
from ipttctl.cli import main, transaction
from ipttctl.host import doctor, module
from ipttctl.link import controller, wire
from ipttctl.programs import maps as link_maps
from ipttctl.programs import trace as trace_programs
from ipttctl.show import link_table
from ipttctl.state import file
from ipttproto import Command, Slot
from tests.kernel.support.cli_server import serve
from tests.unit.ctl.support import FakeModule, interrupt_when_handled, link, nf_link, status

PRELOADED = (controller, file, link_maps, link_table, transaction)


class _Program:
    """A program of ``trace``."""

    fd = 0

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _answers(command: Command, asked: dict[str, Any]) -> list[dict[str, Any]]:
    match command:
        case Command.STATS:
            return [status()]
        case Command.TRANSACT:
            return [link(link=change["link"]) for change in asked["change"]]
        case Command.HISTORY:
            entry = {"generation": 1, "action": 1, "time": 5, "pid": 7, "uid": 0, "comm": "one"}
            return [{"link": 3, "generation": 1, "history": [entry]}]
        case Command.GET if "link" not in asked:
            return [link(), nf_link()]
    return [link()]


def _fake(number: int) -> FakeModule:
    """A module that sends this process a signal before it first answers."""
    fake = FakeModule()
    left = [number] if number else []

    def handle(command: Command, asked: dict[str, Any]) -> list[dict[str, Any]]:
        if left:
            os.kill(os.getpid(), left.pop())
        return _answers(command, asked)

    fake.handlers = dict.fromkeys(Command, handle)
    return fake


def _load_trace_programs(*_: Any, **__: Any) -> dict[Slot, _Program]:
    return {slot: _Program() for slot in Slot if slot is not Slot.PACKET}


def _allowed(*_: Any) -> None:
    """Refuse nothing."""


def _isolate(place: Path) -> None:
    """Keep commands from reading or writing anything of this machine that they could break."""
    vars(trace_programs)["load_trace_programs"] = _load_trace_programs
    vars(module).update(BUILT=place, MODULES=place, _SYSFS=place, require_privilege=_allowed)
    vars(doctor)["require_privilege"] = _allowed
    for function in (state.apply_state, state.diff_state, state.save_state):
        defaults = function.__kwdefaults__ or {}
        defaults["record"] = place / "record/declared.json"
    os.environ["IPTTCTL_CACHE"] = str(place / "cache")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ipttctl-") as directory:
        _isolate(Path(directory))
        command = serve()
        if command is not None:
            fake = _fake(int(command[0]))
            wire.Connection.open = fake.connect  # type: ignore[method-assign]  # as a test patches it
            if command[1:2] not in (["apply"], ["module"]):
                interrupt_when_handled()
            if command[1:2] == ["record"]:
                # what it makes goes with the directory, which the command before has removed
                Path(directory).mkdir(exist_ok=True)
                os.chdir(directory)
            sys.argv[1:] = command[1:]
            main()
