# SPDX-License-Identifier: GPL-2.0
"""New links that filter, on trial: they pass every packet, and are swapped as any other link."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ipttctl.cli import run
from ipttctl.link.wire import Connection
from ipttctl.state.journal import Record
from ipttctl.state.undo import Undo
from ipttproto import Command, NfMode, SwapOutcome
from ipttproto.family import limit
from tests.unit.ctl.killing import KilledError, Killer
from tests.unit.ctl.state.support import Machine, given, lines
from tests.unit.ctl.support import FakeModule, RefusalError

pytestmark = pytest.mark.usefixtures("left_open")

PASSING = 99
HOOK = "hook: 'nf:inet4/input'"
FILTER = f"links: {{lim: {{{HOOK}, mode: filter, fd: {{packet: 8}}}}}}"
OBSERVING = f"links: {{lim: {{{HOOK}, fd: {{packet: 7}}}}}}"
NONE = "links: {}"
CHANGES = {Command.ATTACH, Command.TRANSACT, Command.DETACH, Command.RENAME}
TRIED = ("--rollback-after", "5m", "--guard", "drops < 10/s")


class _Passing:
    fd = PASSING

    def __enter__(self) -> _Passing:
        return self

    def __exit__(self, *_: object) -> None:
        """It is open as long as the test."""


@pytest.fixture(autouse=True)
def _passing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipttctl.state.apply.load_passing", lambda _: _Passing())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.yaml"


def programs(machine: Machine) -> dict[tuple[str | None, int], list[int]]:
    """The programs of links by name and mode."""
    return {
        (one.get("name"), one.get("mode", 0)): [
            program["id"] for program in one["programs"]["program"]
        ]
        for one in machine.links.values()
    }


def filtering(machine: Machine) -> set[int]:
    """The links that have the filter's program."""
    return {
        number
        for number, one in machine.links.items()
        if [program["id"] for program in one["programs"]["program"]] == [8]
    }


def apply(file: Path, text: str, *options: str) -> int:
    return run(["apply", given(file, text), "--owner", "fleet", *options])


