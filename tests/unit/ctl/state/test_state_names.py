# SPDX-License-Identifier: GPL-2.0
"""Declared names and labels, and those that links have in the module."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttctl.cli import run
from ipttproto import Command
from tests.unit.ctl.state.support import Machine, given, lines
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open")

WEB = "links: {web: {hook: table, fd: {exit: 7}}}"


def names(machine: Machine) -> dict[int, str]:
    return {number: link.get("name", "") for number, link in machine.links.items()}


def test_links_have_their_declared_names(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but those that the module would not take, which work without one as ever."""
    long = "n" * 64
    file = given(
        tmp_path / "state.yaml",
        f"links: {{web: {{fd: {{exit: 7}}}}, 10-guard: {{fd: {{exit: 7}}}}, "
        f"{long}: {{fd: {{exit: 7}}}}}}",
    )
    assert run(["apply", file, "--reason", "why"]) == 0
    assert names(machine) == {1: "web", 2: "", 3: ""}
    assert [asked["reason-text"] for asked in module.requested(Command.ATTACH)] == ["why"] * 3
    lines(capsys)
    assert run(["apply", file]) == 0
    assert run(["diff", file]) == 0
    assert lines(capsys) == []
    given(tmp_path / "state.yaml", "links: {}")
    assert run(["apply", file, "--reason", "end"]) == 0
    assert [asked["reason-text"] for asked in module.requested(Command.DETACH)] == ["end"] * 3


def test_a_lost_record_is_made_up_for_by_names(
    machine: Machine, tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", WEB)
    assert run(["apply", file]) == 0
    record.unlink()
    lines(capsys)
    assert run(["diff", file]) == 0
    given(tmp_path / "state.yaml", WEB.replace("7", "8"))
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["swap web link=1 changes=exit exit=fd:8"]
    assert names(machine) == {1: "web"}
    # from here on it is apply's
    given(tmp_path / "state.yaml", "links: {}")
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["detach web link=1"]


def test_a_name_that_another_link_has(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = machine.add(name="web", family=2)
    before = dict(machine.links)
    file = given(tmp_path / "state.yaml", WEB)
    for command in ("apply", "diff"):
        assert run([command, file]) == 11
        assert f"web: link {theirs} has this name" in capsys.readouterr().err
    assert machine.links == before
    # with --prune it goes, and the name is free
    assert run(["apply", "--prune", file]) == 0
    assert names(machine) == {2: "web"}


def test_a_link_that_a_process_owns_under_the_name(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add(name="web", flags=0)
    file = given(tmp_path / "state.yaml", WEB)
    assert run(["apply", file]) == 0
    assert "web: link 1 belongs to process 1234" in capsys.readouterr().err
    assert len(machine.links) == 1


def test_a_link_that_somebody_renamed(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It gets its name back; what is saved has the other one, and is what there is."""
    file = given(tmp_path / "state.yaml", WEB)
    assert run(["apply", file]) == 0
    machine.links[1]["name"] = "edge"
    lines(capsys)
    assert run(["save"]) == 0
    saved = given(tmp_path / "saved.yaml", capsys.readouterr().out)
    assert "edge:" in Path(saved).read_text()
    assert run(["diff", saved]) == 0
    assert run(["diff", file]) == 9
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["rename web link=1"] * 2
    assert names(machine) == {1: "web"}
    assert run(["diff", file]) == 0


def test_a_link_taken_over_by_its_id_keeps_its_name(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("theirs", ""):
        number = machine.add(name=name, programs={"program": [{"slot": 3, "id": 7}]})
        file = given(
            tmp_path / "state.yaml", f"links: {{web: {{link: {number}, fd: {{exit: 7}}}}}}"
        )
        lines(capsys)
        assert run(["apply", file]) == 0
        assert lines(capsys) == []
        assert names(machine)[number] == name
        machine.links.clear()


def test_moved_links_exchange_their_names(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is another link at its new place, and all have their names in the end."""
    two = "links: {a: {family: 4, fd: {exit: 7}}, b: {family: 6, fd: {exit: 7}}}"
    file = given(tmp_path / "state.yaml", two)
    assert run(["apply", file]) == 0
    given(tmp_path / "state.yaml", two.replace("4", "@").replace("6", "4").replace("@", "6"))
    assert run(["apply", file]) == 0
    assert names(machine) == {3: "a", 4: "b"}
    lines(capsys)
    assert run(["diff", file]) == 0


def test_labels_are_declared(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", WEB.replace("}}}", "}, label: {team: core, n: 2}}}"))
    assert run(["apply", file]) == 0
    assert run(["diff", file]) == 0
    lines(capsys)
    assert run(["save"]) == 0
    saved = given(tmp_path / "saved.yaml", capsys.readouterr().out)
    assert run(["diff", saved]) == 0
    given(tmp_path / "state.yaml", WEB.replace("}}}", "}, label: [team=edge]}}"))
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["swap web link=1 changes=labels exit=fd:7"]
    assert machine.links[1]["labels"] == {"label": [{"key": "team", "value": "edge"}]}
    # what is not declared is left alone, and an empty object is
    given(tmp_path / "state.yaml", WEB)
    assert run(["diff", file]) == 0
    given(tmp_path / "state.yaml", WEB.replace("}}}", "}, label: {}}}"))
    assert run(["apply", file]) == 0
    assert machine.links[1]["labels"] == {}
    given(tmp_path / "state.yaml", WEB.replace("}}}", "}, label: {7: x}}}"))
    lines(capsys)
    assert run(["apply", file]) == 2
    assert "link web: --label: '7=x' is not KEY=VALUE" in capsys.readouterr().err
