# SPDX-License-Identifier: GPL-2.0
"""`show --hub`: what the hub keeps, as recordings are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.fleet.asker import HubError
from ipttctl.fleet.kept_items import KeptItems
from ipttctl.frames.writer import FrameNumbers
from tests.unit.ctl.fleet.hub_stream import (
    dropped,
    events,
    keep,
    no_wait,
    settings,
    stories,
)
from tests.unit.ctl.fleet.support import (
    Key,
    Server,
)
from tests.unit.ctl.fleet.test_metrics import told
from tests.unit.ctl.stories.packets import flood, in_parts, one_story, to_docker

__all__ = ["no_wait", "settings"]  # fixtures


def test_stories_are_shown(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")
    delivered = told(one_story(to_docker())).line
    evil = json.loads(dropped(3))
    evil["end"]["text"] = "\x1b[31mred"
    first = stories(one, [dropped(1), "{}", '{"time_ns": 1e300}', delivered])
    keep(leaf, reader_key, [first, first, stories(two, [json.dumps(evil)])])
    assert run(["show", "--hub", settings]) == 0
    said = capsys.readouterr()
    heads = [line for line in said.out.splitlines() if line and not line.startswith(" ")]
    assert [line.split()[0] for line in heads] == ["web1", "web1", "web2"]
    assert heads[0].split()[2:] == [
        *("tcp", "192.0.2.7:51324", ">", "203.0.113.5:8080", "in", "4026531840")
    ]
    lines = said.out.splitlines()
    assert lines[1:4] == [
        "  device                  in by eth0",
        "  nft inet fw input 2     drop",
        "  dropped by nft inet fw input 2 (handle 12), 4 us after it began",
    ]
    changed = "  PREROUTING              nf_nat_ipv4_pre_routing; destination 203.0.113.5:8080 > "
    assert f"{changed}172.17.0.2:80" in lines
    assert "  filter DOCKER-USER 1    rule" in lines
    assert "  \\x1b[31mred, 4 us after it began" in lines
    assert "2 frames or stories that cannot be read passed over" in said.err
    assert said.err.endswith("3 stories told\n")
    assert run(["show", "--hub", "--drops", "-c", "1", "--hosts", "web2", settings]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("web2  ")
    assert said.err == "1 story told\n"
    assert run(["show", "--hub", "-o", "json", settings]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["host"], one["boot_id"]) for one in found if "end" in one] == [
        *(("web1", "b1"), ("web1", "b1"), ("web2", "b2"))
    ]


def test_drops_of_parts_and_copies_are_drops(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = told(in_parts()).line
    # a clone of which nobody cares is all that is dropped
    kept = json.loads(parts)
    kept["steps"] = [one for one in kept["steps"] if one["step"] != "branch" or one["folded"]]
    lines = [parts, json.dumps(kept), told(one_story(next(flood(1)))).line]
    keep(leaf, reader_key, [stories(FrameNumbers("web1", "b1"), lines)])
    assert run(["show", "--hub", "--drops", "-o", "json", settings]) == 0
    said = capsys.readouterr()
    [found] = map(json.loads, said.out.splitlines())
    assert found["steps"] == json.loads(parts)["steps"]
    assert said.err == "1 story told\n"


def test_a_story_speaks_for_its_own_host_alone(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up = {**json.loads(dropped(1)), "host": "web1", "boot_id": "b1", "run": "r1"}
    numbers = FrameNumbers("web2", "b2", "r2")
    keep(leaf, reader_key, [stories(numbers, [json.dumps(made_up), dropped(1)])])
    for options, count in (([], 2), (["--summary"], 1)):
        assert run(["show", "--hub", "-o", "json", *options, settings]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        told_by = [one.get("example", one) for one in found]
        assert [list(one.items())[:3] for one in told_by] == [
            [("host", "web2"), ("boot_id", "b2"), ("run", "r2")]
        ] * count


def test_stories_are_shown_as_asked(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = json.loads(told(one_story(to_docker())).line)
    for step in whole["steps"]:
        for call in step.get("functions", ()):
            for consulted in call["consulted"]:
                for rule in consulted["rules"]:
                    rule.update(rule=f"-A {rule['chain']}", rule_syntax="iptables", owner="docker")
    ended = json.loads(dropped(2))
    ended["time_ns"] = whole["time_ns"] + 1_500_000_123
    lines = ['{"time_ns": 1e300}', json.dumps(whole), json.dumps(ended)]
    keep(leaf, reader_key, [stories(FrameNumbers("web1", "b1"), lines)])

    def shown(*options: str) -> list[str]:
        assert run(["show", "--hub", *options, settings]) == 0
        return capsys.readouterr().out.splitlines()

    first, second = (line.split()[1] for line in shown("-t") if line.startswith("web1"))
    assert (first, second) == ("0.000000", "1.500000")
    first, second = (line.split()[1] for line in shown("-T") if line.startswith("web1"))
    assert second.endswith(f".{ended['time_ns'] % 10**9:09d}")
    short, verbose = shown(), shown("-v")
    assert set(short) < set(verbose)
    assert "  PREROUTING              iptable_raw_hook" in set(verbose) - set(short)
    assert "  filter FORWARD          drop" in verbose
    assert any("-A DOCKER-USER  [docker: " in line for line in short)
    assert not any("-A " in line or "docker:" in line for line in shown("--no-rules"))
    plain = [json.loads(line) for line in shown("--no-rules", "-o", "json")]
    assert '"-A ' not in json.dumps(plain)
    assert plain[1]["end"]["text"] == whole["end"]["text"]


def test_equal_stories_are_told_once(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")
    delivered = told(one_story(to_docker())).line
    kept = [
        stories(one, [dropped(1), delivered, "{}", dropped(2), dropped(3)]),
        stories(two, [dropped(4)]),
    ]
    keep(leaf, reader_key, kept)
    assert run(["show", "--hub", "--summary", settings]) == 0
    said = capsys.readouterr()
    heads = [line for line in said.out.splitlines() if line and not line.startswith(" ")]
    assert heads == ["3 packets, for example", "1 packet", "1 packet", "5 packets, 3 ways"]
    assert said.err.splitlines() == [
        "1 frames or stories that cannot be read passed over",
        "5 stories told",
    ]
    assert run(["show", "--hub", "--summary", "-o", "json", "--hosts", "web1", settings]) == 0
    groups = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(group["host"], group["count"]) for group in groups] == [("web1", 3), ("web1", 1)]
    assert groups[0]["example"]["packet"] == 1
    assert groups[0]["last_ns"] > groups[0]["first_ns"]


def test_what_was_counted_is_told_if_reading_ends_early(
    leaf: Server,
    reader_key: Key,
    settings: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep(leaf, reader_key, [stories(FrameNumbers("web1", "b"), [dropped(1), dropped(2)])])
    whole = KeptItems.stories

    async def cut_off(items: KeptItems, *arguments: Any) -> None:
        await whole(items, *arguments)
        raise HubError("the hub is gone")

    monkeypatch.setattr(KeptItems, "stories", cut_off)
    assert run(["show", "--hub", "--summary", settings]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "2 packets, 1 way"
    assert said.err == "2 stories told\nipttctl: the hub is gone\n"


def test_no_error_of_printing_passes_for_one_of_a_story(
    leaf: Server, reader_key: Key, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(leaf, reader_key, [stories(FrameNumbers("web1", "b"), [dropped(1), dropped(2)])])
    printed = []

    def fail(texts: Sequence[str]) -> None:
        printed.append(texts)
        raise BrokenPipeError

    monkeypatch.setattr("ipttctl.cli.show_kept.lines", fail)
    assert run(["show", "--hub", settings]) != 0
    assert len(printed) == 1


def test_events_are_shown(
    leaf: Server, reader_key: Key, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = FrameNumbers("web1", "b1"), FrameNumbers("web2", "b2")
    keep(leaf, reader_key, [events(one, 2), events(two, 3)])
    assert run(["show", "--hub", "--lines", settings]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["web1"] * 2 + ["web2"] * 3
    assert "rulenum=1" in said.out.splitlines()[1]
    assert said.err == "5 events\n"
    asked = ["show", "--hub", "--lines", "-c", "4", "-o", "json", settings]
    assert run(asked) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ("host", "boot_id", "rulenum")
    assert [tuple(one[name] for name in names) for one in found] == [
        *(("web1", "b1", 0), ("web1", "b1", 1)),
        *(("web2", "b2", 0), ("web2", "b2", 1)),
    ]
    assert run(["show", "--hub", "--lines", "--columns", "time", "-t", settings]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "web1  0.000000"
