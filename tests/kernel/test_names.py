# SPDX-License-Identifier: GPL-2.0
"""Names that the kernel accepts from any owner of a user namespace: none acts on a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttproto import Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.chains import rename_chain
from tests.kernel.support.cli import ipttctl, running, trace_command
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import Namespace, namespace

DEVICE = b"\x1b]0;p\a\x7f\xc2\x9b\xff[b]"
DEVICE_TEXT = r"\x1b]0;p\x07\x7f\x9b\xff[b]"
#: sets the title, then adds a line that looks like an event of another chain
CHAIN = b"\x1b]0;\a\nchain=FORGED [red]\x1b[2J"
CHAIN_TEXT = r"\x1b]0;\x07\nchain=FORGED\x20[red]\x1b[2J"
PLACEHOLDER = b"X" * len(CHAIN)
COMM = b"\x1b[2J\nx \xc2\x9bm"
COMM_TEXT = r"\x1b[2J\nx\x20\x9bm"


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace whose device, chain and own name are hostile."""
    with namespace("n\x1b[31m") as made:
        made.iptables("-N", PLACEHOLDER.decode())
        made.iptables("-A", PLACEHOLDER.decode(), "-j", "ACCEPT")
        made.iptables("-A", "OUTPUT", "-p", "icmp", "-j", PLACEHOLDER.decode())
        made.call(rename_chain, "filter", PLACEHOLDER, CHAIN)
        # like: unshare -Urn ip link set lo name $'\e]0;p\a'
        device = os.fsdecode(DEVICE)
        # before 6.2 a device that is up keeps its name
        made.run("ip", "link", "set", "lo", "down")
        made.run("ip", "link", "set", "lo", "name", device)
        made.run("ip", "link", "set", device, "up")
        yield made


def check(text: str) -> None:
    """Check that a text contains nothing that a terminal acts on."""
    assert [c for c in text if not c.isprintable() and c != "\n"] == []


def test_events_of_a_hostile_namespace(place: Namespace) -> None:
    with running("trace", "--lines", "-N", str(place.path)) as text, trace_command() as objects:
        text.wait_for_text("tracing: link")
        place.ping("127.0.0.1")
        text.wait_for_text("table=filter hook=INPUT verdict=ACCEPT")
        assert text.stop() == 0
        lines = text.out().splitlines()
        check(text.out())
        check(text.err())
        found = [e for e in objects.finish() if e["netns"] == place.inode]
    # one line per event: none was forged
    assert sum(f"chain={CHAIN_TEXT} " in line for line in lines) == 2
    assert all(r"(n\x1b[31m)" in line for line in lines[1:])
    assert all(f"{DEVICE_TEXT}(1)" in line for line in lines[1:])
    assert len(lines) - 1 == len(found)
    assert objects.out().isascii()
    check(objects.out())
    device = DEVICE.decode(errors="backslashreplace")
    assert {e["in_name"] or e["out_name"] for e in found} == {device}
    assert CHAIN.decode() in {e["chain"] for e in found}
    assert {e["netns_name"] for e in found} == {"n\x1b[31m"}


@contextmanager
def _comm(name: bytes) -> Iterator[None]:
    path = Path("/proc/self/comm")
    before = path.read_bytes()
    path.write_bytes(name)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_commands_of_other_processes(make_program: MakeProgram) -> None:
    with Controller() as controller, _comm(COMM):
        entry = make_program()
        with running("events", "--links", "-c", "2") as changes:
            changes.wait_for_text("listening")
            link = controller.attach(TableHook(), ProgramSet({Slot.ENTRY: entry.fd}))
            listed = [
                ipttctl(*words).stdout for words in ((), ("links",), ("history", str(link.id)))
            ]
            found = json.loads(ipttctl("links", "-o", "json").stdout)
            controller.detach(link.id)
            assert changes.process.wait(COMMAND_TIMEOUT) == 0
    for text in (*listed, changes.out()):
        check(text)
        assert COMM_TEXT in text
    assert found["owner_comm"] == COMM.decode()
