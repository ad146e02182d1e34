# SPDX-License-Identifier: GPL-2.0
"""Roll-outs as one host knows them, without anybody who asks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ipttctl.errors import IpttctlError
from ipttctl.fleet import commands, objects
from ipttctl.fleet.commands import Commands
from ipttctl.fleet.config import ObjectsOptions
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.requests import ApplyRequest, file_name
from ipttctl.fleet.trials import Trials
from tests.unit.ctl.fleet.fleet_host import FleetHost, bundle_of, digest_of, programs_of
from tests.unit.ctl.killing import KilledError, Killer

OLD = bundle_of(a="old", gone="old")
NEW = bundle_of(a="new", b="new")
ROLLOUT = "00000000000000aa"


def tried(seconds: float = 3600) -> ApplyRequest:
    """A roll-out of the new state."""
    return ApplyRequest(links=dict(NEW.links), rollout=ROLLOUT, rollback_after=seconds)


@pytest.fixture
def host() -> FleetHost:
    return FleetHost()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def trials(host: FleetHost, directory: Path) -> Trials:
    found = Trials(host, directory, "a test")
    found.apply(ApplyRequest(links=dict(OLD.links)))
    return found


def test_a_swap_that_goes_back_before_it_is_noted_is_known(trials: Trials) -> None:
    """The module needs no second for a guard that does not hold."""
    trials.apply(tried(1e-9))
    status = trials.status()
    assert (status["state"], status["rollout"]) == ("failed", ROLLOUT)
    assert status["why"] == "link a was swapped back: it was not confirmed in time"


def commands_of(host: FleetHost, directory: Path, said: list[str], more: str = "") -> Commands:
    async def on_host(work: Callable[[], Any]) -> Any:
        return work()

    config = parse_config(
        "leaf: {url: 'nats://127.0.0.1:1', nkey: /none}\nhost: web1\nallow: [apply]\n"
        f"objects: {{directory: {directory}}}\n{more}",
        "agent.yaml",
    )
    return Commands(config, host, on_host, lambda *_: None, lambda _: None, tell=said.append)


def test_agents_of_several_namespaces_do_not_undo_what_others_applied(directory: Path) -> None:
    """They may have the same directory, as they do where nobody says which."""
    hosts = {name: FleetHost() for name in ("left", "right")}
    made = {
        name: commands_of(host, directory, [], f"netns: {name}\n")._trials
        for name, host in hosts.items()
    }
    made["left"].apply(tried())
    made["left"].confirm(ROLLOUT)
    rollout = "00000000000000bb"
    made["right"].apply(ApplyRequest(links=dict(OLD.links), rollout=rollout))
    made["right"].rollback(rollout)
    assert hosts["left"].programs() == programs_of(NEW)
    assert hosts["right"].programs() == {}
    assert made["left"].status()["state"] == "kept"


def test_what_cannot_be_undone_is_tried_again(
    host: FleetHost, trials: Trials, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module may be loaded later than the agent is started."""
    trials.apply(tried(1e-9))
    host.links_now.clear()
    host.error = "the module is not loaded"
    monkeypatch.setattr(commands, "_EXPIRY", 0.01)
    monkeypatch.setattr(commands, "_EXPIRY_AGAIN", 0.01)
    said: list[str] = []

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(commands_of(host, directory, said)._expire())
            await asyncio.sleep(0.2)
            assert host.programs() == {}
            host.error = ""
            for _ in range(500):
                if host.programs():
                    break
                await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(run())
    assert host.programs() == programs_of(OLD)
    assert said == [
        "a roll-out that was not kept in time is not undone: the module is not loaded",
        f"roll-out {ROLLOUT} was not kept in time, and is undone",
    ]


@pytest.mark.parametrize("seconds", [1e-9, 3600])
def test_nothing_comes_back_by_itself_after_a_reboot(
    host: FleetHost, trials: Trials, directory: Path, seconds: float
) -> None:
    """Links do not outlive it: nothing of the fleet runs here, and nobody asks for it."""
    trials.apply(tried(seconds))
    host.reboot()
    host.done.clear()
    again = Trials(host, directory, "a test")
    assert again.expire() == f"roll-out {ROLLOUT} is over: the host was started again"
    assert host.done == []
    status = again.status()
    assert (status["rollout"], status["state"]) == (ROLLOUT, "undone")
    assert status["why"] == "the host was started again"
    assert not again.due
    assert again.expire() == ""
    # and so it is before the next one
    again.apply(ApplyRequest(links=dict(NEW.links), rollout="00000000000000bb"))
    again.rollback("00000000000000bb")
    assert host.programs() == {}


