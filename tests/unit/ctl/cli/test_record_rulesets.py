# SPDX-License-Identifier: GPL-2.0
"""Whole rulesets in recordings: listed in a namespace, written, and shown."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.cli.record_rulesets import RecordedRulesets
from ipttctl.recordings.writer import VERSION, RecordingWriter
from ipttctl.system.netns import within
from tests.unit.ctl.rules.support import Net

RULES = """
table ip t {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 22 accept comment "nobody met this"
    udp dport 9 drop
  }
}
"""


@pytest.fixture
def net() -> Iterator[Net]:
    """A namespace that a process keeps, by whose number it is found."""
    made = Net()
    process = within(made.fd, lambda: subprocess.Popen(["sleep", "60"]))
    yield made
    process.kill()
    process.wait()
    made.close()


def listed(rulesets: RecordedRulesets, count: int) -> list[dict[str, Any]]:
    """The next listings."""
    found: list[dict[str, Any]] = []
    end = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < end, found
        found += rulesets.take()
        time.sleep(0.01)
    return found


def test_a_namespace_is_listed_once_for_each_generation_and_change(net: Net) -> None:
    net.nft(RULES)
    inode = os.fstat(net.fd).st_ino
    rulesets = RecordedRulesets()
    rulesets._thread.start()
    begin = time.monotonic_ns()
    rulesets.want(net.cookie, inode, 1)
    [one] = listed(rulesets, 1)
    assert (one["netns_cookie"], one["netns"], one["backend"]) == (net.cookie, inode, "nft")
    assert begin <= one["began"] <= one["ended"] <= time.monotonic_ns()
    assert "nobody met this" in one["text"]
    # the same rules are not listed again, and not written again
    rulesets.want(net.cookie, inode, 1)
    rulesets.want(net.cookie, inode, 2)
    net.nft("add rule ip t input icmp type echo-request accept")
    rulesets.want(net.cookie, inode, 3)
    [other] = listed(rulesets, 1)
    assert "echo-request" in other["text"]
    begin = time.monotonic_ns()
    rulesets.end()
    assert list(rulesets.take()) == []
    assert time.monotonic_ns() - begin < 10_000_000_000


def test_a_namespace_that_is_gone_ends_nothing() -> None:
    rulesets = RecordedRulesets()
    rulesets._thread.start()
    rulesets.want(5, 4_000_000_000, 1)
    rulesets.end()
    assert list(rulesets.take()) == []
    assert not rulesets._thread.is_alive()


def made(path: Path, *rulesets: dict[str, Any]) -> Path:
    with RecordingWriter(path, "web1", "boot", 1 << 30, replace=False) as writer:
        begin = {"version": VERSION, "stories": True, "links": [], "patience_ns": 1}
        writer.note({"about": "recording", **begin})
        writer.note({"about": "netns", "cookie": 7, "moment": 0, "name": "web"})
        for one in rulesets:
            writer.note_rule({"about": "ruleset", **one})
        writer.end({"about": "end"})
    return path


def ruleset(**more: Any) -> dict[str, Any]:
    found = {"netns_cookie": 7, "netns": 4026532000, "backend": "nft", "table": ""}
    times = {"time": 1_000_000_000_123_456_789, "began": 5, "ended": 6}
    return {**found, **times, "text": "table ip t {\n\tchain c {\n\t}\n}\n", "why": "", **more}


def test_no_comment_looks_like_another_ruleset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = "# nft, namespace 4026532001 (db), 12:00:00.000000\ntable ip u {\n}\n"
    path = made(tmp_path / "file", ruleset(text=f'table ip t {{\n comment "x\n{forged}"\n}}\n'))
    assert run(["show", str(path), "--rulesets"]) == 0
    headers = [line for line in capsys.readouterr().out.split("\n") if line.startswith("#")]
    assert len(headers) == 1
    assert headers[0].startswith("# nft, namespace 4026532000 (web), ")


def test_they_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legacy = ruleset(
        backend="legacy", table="iptables-legacy-save filter", text="", why="it is too large"
    )
    path = made(tmp_path / "file", ruleset(text="x\x1b[31m\n"), ruleset(), legacy)
    assert run(["show", str(path), "--rulesets"]) == 0
    said = capsys.readouterr()
    lines = said.out.split("\n")
    assert lines[0].startswith("# nft, namespace 4026532000 (web), ")
    assert lines[0].endswith(".123456")
    assert lines[1:3] == ["    x\\x1b[31m", ""]
    assert lines[4:9] == [
        "    table ip t {",
        "        chain c {",
        "        }",
        "    }",
        "",
    ]
    assert lines[9].startswith("# iptables-legacy-save filter, namespace 4026532000 (web), ")
    assert lines[10:] == ["# not listed: it is too large", "", ""]
    assert said.err == ""

    assert run(["show", str(path), "--rulesets", "-o", "json"]) == 0
    [_, second, third] = map(json.loads, capsys.readouterr().out.splitlines())
    assert second == {
        "type": "ruleset",
        "netns": 4026532000,
        "netns_cookie": 7,
        "netns_name": "web",
        "backend": "nft",
        "table": None,
        "time_ns": 1_000_000_000_123_456_789,
        "began_ns": 5,
        "ended_ns": 6,
        "text": "table ip t {\n\tchain c {\n\t}\n}\n",
        "why": None,
    }
    assert third["why"] == "it is too large"


def test_what_is_none_is_passed_over_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "file", ruleset(netns="x"), ruleset())
    assert run(["show", str(path), "--rulesets"]) == 0
    said = capsys.readouterr()
    assert said.out.count("# nft") == 1
    assert "1 damaged frame" in said.err
    path = made(tmp_path / "other")
    assert run(["show", str(path), "--rulesets"]) == 0
    assert capsys.readouterr().err == f"{path} has no rulesets\n"


def test_namespaces_and_back_ends_are_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    legacy = {"backend": "legacy", "table": "iptables-legacy-save filter"}
    db = {"netns_cookie": 8, "netns": 4026532001}
    path = made(tmp_path / "file", ruleset(), ruleset(**legacy), ruleset(**db))

    def shown(*options: str) -> list[tuple[str, int]]:
        assert run(["show", str(path), "--rulesets", "-o", "json", *options]) == 0
        found = map(json.loads, capsys.readouterr().out.splitlines())
        return [(one["backend"], one["netns_cookie"]) for one in found]

    assert shown() == [("nft", 7), ("legacy", 7), ("nft", 8)]
    assert shown("-N", "web") == [("nft", 7), ("legacy", 7)]
    assert shown("-N", "4026532001") == [("nft", 8)]
    assert shown("-N", "/run/netns/web", "--backend", "legacy") == [("legacy", 7)]
    assert run(["show", str(path), "--rulesets", "-N", "4026532001", "--backend", "legacy"]) == 0
    assert capsys.readouterr().err == f"{path} has no rulesets of these\n"


@pytest.mark.parametrize(
    "options",
    [
        *(["tcp"], ["-H", "192.0.2.7"], ["--proto", "udp"], ["-P", "53"], ["--icmpid", "0"]),
        *(["-p", "5"], ["-4"], ["-6"], ["--link", "3"], ["--hook", "input"], ["--rule", "t"]),
        *(["--verdict", "drop"], ["-c", "1"], ["--drops"], ["--summary"], ["--lines"]),
        *(["--both-ways"], ["--patience", "3"], ["--stop-after", "3"]),
    ],
    ids=" ".join,
)
def test_what_chooses_otherwise_is_refused(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "file", ruleset())
    assert run(["show", str(path), "--rulesets", *options]) == 2
    said = capsys.readouterr()
    name = "FILTER" if options == ["tcp"] else options[0]
    assert said.out == ""
    assert said.err == (
        f"ipttctl: {name} does not go with --rulesets: rulesets are printed whole; "
        "choose by -N and --backend\n"
    )
