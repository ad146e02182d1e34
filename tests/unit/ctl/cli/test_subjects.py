# SPDX-License-Identifier: GPL-2.0
"""Namespaces and processes that limit commands; see tests/kernel/test_namespaces.py."""

from __future__ import annotations

import subprocess
import threading

import pytest

from ipttctl.cli import run
from ipttctl.cli.subjects import ChosenProcess
from ipttctl.errors import UsageError
from ipttctl.link.wire import Connection
from ipttctl.system import netns
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, event, events_message, notification

OWN = netns.resolve(str(netns.OWN))


@pytest.fixture(autouse=True)
def _module(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "open", module.connect)
    module.handlers[Command.GET] = lambda *_: []


def _gone(identity: netns.Identity) -> bytes:
    attributes = {"netns": identity.inode, "netns-cookie": identity.cookie}
    return notification(Command.NAMESPACE_GONE, attributes)


def test_events_end_with_the_namespaces_that_were_meant(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """A namespace that only has the inode number of a chosen one is not chosen."""
    stranger = netns.Identity(OWN.inode, OWN.cookie + 1)
    module.when_connected(2, events_message([event(netns_cookie=OWN.cookie)]))
    module.when_connected(3, _gone(stranger), _gone(OWN))
    paths = ["/proc/self/ns/net", "/proc/thread-self/ns/net"]
    assert run(["events", "--netns", paths[0], "--netns", paths[1], "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("\n") == 2
    assert captured.err.splitlines() == [
        "listening",
        *(f"network namespace {path} is gone" for path in paths),
        "1 event, 1 packet, lost 0",
    ]


@pytest.mark.parametrize("pid", [999_999_999, (1 << 32) - 1])
def test_no_such_process(pid: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["trace", "-p", str(pid)]) == 2
    assert capsys.readouterr().err == f"ipttctl: there is no process {pid}; see `ps -e`\n"


def test_a_thread_is_no_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(UsageError, match="is a thread of a process"):
            ChosenProcess(thread.native_id or 0)
    finally:
        done.set()
        thread.join()


def test_the_end_of_a_process_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        chosen = ChosenProcess(child.pid)
        assert not chosen.look()
        child.communicate()
        assert chosen.look()
        chosen.close()
    assert capsys.readouterr().err == f"process {child.pid} has ended\n"
