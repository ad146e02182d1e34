# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace`` tells stories of packets, with a module in user space that follows them."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ipttctl.cli import run
from ipttctl.link.streams import EventStream
from ipttctl.system import netns
from ipttproto import Command, EventBatch, Hook, Kind, Slot
from tests.unit.ctl.stories.packets import Traveller, flood, to_docker
from tests.unit.ctl.support import (
    FakeModule,
    event,
    events_message,
    in_traffic,
    interrupt_when_handled,
    link,
    notification,
    status,
)

pytestmark = pytest.mark.usefixtures("left_open", "answering", "programs")

#: the links of a trace, in order, by their hooks
IDS = {Hook.JOURNEY: 11, Hook.SPINE: 12, Hook.CHAIN: 13, Hook.TABLE: 14}
ALL = "tracing: links 11, 12, 13, 14"


def made(hook: int, **changes: Any) -> dict[str, Any]:
    """The link at a hook."""
    place: dict[int, dict[str, Any]] = {
        Hook.JOURNEY: {"armed": 32},
        Hook.SPINE: {"armed": 16},
        Hook.CHAIN: {"armed": 8},
        Hook.TABLE: {"armed": 3},
    }
    return link(link=IDS[Hook(hook)], hook=hook, stats={}, **place[hook] | changes)


def message(*packets: Traveller, of: int = IDS[Hook.SPINE], sequence: int = 0) -> bytes:
    """The events of packets, seen by a link; ``sequence`` is the number of the first."""
    events = [{**one, "link": of} for packet in packets for one in packet.events]
    return events_message(sorted(events, key=lambda one: one["time"]), sequence=sequence)


def when_traced(module: FakeModule, *messages: bytes, last: int = Hook.TABLE) -> None:
    """Send messages once the last link is requested."""

    def attach(_: Command, asked: dict[str, Any]) -> Sequence[dict[str, Any]]:
        if asked["hook"] == last:
            for one in messages:
                module.multicast(one)
        return [made(asked["hook"])]

    module.handlers[Command.ATTACH] = attach
    hooks = {number: hook for hook, number in IDS.items()}
    module.handlers[Command.DETACH] = lambda _, asked: [made(hooks[asked["link"]])]


def delivered(number: int = 1) -> Traveller:
    """A packet that a socket takes."""
    [packet] = flood(1, number)
    return packet


