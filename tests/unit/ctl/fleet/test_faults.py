# SPDX-License-Identifier: GPL-2.0
"""Faults between an agent and the hub: nothing is lost but what is counted, nothing comes twice.

A leaf and a hub, each in a network namespace that the test makes:

    agent --- leaf 10.99.0.2 --- veth --- 10.99.0.1 hub
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.frames.bodies import events_of
from ipttctl.frames.head import FrameHead
from ipttctl.frames.seen import Seen
from ipttctl.system.netns import within
from tests.unit.ctl.fleet.fleet_host import hub_server, leaf_server
from tests.unit.ctl.fleet.support import (
    FakeHost,
    Key,
    Server,
    agent_config,
    ask,
    client,
    kept,
    running_agent,
    until,
)
from tests.unit.ctl.fleet.test_agent import published, read
from tests.unit.ctl.rules.support import Net

ALL = "publish: {events: all, linger: 10ms}\n"

#: where the hub is found from the other end of the cable
HUB_PLACE = "10.99.0.1:7422"


@dataclass
class Apart:
    """A leaf and a hub that a cable connects."""

    host: Net
    far: Net
    leaf: Server
    hub: Server
    agent: Key
    operator: Key

    def source(self) -> None:
        """Have the hub keep what the leaf has."""

        async def add() -> None:
            async with client(self.hub, self.operator) as user:
                external = ExternalStream(api="$JS.leaf.API")
                source = StreamSource(name="ipttctl-web1", external=external)
                await user.jetstream().add_stream(StreamConfig(name="ipttctl", sources=[source]))

        within(self.far.fd, lambda: asyncio.run(add()))

    def at_hub(self, count: int, seconds: float = 120) -> list[FrameHead]:
        """The frames that the hub keeps once there are so many items."""

        async def look() -> list[FrameHead]:
            async with client(self.hub, self.operator) as user:
                return [head for head, _ in await kept(user, "ipttctl", count, seconds)]

        return within(self.far.fd, lambda: asyncio.run(look()))


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    host, far = Net(), Net()
    host.run(
        *("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0"),
        *("netns", f"/proc/{os.getpid()}/fd/{far.fd}"),
    )
    for number, end in ((2, host), (1, far)):
        end.run("ip", "address", "add", f"10.99.0.{number}/24", "dev", "up0")
        end.run("ip", "link", "set", "up0", "up")
        end.run("ip", "link", "set", "lo", "up")
    agent, operator, link = (Key.make(tmp_path, name) for name in ("agent", "operator", "link"))
    hub = hub_server(tmp_path, HUB_PLACE, link, operator)
    leaf = leaf_server(tmp_path, HUB_PLACE, link, agent)
    try:
        within(far.fd, hub.start)
        within(host.fd, leaf.start)
        yield Apart(host, far, leaf, hub, agent, operator)
    finally:
        leaf.kill()
        hub.kill()
        host.close()
        far.close()


def complete(heads: list[FrameHead], count: int) -> None:
    """Check that all items came, each once for who drops what came before, and none was lost."""
    seen = Seen()
    new = [head for head in heads if seen.first(head)]
    assert sum(head.count for head in new) == count
    assert seen.missing() == 0
    assert not any(head.lost for head in new)


#: what makes the cable slow; netem is not in every kernel
SLOW = {
    "tbf": ("tbf", "rate", "256kbit", "burst", "4kb", "latency", "2s"),
    "netem": ("netem", "delay", "150ms", "50ms", "loss", "3%", "rate", "512kbit"),
}


@pytest.mark.parametrize("how", SLOW)
def test_a_network_that_is_slow_and_cut_loses_nothing(apart: Apart, how: str) -> None:
    check_slow_and_cut(apart, how)


def check_slow_and_cut(apart: Apart, how: str) -> None:
    """Have all events come over a cable that is slow, and cut twice."""
    cable = ("tc", "qdisc", "replace", "dev", "up0", "root")
    try:
        apart.host.run(*cable, *SLOW[how])
    except AssertionError as error:
        if "qdisc kind is unknown" in str(error):
            pytest.skip(f"the kernel has no {how}")
        raise
    host = FakeHost()

    async def run() -> None:
        async with running_agent(agent_config(apart.leaf, apart.agent, ALL), host) as agent:
            await until(lambda: agent.publisher.ready)
            await asyncio.to_thread(apart.source)
            for state in ("up", "down", "up", "down", "up"):
                await asyncio.to_thread(apart.host.run, "ip", "link", "set", "up0", state)
                for _ in range(40):
                    host.feed.put(10)
                    await asyncio.sleep(0.03)
            await until(partial(published, agent, 2000))
            # the host's own connection is not touched by it
            assert agent.connection.failures == 0
            assert agent.publisher.again == 0

    within(apart.host.fd, lambda: asyncio.run(run()))
    complete(apart.at_hub(2000), 2000)


def leaf_with(directory: Path, keys: Sequence[Key], store: str, most: str) -> Server:
    """A leaf of its own with a place for its files, and the most that they may take."""
    users = ", ".join(f"{{ nkey: {key.public} }}" for key in keys)
    text = (
        f'listen: 127.0.0.1:@PORT@\njetstream {{ store_dir: "{store}", max_mem: 16MB, '
        f"max_file: {most} }}\nauthorization {{ users: [ {users} ] }}\n"
    )
    return Server(directory / "leaf", text).start()


def test_a_leaf_without_room_for_the_stream_is_said_to_be_that_once(
    tmp_path: Path, agent_key: Key, reader_key: Key
) -> None:
    """Commands are heard meanwhile, and what exceeds the spool is counted."""
    leaf = leaf_with(tmp_path, (agent_key, reader_key), "@STORE@", "2MB")
    host = FakeHost()
    said: list[str] = []
    why = (
        "the leaf has no room for the stream ipttctl-web1 of 4194304 bytes; "
        "raise max_file of its JetStream, or lower stream.bytes"
    )

    async def run() -> None:
        more = f"{ALL}spool: {{bytes: 1048576}}\nstream: {{bytes: 4194304}}\n"
        async with running_agent(agent_config(leaf, agent_key, more), host) as agent:
            agent._tell = said.append
            await until(lambda: any(why in one for one in said))
            assert agent.status.startswith(f"leaf: {why}; ")
            async with client(leaf, reader_key) as reader:
                assert (await ask(reader, verb="links"))["ok"]
            put = 0
            while not agent.spool.lost["events"]:
                host.feed.put(256)
                put += 256
                await until(partial(read, agent, put))
                await asyncio.sleep(0.011)
            # frames are not sent in vain
            assert agent.publisher.again == 0
            assert agent.connection.failures == 0
            leaf.kill()
            leaf.file.write_text(leaf.file.read_text().replace("2MB", "64MB"))
            leaf.start()
            await until(lambda: agent.publisher.idle, 60)
            assert agent.publisher.items + agent.spool.lost["events"] == put
            assert not agent.publisher.problem
        assert len([one for one in said if "no room" in one]) == 1

    try:
        asyncio.run(run())
    finally:
        leaf.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is full soon."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_leaf_whose_disk_is_full_loses_nothing_that_is_not_counted(
    tmp_path: Path, small_disk: Path, agent_key: Key, reader_key: Key
) -> None:
    leaf = leaf_with(tmp_path, (agent_key, reader_key), str(small_disk), "1GB")
    host = FakeHost()

    async def run() -> None:
        more = f"{ALL}spool: {{bytes: 1048576}}\n"
        async with running_agent(agent_config(leaf, agent_key, more), host) as agent:
            host.feed.put(64)
            await until(partial(published, agent, 64))
            # others fill the disk, all but a little
            (small_disk / "others").write_bytes(bytes(2_900_000 - _used(small_disk)))
            put = 64
            while not agent.spool.lost["events"]:
                host.feed.put(64)
                put += 64
                await until(partial(read, agent, put))
                await asyncio.sleep(0.011)
            # the server answers nothing any more, and writes again once it was started again
            await until(lambda: agent.publisher.problem)
            (small_disk / "others").unlink()
            leaf.kill()
            leaf.start()
            await until(lambda: agent.publisher.idle, 60)
            host.feed.put(1)
            put += 1
            away = agent.spool.lost["events"]
            await until(lambda: agent.publisher.items + away == put, 60)
            async with client(leaf, reader_key) as reader:
                frames = await kept(reader, "ipttctl-web1", put - away)
        seen = Seen()
        new = [head for head, _ in frames if seen.first(head)]
        lost = Counter[str]()
        for head in new:
            lost.update(head.lost)
        assert lost["spool"] > 0
        assert sum(head.count for head in new) + lost["spool"] + lost["stream"] == put
        assert seen.missing() == lost["spool"] + lost["stream"]

    try:
        asyncio.run(run())
    finally:
        leaf.kill()


def _used(place: Path) -> int:
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


AGENT = """
import asyncio, sys
from pathlib import Path
from tests.unit.ctl.fleet.support import FakeHost, Key, Server, agent_config, running_agent

