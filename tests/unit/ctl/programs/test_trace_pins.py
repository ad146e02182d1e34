# SPDX-License-Identifier: GPL-2.0
"""The pinned programs of ``trace``; tests/kernel/test_trace.py has real ones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from ipttctl.bpf.collection import Collection
from ipttctl.errors import ProgramError
from ipttctl.programs import trace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of pins, in which there seem to be all programs."""
    programs = dict.fromkeys(trace._SLOTS.values(), "program")
    opened = SimpleNamespace(programs=programs, close=lambda: None)
    monkeypatch.setattr(Collection, "open_pinned", lambda _: opened)
    made = tmp_path / "pins"
    made.mkdir(mode=0o700)
    return made


def test_pins_are_opened_again(place: Path) -> None:
    found = trace._open_pins(place)
    assert found is not None
    assert set(found) == set(trace._SLOTS)
    assert trace._open_pins(place / "nothing") is None


def test_pins_that_others_can_have_made_are_not_trusted(place: Path) -> None:
    place.chmod(0o777)
    with pytest.raises(ProgramError, match=f"do not trust {place}: .* can be written to by others"):
        trace._open_pins(place)
    assert place.is_dir(), "it is for somebody to look at"
