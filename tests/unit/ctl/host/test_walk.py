# SPDX-License-Identifier: GPL-2.0
"""Knowledge of the walk through chains: the module's own, and a kept result."""

from __future__ import annotations

from typing import Any

import pytest

from ipttctl.errors import ModuleError
from ipttctl.host import walk
from ipttctl.link.controller import Controller
from ipttproto import Command, Layout, Walk
from tests.unit.ctl.support import FakeModule, status


def known(module: FakeModule, **said: Any) -> bool:
    spine = said.pop("spine", False)
    said = {name.replace("_", "-"): value for name, value in said.items()}
    module.handlers[Command.STATS] = lambda *_: [status(walk=module.walk) | said]
    with Controller(module.connect) as controller:
        return walk.known(controller, spine=spine)


def test_the_module_knows(module: FakeModule) -> None:
    assert known(module, walk_layout=Layout.SAME)
    assert not module.requested(Command.VERIFY)


def test_structures_that_differ_are_refused_with_the_modules_sentence(module: FakeModule) -> None:
    with pytest.raises(ModuleError, match="a chain has another layout"):
        known(module, walk_layout=Layout.DIFFERS, walk_refusal="a chain has another layout")


def test_a_walk_that_differs_is_refused(module: FakeModule) -> None:
    module.walk = Walk.DIFFERS
    with pytest.raises(ModuleError, match="does not do what the kernel does"):
        known(module)


@pytest.mark.parametrize(
    ("kept", "compared", "verified", "told"),
    [
        (Walk.VERIFIED, 1, True, 1),
        (Walk.UNVERIFIED, 1, False, 0),
        # a result on a series that nobody compared is somebody's decision, each time
        (Walk.VERIFIED, 0, False, 0),
    ],
)
def test_a_kept_result_is_told_to_the_module(
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    kept: Walk,
    compared: int,
    verified: bool,
    told: int,
) -> None:
    module.walk = Walk.UNVERIFIED
    monkeypatch.setattr(walk, "kept", lambda: walk.Walks(kept, kept))
    assert known(module, walk_compared=compared) is verified
    assert len(module.requested(Command.VERIFY)) == told


@pytest.mark.parametrize(
    ("said", "kept", "spine", "verified"),
    [
        (Walk.VERIFIED, Walk.UNVERIFIED, False, True),
        (Walk.UNVERIFIED, Walk.UNVERIFIED, False, True),
        (Walk.UNVERIFIED, Walk.UNVERIFIED, True, False),
        (Walk.UNVERIFIED, Walk.VERIFIED, True, True),
        (Walk.DIFFERS, Walk.UNVERIFIED, False, True),
    ],
)
def test_links_at_the_spine_need_a_walk_of_their_own(
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    said: Walk,
    kept: Walk,
    spine: bool,
    verified: bool,
) -> None:
    monkeypatch.setattr(walk, "kept", lambda: walk.Walks(Walk.VERIFIED, kept))
    assert known(module, spine_walk=said, spine=spine) is verified


def test_a_walk_along_the_spine_that_differs_is_refused(module: FakeModule) -> None:
    with pytest.raises(ModuleError, match="does not do what the kernel does"):
        known(module, spine_walk=Walk.DIFFERS, spine=True)
