# SPDX-License-Identifier: GPL-2.0
"""Questions about what the hub keeps: a server whose stream has frames, and the command line."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from ipttctl.cli import run
from ipttctl.fleet import kept as kept_module
from ipttctl.fleet.heartbeat import Heartbeat
from ipttctl.fleet.kept import KeptFrames
from ipttctl.fleet.kept_tables import KeptTables
from ipttctl.frames.bodies import JSON_FORMAT, json_body
from ipttctl.frames.codec import decode, encode
from ipttctl.frames.head import STORIES
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
    FakeHost,
    Key,
    Server,
    agent_config,
    ask,
    client,
    running_agent,
    until,
)

__all__ = ["no_wait", "settings"]  # fixtures


def test_each_frame_is_there_once_whatever_came_twice(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")
    first = stories(one, [dropped(1), dropped(2)])
    kept = [first, events(one, 5), stories(two, [dropped(3)]), first, events(one, 2)]
    keep(leaf, reader_key, kept)
    found = rows(capsys, "SELECT host, count(*) AS n FROM drops GROUP BY ALL ORDER BY 1", settings)
    assert found == [{"host": "web1", "n": 2}, {"host": "web2", "n": 1}]
    assert rows(capsys, "SELECT count(*) AS n FROM events", settings) == [{"n": 7}]
    asked = "SELECT * FROM (SELECT host, events, stories, finished FROM hosts) ORDER BY host"
    assert [tuple(one.values()) for one in rows(capsys, asked, settings)] == [
        ("web1", 7, 2, None),
        ("web2", 0, 1, None),
    ]
    found = rows(capsys, "SELECT chain, rulenum FROM steps WHERE kind = 'rule'", settings)
    assert found == [{"chain": "input", "rulenum": 2}] * 3


def test_ready_queries_work_and_hosts_are_chosen(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin = time.time_ns()
    lines = []
    for number in (1, 2, 3):
        story = json.loads(dropped(number))
        # an hour and a half ago, a minute ago, now
        story["time_ns"] = begin - (5400, 60, 0)[number - 1] * 10**9
        lines.append(json.dumps(story, separators=(",", ":")))
    kept = [stories(FrameNumbers(f"web{n}", "b"), [line]) for n, line in enumerate(lines, 1)]
    keep(leaf, reader_key, kept)
    assert [one["drops"] for one in rows(capsys, "--drops-by-rule", settings)] == [2]
    [found] = rows(capsys, "--drops-by-rule", "--since", "2h", settings)
    assert (found["drops"], found["chain"], found["rulenum"]) == (3, "input", 2)
    [found] = rows(capsys, "--drops-by-rule", "--since", "2h", "--hosts", "web1,web3", settings)
    assert found["drops"] == 2
    assert run(["query", "--hub", "--ends", "--hosts", "role=node", settings]) == 1
    assert "no host that is meant is heard of" in capsys.readouterr().err


def test_whatever_hosts_say_of_themselves_are_rows() -> None:
    """Numbers of losses and of links come from anybody who can speak as a host."""
    rows: dict[str, list[dict[str, Any]]] = {}

    def sink(table: str, batch: Any) -> None:
        names = {"link", "lost", "thrown_away"} & {*batch.schema.names}
        rows.setdefault(table, []).extend(batch.select(sorted(names)).to_pylist())

    tables = KeptTables(sink, frozenset({"hosts", "links"}))
    numbers = FrameNumbers("web1", "boot1")
    for _ in range(3):
        head = replace(numbers.head(STORIES, 0, JSON_FORMAT), lost={"ring": 2**63 - 1, "spool": 7})
        tables.take(head, json_body([]))
    heard = Heartbeat(
        host="web1",
        labels={},
        kernel="",
        boot="boot1",
        run=numbers.run,
        version="",
        interval_ms=1000,
    )
    odd: list[Any] = [True, 1.5, "3", None, [], 2**64, -(2**64), 4]
    links = [{"link": one, "generation": one, "name": one, "hook": one} for one in odd]
    assert tables.finish([heard], {"web1": [*links, *odd]}) == []
    [host] = rows["hosts"]
    assert (host["lost"], host["thrown_away"]) == (2**63 - 1, 21)
    assert [row["link"] for row in rows["links"]] == [*[None] * 7, 4, *[None] * 8]


def test_what_came_before_since_is_not_read(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_module, "SLACK", 0.0)
    numbers = FrameNumbers("web1", "b1")
    keep(leaf, reader_key, [stories(numbers, [dropped(1)])])
    # what is kept has to be older than the time that is asked for
    time.sleep(3)

    async def more() -> None:
        async with client(leaf, reader_key) as user:
            await user.jetstream().publish(*stories(numbers, [dropped(2)]))

    asyncio.run(more())
    assert rows(capsys, "--since", "2s", "SELECT packet FROM stories", settings) == [{"packet": 2}]
    # what was before the beginning is not missing
    assert run(["query", "--hub", "--since", "2s", "SELECT 1 FROM stories", settings]) == 0
    assert capsys.readouterr().err == ""


def test_what_hosts_made_before_since_does_not_count(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Reading begins a minute earlier, as clocks differ."""
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")

    def made(message: tuple[str, bytes], ago: int) -> tuple[str, bytes]:
        head, body = decode(message[1])
        lost = {"ring": ago}
        return message[0], encode(replace(head, time=head.time - ago * 10**9, lost=lost), body)

    messages = [
        made(stories(one, [dropped(1)]), 50),
        made(events(one, 3), 50),
        # what never came was before that as well
        made(stories(FrameNumbers("web1", "b1", one.run), [dropped(1)] * 5), 45),
        made(events(two, 4), 40),
        made(stories(one, [dropped(2)]), 5),
        made(events(one, 2), 5),
    ]
    keep(leaf, reader_key, messages)
    since = ("--since", "20s", settings)
    missing = "the hub keeps no {} of web2 from 20"

    def said(*options: str) -> tuple[list[str], str]:
        assert run([*options, *since]) == 0
        captured = capsys.readouterr()
        return captured.out.splitlines(), captured.err

    asked = "SELECT (SELECT count(*) FROM stories) AS s, (SELECT count(*) FROM events) AS e"
    assert rows(capsys, "--since", "20s", asked, settings) == [{"s": 1, "e": 2}]
    assert rows(capsys, "--since", "20s", "SELECT events, lost FROM hosts", settings) == [
        {"events": 2, "lost": 5}
    ]
    out, err = said("show", "--hub", "--hosts", "web1,web2", "-o", "json")
    assert [json.loads(line)["packet"] for line in out] == [2]
    assert err.startswith(missing.format("stories"))
    assert err.endswith("web1 lost 5 events (5 ring)\n1 story told\n")
    out, err = said("show", "--hub", "--lines", "--hosts", "web2")
    assert out == []
    assert err.startswith(missing.format("events"))
    said("export", "--hub", "--parquet", str(tmp_path / "tables"))
    assert len(pq.read_table(tmp_path / "tables" / "stories.parquet")) == 1


