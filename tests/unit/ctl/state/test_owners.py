# SPDX-License-Identifier: GPL-2.0
"""Several files on one host, each with its owner: none touches what another declares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipttctl.cli import run
from ipttctl.state.model import OWNER_LABEL
from ipttproto import Command
from tests.unit.ctl.state.support import Machine, given, lines
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open")

A = "links: {a: {hook: table, fd: {exit: 7}}}"
B = "links: {b: {hook: table, fd: {exit: 8}}}"
NONE = "links: {}"


def labels(machine: Machine, link: int) -> dict[str, str]:
    pairs = machine.links[link].get("labels", {}).get("label", ())
    return {pair["key"]: pair["value"] for pair in pairs}


def applied(path: Path, text: str, *options: str) -> int:
    return run(["apply", given(path, text), *options])


def test_each_file_has_its_links(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state.yaml"
    assert applied(file, A) == 0
    assert applied(file, B, "--owner", "web") == 0
    assert labels(machine, 1) == {}
    assert labels(machine, 2) == {OWNER_LABEL: "web"}
    lines(capsys)
    # neither is surplus to the other, whatever is pruned
    assert applied(file, A, "--prune") == 0
    assert applied(file, B, "--owner", "web", "--prune") == 0
    assert lines(capsys) == []
    assert run(["diff", str(file), "--owner", "web"]) == 0
    assert applied(file, NONE, "--owner", "db") == 0
    assert sorted(machine.links) == [1, 2]
    assert applied(file, NONE, "--owner", "web") == 0
    assert lines(capsys) == ["detach b link=2"]
    assert applied(file, NONE) == 0
    assert machine.links == {}


def test_conflicts_name_both(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state.yaml"
    assert applied(file, A, "--owner", "web") == 0
    before = json.dumps(machine.links, default=str)
    by_id = "links: {other: {link: 1, hook: table, fd: {exit: 7}}}"
    elsewhere = A.replace("hook: table", "hook: table, family: 6")
    for text, options in ((A, ()), (A, ("--owner", "db")), (by_id, ()), (elsewhere, ())):
        capsys.readouterr()
        assert applied(file, text, *options) == 21
        told = capsys.readouterr().err
        assert "link 1 belongs to the file of owner 'web', not to the file " in told
        assert ("of owner 'db'" if options else "without an owner") in told
        assert run(["diff", str(file), *options]) == 21
    assert json.dumps(machine.links, default=str) == before


@pytest.mark.parametrize("names", [("a", "web"), ("10-a", "web")])
def test_a_link_is_taken_over(
    names: tuple[str, str], machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the file without an owner and back: the same link, each time swapped for the label."""
    file, name = tmp_path / "state.yaml", names[0]
    text = A.replace("{a:", f"{{{name}:")
    assert applied(file, text) == 0
    if name != "a":
        # nothing says that it is the same link; by its id it is
        text = text.replace("hook: table", "link: 1, hook: table")
    assert applied(file, text, "--owner", "web") == 21
    capsys.readouterr()
    assert applied(file, text, "--owner", "web", "--take") == 0
    captured = capsys.readouterr()
    assert captured.out == f"swap {name} link=1 changes=owner exit=fd:7\n"
    assert f"{name}: link 1 is taken over from the file without an owner" in captured.err
    assert labels(machine, 1) == {OWNER_LABEL: "web"}
    assert run(["diff", str(file), "--owner", "web"]) == 0
    # it is not the other file's any more
    assert applied(file, NONE) == 0
    assert sorted(machine.links) == [1]
    assert applied(file, text, "--take") == 0
    assert labels(machine, 1) == {}
    assert applied(file, NONE, "--owner", "web") == 0
    assert sorted(machine.links) == [1]


def test_the_label_outlives_the_record_and_is_put_back(
    machine: Machine, tmp_path: Path, record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state.yaml"
    assert applied(file, A, "--owner", "web") == 0
    record.unlink()
    assert applied(file, A) == 21
    assert applied(file, A, "--owner", "web") == 0
    # somebody replaced all labels: the record knows
    machine.links[1]["labels"] = {"label": [{"key": "team", "value": "core"}]}
    assert applied(file, A) == 21
    lines(capsys)
    assert applied(file, A, "--owner", "web") == 0
    assert lines(capsys) == ["swap a link=1 changes=owner exit=fd:7"]
    assert labels(machine, 1) == {"team": "core", OWNER_LABEL: "web"}
    # without the record and without a declaration, the label alone says whose it is
    record.unlink()
    assert applied(file, NONE, "--owner", "web") == 0
    assert machine.links == {}


def test_declared_labels_and_the_owner(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "state.yaml"
    named = A.replace("}}}", "}, label: {team: core}}}")
    assert applied(file, named, "--owner", "web") == 0
    assert labels(machine, 1) == {"team": "core", OWNER_LABEL: "web"}
    assert run(["diff", str(file), "--owner", "web"]) == 0
    lines(capsys)
    assert run(["save", "--owner", "web"]) == 0
    saved = capsys.readouterr().out
    assert OWNER_LABEL not in saved
    assert applied(file, saved, "--owner", "web") == 0
    assert lines(capsys) == []
    assert run(["save"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "links: {}\n"
    assert captured.err == (
        "link 1 is left out: it belongs to the file of owner 'web': save --owner web\n"
    )
    mine = A.replace("}}}", f"}}, label: {{{OWNER_LABEL}: x}}}}}}")
    assert applied(file, mine) == 2
    assert "give it as --owner" in capsys.readouterr().err
    many = ", ".join(f"k{number}: v" for number in range(8))
    assert applied(file, A.replace("}}}", f"}}, label: {{{many}}}}}}}"), "--owner", "web") == 2
    assert "at most 7 labels of its own" in capsys.readouterr().err


@pytest.mark.parametrize("owner", ["", "-x", "a b", "ü", "x" * 64])
def test_owners_that_are_none(
    owner: str, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("apply", "diff"):
        assert run([command, given(tmp_path / "state.yaml", A), f"--owner={owner}"]) == 2
        assert "is no name of an owner" in capsys.readouterr().err
    assert run(["save", f"--owner={owner}"]) == 2
    assert module.requested(Command.ATTACH) == []
