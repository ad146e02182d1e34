# SPDX-License-Identifier: GPL-2.0
"""Plans that are written down, and carried out on the host that they saw, or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.state import host_plan
from ipttctl.system.host_identity import HostIdentity
from ipttproto import Command, SwapOutcome
from tests.unit.ctl.cli.test_cli_shadow import NUMBER, SHADOW
from tests.unit.ctl.state.support import Machine, adopt, given, lines
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open")

OLD = "links: {a: {fd: {exit: 7}}, c: {fd: {rule: 7}}}"
NEW = "links: {a: {fd: {exit: 8}, filter: udp}, d: {fd: {rule: 8}}}"
HERE = HostIdentity("router", "b00t", 4711)


@pytest.fixture
def plan(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Path:
    """The plan for a file that was applied, and then changed."""
    del machine
    monkeypatch.setattr(HostIdentity, "now", classmethod(lambda _: HERE))
    assert run(["apply", given(tmp_path / "state.yaml", OLD)]) == 0
    capsys.readouterr()
    file = given(tmp_path / "state.yaml", NEW)
    assert run(["diff", file, "-o", "json"]) == 9
    path = tmp_path / "plan.json"
    path.write_text(capsys.readouterr().out)
    return path


def objects(plan: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in plan.read_text().splitlines()]


def test_a_plan_says_what_it_saw(plan: Path) -> None:
    head, *steps = objects(plan)
    assert (head["type"], head["format"], head["host"]) == ("plan", 1, "router")
    assert (head["boot_id"], head["module_life"]) == ("b00t", 4711)
    assert [link["link"] for link in head["links"]] == [1, 2]
    assert head["links"][0]["programs"] == {"exit": {"id": 7, "tag": "00" * 8}}
    assert head["links"][0]["generation"] == 1
    assert head["programs"] == {"a": {"exit": "id 8"}, "d": {"rule": "id 8"}}
    assert [(s["action"], s["name"], s["link"]) for s in steps] == [
        ("swap", "a", 1),
        ("attach", "d", None),
        ("detach", "c", 2),
    ]


def test_it_is_carried_out_once(
    plan: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", "--plan", str(plan)]) == 0
    assert [line.split()[:2] for line in lines(capsys)] == [
        ["swap", "a"],
        ["attach", "d"],
        ["detach", "c"],
    ]
    assert sorted(machine.links) == [1, 3]
    assert run(["apply", "--plan", str(plan)]) == 20
    assert "link 1: generation is 2, and was 1" in capsys.readouterr().err


def swapped(machine: Machine) -> None:
    machine.links[1]["generation"] = 2


def renamed(machine: Machine) -> None:
    machine.links[1]["name"] = "x"


def relabelled(machine: Machine) -> None:
    machine.links[2]["labels"] = {"label": [{"key": "k", "value": "v"}]}


def gone(machine: Machine) -> None:
    del machine.links[2]


def adopted(machine: Machine) -> None:
    adopt(machine, 1)


def shadowed(machine: Machine) -> None:
    machine.links[1]["shadow"] = SHADOW


def waiting(machine: Machine) -> None:
    machine.links[1]["outcome"] = SwapOutcome.WAITING


def name_taken(machine: Machine) -> None:
    machine.add(name="d", family=10)


def name_used(machine: Machine) -> None:
    machine.add(name="d")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swapped, "link 1: generation is 2, and was 1"),
        (renamed, "link 1: name is x, and was a"),
        (relabelled, "link 2: labels is {'k': 'v'}, and was {}"),
        (gone, "link 2 is gone"),
        (adopted, "link 1: owner_pid is 7, and was None"),
        (shadowed, f"link 1: shadow is {NUMBER}, and was None"),
        (waiting, "link 1: waits is True, and was False"),
        (name_taken, "d: link 3 has this name"),
        (name_used, "link 3 (d) is new"),
    ],
)
def test_another_host_is_refused(
    change: Callable[[Machine], None],
    told: str,
    plan: Path,
    machine: Machine,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(machine)
    before = json.dumps(machine.links, default=str)
    assert run(["apply", "--plan", str(plan)]) == 20
    error = capsys.readouterr().err
    assert error.startswith("ipttctl: the host is not as the plan saw it: ")
    assert told in error
    assert json.dumps(machine.links, default=str) == before
    assert module.requested(Command.TRANSACT) == []


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (HostIdentity("other", "b00t", 4711), "host is other, and was router"),
        (HostIdentity("router", "again", 4711), "boot_id is again, and was b00t"),
        (HostIdentity("router", "b00t", 4712), "module_life is 4712, and was 4711"),
        (HostIdentity("router", "b00t", None), "module_life is None, and was 4711"),
    ],
)
def test_another_boot_is_refused(
    now: HostIdentity,
    told: str,
    plan: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(HostIdentity, "now", classmethod(lambda _: now))
    assert run(["apply", "--plan", str(plan)]) == 20
    assert told in capsys.readouterr().err


def test_a_swap_right_before_ours_is_refused_by_the_module(
    plan: Path, machine: Machine, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    detach = module.handlers[Command.DETACH]

    def changed(*asked: Any) -> Sequence[Mapping[str, Any]]:
        machine.links[2]["generation"] = 5
        return detach(*asked)

    module.handlers[Command.DETACH] = changed
    assert run(["apply", "--plan", str(plan)]) == 20
    assert "[ESTALE]" in capsys.readouterr().err
    assert 2 in machine.links


@pytest.mark.parametrize("number", [errno.EINPROGRESS, errno.EBUSY, errno.ENOENT])
def test_what_others_do_right_before_is_another_host(
    number: int, plan: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.refused[Command.TRANSACT] = number
    assert run(["apply", "--plan", str(plan)]) == 20
    assert "the host is not as the plan saw it" in capsys.readouterr().err


def test_a_swap_that_waited_when_the_plan_was_made(
    plan: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no change of the host."""
    waiting(machine)
    assert run(["diff", str(plan.with_name("state.yaml")), "-o", "json"]) == 9
    plan.write_text(capsys.readouterr().out)
    assert run(["apply", "--plan", str(plan)]) == 12


