# SPDX-License-Identifier: GPL-2.0
"""The host, its boot, and the life of the module."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ipttctl.system import host_identity
from ipttctl.system.host_identity import HostIdentity, module_life


def test_the_present_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_identity, "_MODULE", tmp_path)
    now = HostIdentity.now()
    assert now.host
    assert re.fullmatch(r"[0-9a-f-]{36}", now.boot_id)
    assert now.module_life == tmp_path.stat().st_ino == module_life()


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_identity, "_MODULE", tmp_path / "none")
    monkeypatch.setattr(host_identity, "_BOOT", tmp_path / "none")
    now = HostIdentity.now()
    assert (now.boot_id, now.module_life) == ("", None)
