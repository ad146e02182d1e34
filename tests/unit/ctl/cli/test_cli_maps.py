# SPDX-License-Identifier: GPL-2.0
"""``ipttctl map`` and the options for programs: invalid input is refused at once."""

from __future__ import annotations

import pytest

from ipttctl.cli import run
from ipttctl.link.wire import Connection
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, link, no_such_link

pytestmark = pytest.mark.usefixtures("left_open")


@pytest.fixture(autouse=True)
def _module(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "open", module.connect)
    module.handlers[Command.GET] = no_such_link


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "map get 3 1",
            "'3' is not LINK/NAME, map=ID or a path; see `ipttctl maps LINK` for the names",
        ),
        ("map get x!/y 1", "'x!' is neither the id nor the name of a link"),
        ("map get 0/y 1", "'0' is neither the id nor the name of a link"),
        ("map set 3/ 1 2", "'3/' is not LINK/NAME"),
        ("map get map=x 1", "map: 'x' is not a number"),
        ("map get map=0 1", "map: 0 is not between 1 and 4294967295"),
        ("map copy 3/x", "Missing argument 'TO'"),
        ("map copy x y", "'x' is not LINK/NAME, map=ID or a path"),
        ("map get 3/x", "Missing argument 'KEY'"),
        ("map set 3/x 1", "Missing argument 'VALUE'"),
        ("maps", "Missing argument 'LINK'"),
        ("attach --tag rule=12", "--tag: '12' is not a program's tag; it has 16 hex digits"),
        ("attach --pid rule=12", "--pid: '12' is not PID:FD"),
        ("attach --pid rule=0:1", "--pid: pid: 0 is not between 1 and"),
        ("attach --source rule=x.c", "--source: 'x.c' is not FILE:FUNCTION"),
        ("attach --object rule=x.o", "--object: 'x.o' is not FILE:SECTION"),
        ("attach --fd rule=7 --object rule=x.o:y", "slot rule is given twice"),
        ("attach --cookie 7", "no program is given; use --fd, --pinned, --id, --tag, --pid, --sou"),
    ],
)
def test_usage(
    line: str, message: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"ipttctl: {message}")
    assert not module.requested(Command.GET)


@pytest.mark.parametrize(
    "line", ["maps 3", "map get 3/x 1", "map set 3/x 1 2", "map delete 3/x 1", "map dump 3/x"]
)
def test_links_that_are_not_there(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 6
    assert capsys.readouterr().err == (
        "ipttctl: looking up link 3: there is no such link [ENOENT] (attribute link); "
        "see `ipttctl links`\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "map set 3/x 8 -1",
        "map set 3/x -8 -0x1",
        "map set 3/x -8 -1.5e3",
        "map get 3/x -1 -o json",
        "map delete 3/x -1",
    ],
)
def test_values_below_zero_are_no_options(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 6, capsys.readouterr().err


def test_words_that_are_too_many_are_refused() -> None:
    for line in ("map get 3/x 1 --outptu json", "map set 3/x 1 2 -3", "map dump 3/x -o xml"):
        assert run(line.split()) == 2


@pytest.mark.parametrize("form", ["text", "json"])
def test_links_without_programs_have_no_maps(
    form: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    module.handlers[Command.GET] = lambda *_: [link(programs={})]
    assert run(["maps", "3", "-o", form]) == 0
    assert capsys.readouterr().out == ""
    assert run(["map", "dump", "3/x"]) == 4
    assert capsys.readouterr().err == "ipttctl: link 3 has no map x\n"