def test_bounds_leave_out_the_rest_and_tell_it(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = FrameNumbers("web1", "b1")
    kept = [stories(numbers, [dropped(n)]) for n in range(1, 101)]
    size = len(dropped(50))
    keep(leaf, reader_key, kept)
    assert (
        run(
            [
                "query",
                "--hub",
                "--most",
                str(10 * size),
                "SELECT count(*) AS n FROM drops",
                settings,
            ]
        )
        == 0
    )
    said = capsys.readouterr()
    count = int(said.out.split()[-1])
    assert 8 <= count <= 11
    assert f"left out: {100 - count} frames behind 2" in said.err
    assert "(the bound of --most)" in said.err


def test_frames_of_others_are_not_taken(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A leaf says whose frames it passes on by the subject alone."""
    _, forged = stories(FrameNumbers("web1", "b1"), [dropped(1)])
    numbers = FrameNumbers("web2", "b2")
    subject, good = stories(numbers, [dropped(2)])
    lines = stories(numbers, ["[]", "no story", dropped(3)])
    keep(
        leaf,
        reader_key,
        [("ipttctl.story.web2", forged), (subject, b"IPF"), (subject, good), lines],
    )
    assert run(["query", "--hub", "-o", "json", "SELECT host, packet FROM stories", settings]) == 0
    said = capsys.readouterr()
    found = [tuple(json.loads(line).values()) for line in said.out.splitlines()]
    assert found == [("web2", 2), ("web2", 3)]
    assert "2 damaged frames passed over" in said.err


def test_a_hub_that_sends_what_is_none_ends_no_reading(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One that was taken over sends any time with a message, also one that no calendar has."""
    whole = KeptFrames._next

    async def more(frames: KeptFrames, pulled: Any, waiting: int) -> list[Msg]:
        good = await whole(frames, pulled, waiting)
        times = ("1" + "0" * 30, "1" + "0" * 400, "soon")
        replies = ["", "$JS.ACK.x", *(f"$JS.ACK.s.c.1.1.1.{one}.0" for one in times)]
        client: Any = None
        return [*(Msg(client, good[0].subject, one, good[0].data) for one in replies), *good]

    monkeypatch.setattr(KeptFrames, "_next", more)
    numbers = FrameNumbers("web1", "b1")
    keep(leaf, reader_key, [stories(numbers, [dropped(n)]) for n in (1, 2, 3)])
    for line in (
        ["query", "--hub", "--ends", settings],
        ["show", "--hub", settings],
        ["export", "--hub", "--parquet", str(tmp_path / "tables"), settings],
    ):
        assert run(line) == 0
        assert "5 damaged frames passed over" in capsys.readouterr().err


def test_hosts_of_which_nothing_is_kept_are_named(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")
    told = [stories(two, [dropped(number)]) for number in (1, 2)]
    keep(leaf, reader_key, [events(one, 1), *told])

    def said(*arguments: str) -> str:
        assert run([*arguments, settings]) == 0
        return capsys.readouterr().err

    query = ("query", "--hub", "--ends", "--hosts")
    assert said(*query, "web2") == ""
    assert re.fullmatch(
        r"the hub keeps no stories of nosuch\.example, web1 from 20.* UTC on\n",
        said(*query, "web2,nosuch.example,web1"),
    )
    [line] = said("query", "--hub", "--hosts", "web1,none", "SELECT * FROM hosts").splitlines()
    assert line.startswith("the hub keeps no events or stories of none from ")
    # those of more than 16 hosts have one consumer
    many = ",".join(f"a{number:02d}" for number in range(20))
    assert "no stories of a00, a01, a02, a03, a04, a05, a06, a07 and 12 more from" in said(
        *query, f"{many},web2"
    )
    assert "keeps no" not in said(*query, f"{many},web2", "--most", "1")
    assert "keeps no" not in said("show", "--hub", "-c", "1", "--hosts", "web2,web9")
    assert "keeps no stories of web9 from" in said("show", "--hub", "--hosts", "web2,web9")
    links = said("query", "--hub", "--hosts", "web1", "SELECT * FROM links")
    assert links == "the links of web1 are not known: nothing is heard of it\n"


@pytest.mark.parametrize("hosts", ["", " ", ","])
def test_hosts_that_are_not_said_are_not_all_of_them(
    hosts: str, settings: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (
        ["query", "--hub", "--ends", "--hosts", hosts, settings],
        ["show", "--hub", "--hosts", hosts, settings],
        ["export", "--hub", "--hosts", hosts, "--parquet", str(tmp_path / "tables"), settings],
        ["trace", "--hosts", hosts, "--hub", settings],
    ):
        assert run(line) == 2
        said = capsys.readouterr().err
        assert said == "ipttctl: --hosts: nobody is chosen; write all for all hosts\n"


@pytest.mark.parametrize("options", [[], ["-c", "1"], ["--lines", "-c", "1"]], ids=str)
def test_no_consumer_stays_at_the_hub(
    options: list[str], leaf: Server, reader_key: Key, settings: str
) -> None:
    numbers = FrameNumbers("web1", "b")
    kept = [stories(numbers, [dropped(n)]) for n in range(1, 5)]
    keep(leaf, reader_key, [*kept, events(numbers, 2), events(numbers, 2)])
    assert run(["show", "--hub", settings, *options]) == 0

    async def left() -> int:
        async with client(leaf, reader_key) as user:
            return len(await user.jetstream().consumers_info("ipttctl"))

    assert asyncio.run(left()) == 0


def test_tables_go_to_parquet_for_the_owner_only(
    leaf: Server,
    reader_key: Key,
    settings: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep(leaf, reader_key, [stories(FrameNumbers("web1", "b1"), [dropped(1)])])
    made = tmp_path / "tables"
    assert run(["export", "--hub", settings, "--parquet", str(made)]) == 0
    assert "1 stories" in capsys.readouterr().err
    assert pq.read_table(made / "drops.parquet").column("host").to_pylist() == ["web1"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in made.iterdir()} == {0o600}
    assert run(["query", "--drops-by-rule", str(made)]) == 0
    assert run(["export", "--hub", settings, "--pcapng", str(tmp_path / "x")]) == 2
    assert "the hub keeps no bytes of packets" in capsys.readouterr().err


def test_hosts_and_links_are_those_of_now(
    leaf: Server,
    agent_key: Key,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    links = [{"link": 3, "name": "lim", "hook": "nf", "generation": 2}, {"link": "x"}, 5]
    host = FakeHost(answer=links)  # type: ignore[arg-type]  # a host may answer anything
    config = agent_config(leaf, agent_key, "publish: {events: none}\n")

    async def asked() -> None:
        async with running_agent(config, host) as agent, client(leaf, reader_key) as reader:
            await until(lambda: agent.connection.client)
            await reader.jetstream().add_stream(
                StreamConfig(name="ipttctl", subjects=["ipttctl.none"])
            )
            assert (await ask(reader, verb="links"))["ok"]
            found = await asyncio.to_thread(
                rows, capsys, "SELECT host, link, name, generation FROM links", settings
            )
            assert [tuple(one.values()) for one in found] == [
                ("web1", 3, "lim", 2),
                ("web1", None, None, None),
                ("web1", None, None, None),
            ]
            query = "SELECT host, boot_id, run, module_version, events, finished FROM hosts"
            [found_host] = await asyncio.to_thread(rows, capsys, query, settings)
            assert tuple(found_host.values()) == (
                *("web1", host.boot, agent.numbers.run, "0.1.0", 0, False),
            )

    asyncio.run(asked())


def test_a_query_of_the_hub_reaches_nothing_else(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(leaf, reader_key, [])
    for statement in (
        "SELECT * FROM read_text('/etc/passwd')",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET enable_external_access = true",
    ):
        assert run(["query", "--hub", statement, settings]) == 2
        assert "ipttctl: the query " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "--hosts", "web1", "SELECT 1", "file"], "--hosts is of what a hub keeps"),
        (["query", "--most", "5M", "--ends", "file"], "--most is of what a hub keeps"),
        (["query", "--wait", "5", "--ends", "file"], "--wait is of what a hub keeps"),
        (["query", "--hub", "--wait", "0", "--ends"], "--wait: 0 is not a time above 0"),
        (["show", "--hub", "--wait", "nan"], "--wait: nan is not a time above 0"),
        (["trace", "--wait", "5"], "--wait is for other hosts"),
        (["query", "--hub", "SELECT 1", "a", "b"], "--hub takes one FILE"),
        (["query", "--hub"], "nothing is asked"),
        (["query", "--hub", "--most", "x", "SELECT 1"], "--most: 'x' is no number of bytes"),
        (["export", "--since", "1h", "file", "--parquet", "d"], "--since is of what a hub keeps"),
        (["query", "--hub", "SELECT 1", "/nowhere"], "/nowhere"),
        (["show", "--hub", "--lines", "--drops"], "--drops is of stories; leave out --lines"),
        (["show", "--hub", "--lines", "--rules"], "--rules: the hub keeps events without"),
        (["show", "--hub", "--rulesets"], "--rulesets does not go with --hub: the hub keeps no"),
        (["show", "--hub", "--patience", "3"], "--patience does not go with --hub: the hosts have"),
        (["show", "--hub", "--both-ways"], "--both-ways does not go with --hub"),
        (["show", "--hub", "--stop-after", "3"], "--stop-after does not go with --hub"),
        (["show", "--hub", "--backend", "nft"], "--backend does not go with --hub"),
        (["show", "--hub", "hub.yaml", "tcp"], "FILTER does not go with --hub: stories are chosen"),
        (["show", "--hub", "--icmpid", "0"], "--icmpid does not go with --hub"),
        (["show", "--hub", "-N", "web"], "-N does not go with --hub"),
        (["show", "--hub", "--rule", "filter"], "--rule does not go with --hub"),
        (["show", "--hub", "--columns", "time"], "--columns is of lines"),
        (["show", "--hub", "-T", "-t"], "-T and -t exclude each other"),
        (["show", "--since", "1h", "file"], "--since is of what a hub keeps"),
        (["show"], "no recording is given"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_hub_without_a_stream_or_that_is_gone_is_told(
    leaf: Server, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["query", "--hub", "--ends", settings]) == 1
    assert "the hub has no stream ipttctl" in capsys.readouterr().err
    leaf.kill()
    assert run(["query", "--hub", "--ends", settings]) == 1
    assert "no connection to nats://127.0.0.1" in capsys.readouterr().err
