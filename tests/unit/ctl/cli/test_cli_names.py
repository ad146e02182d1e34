# SPDX-License-Identifier: GPL-2.0
"""Names, labels and reasons on the command line, with a module in user space."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttproto import Command
from ipttproto.family import limit
from tests.unit.ctl.support import FakeModule, RefusalError, link, no_such_link, notification

pytestmark = pytest.mark.usefixtures("left_open", "answering")

PERSISTENT = {"flags": 1, "owner-portid": 0}
REPLACE = ["attach", "--fd", "rule=7", "--name", "web", "--persist", "--replace"]


def label(key: str, value: str) -> dict[str, str]:
    return {"key": key, "value": value}


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("links web", Command.GET),
        ("swap web --fd rule=7", Command.SWAP),
        ("confirm web", Command.CONFIRM),
        ("history web", Command.HISTORY),
        ("rename web edge", Command.RENAME),
        ("detach web", Command.DETACH),
    ],
)
def test_a_link_is_named_by_id_or_name(line: str, command: Command, module: FakeModule) -> None:
    module.handlers[Command.HISTORY] = lambda *_: []
    assert run(line.split()) == 0
    (asked,) = module.requested(command)
    assert (asked.get("name"), "link" in asked) == ("web", False)
    assert run(line.replace("web", "003").split()) == 0
    asked = module.requested(command)[1]
    assert (asked.get("link"), "name" in asked) == (3, False)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-3", "3rd", "a/b", "a b", "n" * 64, "4294967296", "\N{ARABIC-INDIC DIGIT SEVEN}"],
)
def test_what_is_no_link(text: str, module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["links"], ["history"], ["detach"], ["adopt"], ["confirm"], ["maps"]):
        assert run([*line, "--", text]) == 2
        assert "is neither the id nor the name of a link" in capsys.readouterr().err
    assert run(["events", f"--link={text}"]) == 2
    assert module.requests == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--name", "3"], "--name: '3' is no name of a link; it begins with a letter"),
        (["--name", "n" * 64], "63 characters at most"),
        (["--replace"], "give --name and --persist too"),
        (["--replace", "--name", "web"], "give --name and --persist too"),
        (["--keep-maps"], "a new link has nothing to keep; give --replace too"),
        (["--keep=filter", "--name", "web"], "a new link has nothing to keep"),
        (["--label", "x"], "--label: 'x' is not KEY=VALUE"),
        (["--label", "=x"], "--label: '=x' is not KEY=VALUE"),
        (["--label", "1=x"], "--label: '1=x' is not KEY=VALUE"),
        (["--label", "k" * 32 + "="], "31 characters at most"),
        (["--label", "a=1", "--label", "a=2"], "--label: a is given twice"),
        (["--label", "a=" + "\N{SNOWMAN}" * 22], "--label: a: the text is longer than 63 bytes"),
        ([f"--label=a{n}=" for n in range(9)], "a link has at most 8 labels"),
        (["--reason", "r" * 128], "--reason: the text is longer than 127 bytes"),
    ],
)
def test_what_a_link_cannot_be_called(
    options: list[str], sentence: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["attach", "--fd", "rule=7", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert module.requests == []


def test_notes_go_to_the_module(module: FakeModule, tmp_path: Path) -> None:
    given = ["--label", "team=core", "--label", "tier=", "--reason", "a fix"]
    assert run(["attach", "--fd", "rule=7", "--name", "web", "--persist", *given]) == 0
    assert run(["swap", "3", "--fd", "rule=7", *given]) == 0
    assert run(["swap", "3", "--fd", "rule=7"]) == 0
    assert run(["detach", "3", "--reason", "a fix"]) == 0
    file = tmp_path / "changes.yaml"
    file.write_text("[{link: web, fd: rule=7, label: {a: 1}}, {link: 4, fd: rule=7, label: {}}]")
    assert run(["swap", "--txn", str(file), "--reason", "a fix"]) == 0
    (attach,) = module.requested(Command.ATTACH)
    swap, plain = module.requested(Command.SWAP)
    for asked in (attach, swap):
        assert asked["labels"]["label"] == [label("team", "core"), label("tier", "")]
        assert asked["reason-text"] == "a fix"
    assert attach["name"] == "web"
    assert not {"labels", "reason-text", "name"} & plain.keys()
    assert module.requested(Command.DETACH)[0]["reason-text"] == "a fix"
    (transaction,) = module.requested(Command.TRANSACT)
    assert transaction["reason-text"] == "a fix"
    first, second = transaction["change"]
    assert (first["name"], first["labels"]) == ("web", {"label": [label("a", "1")]})
    assert (second["link"], second["labels"]) == (4, {})


def test_a_name_that_is_taken(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    def taken(*_: Any) -> Any:
        raise RefusalError(errno.EEXIST, {"message": "link 3 has this name"})

    module.handlers[Command.ATTACH] = module.handlers[Command.RENAME] = taken
    for line in ("attach --fd rule=7 --name web", "rename 4 web"):
        assert run(line.split()) == 11
        assert "link 3 has this name [EEXIST]" in capsys.readouterr().err


def test_replacing_a_link(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    """It is swapped if it is as it was seen, and if it is what would be made."""
    module.handlers[Command.GET] = lambda *_: [link(**PERSISTENT, name="web")]
    assert run(REPLACE) == 0
    assert module.requested(Command.ATTACH) == []
    (swap,) = module.requested(Command.SWAP)
    assert (swap["link"], swap["expect-generation"]) == (3, 2)
    for other, sentence in (
        (link(name="web"), "link 3 belongs to process 1234 (ipttctl)"),
        (link(**PERSISTENT, name="web", family=2), "link 3 is at another place"),
    ):
        module.handlers[Command.GET] = lambda *_, other=other: [other]
        assert run(REPLACE) == 11
        assert sentence in capsys.readouterr().err
    module.handlers[Command.GET] = no_such_link
    assert run(REPLACE) == 0
    (attach,) = module.requested(Command.ATTACH)
    assert (attach["name"], attach["flags"]) == ("web", 1)
    assert len(module.requested(Command.SWAP)) == 1


def test_names_in_the_output(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    noted = link(
        name="web", labels={"label": [label("team", "a b")]}, transaction=7,
        **{"reason-text": "a fix\n"},
    )  # fmt: skip  # pairs together
    module.handlers[Command.GET] = lambda *_: [noted]
    module.handlers[Command.HISTORY] = lambda *_: [
        {"history": [{"generation": 1, "action": 1, "transaction": 7, "reason": "a fix"}]}
    ]
    assert run(["links"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("link=3 name=web gen=2 ")
    assert r' label.team="a b" reason-text="a fix\n" ' in text
    assert run(["links", "-o", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["name"], value["labels"], value["transaction"]) == ("web", {"team": "a b"}, 7)
    assert value["reason_text"] == "a fix\n"
    assert run(["history", "web"]) == 0
    assert ' transaction=7 reason-text="a fix"' in capsys.readouterr().out
    assert run(["history", "web", "-o", "json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["transaction"], value["reason_text"]) == (7, "a fix")


def test_changes_of_a_named_link(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    module.handlers[Command.GET] = lambda *_: [link(name="web"), link(link=4)]
    gone = link(name="web", reason=1, **{"reason-text": "why"})
    module.when_connected(
        2,
        notification(Command.LINK_CHANGED, link(link=4)),
        notification(Command.LINK_DETACHED, gone),
    )
    assert run(["events", "--links", "--link", "web", "-c", "1", "-o", "json"]) == 0
    _, listed, change = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["link"] for one in listed["links"]] == [3]
    assert (change["reason"], change["reason_text"]) == ("request", "why")


def test_the_limits_are_those_of_the_documents() -> None:
    text = (Path(__file__).parents[4] / "docs/control.md").read_text()
    for name in ("LINK_NAME", "MAX_LABELS", "LABEL_KEY", "LABEL_VALUE", "REASON"):
        assert f" {limit(name)} " in text.replace("(", " ").replace("\n", " "), name
