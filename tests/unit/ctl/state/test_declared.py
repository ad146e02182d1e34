# SPDX-License-Identifier: GPL-2.0
"""``apply`` and ``diff`` with a module in user space."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli import run
from ipttctl.errors import ExpectationError, ProgramError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.state import State, StepAction, apply_state, diff_state
from ipttctl.state.file import read_state
from ipttctl.state.journal import Record
from ipttctl.state.maps import EntryChange, MapChange, MapDifference
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, RefusalError

if TYPE_CHECKING:
    from ipttctl.bpf.maps import Map

from tests.unit.ctl.state.support import PERSISTENT, RETURN, TWO, Machine, adopt, given, lines

pytestmark = pytest.mark.usefixtures("left_open")


def test_applying_twice_changes_nothing(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["diff", file]) == 9
    assert lines(capsys) == [
        "attach verdicts exit=fd:7 filter='udp port 53'",
        "attach input packet=fd:8",
    ]
    assert machine.links == {}
    assert run(["apply", file]) == 0
    assert lines(capsys) == [
        "attach verdicts link=1 exit=fd:7 filter='udp port 53'",
        "attach input link=2 packet=fd:8",
    ]
    assert [made["flags"] for made in machine.links.values()] == [PERSISTENT] * 2
    asked = len(module.requests)
    assert run(["apply", file]) == 0
    assert run(["diff", file]) == 0
    assert lines(capsys) == []
    changed = {command for command, _ in module.requests[asked:]}
    assert changed == {Command.STATS, Command.GET}


def test_what_differs_is_swapped_in_one_step(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    lines(capsys)
    given(
        tmp_path / "state.yaml",
        TWO.replace("port 53", "port 54")
        .replace("0x10", "17, governor: 1.5%")
        .replace("packet: 8", "packet: 9"),
    )
    assert run(["apply", file, "-o", "json"]) == 0
    steps = [json.loads(line) for line in lines(capsys)]
    assert [(s["action"], s["name"], s["link"], s["changes"]) for s in steps] == [
        ("swap", "verdicts", 1, ["filter", "cookie", "limits"]),
        ("swap", "input", 2, ["packet"]),
    ]
    assert len(module.requested(Command.TRANSACT)) == 1
    assert [one["generation"] for one in machine.links.values()] == [2, 2]
    assert run(["diff", file]) == 0


def test_a_swap_by_somebody_else_is_found(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The link's current state decides: a filter of the same length may be another one."""
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    machine.links[1]["generation"] = 2
    assert run(["diff", file]) == 0
    other = compile_filter("udp port 54")
    assert len(other) == len(machine.links[1]["programs"]["filter"])
    machine.links[1]["programs"]["filter"] = other
    lines(capsys)
    assert run(["diff", file]) == 9
    assert lines(capsys)[0].startswith("swap verdicts link=1 changes=filter ")
    assert run(["apply", file]) == 0
    assert machine.links[1]["generation"] == 3
    assert run(["diff", file]) == 0


