# SPDX-License-Identifier: GPL-2.0
"""Links on trial, or with a shadow, on a host that is watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttctl.bpf import syscalls
from ipttctl.cli import run
from ipttproto import Command, SwapOutcome
from tests.unit.ctl.cli.test_cli_shadow import SHADOW
from tests.unit.ctl.state.support import Machine, given
from tests.unit.ctl.state.watching import TWO, kept, swapped
from tests.unit.ctl.support import FakeModule, notification

pytestmark = pytest.mark.usefixtures("left_open")

TRIED = TWO.replace("exit: 7", "exit: 8")
LEFT = (
    "web: what is declared was swapped in on trial, and rolled back; "
    "link 1 is left alone (apply without --watch swaps it in again)"
)


def test_a_swap_that_waits_is_left_alone(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    with kept(given(tmp_path / "state.yaml", TWO), module) as watch:
        original = machine.links[1]["programs"]
        machine.links[1] |= {"rollback-in": 60_000, "outcome": SwapOutcome.WAITING}
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.told)
        assert watch.told == [
            (
                "web: the last swap of link 1 is rolled back in 60 s unless it is confirmed; "
                "the link is not as declared, and left alone until then"
            )
        ]
        # other links are kept meanwhile
        module.multicast(notification(Command.LINK_DETACHED, machine.links.pop(2)))
        watch.wait(lambda: watch.actions()[2:] == ["attach"])
        assert machine.links[1]["generation"] == 2
        # rolled back: it is as declared
        del machine.links[1]["rollback-in"], machine.links[1]["outcome"]
        machine.links[1] |= {"programs": original, "generation": 3}
        module.multicast(notification(Command.LINK_SWAPPED, machine.links[1]))
        watch.wait(lambda: not watch.watch._waits)
        assert watch.actions()[3:] == []
        # confirmed: it is swapped back
        machine.links[1] |= {"rollback-in": 60_000, "outcome": SwapOutcome.WAITING}
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.watch._waits)
        del machine.links[1]["rollback-in"], machine.links[1]["outcome"]
        module.multicast(notification(Command.LINK_CHANGED, machine.links[1]))
        watch.wait(lambda: watch.actions()[3:] == ["swap"])
    assert machine.links[1]["programs"]["program"][0]["id"] == 7


def test_a_link_with_a_shadow_is_left_alone(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    with kept(given(tmp_path / "state.yaml", TWO), module) as watch:
        machine.links[1]["shadow"] = SHADOW
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.told)
        assert watch.told == [
            (
                "web: link 1 has a shadow until it is promoted or dropped; "
                "the link is not as declared, and left alone until then"
            )
        ]
        # other links are kept meanwhile
        module.multicast(swapped(machine, 2, 9))
        watch.wait(lambda: watch.actions()[2:] == ["swap"])
        assert machine.links[1]["generation"] == 2
        del machine.links[1]["shadow"]
        module.multicast(notification(Command.LINK_CHANGED, machine.links[1]))
        watch.wait(lambda: watch.actions()[3:] == ["swap"])


def test_a_trial_that_was_rolled_back_is_not_made_again(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    """The file is changed, tried, and read again while the swap waits; then it is rolled back."""
    file = given(tmp_path / "state.yaml", TWO)
    with kept(file, module, every=0.05) as watch:
        given(tmp_path / "state.yaml", TRIED)
        assert run(["apply", file, "--rollback-after", "5m"]) == 0
        watch.watch.reread()
        watch.wait(lambda: f"{file} is read again" in watch.told)
        machine.roll_back()
        module.multicast(notification(Command.LINK_SWAPPED, machine.links[1]))
        watch.wait(lambda: LEFT in watch.told)
        watch.watch.reread()
        watch.wait(lambda: watch.told.count(f"{file} is read again") == 2)
        assert watch.actions()[2:] == []
        assert machine.links[1]["programs"]["program"][0]["id"] == 7
        # another file is not what was tried
        given(tmp_path / "state.yaml", TWO.replace("exit: 7", "exit: 9"))
        watch.watch.reread()
        watch.wait(lambda: watch.actions()[2:] == ["swap"])
    assert machine.links[1]["programs"]["program"][0]["id"] == 9


def test_what_was_rolled_back_is_remembered_while_others_are_mended(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    """The trial ends before the file is read again, and something is written down between."""
    file = given(tmp_path / "state.yaml", TWO)
    with kept(file, module, every=0.05) as watch:
        given(tmp_path / "state.yaml", TRIED)
        assert run(["apply", file, "--rollback-after", "5m"]) == 0
        machine.roll_back()
        module.multicast(notification(Command.LINK_SWAPPED, machine.links[1]))
        module.multicast(swapped(machine, 2, 9))
        watch.wait(lambda: watch.actions()[2:] == ["swap"])
        module.multicast(swapped(machine, 2, 9))
        watch.wait(lambda: watch.actions()[2:] == ["swap"] * 2)
        watch.watch.reread()
        watch.wait(lambda: LEFT in watch.told)
        # what is left stays remembered too
        module.multicast(swapped(machine, 2, 9))
        watch.wait(lambda: watch.actions()[2:] == ["swap"] * 3)
    assert machine.links[1]["programs"]["program"][0]["id"] == 7
    # somebody else's decision
    assert run(["apply", file]) == 0
    assert machine.links[1]["programs"]["program"][0]["id"] == 8
    with kept(file, module) as watch:
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.actions() == ["swap"])


def test_what_was_rolled_back_needs_no_record_of_before(
    machine: Machine, module: FakeModule, record: Path, tmp_path: Path
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    record.unlink()
    given(tmp_path / "state.yaml", TRIED)
    assert run(["apply", file, "--rollback-after", "5m"]) == 0
    machine.roll_back()
    with kept(file, module) as watch:
        assert watch.told == [LEFT]
    assert machine.links[1]["programs"]["program"][0]["id"] == 7


def test_another_program_at_the_same_source_was_not_tried(
    machine: Machine, module: FakeModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    given(tmp_path / "state.yaml", TRIED)
    assert run(["apply", file, "--rollback-after", "5m"]) == 0
    machine.roll_back()
    with kept(file, module) as watch:
        assert (watch.told, watch.actions()) == ([LEFT], [])
    monkeypatch.setattr(
        syscalls,
        "program_info",
        lambda fd: syscalls.LoadedProgram(fd + 80, "0" * 16, "x", "kprobe"),
    )
    with kept(file, module) as watch:
        watch.wait(lambda: "swap" in watch.actions())
    assert machine.links[1]["programs"]["program"][0]["id"] == 8


def test_a_trial_of_somebody_else_is_not_what_is_declared(
    machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    """It is rolled back to a program that is not the declared one either, which is drift."""
    file = given(tmp_path / "state.yaml", TWO)
    with kept(file, module) as watch:
        machine.links[1] |= {"outcome": SwapOutcome.ROLLBACK, "generation": 2}
        module.multicast(swapped(machine, 1, 9))
        watch.wait(lambda: watch.actions()[2:] == ["swap"])
    assert machine.links[1]["programs"]["program"][0]["id"] == 7
