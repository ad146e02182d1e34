# SPDX-License-Identifier: GPL-2.0
"""``ipttctl agent`` as a process: signals, the service manager, what it says without libraries."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipttctl.fleet.heartbeat import Heartbeat, Selector, find_hosts
from tests.unit.ctl.fleet.support import Key, Server, client

MAIN = "import sys\nfrom ipttctl.cli import main\nsys.argv[1:] = sys.argv[2:]\nmain()\n"


def command(*arguments: str, first: str = "") -> list[str]:
    return [sys.executable, "-c", first + MAIN, "-", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ":".join(sys.path), **more}


def config(directory: Path, leaf: Server, key: Key) -> Path:
    file = directory / "agent.yaml"
    file.write_text(
        f"leaf: {{url: '{leaf.url}', nkey: {key.seed}}}\nhost: web1\nheartbeat: 300ms\ndrain: 2s\n"
    )
    return file


@contextmanager
def manager(directory: Path) -> Iterator[socket.socket]:
    """A service manager that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(directory / "notify"))
        listening.settimeout(30)
        yield listening


def heard(listening: socket.socket, word: str) -> str:
    """The first message with a word."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        message = listening.recv(4096).decode()
        if word in message:
            return message
    raise AssertionError(word)


def test_it_is_ready_lives_and_ends_without_a_module(
    leaf: Server, agent_key: Key, reader_key: Key, tmp_path: Path
) -> None:
    """There is no module to talk to here: it waits for one, and is found meanwhile."""
    file = config(tmp_path, leaf, agent_key)

    async def found() -> list[Heartbeat]:
        async with client(leaf, reader_key) as reader:
            while True:
                if hosts := await find_hosts(reader, Selector.parse("host=web1"), 0.5):
                    return hosts

    with manager(tmp_path) as listening:
        env = environment(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="3000000")
        process = subprocess.Popen(
            command("agent", "--config", str(file)), env=env, stderr=subprocess.PIPE, text=True
        )
        try:
            assert "STATUS=leaf: " in heard(listening, "READY=1")
            [host] = asyncio.run(asyncio.wait_for(found(), 30))
            assert host.module == ""
            assert host.kernel == os.uname().release
            message = heard(listening, "leaf: connected")
            assert "WATCHDOG=1" in message
            assert "no events: " in message
            begin = time.monotonic()
            process.send_signal(signal.SIGTERM)
            heard(listening, "STOPPING=1")
            assert process.wait(20) == 0
            assert time.monotonic() - begin < 15
        finally:
            process.kill()
            _, said = process.communicate()
    assert f"connected to {leaf.url}" in said


SLOW = """
from ipttctl.cli import agent_host
from tests.unit.ctl.fleet.support import FakeHost

class Slow(FakeHost):
    def trace(self, order):
        print("tracing", flush=True)
        return super().trace(order)

agent_host.LocalHost = lambda _: Slow(delay=120)
"""


def test_it_ends_in_time_while_the_host_is_at_work(
    leaf: Server, agent_key: Key, tmp_path: Path
) -> None:
    """A first trace compiles, and verifies the module's walks."""
    file = config(tmp_path, leaf, agent_key)
    file.write_text(f"{file.read_text()}watch: [{{name: all}}]\n")
    process = subprocess.Popen(
        command("agent", "--config", str(file), first=SLOW),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "tracing\n"
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "Traceback" not in said


def test_the_configuration_is_checked(leaf: Server, agent_key: Key, tmp_path: Path) -> None:
    file = config(tmp_path, leaf, agent_key)
    check = command("agent", "--check", "--config", str(file))

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            check, capture_output=True, text=True, check=False, env=environment(), timeout=60
        )

    assert run().stdout == f"{file}: host web1, allows trace, links\n"
    whole = file.read_text()
    file.write_text(
        f"{whole}watch:\n- name: drops\n  drops: true\n- {{name: dns, filter: port 53}}\n"
    )
    assert run().stdout == f"{file}: host web1, allows trace, links, watches drops, dns\n"
    file.write_text(f"{whole}watch:\n- name: dns\n  filter: port port\n")
    done = run()
    assert done.returncode == 2
    assert f"{file}, line 7: watch[0].filter: filter 'port port': " in done.stderr
    file.write_text(whole)
    file.write_text(f"{file.read_text()}stream:\n  size: 5\n")
    done = run()
    assert done.returncode == 2
    assert done.stderr == f"ipttctl: {file}, line 6: stream.size: there is no such key\n"


def test_without_its_libraries_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = (
        "import importlib.util as util\nreal = util.find_spec\n"
        "util.find_spec = lambda name: None if name in ('nats', 'nkeys') else real(name)\n"
    )
    done = subprocess.run(
        command("agent", "--config", str(tmp_path / "none"), first=hidden),
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "ipttctl: this needs nats-py and nkeys, which are not installed; "
        "run: pip install 'ipttctl[fleet]'\n"
    )


@pytest.mark.parametrize("word", ["msgspec", "nats", "nkeys", "opentelemetry", "prometheus_client"])
def test_other_commands_do_without(word: str) -> None:
    script = (
        f"import sys\nfrom ipttctl.cli import run\nrun(['--help'])\nprint({word!r} in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