def test_other_steps_are_refused(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the reason: what would be done is what was shown."""
    head, *steps = plan.read_text().splitlines()
    plan.write_text("\n".join([head, *steps[:-1]]))
    assert run(["apply", "--plan", str(plan)]) == 20
    assert "step 3 would be detach c, and was none" in capsys.readouterr().err


def test_terms_are_in_the_plan(
    machine: Machine, plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.add()
    file = given(tmp_path / "state.yaml", "links: {w: {fd: {exit: 9}}}")
    assert run(["diff", file, "--owner", "web", "--prune", "-o", "json"]) == 9
    plan.write_text(capsys.readouterr().out)
    assert run(["apply", "--plan", str(plan), "--reason", "as planned"]) == 0
    # of the links that were there, only nobody's
    assert sorted(machine.links) == [1, 2, 4]
    assert machine.links[4]["labels"]["label"] == [{"key": "ipttctl.owner", "value": "web"}]
    assert machine.links[4]["reason-text"] == "as planned"


def test_paths_are_those_of_the_file(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not of the directory where the plan is, or is carried out."""
    monkeypatch.setattr(host_plan, "_programs", lambda _: {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ipttctl.state.plan.source_digests", lambda *_, **__: {})
    Path("state.yaml").write_text("links: {w: {object: {exit: sub/x.o:x}}}")
    assert run(["diff", "state.yaml", "-o", "json"]) == 9
    head = json.loads(capsys.readouterr().out.splitlines()[0])
    assert head["state"]["links"]["w"]["object"] == {"exit": f"{tmp_path}/sub/x.o:x"}
    del plan


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head["terms"].update(guards=None),
        lambda head: head["terms"].update(guards=5),
        lambda head: head["terms"].update(guards=[5]),
        lambda head: head["terms"].update(guards=["drops"]),
        lambda head: head["terms"].update(rollback_after="5m"),
        lambda head: head["terms"].update(rollback_after=-1),
        lambda head: head["terms"].update(rollback_after=True),
        lambda head: head["terms"].update(rollback_after=float("inf")),
        lambda head: head["terms"].update(rollback_after=1e300),
        lambda head: head["terms"].update(rollback_after=10**400),
        lambda head: head["terms"].update(rollback_after=5, confirm=True),
        lambda head: head["terms"].update(owner=5),
        lambda head: head["terms"].update(owner="a b"),
        lambda head: head["terms"].update(owner="a\ud800"),
        lambda head: head["links"][0].update(link=[1]),
        lambda head: head["links"][0].update(link="1"),
        lambda head: head["links"].append(5),
    ],
)
def test_a_plan_that_was_edited(
    change: Callable[[Any], None],
    plan: Path,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    head, *steps = objects(plan)
    change(head)
    plan.write_text("".join(f"{json.dumps(one)}\n" for one in (head, *steps)))
    asked = len(module.requests)
    assert run(["apply", "--plan", str(plan)]) == 2
    assert capsys.readouterr().err.startswith("ipttctl: ")
    assert len(module.requests) == asked


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "links: {}",
        '{"type": "plan"}',
        '{"type": "plan", "format": 2}',
        '{"type": "plan", "format": 1}',
        (
            '{"type":"plan","format":1,"host":"router","boot_id":"b00t","module_life":4711,"terms":{},'
            '"links":[],"places":{},"programs":{},"state":{}}'
        ),
        "[" * 100_000,
    ],
)
def test_what_is_no_plan(text: str, plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.write_text(text)
    capsys.readouterr()
    assert run(["apply", "--plan", str(plan)]) == 2
    assert "plan" in capsys.readouterr().err
