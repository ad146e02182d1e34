# SPDX-License-Identifier: GPL-2.0
"""apply --watch: drift of each kind is mended, and whoever fights does not make it spin."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ipttctl.bpf.programs import Program
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, LinkChange, ProgramSet
from ipttctl.programs.maps import map_of
from ipttproto import Slot
from tests.kernel.support.cli import Running, ipttctl, running
from tests.kernel.support.declared import File, arrives, at, blocking, links
from tests.kernel.support.kernel import (
    COMMAND_TIMEOUT,
    load_module,
    run,
    unload_module,
    wait_for,
)
from tests.kernel.support.network import Namespace
from tests.kernel.support.objects import REPOSITORY

#: seconds of a fight; attempts at 0, 0, 0.5, 1.5, 3.5, 7.5 and 15.5 s
FIGHT = 15

pytestmark = pytest.mark.usefixtures("no_links")


def mended(what: str, condition: Any) -> Any:
    return wait_for(condition, timeout=4 * COMMAND_TIMEOUT, what=what)


def service_rights() -> list[str]:
    """A command line that executes another one with the rights that our unit has."""
    text = (REPOSITORY / "installer" / "ipttctl-apply@.service").read_text()
    assert "NoNewPrivileges=yes" in text
    settings = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)
    kept = [f"+{word.removeprefix('CAP_').lower()}" for words in settings for word in words.split()]
    return ["setpriv", "--no-new-privs", "--bounding-set", ",".join(["-all", *kept])]


class Service(socket.socket):
    """The service manager's end of the messages."""

    def __init__(self, path: Path) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.bind(str(path))
        self.settimeout(4 * COMMAND_TIMEOUT)

    def until(self, word: str) -> str:
        """The first message with a word."""
        while word not in (text := self.recv(4096).decode()):
            pass
        return text


def steps(watch: Running) -> list[tuple[str, str]]:
    """The steps that were taken so far."""
    return [(step["action"], step["name"]) for step in watch.records()]


