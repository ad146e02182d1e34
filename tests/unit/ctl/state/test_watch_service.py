# SPDX-License-Identifier: GPL-2.0
"""Messages of a watch to a service manager, and its end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ipttctl.cli import run
from ipttctl.errors import (
    IpttctlError,
)
from ipttctl.state import Step
from ipttctl.system.service_manager import ServiceManager
from ipttproto import Command
from tests.unit.ctl.state.support import Machine, given
from tests.unit.ctl.state.watching import PATIENCE, WEB, Holder, Kept, kept, swapped
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open")


def test_the_service_manager_is_told(module: FakeModule, machine: Machine, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(tmp_path / "notify"))
        ours.settimeout(PATIENCE)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        manager = ServiceManager(told)

        def until(word: str) -> list[str]:
            found = [ours.recv(4096).decode()]
            while word not in found[-1]:
                found.append(ours.recv(4096).decode())
            return found

        path = tmp_path / "state.yaml"
        with kept(given(path, WEB), module, manager=manager) as watch:
            assert until("READY=1")[-1] == "READY=1"
            assert until("STATUS")[-1] == "STATUS=links as declared: 1"
            assert [until("WATCHDOG=1")[-1] for _ in range(3)] == ["WATCHDOG=1"] * 3
            watch.watch.reread()
            until("RELOADING=1")
            until("READY=1")
            given(path, "links: {web: {hook: tabel, fd: {exit: 7}}}")
            watch.watch.reread()
            shown = until("STATUS")[-1]
            assert shown.startswith(
                f"STATUS=links as declared: 1; the state of before stays, as {path} is not valid: "
            )
            until("READY=1")
            given(path, WEB)
            watch.watch.reread()
            assert until("STATUS")[-1] == "STATUS=links as declared: 1"
            until("READY=1")
            machine.refused[Command.TRANSACT] = errno.ENOMEM
            module.multicast(swapped(machine, 1, 9))
            assert until("STATUS")[-1].startswith("STATUS=not as declared: ")
        assert until("STOPPING=1")
    assert sorted(machine.links) == [1]


def test_output_that_cannot_be_written_is_no_failure_to_mend(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    """It ends the watch, whose links are as declared; that is not told as a failure."""
    watch = Kept(given(tmp_path / "state.yaml", WEB), module)

    def full(_: Sequence[Step]) -> None:
        raise IpttctlError("cannot write")

    watch.watch._call = replace(watch.watch._call, done=full)
    watch.thread.start()
    watch.thread.join(PATIENCE)
    assert [str(error) for error in watch.error] == ["cannot write"]
    assert watch.told == []
    assert sorted(machine.links) == [1]


@pytest.mark.parametrize("reader", [True, False], ids=["full", "no reader"])
def test_a_keeper_that_cannot_print_is_started_again(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reader: bool,
) -> None:
    """Status 0 would tell a supervisor that somebody has stopped it."""
    file = given(tmp_path / "state.yaml", WEB)

    def broken_pipe() -> int:
        ours, theirs = os.pipe()
        os.close(ours)
        return theirs

    with os.fdopen(os.open("/dev/full", os.O_WRONLY) if reader else broken_pipe(), "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert run(["apply", "--watch", file]) == 1
    said = capsys.readouterr().err
    why = "cannot write to standard output: No space" if reader else "nobody reads standard output"
    assert said.startswith(f"ipttctl: {why}")
    assert "not as declared" not in said
    assert sorted(machine.links) == [1]


def test_a_reload_at_the_beginning_is_no_start(
    module: FakeModule, machine: Machine, tmp_path: Path, record: Path
) -> None:
    """The service manager hears READY=1 when the host is as declared, and not before."""
    path = tmp_path / "state.yaml"
    holder = Holder(record)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(tmp_path / "notify"))
        ours.settimeout(PATIENCE)
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        watch = Kept(given(path, WEB), module, manager=manager)
        watch.thread.start()
        watch.wait(lambda: watch.watch._locked is not None)
        watch.watch.reread()
        watch.wait(lambda: watch.told == [f"{path} is read again"])
        holder.release()
        watch.wait(lambda: watch.watch._ready)
        watch.watch.stop()
        watch.thread.join(PATIENCE)
        found = [ours.recv(4096).decode()]
        while "STOPPING=1" not in found:
            found.append(ours.recv(4096).decode())
    assert [text for text in found if not text.startswith("STATUS")] == ["READY=1", "STOPPING=1"]
    assert sorted(machine.links) == [1]
