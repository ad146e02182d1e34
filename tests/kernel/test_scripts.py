# SPDX-License-Identifier: GPL-2.0
"""The scripts of docs/scripts work as described."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.programs.maps import map_of
from ipttctl.programs.sources import open_sources, parse_source
from ipttproto import NfMode, Slot
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.cli import trace_command
from tests.kernel.support.kernel import COMMAND_TIMEOUT, wait_for
from tests.kernel.support.network import Namespace, event, flood_udp, namespace
from tests.kernel.support.nf import attach, socket_filter
from tests.kernel.support.objects import BPF, REPOSITORY, compile_object

SCRIPTS = REPOSITORY / "docs" / "scripts"
TIMEOUT = 4 * COMMAND_TIMEOUT
#: the canary's seconds, which are also the limit for its confirmation: the script's last check and
#: its confirmation, one command each, must fit in
CANARY_SECONDS = round(max(40, COMMAND_TIMEOUT / 3))
#: seconds for which a container is traced, some of which ipttctl needs to start
TRACE_SECONDS = round(COMMAND_TIMEOUT * 0.6)

pytestmark = pytest.mark.usefixtures("no_links")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A search path on which ``ipttctl`` is the one under test."""
    program = tmp_path / "bin" / "ipttctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ipttctl "$@"\n')
    program.chmod(0o755)
    # for programs that run `env python3`
    (program.parent / "python3").symlink_to(sys.executable)
    return f"{program.parent}:{os.environ['PATH']}"


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("scripts") as made:
        yield made


def started(
    name: str, *arguments: str, path: str, directory: Path, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(SCRIPTS / name), *arguments],
        cwd=directory,
        env={
            **os.environ, "PATH": path, "PYTHONPATH": ":".join(filter(None, sys.path)),
            **environment,
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip  # pairs together


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


@pytest.mark.parametrize("good", [True, False])
def test_a_canary_stays_or_goes_back(
    good: bool, place: Namespace, make_program: MakeProgram, path: str, tmp_path: Path
) -> None:
    """A new program that drops nothing stays; one that drops everything is rolled back."""
    old = socket_filter(make_program, asm.returning(1), name="old")
    code = asm.mov(asm.R3, 1) + asm.returning(1) if good else asm.returning(0)
    new = socket_filter(make_program, code, name="new")
    with Controller() as controller:
        link = attach(
            controller, old, "nf:inet4/output", place, persistent=True, mode=NfMode.FILTER
        )
        stop = event()
        # slowly: the commands of the script take time
        flood = place.start(flood_udp, "127.0.0.1", 9, stop, 0.05, 5)
        try:
            code_, out, err = ended(
                started(
                    "canary-swap", str(link.id), str(CANARY_SECONDS), "50", "--id",
                    f"packet={new.id}", path=path, directory=tmp_path,
                )
            )  # fmt: skip  # pairs together
        finally:
            stop.set()
            flood.join()
        now = controller.link(link.id)
        held = now.programs[Slot.PACKET].id
        assert now.rollback_in is None
        if good:
            assert (code_, err) == (0, "")
            assert (held, now.generation, now.stats.drops) == (new.id, 2, 0)
        else:
            assert code_ == 1, err
            assert f"the new programs of link {link.id} were rolled back" in err
            assert " action=rollback_guard " in out.splitlines()[-1]
            assert (held, now.generation) == (old.id, 3)
            assert now.stats.drops > 50
        controller.detach(link.id)


def test_a_block_list_follows_a_file(place: Namespace, path: str, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    source = parse_source("object", f"{compile_object(BPF / 'blocklist.c', tmp_path)}:blocklist")
    hook = NfHook.parse("nf:inet4/output", netns=place.path, mode=NfMode.FILTER)
    with Controller() as controller, open_sources({Slot.PACKET: source}) as fds:
        link = controller.attach(hook, ProgramSet(fds))
        name = f"{link.id}/blocked4"

        def update(text: str) -> tuple[int, str, str]:
            listed.write_text(text)
            return ended(
                started("update-blocklist", name, str(listed), path=path, directory=tmp_path)
            )

        def blocked(address: str) -> bool:
            return " 100% packet loss" in place.ping(address, check=False)

        assert update("# ours\n127.1.0.0/16\n127.2.3.4 # one\n127.5.9.9/16\n") == (
            0, "blocked 127.1.0.0/16\nblocked 127.2.3.4/32\nblocked 127.5.0.0/16\n", "",
        )  # fmt: skip  # pairs together
        assert [blocked(f"127.{n}") for n in ("1.0.1", "2.3.4", "2.3.5", "5.0.1")] == [
            True, True, False, True,
        ]  # fmt: skip  # pairs together
        # the next run finds the objects of this one, and leaves their counters
        assert update("127.1.0.0/16\n127.3.0.0/16\n") == (
            0, "blocked 127.3.0.0/16\nreleased 127.2.3.4/32\nreleased 127.5.0.0/16\n", "",
        )  # fmt: skip  # pairs together
        assert not blocked("127.2.3.4")
        with map_of(link, "blocked4") as found:
            content = dict(found.dump())
        assert content.keys() == {"127.1.0.0/16", "127.3.0.0/16"}
        assert content["127.1.0.0/16"] > 0
        for text, complaint in (("# none\n", "there is no network in"), ("127.1\n", "'127.1' ")):
            status, out, err = update(text)
            assert (status, out) == (1, "")
            assert complaint in err
        assert blocked("127.3.0.1")
        controller.detach(link.id)
        status, _, err = update("127.1.0.0/16\n")
        assert (status, err.count("\n")) == (6, 1)


@pytest.mark.parametrize("by", ["name", "pid"])
def test_a_container_is_traced_for_some_time(
    by: str, place: Namespace, path: str, tmp_path: Path
) -> None:
    place.iptables("-A", "OUTPUT", "-d", "127.0.0.2", "-p", "icmp", "-j", "ACCEPT")
    place.iptables("-A", "OUTPUT", "-d", "127.0.0.3", "-p", "icmp", "-j", "DROP")
    # the programs are compiled, once, before the time runs
    with trace_command():
        pass
    sleeper = subprocess.Popen(["ip", "netns", "exec", place.name, "cat"], stdin=subprocess.PIPE)
    try:
        wait_for(
            lambda: Path(f"/proc/{sleeper.pid}/ns/net").stat().st_ino == place.inode,
            what="the process is in its namespace",
        )
        container = place.name if by == "name" else str(sleeper.pid)
        with Controller() as controller:
            script = started(
                "trace-container", container, "icmp",
                path=path, directory=tmp_path, TRACE_SECONDS=str(TRACE_SECONDS),
            )  # fmt: skip  # a line a kind of argument
            # programs are compiled first, unless that was done on this boot
            wait_for(lambda: controller.links() != [], timeout=TIMEOUT, what="it traces")
            place.ping("127.0.0.2")
            place.ping("127.0.0.3", check=False)
            status, out, err = ended(script)
            assert status == 0, err
            assert controller.links() == []
    finally:
        sleeper.communicate()
    sums = [line.split(" ") for line in out.splitlines()]
    assert ["1", "filter", "OUTPUT", "1", "rule", "-"] in sums, out
    assert ["1", "filter", "OUTPUT", "2", "rule", "-"] in sums, out
    assert [s[5] for s in sums if s[4] == "exit"].count("DROP") == 1, out
    _, *events = (tmp_path / f"trace-{container}.json").read_text().splitlines()
    assert sum(int(s[0]) for s in sums) == len(events)
    assert {json.loads(line)["netns"] for line in events} == {place.inode}
    assert " lost 0" in err