def test_a_story_is_printed_when_it_ends(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    packet = to_docker()
    when_traced(module, message(packet))
    assert run(["trace", "--stop-after", "20", "-c", "1"]) == 0
    captured = capsys.readouterr()
    heading, *_, answer = captured.out.splitlines()
    assert "tcp 192.0.2.7:51324 > 203.0.113.5:8080 SYN  in by eth0" in heading
    assert answer.strip().startswith("dropped by filter DOCKER-USER 1")
    assert captured.err.splitlines()[1:] == [
        ALL,
        "1 story told",
        f"{len(packet.events)} events, lost 0",
    ]


def test_a_trace_ends_in_traffic_that_does_not(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    when_traced(module)
    statuses = in_traffic(module)
    interrupt_when_handled()
    assert run(["trace"]) == 0
    assert "lost 0" in capsys.readouterr().err
    assert next(statuses) < 20


def test_the_links_are_on_a_journey(module: FakeModule) -> None:
    when_traced(module, message(to_docker()))
    assert run(["trace", "--stop-after", "20", "-c", "1", "--sample", "1/9", "tcp"]) == 0
    journey, *others = module.requested(Command.ATTACH)
    assert [asked["hook"] for asked in (journey, *others)] == list(IDS)
    assert "journey" not in journey
    assert {asked["journey"] for asked in others} == {IDS[Hook.JOURNEY]}
    slots = [[one["slot"] for one in asked["programs"]["program"]] for asked in (journey, *others)]
    tables = [Slot.ENTRY, Slot.RULE, Slot.EXIT]
    assert slots == [[Slot.STEP], [Slot.ENTRY, Slot.EXIT, Slot.FUNCTION], tables, tables]
    # which packets are followed is the others' choice
    assert journey["programs"].keys() == {"program"}
    for asked in others:
        assert asked["programs"]["filter"]
        assert asked["programs"]["limits"]["sample"] == 9
    # the journey is the last to go: it has the others' packets
    assert [asked["link"] for asked in module.requested(Command.DETACH)] == [14, 13, 12, 11]


@pytest.mark.parametrize(
    ("backend", "hooks"),
    [
        ("legacy", [Hook.JOURNEY, Hook.SPINE, Hook.TABLE]),
        ("nft", [Hook.JOURNEY, Hook.SPINE, Hook.CHAIN]),
    ],
)
def test_stories_of_one_back_end(backend: str, hooks: list[Hook], module: FakeModule) -> None:
    when_traced(module, message(to_docker()), last=hooks[-1])
    assert run(["trace", "--stop-after", "20", "-c", "1", "--backend", backend]) == 0
    assert [asked["hook"] for asked in module.requested(Command.ATTACH)] == hooks


def test_packets_of_a_namespace_are_followed_out_of_it(
    module: FakeModule, programs: list[Any]
) -> None:
    """The entry program chooses them there; links are everywhere."""
    when_traced(module, message(to_docker()))
    assert run(["trace", "--stop-after", "20", "-c", "1", "-N", str(netns.own())]) == 0
    [options] = programs
    assert options.netns == netns.resolve(str(netns.OWN)).cookie
    assert not any("netns-fd" in asked for asked in module.requested(Command.ATTACH))


@pytest.mark.parametrize("summary", [[], ["--summary"]])
def test_relative_times_begin_with_the_first_event(
    summary: list[str], module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """The packet that comes first is not told first: it takes longer."""
    slow, fast = to_docker(), delivered(2)
    slow.time += 5_000_000_000
    slow.freed()
    when_traced(module, message(fast), message(slow, sequence=99))
    assert run(["trace", "-t", "--stop-after", "0.5", *summary]) == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if " > " in line and "." in line]
    moments = [float(line.split()[0]) for line in heads if line.strip()[0] in "-0123456789"]
    assert len(moments) == 2
    assert min(moments) == 0
    assert max(moments) > 0


def test_a_story_without_an_end_is_told_after_some_patience(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    packet = Traveller(start=time.monotonic_ns())
    packet.received("eth0")
    when_traced(module, message(packet))
    begin = time.monotonic()
    assert run(["trace", "--stop-after", "20", "-c", "1", "--patience", "0.3"]) == 0
    assert time.monotonic() - begin > 0.25
    captured = capsys.readouterr()
    assert "still open after it came in by eth0" in captured.out
    assert "1 story told" in captured.err


def test_a_story_whose_end_may_have_been_missed_says_so(
    module: FakeModule, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket had no room, and nothing came since."""
    packet = Traveller(start=time.monotonic_ns())
    packet.received("eth0")
    when_traced(module, message(packet))
    receive = EventStream._receive

    def overrun(stream: EventStream) -> list[EventBatch]:
        found = receive(stream)
        if found:
            stream.overruns += 1
            module.handlers[Command.STATS] = lambda *_: [status((9,))]
        return found

    monkeypatch.setattr(EventStream, "_receive", overrun)
    assert run(["trace", "--stop-after", "20", "-c", "1", "--patience", "0.3"]) == 0
    told = capsys.readouterr().out
    assert "still open after it came in by eth0, events were lost meanwhile" in told


def test_what_is_open_at_the_end_is_told_and_counted(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    packet = Traveller(start=time.monotonic_ns() + 10**9)
    packet.received("eth0")
    when_traced(module, message(packet))
    assert run(["trace", "--stop-after", "0.2", "--patience", "60"]) == 0
    captured = capsys.readouterr()
    assert "left unfinished after it came in by eth0" in captured.out
    assert captured.err.splitlines()[-2:] == ["1 story told, 1 still open", "1 event, lost 0"]


def test_drops_alone(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    drop = to_docker()
    for one in drop.events:
        one["packet"] = 9
    when_traced(module, message(delivered(1), delivered(2), drop))
    assert run(["trace", "--drops", "-c", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("dropped by") == 1
    assert "delivered" not in captured.out
    assert "1 story told, 2 without a drop" in captured.err.splitlines()


def test_a_drop_that_comes_late_is_told(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """As that of a packet that waited for its neighbour, whatever the patience is."""
    late = Traveller(start=time.monotonic_ns() - 9 * 10**9)
    late.sent("eth0")
    end = Traveller(start=time.monotonic_ns())
    end.dropped(7, "neigh_invalidate")
    open_yet = Traveller(2, late.time)
    open_yet.sent("eth0")
    when_traced(module, message(late, open_yet, delivered(3)), message(end, sequence=99))
    assert run(["trace", "--drops", "--patience", "0.01", "--stop-after", "0.3"]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("dropped: ") == 1
    assert "1 story told, 1 without a drop, 1 still open" in captured.err.splitlines()


@pytest.mark.parametrize("drops", [[], ["--drops"]])
def test_a_summary_counts_equal_stories(
    drops: list[str], module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    when_traced(module, message(delivered(1), delivered(2)))
    assert run(["trace", "--summary", "--stop-after", "0.3", *drops]) == 0
    lines = capsys.readouterr().out.splitlines()
    if drops:
        assert lines == ["0 packets, 0 ways"]
    else:
        assert (lines[0], lines[-1]) == ("2 packets, for example", "2 packets, 1 way")


def test_a_summary_in_json(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    when_traced(module, message(delivered(1), delivered(2)))
    assert run(["trace", "--summary", "-c", "2", "-o", "json"]) == 0
    head, group = map(json.loads, capsys.readouterr().out.splitlines())
    assert (head["stream"], group["type"], group["count"]) == ("stories", "story_group", 2)


def test_stories_in_json(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    when_traced(module, message(delivered(1), delivered(2)))
    assert run(["trace", "--stop-after", "20", "-c", "2", "-o", "json"]) == 0
    head, *stories = map(json.loads, capsys.readouterr().out.splitlines())
    assert head["stream"] == "stories"
    assert [(one["type"], one["packet"]) for one in stories] == [("story", 1), ("story", 2)]


def test_verbose_stories_have_every_function(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    when_traced(module, message(delivered()))
    assert run(["trace", "--stop-after", "20", "-c", "1"]) == 0
    assert "ipv4_conntrack_in" not in capsys.readouterr().out
    when_traced(module, message(delivered()))
    assert run(["trace", "--stop-after", "20", "-c", "1", "-v"]) == 0
    assert "ipv4_conntrack_in (nf_conntrack): accept" in capsys.readouterr().out


def test_it_is_counted_how_often_a_packet_is_not_followed(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """The module counts for all journeys since it was loaded."""
    when_traced(module, message(delivered()))
    attach, detach = module.handlers[Command.ATTACH], module.handlers[Command.DETACH]

    def counted(
        handler: Callable[..., Any], unfollowed: int, lost: int
    ) -> Callable[..., Sequence[dict[str, Any]]]:
        def handle(command: Command, asked: dict[str, Any]) -> Sequence[dict[str, Any]]:
            [one] = handler(command, asked)
            return [one | {"journey-unfollowed": unfollowed, "journey-lost": lost}]

        return handle

    module.handlers[Command.ATTACH] = counted(attach, 3, 1)
    module.handlers[Command.DETACH] = counted(detach, 10, 2)
    assert run(["trace", "--stop-after", "20", "-c", "1"]) == 0
    told = capsys.readouterr().err.splitlines()[-2]
    assert told == (
        "1 story told, 7 times a packet was not followed for lack of room, lost sight of 1 packet"
    )


def test_packets_that_are_left_out_are_told(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = event(kind=Kind.LEFT_OUT, link=12, table_handle=0, chain_handle=2, rule_handle=4)
    when_traced(module, events_message([left_out]), message(delivered()))
    assert run(["trace", "--stop-after", "20", "-c", "1"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "link 12: 6 packets left out (2 over the rate, 4 by the governor) so far" in said


def test_a_journey_that_somebody_else_ends_ends_the_trace(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = notification(Command.LINK_DETACHED, made(Hook.JOURNEY, reason=1))
    when_traced(module, gone)
    assert run(["trace"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "link 11 was detached by somebody else"


# --- lines ----------------------------------------------------------------------------------------


def test_lines_are_of_packets_that_are_not_followed(module: FakeModule) -> None:
    when_traced(module, events_message([event(link=14)]), last=Hook.CHAIN)
    assert run(["trace", "--lines", "-c", "1"]) == 0
    asked = module.requested(Command.ATTACH)
    assert [one["hook"] for one in asked] == [Hook.TABLE, Hook.CHAIN]
    assert not any("journey" in one for one in asked)


def test_lines_of_packets_that_are_followed(
    module: FakeModule, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their steps are lines too; links at chains are in all namespaces."""
    step = event(link=11, kind=Kind.JOURNEY_FREED, packet=1)
    when_traced(module, events_message([event(link=14, packet=1), step]), last=Hook.CHAIN)
    words = ["trace", "--lines", "--follow", "-c", "2", "-N", str(netns.own())]
    assert run(words) == 0
    journey, *others = module.requested(Command.ATTACH)
    assert [one["hook"] for one in (journey, *others)] == [Hook.JOURNEY, Hook.TABLE, Hook.CHAIN]
    assert {one["journey"] for one in others} == {11}
    assert not any("netns-fd" in one for one in others)
    _, rule, freed = capsys.readouterr().out.splitlines()
    assert ("ipttrace=" in rule, "journey=[freed" in freed) == (True, True)


@pytest.mark.parametrize("lines", [[], ["--lines", "--follow"]])
def test_answers_are_followed_if_wanted(lines: list[str], module: FakeModule) -> None:
    for options, ways in ((["--both-ways"], 2), ([], None)):
        when_traced(module, events_message([event(link=14, packet=1)] * 2), last=Hook.CHAIN)
        assert run(["trace", *lines, *options, "--stop-after", "0.1"]) == 0
        journey = [one for one in module.requested(Command.ATTACH) if one["hook"] == Hook.JOURNEY]
        assert journey[-1].get("journey-ways") == ways


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [[], ["--lines"]])
def test_a_command_is_traced_from_when_links_are_there(
    lines: list[str], module: FakeModule, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its output does not mix with ours."""
    when_traced(module)
    begin = time.monotonic()
    assert run(["trace", *lines, "-o", "json", "--cmd", "echo it runs; exit 7"]) == 0
    assert time.monotonic() - begin < 10
    captured = capfd.readouterr()
    assert len(captured.out.splitlines()) == 1
    said = captured.err.splitlines()
    at = said.index("it runs")
    assert any(one.startswith("tracing: link") for one in said[:at])
    assert said.index("the command has ended: exit status 7") > at
    assert said[-1].endswith("lost 0")


def test_what_a_command_sent_is_waited_for(
    module: FakeModule, capfd: pytest.CaptureFixture[str]
) -> None:
    """A story that is open when the command ends is told with its end."""
    packet = Traveller(start=time.monotonic_ns())
    packet.received("eth0")
    first = message(packet)
    packet.events.clear()
    packet.time = time.monotonic_ns()
    packet.socket()
    packet.freed()
    when_traced(module, first)
    asked = module.handlers[Command.DETACH]

    def late(command: Command, attributes: dict[str, Any]) -> Sequence[Any]:
        module.multicast(message(packet))
        return asked(command, attributes)

    module.handlers[Command.DETACH] = late
    begin = time.monotonic()
    assert run(["trace", "--cmd", "true", "--patience", "0.5"]) == 0
    assert time.monotonic() - begin > 0.4
    assert "open" in capfd.readouterr().out


def test_a_trace_that_ends_ends_its_command(
    module: FakeModule, capfd: pytest.CaptureFixture[str]
) -> None:
    """The processes that it has started too."""
    # told after some time: by then the command runs
    packet = Traveller(start=time.monotonic_ns())
    packet.received("eth0")
    when_traced(module, message(packet))
    begin = time.monotonic()
    assert (
        run(
            [
                "trace",
                "-c",
                "1",
                "--patience",
                "1",
                "--cmd",
                "sh -c 'echo $$; exec sleep 600'; true",
            ]
        )
        == 0
    )
    assert time.monotonic() - begin < 10
    said = capfd.readouterr().err.splitlines()
    assert "the command has ended: killed by signal 15" in said
    [pid] = [int(line) for line in said if line.isdigit()]
    assert ended(pid)


def ended(pid: int) -> bool:
    """Whether a process that is nobody's child here ends soon."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("lines", [[], ["--lines"]])
def test_a_trace_ends_after_some_time(lines: list[str], module: FakeModule) -> None:
    when_traced(module)
    begin = time.monotonic()
    assert run(["trace", *lines, "--stop-after", "0.2"]) == 0
    assert 0.2 <= time.monotonic() - begin < 10


def test_an_interrupt_ends_it(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    when_traced(module, message(delivered()))
    interrupt_when_handled()
    assert run(["trace"]) == 0
    captured = capsys.readouterr()
    assert "delivered to socket 4711" in captured.out
    assert "1 story told" in captured.err.splitlines()


# --- terminals ------------------------------------------------------------------------------------


class _Terminal(io.StringIO):
    """A terminal with the width in COLUMNS."""

    def isatty(self) -> bool:
        return True


def test_people_are_told_what_is_awaited(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = Traveller(start=time.monotonic_ns() + 10**9)
    packet.received("eth0")
    when_traced(module)
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    assert run(["trace", "--stop-after", "0.1"]) == 0
    when_traced(module, message(packet))
    assert run(["trace", "--stop-after", "0.5", "--patience", "60"]) == 0
    shown = terminal.getvalue()
    assert "\r\033[Kwatching, no packet yet\r\033[K" in shown
    assert "\r\033[Kwatching, 1 packet followed, nothing ended yet\r\033[K" in shown
    # no remark is behind that line
    assert all(not line.startswith("watching") for line in shown.split("\r\033[K")[-1].splitlines())


@pytest.mark.parametrize(
    ("options", "counts"), [(["--summary"], True), (["--summary", "-o", "json"], True), ([], False)]
)
def test_stories_are_counted_while_none_is_printed(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch, options: list[str], *, counts: bool
) -> None:
    when_traced(module, message(delivered(1), delivered(2)))
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    assert run(["trace", "--stop-after", "0.5", *options]) == 0
    shown = terminal.getvalue()
    assert ("\r\033[Kwatching, 2 stories counted\r\033[K" in shown) == counts
    assert ("counted" in shown) == counts


def test_a_summary_on_a_terminal_says_itself_how_many(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_traced(module, message(delivered(1)))
    monkeypatch.setattr(sys, "stdout", _Terminal())
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    assert run(["trace", "--summary", "--stop-after", "0.5"]) == 0
    assert "counted" not in terminal.getvalue()


def test_nothing_stands_in_the_way_of_a_command_that_runs(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    when_traced(module)
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    assert run(["trace", "--cmd", "sleep 0.2", "--patience", "0.5"]) == 0
    before, ended, _ = terminal.getvalue().partition("the command has ended: exit status 0")
    assert ended
    assert "watching" not in before


def test_a_pipe_is_not(module: FakeModule, capsys: pytest.CaptureFixture[str]) -> None:
    when_traced(module)
    assert run(["trace", "--stop-after", "0.1"]) == 0
    assert "watching" not in capsys.readouterr().err


def test_stories_fit_the_terminal(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := _Terminal())
    when_traced(module, message(to_docker()))
    assert run(["trace", "--stop-after", "20", "-c", "1"]) == 0
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 60


def test_a_summary_is_drawn_again_on_a_terminal(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No picture is higher than the terminal; the last one is whole."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", terminal := _Terminal())
    drop = to_docker()
    for one in drop.events:
        one["packet"] = 9
    when_traced(module, message(delivered(1), drop))
    assert run(["trace", "--summary", "--stop-after", "0.5"]) == 0
    before, *pictures, whole = terminal.getvalue().split("\033[H\033[J")
    assert not before
    assert pictures
    for picture in pictures:
        assert len(picture.splitlines()) <= 4
        assert picture.splitlines()[-1] == "2 packets, 2 ways"
    assert len(whole.splitlines()) > 5
