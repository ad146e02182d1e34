# SPDX-License-Identifier: GPL-2.0
"""Items that the stream's bound throws away, counted over restarts of the agent, and once."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext

from ipttctl.errors import IpttctlError
from ipttctl.fleet import earlier as earlier_module
from ipttctl.fleet import ledger_keeper
from ipttctl.fleet.agent import Agent
from ipttctl.fleet.earlier import Earlier
from ipttctl.fleet.heartbeat import Selector, find_hosts
from ipttctl.fleet.ledger import KeptMessage, condensed
from ipttctl.fleet.ledger_file import LedgerNote, read_note, write_note
from ipttctl.fleet.publisher import _LOOK
from ipttctl.frames.codec import decode_head, encode
from ipttctl.frames.head import EVENTS, FrameError, FrameHead
from ipttctl.frames.writer import FrameNumbers
from tests.unit.ctl.fleet.conftest import LEAF
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
from tests.unit.ctl.fleet.test_agent import published

ALL = "publish: {events: all, linger: 10ms}\n"
SMALL = f"{ALL}stream: {{bytes: 4194304}}\n"
STREAM = "ipttctl-web1"

Then = Callable[[Agent], Coroutine[Any, Any, None]]


@dataclass
class Place:
    """A leaf, and the agents that run there one after the other."""

    leaf: Server
    agent_key: Key
    reader_key: Key
    told: list[str] = field(default_factory=list)
    """Sentences for the agents' logs."""

    @property
    def file(self) -> Path:
        """The agents' note."""
        return self.leaf.directory / f"agent/stream-{STREAM}.json"

    async def run(self, count: int, more: str = SMALL, then: Then | None = None) -> Agent:
        """Run an agent that publishes so many events, one a frame, and what it is to do then."""
        host = FakeHost()
        config = agent_config(self.leaf, self.agent_key, more)
        async with running_agent(config, host, self.told.append) as agent:
            await until(lambda: agent.publisher.ready)
            for number in range(count):
                host.feed.put(1)
                await until(partial(published, agent, number + 1))
            if then:
                await then(agent)
        return agent

    async def overflow(self, lost: int) -> Agent:
        """Run an agent whose stream is filled, until it has counted so many events."""

        async def full(agent: Agent) -> None:
            await self.fill()
            await until(lambda: agent.ledger.lost["events"] >= lost)

        return await self.run(0, then=full)

    async def fill(self) -> None:
        """Fill the stream: records are compressed, and these are alike."""
        async with client(self.leaf, self.reader_key) as user:
            for _ in range(5):
                await user.jetstream().publish("ipttctl.ev.web1", bytes(1_000_000))

    async def purge(self) -> None:
        """Empty the stream, as its owner may."""
        async with client(self.leaf, self.reader_key) as owner:
            await owner.jetstream().purge_stream(STREAM)

    async def heads(self) -> list[FrameHead]:
        """The heads of the frames that are there."""
        found = []
        async with client(self.leaf, self.reader_key) as user:
            js = user.jetstream()
            state = (await js.stream_info(STREAM)).state
            for number in range(state.first_seq, state.last_seq + 1):
                message = await js.get_msg(STREAM, number)
                with suppress(FrameError):
                    found.append(decode_head(message.data or b""))
        return found

    async def said(self) -> dict[str, int]:
        """The losses that all frames say which are there."""
        lost: Counter[str] = Counter()
        for head in await self.heads():
            lost.update(head.lost)
        return dict(lost)


@pytest.fixture
def place(leaf: Server, agent_key: Key, reader_key: Key) -> Place:
    return Place(leaf, agent_key, reader_key)


def test_what_earlier_runs_stored_is_counted(place: Place) -> None:
    async def run() -> None:
        await place.run(20)
        await place.run(30)
        last = await place.overflow(50)
        assert dict(last.ledger.lost) == {"events": 50}
        assert await place.said() == {"stream": 50}
        assert "50 items thrown away" in last.status

    asyncio.run(run())
    assert not any("note" in one or "damaged" in one for one in place.told)
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("noted", [0, 12, 80])
def test_an_agent_that_was_killed_leaves_its_messages_to_the_next(place: Place, noted: int) -> None:
    """It has noted the first so many of 100 messages, or nothing at all."""

    async def run() -> None:
        note = b""
        if noted:
            await place.run(noted)

        async def early(_: Agent) -> None:
            nonlocal note
            note = place.file.read_bytes()

        await place.run(0, then=early)
        await place.run(100 - noted)
        if noted:
            place.file.write_bytes(note)
        else:
            place.file.unlink()
        last = await place.overflow(100)
        assert dict(last.ledger.lost) == {"events": 100}
        assert await place.said() == {"stream": 100}

    asyncio.run(run())