async def run(port, seed, boot, directory):
    server = Server(Path(directory), "")
    server.port = int(port)
    host = FakeHost(boot=boot)
    config = agent_config(server, Key("", Path(seed)), "publish: {events: all, linger: 10ms}\\n")
    async with running_agent(config, host) as agent:
        while True:
            host.feed.put(10)
            await asyncio.sleep(0.01)
            print(agent.publisher.items, flush=True)

asyncio.run(run(*sys.argv[1:]))
"""


def test_agents_that_are_killed_lose_only_what_was_on_its_way(
    leaf: Server, agent_key: Key, reader_key: Key, tmp_path: Path
) -> None:
    """The second one is killed as well, on a host that was started again: another boot."""
    stored: dict[str, int] = {}
    for boot in ("boot-1", "boot-1", "boot-2"):
        numbers = (str(leaf.port), str(agent_key.seed), boot, str(tmp_path / "agent"))
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, *numbers],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        assert process.stdout
        items = 0
        for line in process.stdout:
            items = int(line)
            if items >= 500:
                break
        process.kill()
        process.communicate()
        stored[f"{boot}/{len(stored)}"] = items

    async def look() -> list[tuple[FrameHead, bytes]]:
        async with client(leaf, reader_key) as reader:
            return await kept(reader, "ipttctl-web1", sum(stored.values()))

    frames = asyncio.run(look())
    seen = Seen()
    runs: dict[tuple[str, str], int] = {}
    for head, body in frames:
        assert seen.first(head)
        assert sum(len(batch) for batch in events_of(head, body)) == head.count
        runs[head.boot, head.run] = runs.get((head.boot, head.run), 0) + head.count
    assert [boot for boot, _ in runs] == ["boot-1", "boot-1", "boot-2"]
    for (_, found), acknowledged in zip(runs.items(), stored.values(), strict=True):
        assert found >= acknowledged
    # not even in the middle: what was on its way are the last ones
    assert seen.missing() <= 8 * 10 * 3


def test_frames_that_come_again_after_the_servers_window_are_known_to_readers(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    """A server drops what comes again within two minutes; here it has a window of 100 ms."""

    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key, ALL), host) as agent:
            host.feed.put(10)
            await until(partial(published, agent, 10))
            async with client(leaf, reader_key) as reader:
                js = reader.jetstream()
                config = (await js.stream_info("ipttctl-web1")).config
                await js.update_stream(config.evolve(duplicate_window=0.1))
                first = await js.get_msg("ipttctl-web1", 1)
                assert first.subject
                assert first.data
                await asyncio.sleep(0.5)
                for _ in range(3):
                    await js.publish(first.subject, first.data, headers=first.headers)
                    await asyncio.sleep(0.3)
                host.feed.put(5)
                await until(partial(published, agent, 15))
                frames = await kept(reader, "ipttctl-web1", 45)
        assert [head.count for head, _ in frames] == [10, 10, 10, 10, 5]
        complete([head for head, _ in frames], 15)

    asyncio.run(run())


def test_a_leaf_that_does_not_answer_is_left_and_nothing_is_lost(
    leaf: Server, agent_key: Key, reader_key: Key, host: FakeHost
) -> None:
    """Its process is stopped, so that connections are there and silent."""

    async def run() -> None:
        async with running_agent(agent_config(leaf, agent_key, ALL), host) as agent:
            host.feed.put(10)
            await until(partial(published, agent, 10))
            leaf.freeze()
            begin = time.monotonic()
            try:
                while time.monotonic() - begin < 7:
                    host.feed.put(10)
                    await asyncio.sleep(0.1)
                # a frame that is not answered is sent again after 5 s
                assert agent.publisher.again
            finally:
                leaf.thaw()
            put = agent.feed.read
            with suppress(AssertionError):
                await until(partial(read, agent, put + 1), 0.5)
            await until(lambda: agent.publisher.idle and agent.publisher.items >= put, 30)
            async with client(leaf, reader_key) as reader:
                frames = await kept(reader, "ipttctl-web1", agent.publisher.items)
        complete([head for head, _ in frames], agent.feed.read)

    asyncio.run(run())
    assert threading.active_count() < 20
