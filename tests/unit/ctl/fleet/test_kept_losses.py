# SPDX-License-Identifier: GPL-2.0
"""Questions about what the hub keeps: what was lost is told, of the host that lost it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.cli import run
from ipttctl.fleet import kept as kept_module
from ipttctl.fleet.kept import KeptFrames, ReadBounds
from ipttctl.fleet.kept_losses import KeptLosses
from ipttctl.fleet.kept_tables import KeptTables
from ipttctl.frames.bodies import JSON_FORMAT, json_body
from ipttctl.frames.head import EVENTS, STORIES
from ipttctl.frames.writer import FrameNumbers
from tests.unit.ctl.fleet.hub_stream import (
    dropped,
    events,
    keep,
    no_wait,
    rows,
    settings,
    stories,
)
from tests.unit.ctl.fleet.support import (
    Key,
    Server,
    client,
)

__all__ = ["no_wait", "settings"]  # fixtures


def lossy(numbers: FrameNumbers, kind: str, causes: dict[str, int]) -> FrameNumbers:
    """Numbers whose next frame of a kind says that something was lost."""
    for cause, number in causes.items():
        numbers.lose(kind, cause, number)
    return numbers


KERNELS = {"ring": 5, "memory": 2, "nested": 3}


def test_what_was_lost_is_told_by_host_and_cause_and_once(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Frames of each kind tell the kernel's losses: a reader of stories alone learns of them."""
    one, two, three = (FrameNumbers(f"web{n}", "b") for n in (1, 2, 3))
    messages = [
        events(lossy(one, EVENTS, {**KERNELS, "stream": 50}), 2),
        stories(lossy(one, STORIES, {**KERNELS, "spool": 1, "untold": 2}), [dropped(1)]),
        events(lossy(two, EVENTS, {"observer": 1}), 1),
        stories(lossy(two, STORIES, {"observer": 1, "unknown": 4}), [dropped(2)]),
        # the frame of events that said it was lost itself, and comes again
        stories(lossy(three, STORIES, {"ring": 9}), [dropped(3)]),
        stories(three, [dropped(4)]),
    ]
    keep(leaf, reader_key, [*messages, messages[0], messages[1]])
    untold, nested = "3 stories (1 spool, 2 untold)", "3 runs of programs (nested)"
    unknown = "what 4 messages held (unknown)"
    of_stories = [
        f"web1 lost 7 events (2 memory, 5 ring), {untold} and {nested}",
        f"web2 lost 1 event (1 observer) and {unknown}",
        "web3 lost 9 events (9 ring)",
    ]
    of_both = [
        f"web1 lost 57 events (2 memory, 5 ring, 50 stream), {untold} and {nested}",
        *of_stories[1:],
    ]
    for arguments, expected in (
        (["query", "--hub", "--drops-by-rule", settings], of_stories),
        (["query", "--hub", "SELECT count(*) FROM hosts", settings], of_both),
        (["show", "--hub", settings], [*of_stories, "4 stories told"]),
        (["show", "--hub", "-c", "1", settings], [of_stories[0], "1 story told"]),
    ):
        assert run(arguments) == 0
        assert capsys.readouterr().err.splitlines() == expected
    assert run(["export", "--hub", settings, "--parquet", str(tmp_path / "tables")]) == 0
    assert capsys.readouterr().err.splitlines()[:-1] == of_both
    found = rows(capsys, "SELECT host, lost, thrown_away FROM hosts ORDER BY host", settings)
    assert [tuple(one.values()) for one in found] == [
        *(("web1", 10, 53), ("web2", 1, 0), ("web3", 9, 0)),
    ]


