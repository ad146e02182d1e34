# SPDX-License-Identifier: GPL-2.0
"""Descriptors that count as inherited, and paths that name them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipttctl.errors import ProgramError
from ipttctl.system.inherited import Inherited


def test_what_is_open_counts_and_nothing_else() -> None:
    ours = os.open(os.devnull, os.O_RDONLY)
    try:
        inherited = Inherited.now()
    finally:
        os.close(ours)
    inherited.check(ours)
    # the listing's own descriptor does not count
    assert inherited.numbers - {ours} == Inherited.now().numbers


def test_what_is_open_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = Inherited.now()
    monkeypatch.setattr("ipttctl.system.inherited._OWN", tmp_path / "fd")
    assert Inherited.now() == seen


def test_a_number_that_was_free_is_not_ours_to_give() -> None:
    before = Inherited.now()
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(ProgramError, match=rf"fd {fd} is not open.*libbpf.*close-on-exec"):
            before.check(fd)
        for path in (
            f"/dev/fd/{fd}",
            f"/proc/self/fd/{fd}",
            f"/proc/thread-self/fd/{fd}",
            f"/proc/{os.getpid()}/fd/{fd}",
        ):
            with pytest.raises(ProgramError, match=f"fd {fd} is not open"):
                before.check_path(path)
            Inherited.now().check_path(path)
        with pytest.raises(ProgramError, match=f"fd {fd} is not open"):
            before.check_process(os.getpid(), fd)
    finally:
        os.close(fd)


def test_others_are_not_looked_at() -> None:
    nothing = Inherited(frozenset())
    nothing.check_process(os.getppid(), 7)
    for path in (f"/proc/{os.getppid()}/fd/7", "/dev/fd", "/proc/self/ns/net", "web", "/dev/fd/x"):
        nothing.check_path(path)
