# SPDX-License-Identifier: GPL-2.0
"""``save``: the links that there are, as ``apply`` takes them."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli import run
from ipttproto import Command
from tests.unit.ctl.support import FakeModule, RefusalError, nf_link

if TYPE_CHECKING:
    pass

from tests.unit.ctl.state.support import (
    MISSING,
    OWN_NETNS,
    PERSISTENT,
    RETURN,
    TWO,
    Machine,
    given,
    lines,
)

pytestmark = pytest.mark.usefixtures("left_open")


def test_save_prints_what_apply_takes(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    machine.add(programs={"program": [{"slot": 3, "id": 7, "tag": bytes(8), "name": ""}]}, family=2)
    machine.add(flags=0, **{"owner-portid": 9})
    machine.add(**nf_link(flags=PERSISTENT, gone=1) | {"link": 5})
    # in a namespace that nothing here refers to
    machine.add(**nf_link(flags=PERSISTENT, netns=MISSING) | {"link": 6})
    lines(capsys)
    assert run(["save"]) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out) == {
        "links": {
            "verdicts": {
                "hook": "table", "id": {"exit": 7}, "filter": "udp port 53", "cookie": 16,
            },
            "input": {"hook": "nf:inet4/input@raw", "id": {"packet": 8}},
            "link-3": {"link": 3, "hook": "table", "family": 4, "id": {"exit": 7}},
        }
    }  # fmt: skip  # pairs together
    assert printed.err == (
        "link 4 is left out: process 1234 (ipttctl) owns it\n"
        "link 5 is left out: it is at no hook any more\n"
        f"link 6 is left out: link 6: no name and no process has network namespace {MISSING}\n"
    )
    assert run(["save", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == yaml.safe_load(printed.out)
    assert run(["apply", given(tmp_path / "saved.yaml", printed.out)]) == 0
    assert run(["diff", given(tmp_path / "saved.yaml", printed.out)]) == 0
    assert lines(capsys) == []


CHAINS = r"""
links:
  everywhere: {hook: chain, fd: {rule: 7}}
  here: {hook: chain, netns: /proc/self/ns/net, fd: {rule: 7}}
  one: {hook: 'chain:inet/a\x2fb\x20c/\xff', netns: OWN, fd: {entry: 7}}
"""


def test_links_at_chains_are_saved_where_they_are(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One in our own namespace is not one in all of them."""
    text = CHAINS.replace("OWN", str(OWN_NETNS))
    assert run(["apply", given(tmp_path / "state.yaml", text)]) == 0
    assert [asked.get("netns-fd") is None for asked in module.requested(Command.ATTACH)] == [
        True, False, False,
    ]  # fmt: skip  # in one line
    told = {"hook": 3, "family": 1, "table": "t", "armed": 0}
    machine.add(**told, programs={"program": [{"slot": 2, "id": 7, "tag": bytes(8), "name": ""}]})
    machine.add(**told, gone=1)
    lines(capsys)
    assert run(["save"]) == 0
    printed = capsys.readouterr()
    own = "/proc/self/ns/net"
    assert yaml.safe_load(printed.out)["links"] == {
        "everywhere": {"hook": "chain", "id": {"rule": 7}},
        "here": {"hook": "chain", "netns": own, "id": {"rule": 7}},
        "one": {"hook": r"chain:inet/a\x2fb\x20c/\xff", "netns": own, "id": {"entry": 7}},
        "link-4": {"link": 4, "hook": "chain:inet/t", "id": {"rule": 7}},
    }
    assert printed.err == "link 5 is left out: it is at no hook any more\n"
    saved = given(tmp_path / "saved.yaml", printed.out)
    assert run(["diff", saved]) == 0
    assert run(["apply", saved]) == 0
    assert lines(capsys) == []
    # another name, or all namespaces, is another place
    for before, after in (("a\\x2fb", "a"), (f"    netns: {own}\n", "")):
        assert before in printed.out
        moved = given(tmp_path / "moved.yaml", printed.out.replace(before, after))
        assert run(["diff", moved]) == 9
        assert any(line.startswith("attach ") for line in lines(capsys))


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("tag: {exit: 00000000000000ff}", True),
        ("tag: {exit: 0000000000000000}", False),
        ("id: {exit: 7}", True),
        ("id: {exit: 8}", False),
    ],
)
def test_programs_by_tag_and_by_id(
    machine: Machine, tmp_path: Path, source: str, same: bool
) -> None:
    program = {"slot": 3, "id": 7, "tag": bytes(7) + b"\xff", "name": ""}
    number = machine.add(programs={"program": [program]})
    file = given(tmp_path / "state.yaml", f"links: {{mine: {{link: {number}, {source}}}}}")
    assert run(["diff", file]) == (0 if same else 9)


def test_save_knows_nothing_of_what_somebody_else_swapped(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    machine.links[1]["generation"] += 1
    machine.links[1]["programs"] |= {
        "filter": compile_filter(RETURN), "filter-length": 1, "cookie": 0,
    }  # fmt: skip  # pairs together
    lines(capsys)
    assert run(["save"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["links"]["verdicts"] == {
        "hook": "table", "id": {"exit": 7}, "filter": RETURN,
    }  # fmt: skip  # pairs together


def test_save_passes_over_a_link_that_goes_meanwhile(
    machine: Machine, module: FakeModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = given(tmp_path / "state.yaml", TWO)
    assert run(["apply", file]) == 0
    get = module.handlers[Command.GET]

    def going(command: Command, asked: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
        if asked.get("link") == 1:
            raise RefusalError(errno.ENOENT)
        return get(command, asked)

    module.handlers[Command.GET] = going
    lines(capsys)
    assert run(["save"]) == 0
    assert list(yaml.safe_load(capsys.readouterr().out)["links"]) == ["input"]
    assert set(machine.links) == {1, 2}


def test_save_finds_names_that_apply_did_not_give(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TWO.replace("verdicts", "link-3").replace("input:", "link-3-:")
    assert run(["apply", given(tmp_path / "state.yaml", text)]) == 0
    machine.add(programs={"program": [{"slot": 3, "id": 7, "tag": bytes(8), "name": ""}]})
    lines(capsys)
    assert run(["save"]) == 0
    assert list(yaml.safe_load(capsys.readouterr().out)["links"]) == [
        "link-3", "link-3-", "link-3--",
    ]  # fmt: skip  # in one line