def test_nothing_lost_is_not_told_and_many_hosts_are_told_together(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [
        stories(lossy(FrameNumbers(f"web{n:02}", "b"), STORIES, {"ring": n}), [dropped(1)])
        for n in range(20)
    ]
    keep(leaf, reader_key, messages)
    assert run(["query", "--hub", "SELECT 1 FROM stories LIMIT 1", settings]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[0] for line in said[:-1]] == [f"web{n:02}" for n in range(1, 17)]
    assert said[-1] == "3 other hosts lost 54 events (54 ring)"


def test_nothing_of_hosts_that_nobody_asks_for_is_told(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where so many are chosen that the frames of all are read."""
    monkeypatch.setattr(kept_module, "_MOST_CONSUMERS", 1)
    one, two, three = (FrameNumbers(f"web{n}", "b") for n in (1, 2, 3))
    stories(three, [dropped(7)])
    messages = [
        stories(lossy(three, STORIES, {"ring": 9}), [dropped(1)]),
        ("ipttctl.story.web3", b"IPF"),
        stories(one, [dropped(2)]),
        stories(three, [dropped(3)]),
        stories(lossy(two, STORIES, {"ring": 4}), [dropped(4)]),
        stories(two, [dropped(5)]),
    ]
    keep(leaf, reader_key, messages)
    asked = ["show", "--hub", settings, "--hosts", "web1,web2"]
    assert run(asked) == 0
    said = ["web2 lost 4 events (4 ring)", "3 stories told"]
    assert capsys.readouterr().err.splitlines() == said
    # the bound is for what is asked for
    most = str(len(dropped(2)) + len(dropped(4)))
    assert run([*asked, "--most", most]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("left out: at most 1 frames behind 2")
    assert said[1:] == ["web2 lost 4 events (4 ring)", "2 stories told"]


def test_causes_and_runs_that_hosts_make_up_do_not_take_room_without_end() -> None:
    losses = KeptLosses()
    for number in range(5000):
        numbers = FrameNumbers("web1", "b", f"r{number}")
        numbers.lose(STORIES, "ring", 1)
        losses.take(numbers.head(STORIES, 0, JSON_FORMAT))
    for number in range(100):
        numbers = FrameNumbers("web2", "b")
        numbers.lose(STORIES, f"x{number}", 1)
        losses.take(replace(numbers.head(STORIES, 0, JSON_FORMAT), run="r"))
    said = [*losses.sentences()]
    assert said[0] == "web1 lost 5000 events (5000 ring)"
    assert len(losses._runs) <= 66
    assert all(len(told) <= 33 for run in losses._runs.values() for told in run._told.values())


def test_runs_that_a_host_makes_up_push_out_nobody_elses() -> None:
    """Beside 4096 runs of web2 there was no room for web1."""
    rows: list[dict[str, Any]] = []

    def sink(table: str, batch: Any) -> None:
        if table == "hosts":
            rows.extend(batch.select(["host", "lost"]).to_pylist())

    tables, losses = KeptTables(sink, frozenset({"hosts"})), KeptLosses()
    # the two names of web2 have the same subject
    for hosts, runs in ((("web.2", "web_2"), 20_000), (("web1",), 2)):
        for number in range(runs):
            numbers = FrameNumbers(hosts[number % len(hosts)], "b", f"r{number}")
            numbers.lose(STORIES, "ring", 1)
            head = numbers.head(STORIES, 0, JSON_FORMAT)
            tables.take(head, json_body([]))
            losses.take(head)
    left_out = "left out: 19744 frames of web_2, of more than 256 runs"
    assert tables.finish([], {}) == [left_out]
    assert [row for row in rows if row["host"] == "web1"] == [{"host": "web1", "lost": 1}] * 2
    assert [*losses.sentences()] == [
        "web.2 lost 19968 events (19968 ring)",
        "web1 lost 2 events (2 ring)",
        "web_2 lost 32 events (32 ring)",
    ]


def test_frames_that_come_twice_are_known_beside_runs_that_another_host_makes_up() -> None:
    client = SimpleNamespace(jetstream=lambda **_: None)
    asker: Any = SimpleNamespace(client=client)
    frames = KeptFrames(asker, ReadBounds(0, 1 << 30, 60))

    def told(*messages: tuple[str, bytes]) -> int:
        """The number of frames that are told."""
        hosts = (subject.rpartition(".")[2] for subject, _ in messages)
        sent = (Msg(None, subject=message[0], data=message[1]) for message in messages)  # type: ignore[arg-type]  # not asked
        return sum(frames._frame(*one) is not None for one in zip(sent, hosts, strict=True))

    one = FrameNumbers("web1", "b")
    again = [stories(one, ["{}"]) for _ in range(2)]
    assert told(*again) == 2
    others = [stories(FrameNumbers("web2", "b", f"r{n}"), ["{}"]) for n in range(5000)]
    assert told(*others) == 5000
    assert told(*again) == 0
    assert frames.sentences() == [
        "of 4872 runs of web2 it is not known whether frames came twice: there are more than 64",
    ]


def test_missing_items_are_told(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = FrameNumbers("web1", "b1")
    first = stories(numbers, [dropped(1)])
    stories(numbers, [dropped(2), dropped(3)])
    keep(leaf, reader_key, [first, stories(numbers, [dropped(4)])])
    assert run(["query", "--hub", "SELECT packet FROM stories", settings]) == 0
    assert "2 items of these hosts never came" in capsys.readouterr().err


@pytest.mark.parametrize("oldest", ["story", "event", "other host"])
def test_what_the_hubs_own_bound_threw_away_is_told(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    oldest: str,
) -> None:
    """Also where the oldest message that is left is none of those that are asked for."""
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")
    first, *rest = (stories(one, [dropped(n)]) for n in (1, 2, 3))
    between = {"event": [events(one, 1)], "other host": [stories(two, [dropped(4)])]}
    kept = [*between.get(oldest, []), *rest]
    keep(leaf, reader_key, [first, *kept], max_msgs=len(kept))
    asked = ["query", "--hub", "--hosts", "web1", "SELECT packet FROM stories", settings]
    assert run(asked) == 0
    said = capsys.readouterr()
    assert said.out.split() == ["packet", "2", "3"]
    [line] = said.err.splitlines()
    assert line.startswith("the hub keeps nothing from before 20")
    assert run([*asked, "--since", "1ms"]) == 0
    assert not capsys.readouterr().err.count("nothing from before")


def test_a_stream_that_lost_all_that_was_asked_for_is_told(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = FrameNumbers("web1", "b1")
    asked = ["query", "--hub", "SELECT packet FROM stories", settings]
    keep(leaf, reader_key, [])
    assert run(asked) == 0
    assert not capsys.readouterr().err
    keep(leaf, reader_key, [stories(numbers, [dropped(1)])])

    async def empty() -> None:
        async with client(leaf, reader_key) as user:
            await user.jetstream().purge_stream("ipttctl")

    asyncio.run(empty())
    assert run(asked) == 0
    assert capsys.readouterr().err.startswith("the hub keeps nothing from before 20")


@pytest.mark.parametrize("said", ["", 2, "then", "+292277026596-12-04T15:30:07Z"])
def test_a_hub_that_says_nothing_of_its_oldest_message_is_an_error(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: object,
) -> None:
    """A hub that was taken over answers anything."""
    numbers = FrameNumbers("web1", "b1")
    keep(leaf, reader_key, [stories(numbers, [dropped(n)]) for n in (1, 2)], max_msgs=1)
    answered = Client.request

    async def request(self: Client, subject: str, *args: Any, **more: Any) -> Msg:
        answer = await answered(self, subject, *args, **more)
        if "STREAM.INFO" in subject:
            found = json.loads(answer.data)
            found["state"]["first_ts"] = said
            answer.data = json.dumps(found).encode()
        return answer

    monkeypatch.setattr(Client, "request", request)
    assert run(["query", "--hub", "SELECT packet FROM stories", settings]) == 1
    expected = "cannot read what the hub keeps: it tells nothing of its stream ipttctl"
    assert expected in capsys.readouterr().err
