# SPDX-License-Identifier: GPL-2.0
"""Network namespaces by number, name and path."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttctl import netns
from ipttctl.errors import UsageError


def test_number_is_itself() -> None:
    assert netns.resolve("4026531840") == 4026531840


def test_path() -> None:
    assert netns.resolve("/proc/self/ns/net") == netns.own()


def test_name(tmp_path: Path) -> None:
    (tmp_path / "blue").symlink_to("/proc/self/ns/net")
    assert netns.resolve("blue", [tmp_path / "nowhere", tmp_path]) == netns.own()


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no network namespace 'red'"):
        netns.resolve("red", [tmp_path])


def test_path_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a network namespace"):
        netns.resolve(str(tmp_path))


def test_names_are_read_again_for_an_unknown_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    names = netns.NamespaceNames([tmp_path, tmp_path / "nowhere"])
    assert names.name(netns.own()) is None
    (tmp_path / "blue").symlink_to("/proc/self/ns/net")
    assert names.name(netns.own()) is None
    now += 1
    assert names.name(netns.own()) == "blue"


def test_find_gives_a_file_to_open(tmp_path: Path) -> None:
    own = Path("/proc/self/ns/net")
    assert netns.find(str(own.stat().st_ino)) == netns.OWN
    assert netns.find(str(own)) == own
    (tmp_path / "blue").symlink_to(own)
    assert netns.find("blue", [tmp_path]) == tmp_path / "blue"
    for wrong in ("1", "red", "/dev/null"):
        with pytest.raises(UsageError, match="network namespace"):
            netns.find(wrong, [tmp_path])
