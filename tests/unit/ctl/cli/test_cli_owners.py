# SPDX-License-Identifier: GPL-2.0
"""Owners on the command line, with a module in user space."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttproto import Command, LinkFlag
from tests.unit.ctl.support import FakeModule, RefusalError, link, notification

pytestmark = pytest.mark.usefixtures("left_open", "answering")

EXCLUSIVE = int(LinkFlag.EXCLUSIVE)
PERSISTENT = int(LinkFlag.PERSISTENT)
_EXCLUSIVE_LINES = ("attach --fd rule=7 --exclusive", "adopt 3 --exclusive --force")
FORCED = {"forced-pid": 9, "forced-comm": "boss"}


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("swap 3 --fd rule=7", Command.SWAP),
        ("detach 3", Command.DETACH),
        ("release 3", Command.RELEASE),
    ],
)
def test_force_is_asked_for(line: str, command: Command, module: FakeModule) -> None:
    for options in ([], ["--force"]):
        assert run([*line.split(), *options]) == 0
    assert [asked.get("force") for asked in module.requested(command)] == [None, 1]


def test_a_transaction_by_force(module: FakeModule, tmp_path: Path) -> None:
    file = tmp_path / "changes.yaml"
    file.write_text("[{link: 3, fd: rule=7}]")
    assert run(["swap", "--txn", str(file), "--force", "--reason", "why"]) == 0
    (asked,) = module.requested(Command.TRANSACT)
    assert (asked["force"], asked["reason-text"]) == (1, "why")


def test_exclusive_links_are_asked_for(module: FakeModule) -> None:
    for number, line in enumerate(
        ("attach --fd rule=7 --exclusive", "adopt 3 --exclusive --force")
    ):
        module.when_connected(2 + 2 * number, notification(Command.LINK_DETACHED, link(reason=1)))
        assert run(line.split()) == 10
    (attach,), (adopt,) = module.requested(Command.ATTACH), module.requested(Command.ADOPT)
    assert (attach["flags"], adopt["flags"], adopt["force"]) == (EXCLUSIVE, EXCLUSIVE, 1)


def test_a_link_that_stays_has_no_exclusive_owner(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["attach", "--fd", "rule=7", "--exclusive", "--persist"]) == 2
    assert "leave out --exclusive or --persist" in capsys.readouterr().err
    assert module.requests == []


def test_a_refusal_names_the_owner(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "process 1234 (ipttctl) owns the link exclusively"

    def refuse(*_: Any) -> Any:
        raise RefusalError(errno.EBUSY, {"message": sentence})

    for command, line in (
        (Command.SWAP, "swap 3 --fd rule=7"),
        (Command.DETACH, "detach 3"),
        (Command.RELEASE, "release 3"),
        (Command.ADOPT, "adopt 3"),
    ):
        module.handlers[command] = refuse
        assert run(line.split()) == 1
        told = capsys.readouterr().err
        assert f"{sentence} [EBUSY]" in told
        assert "have the process release the link, or use --force" in told


@pytest.mark.parametrize("line", ["attach --fd rule=7", "adopt 3"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"flags": PERSISTENT, "owner-portid": 0}, "it was released, and stays"),
        ({"owner-portid": 78, "owner-pid": 9, "owner-comm": "boss"}, "process 9 (boss) owns it"),
    ],
)
def test_whoever_held_a_link_ends_when_it_goes_to_others(
    line: str,
    change: dict[str, Any],
    why: str,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module.when_connected(2, notification(Command.LINK_CHANGED, link(**change, **FORCED)))
    assert run(line.split()) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "link 3 was changed by force, by process 9 (boss)",
        f"link 3 is not ours any more: {why}",
    ]


def test_the_owner_is_told_who_forced_a_change(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.when_connected(
        2,
        notification(Command.LINK_SWAPPED, link(generation=3, **FORCED)),
        notification(Command.LINK_DETACHED, link(reason=1, **FORCED)),
    )
    assert run(["attach", "--fd", "rule=7"]) == 10
    err = capsys.readouterr().err.splitlines()
    assert "link 3 was swapped by force, by process 9 (boss)" in err
    assert "link 3 was detached by force, by process 9 (boss)" in err


def test_owners_in_the_output(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.GET] = lambda *_: [link(flags=EXCLUSIVE)]
    assert run(["links"]) == 0
    assert " owner=1234(ipttctl) exclusive=yes " in capsys.readouterr().out
    assert run(["links", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["exclusive"] is True
    for form in ("text", "json"):
        # each command makes two connections, after those of the commands before
        count = len(module._ends) + 2
        module.when_connected(count, notification(Command.LINK_CHANGED, link(**FORCED)))
        assert run(["events", "--links", "-c", "1", "-o", form]) == 0
    listed, text, _, listed_json, change = capsys.readouterr().out.splitlines()
    assert listed.startswith("listed ")
    assert text.startswith("changed forced-by=9(boss) link=3 ")
    assert json.loads(listed_json)["change"] == "list"
    value = json.loads(change)
    assert (value["forced_pid"], value["forced_comm"]) == (9, "boss")


def test_run_leaves_a_link_that_was_released(
    module: FakeModule, capfd: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.GET] = lambda *_: [link(**{"flags": PERSISTENT, "owner-portid": 0})]
    assert run(["run", "--fd", "rule=7", "--", "true"]) == 0
    err = capfd.readouterr().err.splitlines()
    assert "link 3 is not ours any more, and stays" in err
    assert " owner=persistent " in err[-1]
    assert module.requested(Command.DETACH) == []
