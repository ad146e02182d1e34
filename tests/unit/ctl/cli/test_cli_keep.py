# SPDX-License-Identifier: GPL-2.0
"""The options of swap that keep something, and ``--set``, with a module in user space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import keep, run, swap
from ipttctl.errors import ProgramError
from ipttctl.link.model import Link
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, link

pytestmark = pytest.mark.usefixtures("left_open")

FILTER = bytes(range(16))
SWAP = "swap 3 --fd entry=7"


@pytest.fixture(autouse=True)
def _filtered(module: FakeModule, answering: None) -> None:  # noqa: ARG001 - order
    """A single link comes with its filter."""
    programs = {**link()["programs"], "filter": FILTER}
    module.handlers[Command.GET] = lambda _, asked: [
        link(link=asked.get("link", 3), programs=programs)
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...]]]:
    """The link and the names with which maps are kept."""
    found: list[tuple[int, tuple[str, ...]]] = []

    class Nothing:
        """Maps that no program of a file gets."""

        def check_loaded(self, *_: Any) -> None:
            """Accept every program."""

        def finish(self) -> None:
            """Report nothing."""

    @contextmanager
    def keep_maps(of: Link, names: tuple[str, ...], *_: Any) -> Iterator[Nothing]:
        found.append((of.id, names))
        yield Nothing()

    monkeypatch.setattr(keep, "keep_maps", keep_maps)
    return found


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("--keep-maps", ()),
        ("--keep-maps=limits", ("limits",)),
        ("--keep-maps=limits,counts", ("limits", "counts")),
        ("--keep-maps=--", ("--",)),
    ],
)
def test_names_of_maps_come_after_an_equals_sign(
    options: str,
    names: tuple[str, ...],
    asked: list[tuple[int, tuple[str, ...]]],
    module: FakeModule,
) -> None:
    for line in (f"{SWAP} {options}", f"swap {options} 3 --fd entry=7"):
        assert run(line.split()) == 0
    assert asked == [(3, names)] * 2
    # the maps were those of this generation
    assert [swap["expect-generation"] for swap in module.requested(Command.SWAP)] == [2, 2]


@pytest.mark.parametrize(
    ("options", "programs"),
    [
        ("--keep filter", {"filter": FILTER}),
        ("--keep cookie,filter", {"filter": FILTER, "cookie": 5}),
        ("--keep cookie --keep filter --keep cookie", {"filter": FILTER, "cookie": 5}),
        # there is no payload
        ("--keep payload", {}),
    ],
)
def test_parts_are_taken_from_the_link(
    options: str, programs: dict[str, Any], module: FakeModule
) -> None:
    assert run(f"{SWAP} {options}".split()) == 0
    [sent] = module.requested(Command.SWAP)
    assert sent["programs"] == {"program": [{"slot": 1, "fd": 7}], **programs}
    assert sent["expect-generation"] == 2


def test_a_transaction_keeps_too(
    module: FakeModule, asked: list[tuple[int, tuple[str, ...]]], tmp_path: Path
) -> None:
    file = tmp_path / "changes"
    changes = [
        {"link": 3, "fd": {"entry": 7}, "keep-maps": True, "keep": "filter,cookie"},
        {"link": 4, "fd": {"entry": 8}, "keep-maps": ["limits"], "keep": ["cookie"]},
        {"link": 5, "fd": {"entry": 8}, "keep-maps": "limits,counts"},
        {"link": 6, "fd": {"entry": 8}, "keep-maps": False},
    ]
    file.write_text(json.dumps(changes))
    assert run(["swap", "--txn", str(file)]) == 0
    assert asked == [(3, ()), (4, ("limits",)), (5, ("limits", "counts"))]
    [sent] = module.requested(Command.TRANSACT)
    assert [change.get("expect-generation") for change in sent["change"]] == [2, 2, 2, None]
    assert [change["programs"].get("cookie") for change in sent["change"]] == [5, 5, None, None]
    assert [change["programs"].get("filter") for change in sent["change"]][:2] == [FILTER, None]


@pytest.mark.parametrize("option", ["--keep-maps", "--keep cookie"])
@pytest.mark.usefixtures("asked")
def test_the_swap_is_of_the_link_that_had_the_name(
    option: str, module: FakeModule, tmp_path: Path
) -> None:
    """Another link may get the name before the swap, and may be of the same generation."""
    assert run(f"swap web --fd entry=7 --label a=1 --force {option}".split()) == 0
    [sent] = module.requested(Command.SWAP)
    assert (sent["link"], sent["expect-generation"], sent["force"]) == (3, 2, 1)
    assert "name" not in sent
    assert sent["labels"] == {"label": [{"key": "a", "value": "1"}]}

    file = tmp_path / "changes"
    key, _, value = option.removeprefix("--").partition(" ")
    changes = [{"link": "web", "fd": {"entry": 7}, "label": {"a": 1}, key: value or True}]
    file.write_text(json.dumps(changes))
    assert run(["swap", "--txn", str(file), "--force"]) == 0
    [sent] = module.requested(Command.TRANSACT)
    [change] = sent["change"]
    assert (change["link"], change["expect-generation"], sent["force"]) == (3, 2, 1)
    assert "name" not in change
    assert change["labels"] == {"label": [{"key": "a", "value": "1"}]}


@pytest.mark.parametrize(
    ("line", "status", "sentence"),
    [
        (f"{SWAP} --keep x", 2, "--keep: 'x' is not a part that can be kept; parts are filter, "),
        (f"{SWAP} --keep filter,", 2, "--keep: '' is not a part that can be kept"),
        (f"{SWAP} --keep-maps=a,,b", 2, "--keep-maps: 'a,,b' is not a list of maps' names"),
        (f"{SWAP} --keep cookie --cookie 1", 2, "the cookie is to be kept, and another one is gi"),
        (f"{SWAP} --keep cookie --expect-gen 7", 7, "swapping link 3: the link has generation 2, "),
        (f"{SWAP} --keep-maps --expect-gen 7", 7, "swapping link 3: the link has generation 2, no"),
        ("swap --txn - --keep-maps", 2, "--txn has links, programs, labels and expectati"),
        ("swap --keep-maps", 2, "give the id or the name of a link, or --txn"),
        (f"{SWAP} --set x", 2, "--set: 'x' is not NAME=VALUE"),
        (f"{SWAP} --set =1", 2, "--set: '=1' is not NAME=VALUE"),
        (f"{SWAP} --set a=1 --set a=2", 2, "--set: constant a is given twice"),
        (f"{SWAP} --set a=1", 4, "constant a cannot be set: the programs are loaded already; give"),
        ("attach --fd rule=7 --set a=1", 4, "constant a cannot be set: the programs are loaded al"),
        ("attach --fd rule=7 --keep-maps", 2, "a new link has nothing to keep; give --replace too"),
    ],
)
def test_refusals(
    line: str,
    status: int,
    sentence: str,
    module: FakeModule,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(line.split()) == status
    told = capsys.readouterr().err
    assert told.startswith(f"ipttctl: {sentence}")
    assert told.count("\n") == 1
    assert module.requested(Command.SWAP) == module.requested(Command.ATTACH) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("keep-maps: 5", "change 1: keep-maps is neither true nor a list of maps' names"),
        ("keep-maps: []", "change 1: keep-maps is neither true nor a list of maps' names"),
        ("keep-maps: [x, 5]", "change 1: keep-maps is neither true nor a list of maps' names"),
        ("keep-maps: 'a,'", "change 1: keep-maps is neither true nor a list of maps' names"),
        ("keep: maps", "change 1: --keep: 'maps' is not a part that can be kept; parts are filter"),
        ("set: x", "change 1: --set: 'x' is not NAME=VALUE"),
        ("set: {x: 1.5}", "change 1: set: 1.5 is neither text nor a number"),
        ("set: {x: null}", "change 1: set: None is neither text nor a number"),
    ],
)
def test_refusals_in_a_transaction(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "changes"
    file.write_text(f"[{{link: 3, fd: entry=7, {text}}}]")
    assert run(["swap", "--txn", str(file)]) == 2
    assert f"--txn: {sentence}" in capsys.readouterr().err


def test_history_has_the_constants_of_loaded_programs(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(generation: int, program: int) -> dict[str, Any]:
        programs = [{"slot": 1, "id": program, "name": "limit"}]
        return {"generation": generation, "action": 1, "time": 0, "program": programs}

    def loaded(program: int) -> dict[str, Any]:
        if program == 11:
            raise ProgramError("there is no BPF program with id 11")
        return {"rate": 100, "log": True, "name": "a b"} if program == 12 else {}

    monkeypatch.setattr(swap, "constants_of", loaded)
    module.handlers[Command.HISTORY] = lambda *_: [
        {"link": 3, "history": [made(1, 11), made(2, 12), made(3, 13)]}
    ]
    assert run(["history", "3"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert second.endswith(r" entry.set.rate=100 entry.set.log=true entry.set.name=a\x20b")
    assert ".set." not in first + third
    assert run(["history", "3", "-o", "json"]) == 0
    shown = [json.loads(line)["constants"] for line in capsys.readouterr().out.splitlines()]
    assert shown == [{}, {"entry": loaded(12)}, {}]
