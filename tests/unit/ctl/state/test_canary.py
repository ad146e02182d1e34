# SPDX-License-Identifier: GPL-2.0
"""Applied swaps that are rolled back unless they are confirmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.errors import UsageError
from ipttctl.state import Terms
from ipttctl.system.host_identity import HostIdentity
from ipttproto import Command, SwapOutcome
from tests.unit.ctl.cli.test_cli_shadow import SHADOW
from tests.unit.ctl.state.support import Machine, adopt, given, lines
from tests.unit.ctl.support import FakeModule

pytestmark = pytest.mark.usefixtures("left_open")

OLD = "links: {a: {fd: {exit: 7}}, b: {fd: {entry: 7}}, c: {fd: {rule: 7}}}"
NEW = "links: {a: {fd: {exit: 8}}, b: {fd: {entry: 8}}, d: {fd: {rule: 8}}}"


@pytest.fixture
def file(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A file that was applied, and then changed."""
    path = tmp_path / "state.yaml"
    assert run(["apply", given(path, OLD)]) == 0
    given(path, NEW)
    assert len(machine.links) == 3
    capsys.readouterr()
    return path


def generations(machine: Machine) -> dict[int, int]:
    return {number: link["generation"] for number, link in machine.links.items()}


def test_links_that_are_to_go_stay_until_it_is_confirmed(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    captured = capsys.readouterr()
    assert [line.split()[0] for line in captured.out.splitlines()] == ["swap", "swap", "attach"]
    assert captured.err.splitlines() == [
        "new links stay if the swaps are rolled back",
        "to be detached once no swap waits any more, by the next apply: link 3",
    ]
    [asked] = module.requested(Command.TRANSACT)
    assert asked["rollback-after"] == 300_000
    assert generations(machine) == {1: 2, 2: 2, 3: 1, 4: 1}

    # the same file leaves it, and says so
    for command in ("diff", "apply"):
        assert run([command, str(file)]) == 0
        captured = capsys.readouterr()
        assert captured.out == ""
        waits = "is rolled back in 300 s unless it is confirmed: the link is as declared"
        assert captured.err.splitlines() == [
            f"a: the last swap of link 1 {waits} (apply --confirm keeps it)",
            f"b: the last swap of link 2 {waits} (apply --confirm keeps it)",
            "to be detached once no swap waits any more, by the next apply: link 3",
        ]
    assert module.requested(Command.CONFIRM) == []

    assert run(["diff", str(file), "--confirm"]) == 9
    expected = ["confirm a link=1", "confirm b link=2", "detach c link=3"]
    assert lines(capsys) == expected
    assert run(["apply", str(file), "--confirm"]) == 0
    assert lines(capsys) == expected
    # one transaction, so one confirmation, and of what was seen
    assert module.requested(Command.CONFIRM) == [{"link": 1, "expect-generation": 2}]
    assert generations(machine) == {1: 2, 2: 2, 4: 1}
    assert run(["diff", str(file)]) == 0


def test_after_a_roll_back_the_old_file_is_what_there_is(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    machine.roll_back()
    capsys.readouterr()
    assert run(["diff", str(file)]) == 9
    assert [line.split()[0] for line in lines(capsys)] == ["swap", "swap", "detach"]
    given(file, OLD)
    assert run(["apply", str(file)]) == 0
    assert lines(capsys) == ["detach d link=4"]
    assert generations(machine) == {1: 3, 2: 3, 3: 1}
    assert len(module.requested(Command.TRANSACT)) == 1


def test_a_confirmation_that_comes_late_swaps_nothing_in(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    machine.roll_back()
    before = generations(machine)
    for _ in range(2):
        assert run(["apply", str(file), "--confirm"]) == 14
        assert "a: confirming: the last swap of link 1 was rolled" in capsys.readouterr().err
    assert generations(machine) == before
    assert len(module.requested(Command.TRANSACT)) == 1
    del machine.links[4]
    given(file, OLD.replace("}}}", "}}, d: {fd: {rule: 8}}}"))
    assert run(["apply", str(file), "--confirm"]) == 7
    assert "d: confirming: there is no link: nothing is confirmed" in capsys.readouterr().err
    # nothing waits, and nothing differs
    given(file, OLD)
    assert run(["apply", str(file), "--confirm"]) == 0
    assert capsys.readouterr().err == "no swap waits to be confirmed\n"
    assert module.requested(Command.CONFIRM) == []


def test_a_link_that_waits_and_differs_is_refused(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    before = dict(machine.links)
    given(file, OLD)
    assert run(["apply", str(file)]) == 12
    assert "[EINPROGRESS]" in capsys.readouterr().err
    for command in ("apply", "diff"):
        assert run([command, str(file), "--confirm"]) == 7
        assert "a: confirming: link 1 is not as declared" in capsys.readouterr().err
    assert machine.links == before
    assert module.requested(Command.CONFIRM) == []


def test_a_confirmation_is_of_declared_links_alone(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    together = machine.links[1]["transaction"]
    other = machine.add(transaction=together, outcome=SwapOutcome.WAITING)
    for command in ("diff", "apply"):
        capsys.readouterr()
        assert run([command, str(file), "--confirm"]) == 21
        assert f"a: to confirm link 1 would confirm link {other} too" in capsys.readouterr().err
    assert module.requested(Command.CONFIRM) == []
    machine.links[other]["transaction"] += 1
    assert run(["apply", str(file), "--confirm"]) == 0
    assert machine.links[other]["outcome"] == SwapOutcome.WAITING


def test_guards(
    machine: Machine,
    module: FakeModule,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They reach the transaction, also from a plan, and are told while it waits."""
    here = HostIdentity("router", "b00t", 4711)
    monkeypatch.setattr(HostIdentity, "now", classmethod(lambda _: here))
    assert run(["diff", str(file), "--guard", "drops < 10/s", "-o", "json"]) == 9
    plan = given(file.with_name("plan"), capsys.readouterr().out)
    assert run(["apply", "--plan", plan]) == 0
    [asked] = module.requested(Command.TRANSACT)
    [guard] = asked["guard"]
    assert (guard["threshold"], guard["per-time"]) == (10, 1000)
    assert "rollback-after" not in asked
    capsys.readouterr()
    assert run(["diff", str(file)]) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        "a: the last swap of link 1 is rolled back when 'drops < 10/s' does not hold unless it is "
        "confirmed: the link is as declared (apply --confirm keeps it)"
    )
    assert run(["apply", str(file), "--confirm"]) == 0
    assert module.requested(Command.CONFIRM) == [{"link": 1, "expect-generation": 2}]
    assert machine.links[2]["outcome"] == SwapOutcome.CONFIRMED


def test_nothing_to_roll_back(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given(file, OLD.replace(", c:", ", e:"))
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "nothing is swapped, so that nothing can be rolled back\n"
    assert [line.split()[0] for line in captured.out.splitlines()] == ["attach", "detach"]


@pytest.mark.parametrize(
    "options",
    [
        "--confirm --rollback-after 5m",
        "--confirm --guard drops<10/s",
        "--guard drops",
        "--watch --guard drops<10/s",
        "--rollback-after 5",
        "--rollback-after 25h",
        "--watch --confirm",
        "--watch --rollback-after 5m",
        "--every 5s",
        "--watch --every 0s",
        "--plan --owner x",
        "--plan --watch",
    ],
)
def test_options_that_make_no_sense(options: str, file: Path, module: FakeModule) -> None:
    asked = len(module.requests)
    assert run(["apply", str(file), *options.split()]) == 2
    assert len(module.requests) == asked


def test_a_canary_that_differs_from_the_file_is_told_before(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is made that would have to be undone."""
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    given(file, OLD)
    before, attached = dict(machine.links), len(module.requested(Command.ATTACH))
    capsys.readouterr()
    assert run(["diff", str(file)]) == 9
    differs = "the link is not as declared, and apply is refused until then"
    waits = "is rolled back in 300 s unless it is confirmed"
    assert capsys.readouterr().err.splitlines()[:2] == [
        f"a: the last swap of link 1 {waits}; {differs}",
        f"b: the last swap of link 2 {waits}; {differs}",
    ]
    assert run(["apply", str(file)]) == 12
    told = "a: swapping link 1: its last swap waits to be confirmed or rolled back [EINPROGRESS]"
    assert told in capsys.readouterr().err
    assert machine.links == before
    assert len(module.requested(Command.ATTACH)) == attached


def test_a_link_with_a_shadow_is_not_swapped(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.links[2]["shadow"] = SHADOW
    given(file, NEW.replace("{entry: 8}", "{entry: 7}"))
    assert run(["diff", str(file)]) == 9
    told = "b: link 2 has a shadow until it is promoted or dropped"
    assert told in capsys.readouterr().err.splitlines()
    given(file, NEW)
    before, attached = dict(machine.links), len(module.requested(Command.ATTACH))
    assert run(["diff", str(file)]) == 9
    differs = f"{told}; the link is not as declared, and apply is refused until then"
    assert differs in capsys.readouterr().err.splitlines()
    assert run(["apply", str(file)]) == 1
    refused = "b: swapping link 2: it has a shadow: promote or drop it first [EBUSY]"
    assert refused in capsys.readouterr().err
    assert machine.links == before
    assert len(module.requested(Command.ATTACH)) == attached


def test_a_canary_keeps_its_first_terms(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    capsys.readouterr()
    assert run(["apply", str(file), "--rollback-after", "9m", "--guard", "drops < 1/s"]) == 0
    told = capsys.readouterr().err.splitlines()
    assert "the swap that waits keeps the terms on which it was made" in told
    assert not [line for line in told if "nothing is swapped" in line]


def test_a_link_that_somebody_adopted_is_not_confirmed(
    machine: Machine, module: FakeModule, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["apply", str(file), "--rollback-after", "5m"]) == 0
    adopt(machine, 1)
    for command in ("diff", "apply"):
        assert run([command, str(file), "--confirm"]) == 7
        told = "a: link 1 belongs to process 7 (boss), and is left as it is: nothing is confirmed"
        assert told in capsys.readouterr().err
    assert module.requested(Command.CONFIRM) == []


@pytest.mark.parametrize(
    "terms",
    [
        {"confirm": True, "rollback_after": 1.0},
        {"confirm": True, "patient": True},
        {"patient": True, "rollback_after": 1.0},
        {"rollback_after": 0.0},
        {"rollback_after": -1.0},
        {"rollback_after": 0.0004},
        {"rollback_after": 86_401.0},
        {"rollback_after": float("nan")},
        {"rollback_after": float("inf")},
    ],
)
def test_terms_that_make_no_sense(terms: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Terms(**terms)