def test_numbers_that_came_late_are_not_passed_over(place: Place) -> None:
    """Eight messages are on their way at once: a note may know of a later one alone."""

    async def run() -> None:
        await place.run(30)
        note = json.loads(place.file.read_bytes())
        note["known"] = [one for one in note["known"] if one not in {28, 29}]
        note["messages"] = [one for one in note["messages"] if one[0] not in {28, 29}]
        place.file.write_text(json.dumps(note))
        last = await place.overflow(30)
        assert dict(last.ledger.lost) == {"events": 30}

    asyncio.run(run())


@pytest.mark.parametrize("number", [1, 2**53])
def test_numbers_that_somebody_has_made_up_have_nothing_counted_twice(
    place: Place, number: int
) -> None:
    """A hub hears frames, and may answer before the leaf does."""

    async def run() -> None:
        async def answered(agent: Agent) -> None:
            for _ in range(70):
                agent.ledger.stored(number, FrameNumbers("web1", "b").head(EVENTS, 0, {}), 0.0)
            await asyncio.sleep(_LOOK + 0.5)

        await place.run(100, then=answered)
        last = await place.overflow(100)
        assert dict(last.ledger.lost) == {"events": 100}
        assert await place.said() == {"stream": 100}

    asyncio.run(run())
    assert not any("damaged" in one for one in place.told)


async def overflow_by_itself(agent: Agent) -> None:
    """Have an agent fill its stream with frames of an item, of which the first is lost too."""
    for _ in range(5):
        agent.spool.put(EVENTS, 1, {}, os.urandom(900_000))
    await until(lambda: agent.publisher.idle)
    agent.publisher.connected()
    await until(lambda: agent.ledger.lost)


def test_what_was_said_before_a_kill_is_not_said_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a look in between finds, the next frame says
    monkeypatch.setattr("ipttctl.fleet.publisher._LOOK", 60)

    async def run() -> None:
        await place.run(40)
        note = b""

        async def full(agent: Agent) -> None:
            nonlocal note
            await overflow_by_itself(agent)
            # no frame has come that could say it
            note = place.file.read_bytes()

        await place.run(0, then=full)
        assert json.loads(note)["unsaid"] == {"events": 41}
        assert await place.said() == {"stream": 41}
        for _ in range(2):
            place.file.write_bytes(note)
            agent = await place.run(0)
            assert not agent.ledger.lost
            assert await place.said() == {"stream": 41}

    asyncio.run(run())


def test_what_was_not_said_before_a_kill_is_said_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a look in between finds, the next frame says
    monkeypatch.setattr("ipttctl.fleet.publisher._LOOK", 60)

    async def run() -> None:
        await place.run(40)
        note = b""

        async def full(agent: Agent) -> None:
            nonlocal note
            await overflow_by_itself(agent)
            note = place.file.read_bytes()
            # its last frame does not come into the stream
            place.leaf.kill()

        await place.run(0, f"{SMALL}drain: 200ms\n", full)
        place.leaf.start()
        assert await place.said() == {}
        for _ in range(2):
            place.file.write_bytes(note)
            agent = await place.run(1)
            assert not agent.ledger.lost
            assert await place.said() == {"stream": 41}
            # what it noted itself
            note = place.file.read_bytes()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["removed", "purged"])
def test_a_stream_that_lost_all_while_no_agent_ran_is_counted(place: Place, how: str) -> None:
    async def run() -> None:
        await place.run(25)
        if how == "removed":
            place.leaf.kill()
            place.leaf.forget()
            place.leaf.start()
        else:
            await place.purge()
        agent = await place.run(3)
        assert dict(agent.ledger.lost) == {"events": 25}
        agent = await place.run(4)
        assert not agent.ledger.lost
        assert await place.said() == {"stream": 25}

    asyncio.run(run())


def test_messages_that_no_note_knows_and_that_are_gone_are_unknown(place: Place) -> None:
    async def run() -> None:
        await place.run(10)
        note = place.file.read_bytes()
        await place.run(7)
        place.file.write_bytes(note)
        await place.purge()
        agent = await place.run(2)
        assert dict(agent.ledger.lost) == {"events": 10}
        assert agent.ledger.unknown == 7
        lost = {head.kind: dict(head.lost) for head in await place.heads() if head.lost}
        assert lost == {"events": {"stream": 10, "unknown": 7}, "stories": {"unknown": 7}}

    asyncio.run(run())


