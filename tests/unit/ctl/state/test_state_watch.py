# SPDX-License-Identifier: GPL-2.0
"""A host that is kept at a declared state, with a module in user space."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.errors import (
    IpttctlError,
    KernelError,
    ModuleError,
    PlaceMissingError,
    ProgramError,
    UsageError,
)
from ipttctl.state import Terms
from ipttctl.state.apply import planned
from ipttctl.state.journal import LockedError, locked
from ipttctl.state.undo import NotUndoneError
from ipttctl.state.watch import Callbacks, StateWatch
from ipttctl.system.service_manager import ServiceManager
from ipttproto import Action, Command, Gone
from tests.unit.ctl.state.support import OWN_NETNS, Machine, given
from tests.unit.ctl.state.watching import PATIENCE, TWO, WEB, Holder, Kept, kept, swapped
from tests.unit.ctl.support import FakeModule, RefusalError, notification

pytestmark = pytest.mark.usefixtures("left_open")


def test_drift_is_told_and_mended(machine: Machine, module: FakeModule, tmp_path: Path) -> None:
    with kept(given(tmp_path / "state.yaml", TWO), module) as watch:
        assert watch.actions() == ["attach", "attach"]
        assert watch.told == []
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.actions()[2:] == ["swap"])
        assert watch.told == ["web: link 1 was swapped by process 77 (x)"]
        assert machine.links[1]["programs"]["program"][0]["id"] == 7

        gone = machine.links.pop(2)
        module.multicast(notification(Command.LINK_DETACHED, gone))
        watch.wait(lambda: watch.actions()[3:] == ["attach"])
        assert watch.told[1:] == ["second: there is no such link"]
        machine.links[1]["name"] = "other"
        module.multicast(notification(Command.LINK_CHANGED, machine.links[1]))
        watch.wait(lambda: watch.actions()[4:] == ["rename"])
    assert sorted(machine.links) == [1, 3]


def test_links_of_others_are_not_looked_at(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    with kept(given(tmp_path / "state.yaml", WEB), module) as watch:
        other = machine.add()
        looks = len(module.requested(Command.GET))
        for _ in range(5):
            module.multicast(notification(Command.LINK_CHANGED, machine.links[other]))
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.actions()[1:] == ["swap"])
        time.sleep(0.1)
        # a diff and an apply, and the look after our own swap
        assert len(module.requested(Command.GET)) - looks <= 8
    assert other in machine.links


def test_another_life_of_the_module(
    machine: Machine, module: FakeModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lives = [1]
    monkeypatch.setattr("ipttctl.system.host_identity.module_life", lambda: lives[-1], raising=True)
    monkeypatch.setattr("ipttctl.state.watch.module_life", lambda: lives[-1])
    with kept(given(tmp_path / "state.yaml", WEB), module) as watch:
        machine.links.clear()
        lives.append(2)
        module.reload()
        watch.wait(lambda: watch.actions() == ["attach", "attach"])
        assert watch.connected == 2
        assert "unloaded" in watch.told[0]
        assert watch.told[0].endswith("waiting for it to be loaded")


def test_a_failure_of_the_loaded_module_is_no_unloading(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> None:
        raise ModuleError("the walk is not to be used", "verify it")

    with kept(given(tmp_path / "state.yaml", WEB), module, every=0.05) as watch:
        watch.prepare = refuse
        module.multicast(swapped(machine, 1, 9))
        failed = "not as declared, and tried again: the walk is not to be used; verify it"
        watch.wait(lambda: failed in watch.told)
        attempts = watch.prepared
        watch.wait(lambda: watch.prepared > attempts + 1)
        assert watch.told.count(failed) == 1
        assert watch.connected == 1
        watch.prepare = lambda *_: None
        watch.wait(lambda: watch.actions() == ["attach", "swap"])
    assert not any("waiting for it to be loaded" in text for text in watch.told)


def test_whoever_applies_is_waited_for_without_being_deaf(
    machine: Machine, module: FakeModule, tmp_path: Path, record: Path
) -> None:
    """It is told once, the service manager hears of us, the file is read, and stop stops."""
    path = tmp_path / "state.yaml"
    said = "process 4711 applies a state, or replaces the module; waiting for its end"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(str(tmp_path / "notify"))
        ours.setblocking(False)
        told = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        manager = ServiceManager(told)
        heard: list[str] = []

        def hears(word: str) -> bool:
            with suppress(BlockingIOError):
                heard.append(ours.recv(4096).decode())
            return any(word in text for text in heard)

        with kept(given(path, WEB), module, manager=manager) as watch:
            holder = Holder(record)
            # links that an upgrade has parked are no drift, nor is what the other one makes of them
            parked = machine.links.pop(1)
            module.multicast(notification(Command.LINK_DETACHED, parked))
            watch.wait(lambda: hears("STATUS=process 4711 ") and watch.told)
            assert watch.told == [said]
            heard.clear()
            watch.wait(lambda: hears("WATCHDOG=1"))
            watch.watch.reread()
            watch.wait(lambda: watch.told[1:] == [f"{path} is read again"])
            machine.links[1] = parked
            holder.release()
            watch.wait(lambda: hears("STATUS=links as declared: 1"))
            assert watch.actions() == ["attach"]

            holder = Holder(record)
            module.multicast(swapped(machine, 1, 9))
            watch.wait(lambda: watch.watch._locked is not None)
        # it has stopped, although the other one has not ended
        holder.release()
    assert watch.actions() == ["attach"]


def test_the_lock_at_the_beginning(
    machine: Machine, module: FakeModule, tmp_path: Path, record: Path
) -> None:
    holder = Holder(record)
    watch = Kept(given(tmp_path / "state.yaml", WEB), module)
    watch.thread.start()
    watch.wait(lambda: watch.watch._locked is not None)
    watch.watch.stop()
    watch.thread.join(PATIENCE)
    assert not watch.thread.is_alive()
    assert (watch.error, machine.links) == ([], {})
    holder.release()
    told: list[str] = []
    with locked(record, tell=told.append):
        with pytest.raises(LockedError), locked(record, wait=False, tell=told.append):
            pass
        # it says whose it is
        assert told == []
        assert record.with_suffix(".lock").read_text().strip() == str(os.getpid())


def test_the_end_of_what_a_stop_interrupts_is_no_failure(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    """A compiler that the same signal killed is not told; what stays half done is."""
    for error, told in (
        (ProgramError("the compiler was killed"), []),
        (NotUndoneError("interrupted; not undone: link 1"), ["interrupted; not undone: link 1"]),
    ):
        watch = Kept(given(tmp_path / "state.yaml", WEB), module)

        def stopped(*_: Any, watch: Kept = watch, error: IpttctlError = error) -> None:
            watch.watch.stop()
            raise error

        watch.prepare = stopped
        watch.thread.start()
        watch.thread.join(PATIENCE)
        assert not watch.thread.is_alive()
        assert (watch.error, watch.told) == ([], told)
    assert machine.links == {}


def test_what_takes_long_can_be_stopped(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    watch = Kept(given(tmp_path / "state.yaml", WEB), module)

    def verify(*_: Any) -> None:
        while True:
            watch.watch.alive()
            time.sleep(0.005)

    watch.prepare = verify
    watch.thread.start()
    watch.wait(lambda: watch.prepared)
    watch.watch.stop()
    watch.thread.join(PATIENCE)
    assert not watch.thread.is_alive()
    assert (watch.error, watch.told, machine.links) == ([], [], {})


def test_a_fight_does_not_spin(machine: Machine, module: FakeModule, tmp_path: Path) -> None:
    transact = module.handlers[Command.TRANSACT]

    def undone(*asked: Any) -> Sequence[Mapping[str, Any]]:
        made = [dict(one) for one in transact(*asked)]
        module.multicast(swapped(machine, 1, 9))
        return made

    with kept(given(tmp_path / "state.yaml", WEB), module) as watch:
        module.handlers[Command.TRANSACT] = undone
        module.multicast(swapped(machine, 1, 9))
        time.sleep(4)
        # at 0, at once, after 0.5, 1, 2 s
        assert 2 <= len(module.requested(Command.TRANSACT)) <= 5
        module.handlers[Command.TRANSACT] = transact
        watch.wait(lambda: machine.links[1]["programs"]["program"][0]["id"] == 7)
    assert any("again and again" in text for text in watch.told)


def test_the_file_is_read_again_when_it_is_asked_for(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    path = tmp_path / "state.yaml"
    with kept(given(path, WEB), module, every=0.05) as watch:
        given(path, TWO)
        watch.wait(lambda: watch.told)
        assert watch.told == [f"{path} has changed; SIGHUP has it read again"]
        assert sorted(machine.links) == [1]
        watch.watch.reread()
        watch.wait(lambda: sorted(machine.links) == [1, 2])
        assert watch.told[1] == f"{path} is read again"
        given(path, "links: {web: {hook: tabel, fd: {exit: 7}}}")
        watch.watch.reread()
        watch.wait(lambda: len(watch.told) > 2)
        assert watch.told[2].startswith("link web: ")
        assert watch.told[2].endswith("; the state of before stays declared")
        looks = len(module.requested(Command.GET))
        watch.wait(lambda: len(module.requested(Command.GET)) > looks + 8)
        # that was read: it has not changed
        assert watch.told[3:] == []
        assert sorted(machine.links) == [1, 2]


def test_a_place_that_is_missing_is_waited_for(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    place = tmp_path / "netns"
    text = f"links: {{a: {{hook: nf:inet4/input, netns: {place}, fd: {{packet: 7}}}}}}"
    with kept(given(tmp_path / "state.yaml", text), module, every=0.05) as watch:
        assert watch.told == [f"link a: there is no network namespace '{place}'; waiting for it"]
        assert machine.links == {}
        place.symlink_to("/proc/self/ns/net")
        watch.wait(lambda: watch.actions() == ["attach"])
        assert machine.links[1]["netns"] == OWN_NETNS.inode
        # its name goes, and there are processes in it: the link is where it was declared
        place.unlink()
        watch.wait(lambda: len(watch.told) > 1)
        looked = len(module.requested(Command.GET))
        watch.wait(lambda: len(module.requested(Command.GET)) > looked + 4)
        assert watch.actions() == ["attach"]
        machine.links[1]["gone"] = Gone.NETNS
        module.multicast(notification(Command.LINK_CHANGED, machine.links[1]))
        watch.wait(lambda: watch.actions() == ["attach", "detach"])


def test_what_fails_is_told_once_and_tried_again(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    with kept(given(tmp_path / "state.yaml", WEB), module, every=0.05) as watch:
        machine.refused[Command.TRANSACT] = errno.ENOMEM
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: len(module.requested(Command.TRANSACT)) > 2)
        failed = [text for text in watch.told if text.startswith("not as declared")]
        assert failed == ["not as declared, and tried again: swapping links 1: not today [ENOMEM]"]
        machine.refused.clear()
        watch.wait(lambda: watch.actions()[1:] == ["swap"])


def test_a_link_that_goes_while_it_is_looked_at_is_no_failure(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    """It is in the list, and not there any more when it is asked for: the next look mends that."""
    get = module.handlers[Command.GET]

    def going(command: Command, asked: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
        if "link" in asked:
            machine.links.pop(1, None)
            module.handlers[Command.GET] = get
            raise RefusalError(errno.ENOENT)
        return get(command, asked)

    with kept(given(tmp_path / "state.yaml", WEB), module, every=0.05) as watch:
        module.handlers[Command.GET] = going
        watch.wait(lambda: watch.actions() == ["attach", "attach"])
        assert watch.told == ["web: there is no such link"]


def test_what_cannot_be_established_ends_it(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    file = given(tmp_path / "state.yaml", WEB)
    machine.refused[Command.ATTACH] = errno.ENOMEM
    watch = StateWatch(file, Terms(), Callbacks(lambda _: None, lambda _: None))
    with pytest.raises(KernelError):
        watch.run()
    with pytest.raises(UsageError):
        StateWatch("/no/such", Terms(), Callbacks(lambda _: None, lambda _: None))
    module.handlers[Command.STATS] = lambda *_: _refuse()
    assert run(["apply", "--watch", file]) == 1


def _refuse() -> Sequence[Mapping[str, Any]]:
    raise RefusalError(errno.EINVAL)


def test_without_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> Any:
        raise ModuleError("the ipttrace module is not loaded")

    monkeypatch.setattr("ipttctl.state.watch.Controller", none)
    assert run(["apply", "--watch", given(tmp_path / "state.yaml", WEB)]) == 3
    assert run(["apply", "--watch", str(tmp_path / "none.yaml")]) == 2


@pytest.mark.usefixtures("machine")
def test_compiling_is_told_once_for_each_content(
    module: FakeModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[None] = []
    outcomes = [True, False, False, False, True, True]

    def compiles(*arguments: Any, on_compile: Callable[[], None], **options: Any) -> Any:
        if not outcomes:
            return planned(*arguments, on_compile=on_compile, **options)
        on_compile()
        if not outcomes.pop(0):
            raise ProgramError("it does not compile")
        return planned(*arguments, on_compile=on_compile, **options)

    monkeypatch.setattr("ipttctl.state.watch.planned", compiles)
    watch = Kept(given(tmp_path / "state.yaml", WEB), module, every=0.02)
    watch.watch._call = replace(watch.watch._call, on_compile=lambda: told.append(None))
    watch.thread.start()
    watch.wait(lambda: not outcomes and watch.watch._ready)
    watch.watch.stop()
    watch.thread.join(PATIENCE)
    assert watch.told == ["not as declared, and tried again: it does not compile"]
    # at the beginning, what does not compile and then does, and the next one
    assert len(told) == 3


def test_a_place_that_goes_at_the_beginning_is_waited_for(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    """Its status would be 2, after which nobody starts the watch again."""
    watch = Kept(given(tmp_path / "state.yaml", WEB), module, every=0.02)

    def went(*_: Any) -> None:
        if watch.prepared == 1:
            raise PlaceMissingError("there is no device 'eth9'")

    watch.prepare = went
    watch.thread.start()
    watch.wait(lambda: watch.watch._ready)
    watch.watch.stop()
    watch.thread.join(PATIENCE)
    assert watch.told == ["not as declared, and tried again: there is no device 'eth9'"]
    assert sorted(machine.links) == [1]


@pytest.mark.parametrize(
    ("action", "pid", "told"),
    [
        (Action.SWAP, 77, "was swapped by process 77 (x)"),
        (Action.PROMOTE, 77, "was given the programs of its shadow by process 77 (x)"),
        (Action.ROLLBACK_REQUEST, 77, "was rolled back by process 77 (x)"),
        (
            Action.PROMOTE_IF,
            0,
            "was given the programs of its shadow by the module, as agreed on",
        ),
        (
            Action.ROLLBACK,
            0,
            "was rolled back by the module, as nobody confirmed its swap in time",
        ),
        (Action.ROLLBACK_GUARD, 0, "was rolled back by the module, as a guard did not hold"),
        (Action.SWAP, os.getpid(), "is not as declared"),
        (99, 77, "is not as declared"),
    ],
    # the number of this process in a name would be another one in each process
    ids=lambda value: "own" if value == os.getpid() else None,
)
def test_the_log_says_what_was_done_and_who_did_it(
    module: FakeModule, machine: Machine, tmp_path: Path, action: int, pid: int, told: str
) -> None:
    entry = {"generation": 2, "action": action, "pid": pid, "comm": "x" if pid else ""}
    module.handlers[Command.HISTORY] = lambda *_: [{"history": [entry]}]
    with kept(given(tmp_path / "state.yaml", WEB), module) as watch:
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.actions()[1:] == ["swap"])
        assert watch.told == [f"web: link 1 {told}"]


def test_a_swap_of_before_is_not_blamed(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    """The link differs, and is of the generation that was as declared: its file is another one."""
    with kept(given(tmp_path / "state.yaml", WEB), module, every=0.02) as watch:
        watch.wait(lambda: watch.watch._generations == {1: 1})
        machine.links[1]["programs"]["program"][0]["id"] = 9
        watch.wait(lambda: watch.actions()[1:] == ["swap"])
        assert watch.told == ["web: link 1 is not as declared"]


def test_a_link_whose_place_is_missing_is_not_surplus(
    module: FakeModule, machine: Machine, tmp_path: Path
) -> None:
    """It is declared by its number only, and its namespace has lost its name."""
    other = machine.add()
    entry = f"hook: nf:inet/input, netns: none-such, link: {other}, fd: {{packet: 7}}"
    file = given(tmp_path / "state.yaml", f"links: {{web: {{{entry}}}}}")
    with kept(file, module, terms=Terms(prune=True)) as watch:
        watch.wait(lambda: watch.watch._ready)
        assert watch.actions() == []
        assert other in machine.links