@pytest.mark.parametrize("kept", [True, False])
def test_a_first_filter_is_swapped_in_and_goes_back_to_passing(
    machine: Machine, module: FakeModule, file: Path, kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(file, FILTER, *TRIED) == 0
    captured = capsys.readouterr()
    assert [line.split()[:2] for line in captured.out.splitlines()] == [["attach", "lim"]]
    assert captured.err.splitlines() == [
        "new links that filter pass every packet if the swaps are rolled back"
    ]
    [asked] = module.requested(Command.ATTACH)
    assert [one["fd"] for one in asked["programs"]["program"]] == [PASSING]
    [asked] = module.requested(Command.TRANSACT)
    assert asked["rollback-after"] == 300_000
    assert len(asked["guard"]) == 1
    [change] = asked["change"]
    assert [one["fd"] for one in change["programs"]["program"]] == [8]
    assert change["expect-generation"] == 1
    link = ("lim", int(NfMode.FILTER))
    assert programs(machine) == {link: [8]}
    # again: nothing is left to do
    assert apply(file, FILTER, *TRIED) == 0
    assert lines(capsys) == []
    if kept:
        assert apply(file, FILTER, "--confirm") == 0
        [one] = machine.links.values()
        assert one["outcome"] == SwapOutcome.CONFIRMED
        assert programs(machine) == {link: [8]}
        return
    machine.roll_back()
    assert programs(machine) == {link: [PASSING]}
    # it is not taken for what is declared
    assert apply(file, FILTER, "--confirm") == 14
    assert apply(file, FILTER) == 0
    assert programs(machine) == {link: [8]}
    assert apply(file, NONE) == 0
    assert programs(machine) == {}


def test_one_that_observed_stays_until_the_filter_is_kept(
    machine: Machine, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply(file, OBSERVING) == 0
    assert apply(file, FILTER, *TRIED) == 0
    assert "to be detached once no swap waits any more" in capsys.readouterr().err
    both = {("lim", int(NfMode.OBSERVE)): [7], (None, int(NfMode.FILTER)): [8]}
    assert programs(machine) == both
    assert apply(file, FILTER, "--confirm") == 0
    assert programs(machine) == {("lim", int(NfMode.FILTER)): [8]}


def test_without_terms_a_filter_is_attached_at_once(
    machine: Machine, module: FakeModule, file: Path
) -> None:
    assert apply(file, FILTER) == 0
    assert programs(machine) == {("lim", int(NfMode.FILTER)): [8]}
    assert module.requested(Command.TRANSACT) == []


def test_more_filters_than_a_transaction_takes_are_swapped_in_several(
    machine: Machine, module: FakeModule, file: Path
) -> None:
    most = limit("MAX_CHANGES")
    count = 2 * most + 2
    entries = (f"l{n}: {{{HOOK}, mode: filter, fd: {{packet: 8}}}}" for n in range(count))
    changed = f"links: {{a: {{fd: {{entry: 8}}}}, {', '.join(entries)}}}"
    assert apply(file, "links: {a: {fd: {entry: 7}}}") == 0
    refused = module.handlers[Command.TRANSACT]

    def last(command: Command, asked: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
        if any(change["link"] == 1 for change in asked["change"]):
            raise RefusalError(12, {"message": "not today"})
        return refused(command, asked)

    module.handlers[Command.TRANSACT] = last
    assert apply(file, changed, *TRIED) == 1
    # the link that was there is swapped last: if that fails, all is as before
    assert programs(machine) == {("a", 0): [7]}
    module.handlers[Command.TRANSACT] = refused
    assert apply(file, changed, *TRIED) == 0
    sizes = [len(one["change"]) for one in module.requested(Command.TRANSACT)[-3:]]
    assert sorted(sizes) == [3, most, most]
    assert set(map(tuple, programs(machine).values())) == {(8,)}
    assert apply(file, changed, "--confirm") == 0
    assert not any(one.get("outcome") == SwapOutcome.WAITING for one in machine.links.values())


def _kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Killer:
    """Have a process be killed before or after a change."""
    killer = Killer(step)

    def nothing(self: Undo, error: BaseException) -> NoReturn:
        del self
        raise error

    monkeypatch.setattr(Undo, "run", nothing)
    monkeypatch.setattr(Record, "write", killer.wrap(Record.write))
    request = killer.wrap(Connection.request, lambda _, command, *__: command in CHANGES)
    monkeypatch.setattr(Connection, "request", request)
    return killer


@pytest.mark.parametrize(
    ("before", "undone", "rolled_back"),
    [
        (NONE, False, False),
        (OBSERVING, False, False),
        (OBSERVING, False, True),
        (OBSERVING, True, True),
    ],
)
def test_whoever_is_killed_anywhere_leaves_what_the_next_apply_ends_or_undoes(
    machine: Machine, file: Path, before: str, undone: bool, rolled_back: bool
) -> None:
    step, steps = 0, 1
    while step < steps:
        step += 1
        machine.links.clear()
        machine._before.clear()
        assert apply(file, before) == 0
        old = programs(machine)
        with pytest.MonkeyPatch.context() as monkeypatch:
            killer = _kill_at(step, monkeypatch)
            with suppress(KilledError):
                apply(file, FILTER, *TRIED)
            steps = killer.count + 1
        # it drops nothing that the module would not end by itself
        assert filtering(machine) <= machine._before.keys()
        if rolled_back:
            machine.roll_back()
            assert not filtering(machine)
        if undone:
            assert apply(file, before) == 0, step
            assert programs(machine) == old, step
        else:
            # it is tried again, or is on trial still
            assert apply(file, FILTER, *TRIED) == 0, step
            assert len(filtering(machine)) == 1, step
            assert filtering(machine) == machine._before.keys(), step
            assert apply(file, FILTER, "--confirm") == 0, step
            assert programs(machine) == {("lim", int(NfMode.FILTER)): [8]}, step
        assert apply(file, NONE) == 0
        assert machine.links == {}, step
    assert step > 8