def test_what_is_unknown_is_said_once_though_an_agent_is_killed_before_it_says_so(
    place: Place,
) -> None:
    async def run() -> None:
        await place.run(10)
        early = place.file.read_bytes()
        await place.run(7)
        place.file.write_bytes(early)
        await place.purge()
        note = b""

        async def begun(_: Agent) -> None:
            nonlocal note
            note = place.file.read_bytes()
            # its last frames do not come into the stream
            place.leaf.kill()

        await place.run(0, f"{SMALL}drain: 200ms\n", begun)
        place.leaf.start()
        assert await place.said() == {}
        for _ in range(2):
            place.file.write_bytes(note)
            await place.run(1)
            lost = {head.kind: dict(head.lost) for head in await place.heads() if head.lost}
            assert lost == {"events": {"stream": 10, "unknown": 7}, "stories": {"unknown": 7}}
            # what it noted itself
            note = place.file.read_bytes()

    asyncio.run(run())


def test_messages_whose_time_was_over_are_not_lost(place: Place) -> None:
    async def run() -> None:
        await place.run(10)
        note = json.loads(place.file.read_bytes())
        await place.run(5)
        # the host was off for two days
        note["written"] -= 172_800
        note["messages"] = [[*one[:3], one[3] - 172_800] for one in note["messages"]]
        place.file.write_text(json.dumps(note))
        await place.purge()
        agent = await place.run(1)
        assert not agent.ledger.lost
        assert not agent.ledger.unknown
        assert await place.said() == {}

    asyncio.run(run())


def test_what_a_lower_bound_throws_away_is_counted(place: Place) -> None:
    async def run() -> None:
        await place.run(15, f"{ALL}stream: {{bytes: 8388608}}\n")
        place.file.unlink()
        await place.fill()
        agent = await place.run(1)
        assert dict(agent.ledger.lost) == {"events": 15}
        # as after an upgrade from a version without notes
        place.file.unlink()
        await place.run(1)

    asyncio.run(run())
    [said] = [one for one in place.told if one.startswith("there is no")]
    assert said.endswith(": what the stream threw away before is not known")


