# SPDX-License-Identifier: GPL-2.0
"""Names of network namespaces; tests/kernel/test_namespaces.py has those that come and go."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames

OWN = netns.resolve(str(netns.OWN)).cookie


def test_names_are_read_again_for_an_unknown_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    names = NamespaceNames([tmp_path, tmp_path / "nowhere"])
    assert names.name(OWN) is None
    (tmp_path / "blue").symlink_to(netns.OWN)
    assert names.name(OWN) is None
    now += 1
    assert names.name(OWN) == "blue"
    (tmp_path / "blue").unlink()
    now += 1
    names.scan()
    assert names.name(OWN) == "blue"


def test_what_is_no_namespace_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("/proc/self/ns/nothing")
    (tmp_path / "mount").symlink_to("/proc/self/ns/mnt")
    names = NamespaceNames([tmp_path])
    names.scan()
    assert names.name(OWN) is None


def test_of_two_names_the_first_unless_it_goes(tmp_path: Path) -> None:
    names = NamespaceNames([tmp_path])
    for name in ("b", "c"):
        (tmp_path / name).symlink_to(netns.OWN)
    names.scan()
    assert names.name(OWN) == "b"
    (tmp_path / "a").symlink_to(netns.OWN)
    names.scan()
    assert names.name(OWN) == "b"
    (tmp_path / "b").unlink()
    names.scan()
    assert names.name(OWN) == "a"


def test_the_loss_of_the_last_name_is_told(tmp_path: Path) -> None:
    names = NamespaceNames([tmp_path])
    lost: list[int] = []
    names.tell_lost(lost.append)
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(netns.OWN)
    names.scan()
    (tmp_path / "a").unlink()
    names.scan()
    assert lost == []
    (tmp_path / "b").unlink()
    names.scan()
    names.scan()
    assert lost == [OWN]


def test_a_name_is_followed_from_the_moment_that_it_was_looked_at(tmp_path: Path) -> None:
    """Another namespace got the name between the lookup and the start of following."""
    names = NamespaceNames([tmp_path])
    (tmp_path / "blue").symlink_to(netns.OWN)
    names.scan()
    cookies = {OWN + 1}
    followed = names.follow(tmp_path / "blue", cookies, OWN + 1)
    assert (followed.latest, cookies) == (OWN, {OWN, OWN + 1})
    assert select.select([names], [], [], 0)[0]
    names.settle()
    assert not select.select([names], [], [], 0)[0]


def test_watching_finds_what_is_new(tmp_path: Path) -> None:
    names = NamespaceNames([tmp_path])
    with names.watching():
        cookies: set[int] = set()
        names.follow(tmp_path / "blue", cookies, 0)
        (tmp_path / "blue").symlink_to(netns.OWN)
        assert select.select([names], [], [], 30)[0]
        assert cookies == {OWN}