def test_drift_of_each_kind_is_mended(
    place: Namespace,
    file: File,
    blocklist: Path,
    accept: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Swaps, detached links, maps, programs, a canary, places, and another life of the module."""
    current = tmp_path / "current.o"
    shutil.copy(blocklist, current)
    guard = blocking(place, current, maps={"blocked4": ["127.1.0.0/16"]})
    file.write({"guard": guard})
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    line = ("apply", "--watch", "--owner", "web", "--every", "500ms", "-o", "json", str(file.path))
    with (
        Service(tmp_path / "notify") as service,
        running(*line, under=service_rights()) as watch,
    ):
        service.until("READY=1")
        assert not arrives(place, "127.1.0.1")
        assert "links as declared: 1" in service.until("STATUS=")
        service.until("WATCHDOG=1")
        (link,) = links().values()

        # nobody may take it for theirs
        assert ipttctl("apply", str(file.path)).returncode == 21
        assert ipttctl("swap", "guard", "--id", f"packet={accept.id}").returncode == 0
        mended("the swap", lambda: links()[link.id].generation == 3)
        mended("the map of the new programs", lambda: not arrives(place, "127.1.0.1"))
        assert f"guard: link {link.id} was swapped by process " in watch.err()
        with Controller() as controller, map_of(controller.link(link.id), "blocked4") as found:
            found.set("127.3.0.0/16", 0)
            mended("the map", lambda: len(list(found.dump())) == 1)

        # a canary of somebody else: left alone, and rolled back by the module
        for ending in ("5s", "1h"):
            before = links()[link.id].generation
            done = ipttctl(
                "swap", "guard", "--id", f"packet={accept.id}", "--rollback-after", ending
            )
            assert done.returncode == 0, done.stderr
            watch.wait_for_text("left alone until then")
            assert links()[link.id].programs[Slot.PACKET].id == accept.id
            if ending == "1h":
                assert ipttctl("confirm", "guard").returncode == 0
            mended("its end", lambda b=before: links()[link.id].generation == b + 2)
            mended("what is blocked", lambda: not arrives(place, "127.1.0.1"))

        count = len(steps(watch))
        assert ipttctl("detach", "guard").returncode == 0
        mended("the link", lambda: [one.name for one in links().values()] == ["guard"])
        with current.open("ab") as end:
            end.write(bytes(16))
        mended("the program", lambda: steps(watch)[-1] == ("swap", "guard"))
        assert len(steps(watch)) > count

        run("ip", "netns", "delete", place.name)
        watch.wait_for_text("there is no network namespace")
        mended("the end of the link", lambda: links() == {})
        run("ip", "netns", "add", place.name)
        mended("the next namespace", lambda: len(links()) == 1)

        assert ipttctl("module", "unload", "--force").returncode == 0
        watch.wait_for_text("waiting for it to be loaded")
        load_module()
        mended("the next life", lambda: [one.name for one in links().values()] == ["guard"])

        file.write({"guard": guard, "more": guard | {"hook": "nf:inet4/input"}})
        watch.process.send_signal(signal.SIGHUP)
        service.until("RELOADING=1")
        service.until("READY=1")
        mended("what is new", lambda: {one.name for one in links().values()} == {"guard", "more"})
        file.path.write_text("links: {guard: {hook: nowhere}}")
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for_text("the state of before stays declared")
        assert watch.stop(signal.SIGTERM) == 0
        service.until("STOPPING=1")
        heads = [json.loads(text) for text in watch.out().splitlines() if '"type"' in text]
    # they stay
    assert {one.name for one in links().values()} == {"guard", "more"}
    assert [head["stream"] for head in heads] == ["apply", "apply"]
    assert heads[0]["module_life"] != heads[1]["module_life"]
    assert heads[0]["boot_id"] == heads[1]["boot_id"]
    # a file that is not valid is not mended by a restart, and has a status that says so
    assert ipttctl("apply", "--watch", str(file.path)).returncode == 2
    file.write({})
    assert file.actions("--owner", "web") == ["detach", "detach"]
    unload_module()
    try:
        assert ipttctl("apply", "--watch", str(file.path)).returncode == 3
    finally:
        load_module()


def test_a_canary_that_was_rolled_back_is_not_made_again(
    place: Namespace, file: File, blocklist: Path, tmp_path: Path
) -> None:
    """As the manual has it done, but the trial ends before the file is read again."""
    new = tmp_path / "new.o"
    new.write_bytes(blocklist.read_bytes() + bytes(16))
    maps = {"blocked4": ["127.1.0.0/16"]}
    file.write({"guard": blocking(place, blocklist, maps=maps)})
    line = ("apply", "--watch", "--owner", "web", "--every", "500ms", str(file.path))
    left = "guard: what is declared was swapped in on trial, and rolled back"
    with running(*line) as watch:
        mended("the link", lambda: len(links()) == 1)
        (link,) = links()
        file.write({"guard": blocking(place, new, maps=maps)})
        tried = ipttctl("apply", "--owner", "web", "--rollback-after", "2s", str(file.path))
        assert tried.returncode == 0, tried.stderr
        mended("the roll-back", lambda: links()[link].generation == 3)
        # the watch mends something with the file of before, and writes down what there is
        assert ipttctl("map", "set", "guard/blocked4", "127.3.0.0/16", "0").returncode == 0
        mended("the map", lambda: arrives(place, "127.3.0.1"))
        watch.process.send_signal(signal.SIGHUP)
        watch.wait_for_text(left)
        assert watch.stop(signal.SIGTERM) == 0
    with running(*line) as watch:
        watch.wait_for_text(left)
        assert watch.stop(signal.SIGTERM) == 0
    assert links()[link].generation == 3
    # whoever applies it without a watch means it
    assert "swap" in file.actions("--owner", "web")
    assert links()[link].generation == 4


def test_a_service_may_verify_the_walk() -> None:
    """Links at chains need that; the rights are those of the unit."""
    done = ipttctl("module", "verify", "--cases", "5", under=service_rights())
    assert (done.returncode, done.stdout) == (0, "verified: 5 cases, none differs\n"), done.stderr


def test_a_fight_is_bounded(place: Namespace, file: File, accept: Program, other: Program) -> None:
    """Somebody swaps back at once whatever is swapped: the link is not swapped all the time."""
    file.write({"web": at(place, id={"packet": accept.id})})
    stop = threading.Event()

    def undo(controller: Controller, link: int) -> None:
        with controller.watch_links() as changes:
            while not stop.is_set():
                for item in changes.read(0.2):
                    if (
                        isinstance(item, LinkChange)
                        and item.change is Change.SWAPPED
                        and item.link.programs[Slot.PACKET].id == accept.id
                    ):
                        controller.swap(link, ProgramSet({Slot.PACKET: other.fd}))

    with running("apply", "--watch", str(file.path)) as watch, Controller() as controller:
        mended("the link", lambda: len(links()) == 1)
        (link,) = links()
        fighter = threading.Thread(target=undo, args=(controller, link))
        fighter.start()
        controller.swap(link, ProgramSet({Slot.PACKET: other.fd}))
        begin = time.monotonic()
        watch.wait_for_text("this happens again and again")
        # the number of swaps in this time is what is looked at
        time.sleep(FIGHT)
        generation = controller.link(link).generation
        seconds = time.monotonic() - begin
        print(f"{generation - 1} swaps of both in {seconds:.1f} s")
        assert generation < 30
        stop.set()
        fighter.join()
        # and peace is restored within the pause that the fight has caused
        mended("the end", lambda: links()[link].programs[Slot.PACKET].id == accept.id)
        assert watch.stop(signal.SIGTERM) == 0