FORGED: dict[str, Any] = {
    "created": 0.0,
    "written": 1e300,
    "run": "x",
    "known": [1],
    "unsaid": {"events": 2**53},
    "messages": [[2**53, "events", 2**53, 1e300]] * 512,
}


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"\xff\xfe", b"[" * 200_000, b" " * 300_000 + b"{}"),
        json.dumps({**FORGED, "known": []}).encode(),
        json.dumps({**FORGED, "known": [-1]}).encode(),
        json.dumps({**FORGED, "unsaid": {"unknown": 1}}).encode(),
        json.dumps({**FORGED, "more": 1}).encode(),
        json.dumps({**FORGED, "messages": [[1, "names", 1, 0]]}).encode(),
        json.dumps({**FORGED, "messages": [[1, "events", 2**54, 0]]}).encode(),
        json.dumps({**FORGED, "messages": [[1, "events", 1, 0]] * 513}).encode(),
    ],
)
def test_a_damaged_note_is_told_and_messages_are_read(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "note.json"
    file.write_bytes(content)
    with pytest.raises(IpttctlError, match=r"note\.json is damaged"):
        read_note(file)


def test_after_a_damaged_note_messages_are_counted_that_are_there(place: Place) -> None:
    async def run() -> None:
        await place.run(5)
        place.file.write_bytes(b"{")
        last = await place.overflow(5)
        assert dict(last.ledger.lost) == {"events": 5}

    asyncio.run(run())
    [said] = [one for one in place.told if "damaged" in one]
    assert said.endswith("; what the stream threw away before is not known")
    assert read_note(place.file)


def test_a_note_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power it is the one of before, or this one."""
    place = tmp_path / "agent" / "note.json"
    synced = []

    def fsync(number: int) -> None:
        assert not place.exists()
        synced.append(os.fstat(number).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    note = LedgerNote(created=1, written=1, run="x", known=[1], unsaid={}, messages=[])
    write_note(place, note)
    assert synced == [place.stat().st_size]


def test_a_forged_note_ends_nothing(place: Place) -> None:
    """The file is root's: what it claims is said, and the agent goes on."""

    async def run() -> None:
        await place.run(5)
        for created in (0.0, json.loads(place.file.read_bytes())["created"]):
            place.file.write_text(json.dumps({**FORGED, "created": created}))
            await place.run(2)
        assert sum(head.count for head in await place.heads()) == 9

    asyncio.run(run())


def test_a_note_that_cannot_be_written_is_told_once_and_none_is_left(place: Place) -> None:
    async def run() -> None:
        await place.run(5)
        place.file.parent.chmod(0o777)
        await place.run(5)
        assert not place.file.exists()

    asyncio.run(run())
    [said] = [one for one in place.told if "can be written to by others" in one]
    assert said.endswith("; after a restart less is counted of what is lost")


def test_more_messages_than_are_read_one_by_one_are_unknown(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_module, "_MOST_READ", 32)
    monkeypatch.setattr(earlier_module, "_PARTS", 4)

    async def run() -> None:
        await place.run(100)
        place.file.unlink()
        agent = await place.overflow(32)
        assert dict(agent.ledger.lost) == {"events": 32}
        assert agent.ledger.unknown == 68

    asyncio.run(run())


def test_without_the_right_to_read_messages_it_is_told_that_they_are_not_counted(
    tmp_path: Path, agent_key: Key, reader_key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipttctl.fleet.publisher._ANSWER", 0.5)
    denied = f'nkey: {agent_key.public}, permissions: {{ publish: {{ deny: "*.API.*.MSG.>" }} }}'
    text = LEAF % (agent_key.public, reader_key.public)
    text = text.replace(f"nkey: {agent_key.public}", denied.replace("*.API.*", "$JS.API.STREAM"))
    place = Place(Server(tmp_path / "leaf", text).start(), agent_key, reader_key)

    async def run() -> None:
        await place.run(5)
        place.file.unlink()
        await place.fill()
        last = await place.run(5)
        assert not last.ledger.lost

    try:
        asyncio.run(run())
    finally:
        place.leaf.kill()
    [said] = [one for one in place.told if "cannot be read" in one]
    assert said.endswith(f"have the right to publish $JS.API.STREAM.MSG.GET.{STREAM}")


def test_while_messages_are_read_the_agent_is_heard_and_a_break_does_not_begin_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = asyncio.Event()
    asked: list[Sequence[int]] = []
    read = earlier_module._read

    async def slow(
        js: JetStreamContext, stream: str, host: str, numbers: Sequence[int], found: Earlier
    ) -> None:
        asked.append(numbers)
        if len(asked) == 2:
            await broken.wait()
        await read(js, stream, host, numbers, found)

    async def run() -> None:
        await place.run(40)
        place.file.unlink()
        monkeypatch.setattr(earlier_module, "_read", slow)
        host = FakeHost()
        config = agent_config(place.leaf, place.agent_key, SMALL)
        async with running_agent(config, host) as agent:
            async with client(place.leaf, place.reader_key) as user:
                await until(lambda: len(asked) == 2)
                [found] = await find_hosts(user, Selector(), 1)
                assert found.host == "web1"
                assert (await ask(user, verb="links"))["ok"]
            host.feed.put(1)
            await until(lambda: agent.publisher.busy)
            # it could not be told from what is to be read
            assert not agent.publisher.frames
            place.leaf.kill()
            place.leaf.start()
            broken.set()
            await until(partial(published, agent, 1))
        assert [(one[0], one[-1]) for one in asked] == [(1, 16), (17, 32), (17, 32), (33, 40)]

    asyncio.run(run())


def test_a_stream_that_loses_all_the_time_is_noted_now_and_then_and_by_a_thread(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ipttctl.fleet.publisher._LOOK", 0.1)
    monkeypatch.setattr(ledger_keeper, "_PAUSE_LOST", 1.5)
    threads = []

    def noted(kept: list[KeptMessage], most: int) -> list[KeptMessage]:
        threads.append(threading.current_thread())
        return condensed(kept, most)

    monkeypatch.setattr(ledger_keeper, "condensed", noted)

    async def steadily(agent: Agent) -> None:
        begin = time.monotonic()
        for number in range(20):
            agent.spool.put(EVENTS, 1, {}, os.urandom(900_000))
            await until(partial(published, agent, number + 1))
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - begin
        lost = agent.ledger.lost["events"]
        assert lost > 10
        # one at the beginning
        assert 2 <= len(threads) <= 3 + seconds / 1.5

    async def run() -> None:
        agent = await place.run(0, then=steadily)
        assert not +agent.ledger.unsaid

    asyncio.run(run())
    assert threading.main_thread() not in threads
    note = read_note(place.file)
    assert note
    assert not note.unsaid


def test_a_message_of_another_host_is_not_counted(place: Place) -> None:
    """Users who may publish there can make frames up."""
    numbers = FrameNumbers("web2", "boot")

    async def run() -> None:
        await place.run(5)
        async with client(place.leaf, place.reader_key) as user:
            frame = encode(numbers.head(EVENTS, 1000, {}), b"")
            await user.jetstream().publish("ipttctl.ev.web1", frame)
        last = await place.overflow(5)
        assert dict(last.ledger.lost) == {"events": 5}
        assert last.ledger.unknown == 0

    asyncio.run(run())