def test_what_is_not_declared_any_more_goes_and_what_others_made_stays(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = machine.add()
    owned = machine.add(flags=0, **{"owner-portid": 9})
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    given(tmp_path / "state.yaml", "links: {}")
    lines(capsys)
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["detach verdicts link=3", "detach input link=4"]
    assert set(machine.links) == {others, owned}
    assert run(["apply", "--prune", file]) == 0
    assert lines(capsys) == [f"detach - link={others}"]
    assert set(machine.links) == {owned}


def test_a_link_that_was_adopted_is_left_alone_and_told(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None is made beside it, and it is made again once it has gone with its owner."""
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    adopt(machine, 2)
    before = dict(machine.links)
    given(tmp_path / "state.yaml", TWO.replace("packet: 8", "packet: 9"))
    capsys.readouterr()
    for _ in range(2):
        for line in ("diff", "apply", "apply --prune"):
            assert run([*line.split(), file]) == 0
            captured = capsys.readouterr()
            assert captured.out == ""
            assert captured.err == (
                "input: link 2 belongs to process 7 (boss), and is left as it is\n"
            )
    assert machine.links == before
    # also if other links change meanwhile
    given(tmp_path / "state.yaml", TWO.replace("port 53", "port 54"))
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["swap verdicts link=1 changes=filter exit=fd:7 filter='udp port 54'"]
    assert run(["apply", file]) == 0
    assert lines(capsys) == []
    del machine.links[2]
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["attach input link=3 packet=fd:8"]


def test_a_link_that_was_adopted_and_is_not_declared_there_is_not_apply_s(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    adopt(machine, 2)
    given(tmp_path / "state.yaml", TWO.replace("@raw", "@mangle"))
    capsys.readouterr()
    before = dict(machine.links)
    assert run(["apply", file]) == 11
    assert "input: link 2 has this name, and is at another place: nf:" in capsys.readouterr().err
    assert machine.links == before
    # one without a name in the module
    machine.links[2].pop("name")
    assert run(["apply", file]) == 0
    assert capsys.readouterr().out == "attach input link=3 packet=fd:8\n"
    given(tmp_path / "state.yaml", "links: {}")
    assert run(["apply", file]) == 0
    assert sorted(machine.links) == [2]


def test_a_link_that_is_taken_over_by_its_id_is_left_alone_too(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = machine.add(flags=0)
    file = given(tmp_path / "state.yaml", f"links: {{mine: {{link: {theirs}, fd: {{exit: 7}}}}}}")
    assert run(["apply", file]) == 0
    assert "mine: link 1 belongs to process 1234" in capsys.readouterr().err
    assert sorted(machine.links) == [theirs]


@pytest.mark.usefixtures("machine")
def test_another_place_is_another_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    given(tmp_path / "state.yaml", TWO.replace("@raw", "@mangle"))
    lines(capsys)
    assert run(["apply", file]) == 0
    assert lines(capsys) == ["attach input link=3 packet=fd:8", "detach input link=2"]
    assert run(["diff", file]) == 0


def test_a_link_goes_only_if_nobody_changed_it_meanwhile(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    get = module.handlers[Command.GET]

    def swapped_meanwhile(*asked: Any) -> Sequence[Mapping[str, Any]]:
        found = [dict(value) for value in get(*asked)]
        machine.links[2]["generation"] = 2
        return found

    module.handlers[Command.GET] = swapped_meanwhile
    given(tmp_path / "state.yaml", "links: {}")
    assert run(["apply", file]) == ExpectationError.exit_code
    assert "[ESTALE]" in capsys.readouterr().err
    assert list(machine.links) == [2]
    assert module.requested(Command.DETACH) == [
        {"link": number, "expect-generation": 1} for number in (1, 2)
    ]


@pytest.mark.parametrize("command", [Command.ATTACH, Command.TRANSACT])
def test_a_failure_leaves_what_was_there(
    command: Command, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    before = json.dumps({n: v["generation"] for n, v in machine.links.items()})
    more = "  third: {fd: {entry: 9}}\n  fourth: {fd: {entry: 9}}\n"
    given(tmp_path / "state.yaml", TWO.replace("exit: 7", "exit: 10") + more)
    machine.refused[command] = errno.ENOMEM
    lines(capsys)
    assert run(["apply", file]) == 1
    assert "not today [ENOMEM]" in capsys.readouterr().err
    assert json.dumps({n: v["generation"] for n, v in machine.links.items()}) == before
    machine.refused.clear()
    given(tmp_path / "state.yaml", TWO)
    assert run(["diff", file]) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_interrupted_is_undone_or_finished(
    number: int, machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    """The signal comes while the module works: before the transaction, and in it."""
    file = given(tmp_path / "state.yaml", TWO)

    def interrupt(command: Command) -> None:
        handler = module.handlers[command]

        def interrupting(*asked: Any) -> Sequence[Mapping[str, Any]]:
            module.handlers[command] = handler
            os.kill(os.getpid(), number)
            return handler(*asked)

        module.handlers[command] = interrupting

    interrupt(Command.ATTACH)
    assert run(["apply", file]) == 130
    assert len(module.requested(Command.ATTACH)) == 1
    assert machine.links == {}
    assert run(["apply", file]) == 0
    given(tmp_path / "state.yaml", TWO.replace("exit: 7", "exit: 9"))
    interrupt(Command.TRANSACT)
    assert run(["apply", file]) == 130
    assert run(["diff", file]) == 0
    assert machine.links[2]["generation"] == 2


def waits_for(path: Path, other: threading.Thread) -> bool:
    """Wait until somebody waits for the lock of a file; false if the other thread ends first."""
    inode = path.stat().st_ino
    while other.is_alive():
        for line in Path("/proc/locks").read_text().splitlines():
            if " -> " in line and f":{inode} " in line:
                return True
    return False


def test_two_take_turns(machine: Machine, module: FakeModule, record: Path, tmp_path: Path) -> None:
    """The second finds the links that the first made: each link is made once."""
    state = read_state(given(tmp_path / "state.yaml", TWO))
    results: list[list[StepAction]] = []
    told: list[str] = []

    def apply() -> None:
        with Controller() as controller:
            steps = apply_state(controller, state, warn=told.append)
            results.append([step.action for step in steps])

    second = threading.Thread(target=apply)
    attach = module.handlers[Command.ATTACH]

    def attaching(*asked: Any) -> Sequence[Mapping[str, Any]]:
        if not second.ident:
            second.start()
            assert waits_for(record.with_suffix(".lock"), second)
        return attach(*asked)

    module.handlers[Command.ATTACH] = attaching
    apply()
    second.join()
    assert results == [[StepAction.ATTACH] * 2, []]
    assert len(machine.links) == 2
    holder = f"process {os.getpid()} applies a state, or replaces the module"
    assert told == [f"{holder}; waiting for its end"]


def test_a_record_that_others_can_write_is_refused(
    machine: Machine, record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    given(tmp_path / "state.yaml", "links: {}")
    for place in (record, record.parent):
        mode = place.stat().st_mode & 0o7777
        place.chmod(0o777)
        for command in ("apply", "diff", "save"):
            capsys.readouterr()
            assert run([command, *([] if command == "save" else [file])]) == 4
            said = capsys.readouterr().err
            assert said.startswith("ipttctl: do not trust ")
            assert said.endswith(
                f": {place} can be written to by others; run: chmod go-w {place}\n"
            )
        place.chmod(mode)
    assert len(machine.links) == 2
    assert run(["apply", file]) == 0
    assert machine.links == {}


THREE = TWO + "  third: {fd: {exit: 9}}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("interrupted", [True, False])
def test_one_more_signal_does_not_end_the_undo(
    interrupted: bool, number: int, machine: Machine, module: FakeModule, tmp_path: Path
) -> None:
    """The signal comes after an interruption, or is the first one, after a failure."""
    file = given(tmp_path / "state.yaml", THREE)
    attach, detach = module.handlers[Command.ATTACH], module.handlers[Command.DETACH]

    def attaching(*asked: Any) -> Sequence[Mapping[str, Any]]:
        if len(machine.links) == 2:
            if not interrupted:
                raise RefusalError(errno.ENOMEM)
            os.kill(os.getpid(), number)
        return attach(*asked)

    def detaching(*asked: Any) -> Sequence[Mapping[str, Any]]:
        if len(machine.links) == 2:
            os.kill(os.getpid(), number)
        return detach(*asked)

    module.handlers |= {Command.ATTACH: attaching, Command.DETACH: detaching}
    assert run(["apply", file]) == 130
    assert machine.links == {}


def test_an_undo_that_is_given_up_says_what_stays(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", THREE)
    attach, detach = module.handlers[Command.ATTACH], module.handlers[Command.DETACH]

    def attaching(*asked: Any) -> Sequence[Mapping[str, Any]]:
        if len(machine.links) == 2:
            raise RefusalError(errno.ENOMEM)
        made = attach(*asked)
        machine.links[made[0]["link"]]["owner-pid"] = os.getpid()
        return made

    def detaching(*asked: Any) -> Sequence[Mapping[str, Any]]:
        # different ones: pending signals of one kind merge
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        return detach(*asked)

    module.handlers |= {Command.ATTACH: attaching, Command.DETACH: detaching}
    assert run(["apply", file]) == 1
    assert capsys.readouterr().err == (
        "ipttctl: third: attaching: Cannot allocate memory [ENOMEM]; not undone: link 1; "
        "apply again to complete it\n"
    )
    assert list(machine.links) == [1]
    module.handlers |= {Command.ATTACH: attach, Command.DETACH: detach}
    assert run(["apply", file]) == 0
    assert sorted(machine.links) == [1, 3, 4]


def test_what_cannot_be_undone_is_said_and_the_rest_undone(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], module: FakeModule
) -> None:
    file = given(tmp_path / "state.yaml", THREE)
    machine.refused[Command.DETACH] = errno.EBUSY
    attach = module.handlers[Command.ATTACH]

    def attaching(*asked: Any) -> Sequence[Mapping[str, Any]]:
        if len(machine.links) == 2:
            raise RefusalError(errno.ENOMEM)
        return attach(*asked)

    module.handlers[Command.ATTACH] = attaching
    assert run(["apply", file]) == 1
    assert capsys.readouterr().err == (
        "ipttctl: third: attaching: Cannot allocate memory [ENOMEM]; not undone: "
        "link 2 (detaching link 2: not today [EBUSY]), link 1 (detaching link 1: not today "
        "[EBUSY]); apply again to complete it\n"
    )


class Dictionary:
    """A map, by its operations, with room for a limited number of keys."""

    name = "words"

    def __init__(self, content: Mapping[bytes, bytes], room: int) -> None:
        self.content = dict(content)
        self.room = room

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key."""
        if len(self.content.keys() | {key}) > self.room:
            raise ProgramError("the map is full")
        self.content[key] = value

    def delete(self, key: bytes) -> bool:
        """Remove a key."""
        return self.content.pop(key, None) is not None


ENTRIES = (
    EntryChange(b"a", b"1", b"2"),
    EntryChange(b"b", b"1", None),
    EntryChange(b"c", None, b"2"),
    EntryChange(b"d", None, b"2"),
)


def difference(room: int) -> tuple[Dictionary, MapDifference]:
    words = Dictionary({b"a": b"1", b"b": b"1"}, room)
    return words, MapDifference(cast("Map", words), ENTRIES)


def test_a_map_that_fails_half_way_gets_back_what_it_had(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del machine
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    words, found = difference(room=2)
    monkeypatch.setattr("ipttctl.state.apply.map_steps", lambda _: [])
    monkeypatch.setattr(
        "ipttctl.state.apply.live_maps",
        lambda match, _: [("words", found)] if match.declared.name == "input" else [],
    )
    assert run(["apply", file]) == ProgramError.exit_code
    assert words.content == {b"a": b"1", b"b": b"1"}
    words.room = 3
    assert run(["apply", file]) == 0
    assert words.content == {b"a": b"2", b"c": b"2", b"d": b"2"}


@pytest.mark.parametrize("made", range(5))
@pytest.mark.parametrize("undone", range(5))
def test_a_map_knows_how_much_of_it_is_undone(made: int, undone: int) -> None:
    words, found = difference(room=4)
    change = MapChange(found)
    checks = iter(range(made))

    def check() -> None:
        if next(checks, None) is None:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        change.make(check)
    left = iter(range(undone))
    said = change.undo(lambda: next(left, None) is None)
    stays = max(0, made - undone)
    assert said == (f"{stays} of {made} changes of map words" if stays else "")
    changed = sum(words.content.get(e.key) == e.after for e in ENTRIES)
    assert changed == stays


def test_a_map_that_takes_nothing_back_is_said() -> None:
    words, found = difference(room=4)
    change = MapChange(found)
    change.make(lambda: None)
    words.room = 0
    # deletions are undone, additions are not
    assert change.undo(lambda: False) == "2 of 4 changes of map words"


def test_a_link_made_just_before_the_end_is_found_again(
    machine: Machine, module: FakeModule, record: Path, tmp_path: Path
) -> None:
    """The state is that after SIGKILL between an attach and its record."""
    file = given(tmp_path / "state.yaml", TWO)
    kept: list[bytes] = []
    attach = module.handlers[Command.ATTACH]

    def noting(command: Command, asked: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
        kept.append(record.read_bytes())
        answer = attach(command, asked)
        machine.links[answer[0]["link"]]["owner-pid"] = os.getpid()
        return answer

    module.handlers[Command.ATTACH] = noting
    assert run(["apply", file]) == 0
    # the second was never attached
    del machine.links[2]
    record.write_bytes(kept[-1])
    assert run(["apply", file]) == 0
    assert {n: v["generation"] for n, v in machine.links.items()} == {1: 1, 3: 1}
    record.write_bytes(kept[1])
    given(tmp_path / "state.yaml", "links: {}")
    assert run(["apply", file]) == 0
    assert machine.links.keys() <= {3}


def test_a_link_is_taken_over_by_its_id(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = machine.add(
        programs={
            "program": [{"slot": 3, "id": 7, "tag": bytes(8), "name": ""}],
            "filter": compile_filter(RETURN),
            "filter-length": 1,
            "cookie": 5,
        }
    )
    text = f"links: {{mine: {{link: {number}, id: exit=7, cookie: 5, filter: '{RETURN}'}}}}"
    file = given(tmp_path / "state.yaml", text)
    assert run(["apply", file]) == 0
    assert lines(capsys) == []
    assert Record.read(tmp_path / "record" / "declared.json").links[0].name == "mine"
    assert run(["save"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["links"]["mine"] == {
        "link": number, "hook": "table", "id": {"exit": 7}, "filter": RETURN, "cookie": 5,
    }  # fmt: skip  # pairs together
    given(tmp_path / "state.yaml", text.replace(f", filter: '{RETURN}'", ""))
    assert run(["diff", file]) == 9
    assert lines(capsys)[0].startswith(f"swap mine link={number} changes=filter ")


def test_more_links_than_a_transaction_takes(machine: Machine, tmp_path: Path) -> None:
    text = "links: {" + ", ".join(f"l{n}: {{fd: exit=7}}" for n in range(33)) + "}"
    state = read_state(given(tmp_path / "state.yaml", text))
    with Controller() as controller:
        assert len(apply_state(controller, state)) == 33
        other = read_state(given(tmp_path / "state.yaml", text.replace("=7", "=8")))
        with pytest.raises(UsageError, match="more than 32 links change"):
            apply_state(controller, other)
        assert {step.action for step in diff_state(controller, other)} == {StepAction.SWAP}
        assert apply_state(controller, State(state.links[:32])) != []
    assert len(machine.links) == 32
