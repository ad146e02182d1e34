# SPDX-License-Identifier: GPL-2.0
"""Links that take a walk of the module's, from the command line, with a module in user space."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.cli.walk import verified_for
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.table import TableHook
from ipttctl.host import walk as host_walk
from ipttctl.host.walk import Walks
from ipttctl.link.controller import Controller
from ipttproto import Command, Walk
from tests.unit.ctl.support import FakeModule, status

pytestmark = pytest.mark.usefixtures("left_open", "answering")


@pytest.fixture(autouse=True)
def _kept_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_walk, "KEPT", tmp_path / "private" / "verified")


@pytest.mark.parametrize(
    "line",
    [
        "attach --fd rule=7 --hook chain --persist",
        "run --fd rule=7 --hook chain -- true",
        "apply FILE",
    ],
)
@pytest.mark.parametrize(("walk", "kept"), [(Walk.UNVERIFIED, Walk.VERIFIED), (Walk.DIFFERS, None)])
def test_links_at_chains_need_the_walk(
    line: str,
    walk: Walk,
    kept: Walk | None,
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The module is told a kept result before it is asked for a link."""
    file = tmp_path / "state.yaml"
    file.write_text("links: {a: {hook: chain, fd: {rule: 0}}}")
    module.walk = walk
    monkeypatch.setattr(host_walk, "kept", lambda: Walks(kept or Walk.UNVERIFIED))
    ended = run(line.replace("FILE", str(file)).split())
    asked = [command for command, _ in module.requests]
    if kept is None:
        assert ended == 3
        assert "on this kernel the module's walk does not do" in (capsys.readouterr().err)
        assert Command.ATTACH not in asked
    else:
        assert module.walk is Walk.VERIFIED
        assert asked[:3] == [Command.STATS, Command.STATS, Command.VERIFY]


def test_a_verification_asks_whether_it_is_to_go_on(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes long, and its caller may be stopped meanwhile."""
    module.walk = Walk.UNVERIFIED
    cases: list[int] = []

    def verify(_: Controller, *, progress: Callable[[int, int], None]) -> str:
        for done in range(1, 9):
            progress(done, 8)
            cases.append(done)
        return ""

    def alive() -> None:
        if len(cases) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(host_walk, "kept", Walks)
    monkeypatch.setattr(host_walk, "verify", verify)
    with Controller() as controller:
        with pytest.raises(KeyboardInterrupt):
            verified_for(controller, [ChainHook()], alive)
        assert cases == [1, 2, 3]
        verified_for(controller, [TableHook()], alive)
    assert cases == [1, 2, 3]


def test_commands_that_begin_together_verify_once(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.walk = Walk.UNVERIFIED
    runs: list[Controller] = []
    other_waits = Event()

    def verify(controller: Controller, **_: object) -> str:
        runs.append(controller)
        assert other_waits.wait(10)
        module.walk = Walk.VERIFIED
        return ""

    monkeypatch.setattr(host_walk, "kept", Walks)
    monkeypatch.setattr(host_walk, "verify", verify)

    def begin() -> None:
        with Controller() as controller:
            verified_for(controller, [ChainHook()], other_waits.set)

    with ThreadPoolExecutor(2) as both:
        for ended in [both.submit(begin) for _ in range(2)]:
            ended.result(timeout=10)
    assert len(runs) == 1


def test_who_waits_for_a_verification_can_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with host_walk.turn(stop), pytest.raises(KeyboardInterrupt), host_walk.turn(stop):
        raise AssertionError
    with host_walk.turn(stop):
        """The turn has ended."""


@pytest.mark.parametrize(
    ("found", "said", "remedy"),
    [
        ({"walk": 2, "walk-layout": 3, "walk-refusal": "it is moved"}, "it is moved", "build"),
        ({"walk-layout": 4, "walk-refusal": "it is hidden"}, "it is hidden", "--although-not"),
        ({"walk-compared": 0}, "nobody compared", "--although-not"),
    ],
)
def test_links_at_chains_need_layouts(
    found: dict[str, Any],
    said: str,
    remedy: str,
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(host_walk, "kept", lambda: Walks(Walk.VERIFIED))
    module.handlers[Command.STATS] = lambda *_: [status(walk=Walk.UNVERIFIED) | found]
    assert run(["attach", "--fd", "rule=7", "--hook", "chain", "--persist"]) == 3
    told = capsys.readouterr().err
    assert said in told
    assert remedy in told
    assert {command for command, _ in module.requests} == {Command.STATS}


def test_links_at_the_spine_need_a_walk_that_can_be_verified(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A live patch of the kernel's function keeps the walk along the spine from being verified."""
    monkeypatch.setattr(host_walk, "kept", lambda: Walks(Walk.VERIFIED))
    monkeypatch.setattr(host_walk, "verify", lambda *_, **__: "")
    module.handlers[Command.STATS] = lambda *_: [status() | {"spine-walk": Walk.UNVERIFIED}]
    assert run(["attach", "--fd", "exit=7", "--hook", "spine", "--persist"]) == 3
    assert "something else redirects the kernel's nf_hook_slow()" in capsys.readouterr().err
    assert Command.ATTACH not in {command for command, _ in module.requests}
    assert run(["attach", "--fd", "exit=7", "--hook", "chain", "--persist"]) == 0