@pytest.mark.parametrize("asked", [False, True])
def test_what_is_not_allowed_any_more_does_not_come_back(
    host: FleetHost, trials: Trials, directory: Path, asked: bool
) -> None:
    """Swaps are rolled back and new links go all the same, by themselves or if somebody asks."""
    trials.apply(tried(3600 if asked else 0.05))
    # the swap that waits lets nothing go
    del host.links_now["gone"]
    time.sleep(0.1)
    again = Trials(host, directory, "a test", allowed=False)
    if asked:
        again.rollback(ROLLOUT)
    else:
        assert again.expire() == f"roll-out {ROLLOUT} was not kept in time, and is undone"
    assert host.programs() == programs_of(bundle_of(a="old"))


def test_nothing_that_was_kept_comes_back_where_it_is_not_allowed_any_more(
    host: FleetHost, trials: Trials, directory: Path
) -> None:
    """Nor is its object asked for."""
    trials.apply(tried())
    trials.confirm(ROLLOUT)
    again = Trials(host, directory, "a test", allowed=False)
    assert again.needed(ROLLOUT) == set()
    again.rollback(ROLLOUT)
    assert host.programs() == {}


def test_what_somebody_kept_of_it_goes_where_nothing_may_come_back(
    host: FleetHost, trials: Trials, directory: Path
) -> None:
    trials.apply(tried(0.05))
    host.links_now["a"].before = host.links_now["a"].until = None
    time.sleep(0.1)
    Trials(host, directory, "a test", allowed=False).expire()
    assert host.programs() == programs_of(bundle_of(gone="old"))


@pytest.mark.parametrize("kept", [True, False])
def test_an_agent_that_is_killed_anywhere_goes_on_or_back(
    directory: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = 0, 1
    while step < steps:
        step += 1
        host, killer = FleetHost(), Killer(step)
        place = directory / str(step)
        Trials(host, place, "").apply(ApplyRequest(links=dict(OLD.links)))
        with monkeypatch.context() as patched, suppress(KilledError):
            patched.setattr(Trials, "_write", killer.wrap(Trials._write))
            for verb in ("apply", "confirm", "undo"):
                patched.setattr(host, verb, killer.wrap(getattr(host, verb)))
            first = Trials(host, place, "")
            first.apply(tried())
            first.confirm(ROLLOUT) if kept else first.rollback(ROLLOUT)
        steps = killer.count + 1
        second = Trials(host, place, "")
        second.expire()
        if kept:
            second.apply(tried())
            second.confirm(ROLLOUT)
            assert host.programs() == programs_of(NEW), step
            assert second.status()["state"] == "kept"
        # also of what was kept
        second.rollback(ROLLOUT)
        assert host.programs() == programs_of(OLD), step
        assert not any(one.before for one in host.links_now.values())
        with pytest.raises(IpttctlError, match="was undone here"):
            second.apply(tried())
    assert step > 8


def test_objects_that_are_not_needed_go_but_the_last_ones(directory: Path) -> None:
    directory.mkdir()
    config = ObjectsOptions(directory=str(directory), largest=1024)
    names = [digest_of(str(number)) for number in range(40)]
    for age, name in enumerate(names):
        place = directory / f"{name}.o"
        place.write_bytes(bytes(1000))
        os.utime(place, (1000 - age, 1000 - age))
    half = directory / f"{digest_of('half')}.tmp"
    half.write_bytes(b"half")
    other = directory / "rollout.json"
    other.write_bytes(b"{}")
    needed = {f"sha256:{names[number]}" for number in (0, 39)}
    objects.prune(config, needed)
    left = {place.name for place in directory.iterdir()}
    # 16 of the largest are 16384 bytes
    expected = {f"{name}.o" for name in names[1:17]} | {file_name(one) for one in needed}
    assert left == expected | {"rollout.json"}


def test_objects_of_before_and_of_now_are_needed(trials: Trials) -> None:
    trials.apply(tried())
    assert trials.used() == {*OLD.objects, *NEW.objects}
    assert trials.needed(ROLLOUT) == {*OLD.objects}
    # one that never came here is undone without any
    assert trials.needed("00000000000000bb") == set()
