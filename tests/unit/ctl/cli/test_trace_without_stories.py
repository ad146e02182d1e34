# SPDX-License-Identifier: GPL-2.0
"""Traces where there can be no stories."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.host import walk as host_walk
from ipttctl.host.walk import Walks
from ipttproto import Command, Feature, Hook, Walk
from tests.unit.ctl.cli.test_trace_stories import when_traced
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    event,
    events_message,
    status,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering", "programs")


def _old(module: FakeModule) -> None:
    features = Feature(sum(Feature)) & ~Feature.JOURNEYS
    module.handlers[Command.STATS] = lambda *_: [status(features=features)]


def _differs(module: FakeModule) -> None:
    module.handlers[Command.STATS] = lambda *_: [{**status(), "spine-walk": Walk.DIFFERS}]


def _busy(module: FakeModule) -> None:
    attach = module.handlers[Command.ATTACH]

    def refuse(command: Command, asked: dict[str, Any]) -> Sequence[Any]:
        if asked["hook"] == Hook.SPINE:
            raise RefusalError(errno.EBUSY, {"message": "a live patch redirects it"})
        return attach(command, asked)

    module.handlers[Command.ATTACH] = refuse


def _no_steps(module: FakeModule) -> None:
    attach = module.handlers[Command.ATTACH]

    def refuse(command: Command, asked: dict[str, Any]) -> Sequence[Any]:
        if asked["hook"] == Hook.JOURNEY:
            raise RefusalError(errno.EOPNOTSUPP, {"message": "this kernel has no such tracepoint"})
        return attach(command, asked)

    module.handlers[Command.ATTACH] = refuse


CAUSES = pytest.mark.parametrize(
    ("cause", "why"),
    [
        (_old, "the module that is loaded cannot follow packets"),
        (_differs, "on this kernel the module's walk does not do what the kernel does"),
        (_busy, "a live patch redirects it"),
        (_no_steps, "this kernel has no such tracepoint"),
    ],
)


@CAUSES
def test_lines_where_there_can_be_no_stories(
    cause: Callable[[FakeModule], None],
    why: str,
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(host_walk, "kept", Walks)
    when_traced(module, events_message([event(link=14)]), last=Hook.CHAIN)
    cause(module)
    assert run(["trace", "--stop-after", "20", "-c", "1"]) == 0
    captured = capsys.readouterr()
    header, line = captured.out.splitlines()
    assert (header.split()[0], "ipttrace=" in line) == ("TIME", True)
    said = captured.err.splitlines()
    [sentence] = [one for one in said if one.startswith("no stories can be told, so here are")]
    assert why in sentence
    assert said[-1] == "1 event, 1 packet, lost 0"
    *_, tables, chains = module.requested(Command.ATTACH)
    assert (tables["hook"], chains["hook"]) == (Hook.TABLE, Hook.CHAIN)
    assert "journey" not in tables
    # what was attached for stories went
    if cause is _busy:
        assert {"link": 11} in module.requested(Command.DETACH)


def test_other_refusals_are_errors(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: Any) -> Any:
        raise RefusalError(errno.EINVAL, {"message": "that makes no sense"})

    when_traced(module)
    module.handlers[Command.ATTACH] = refuse
    assert run(["trace"]) == 1
    assert "no stories" not in capsys.readouterr().err


@CAUSES
@pytest.mark.parametrize("option", ["--drops", "--summary", "--patience=2"])
def test_what_only_stories_have_is_an_error_then(
    cause: Callable[[FakeModule], None],
    why: str,
    option: str,
    module: FakeModule,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(host_walk, "kept", Walks)
    when_traced(module)
    cause(module)
    assert run(["trace", option]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("ipttctl: no stories can be told: ")
    assert why in said
    assert said.endswith("use --lines")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--lines --drops", "--drops is of stories; leave out --lines"),
        ("--lines --summary", "--summary is of stories; leave out --lines"),
        ("--lines --patience 2", "--patience is of stories; leave out --lines"),
        ("--lines --both-ways", "--both-ways is of packets that are followed; add --follow"),
        ("--columns time", "--columns is of lines; add --lines"),
        ("--no-follow", "--no-follow: stories are of packets that are followed; add --lines"),
        ("--patience 0", "--patience: 0 is not a number of seconds"),
        ("--patience nan", "--patience: nan is not a number of seconds"),
        ("--stop-after -1", "--stop-after: -1 is not a number of seconds"),
        ("--stop-after inf", "--stop-after: inf is not a number of seconds"),
    ],
)
def test_options_that_make_no_sense(
    line: str, said: str, module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["trace", *line.split()]) == 2
    assert capsys.readouterr().err.startswith(f"ipttctl: {said}")
    assert not module.requests
