# SPDX-License-Identifier: GPL-2.0
# ruff: noqa: D102 - methods of doubles are documented where they are declared
"""Real NATS servers, nkeys, and a host whose events are a test's."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nkeys
from nats.aio.client import Client

from ipttctl.errors import IpttctlError
from ipttctl.fleet.agent import Agent
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.connection import own_inbox
from ipttctl.fleet.host import (
    Facts,
    FleetLink,
    Reached,
    Running,
    Told,
    TraceOrder,
    TrialTerms,
    Untold,
)
from ipttctl.frames.codec import decode
from ipttctl.frames.head import FrameHead
from ipttctl.link.losses import LossCounter, Losses
from ipttctl.link.model import CpuStatus
from ipttctl.system.service_manager import ServiceManager
from ipttproto import EventBatch, parse_batch
from tests.unit.ctl.support import batch_payload, event

SERVER = Path(os.environ.get("NATS_SERVER") or Path(sys.executable).with_name("nats-server"))


@dataclass(frozen=True)
class Key:
    """An nkey of a user: the public part, and the file of the seed."""

    public: str
    seed: Path

    @classmethod
    def make(cls, directory: Path, name: str) -> Key:
        """Make a key."""
        seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
        place = directory / f"{name}.nk"
        place.write_bytes(seed)
        place.chmod(0o600)
        return cls(bytes(nkeys.from_seed(seed).public_key).decode(), place)


def _is_stopped(thread: Path) -> bool:
    """Whether a signal has stopped a thread, by its state behind its name in brackets."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return True


def _ports() -> Iterator[int]:
    """Ports of this process: below those that the kernel gives away, others in each worker."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 10_000 + worker % 20 * 1_000
    return itertools.cycle(range(first, first + 1_000))


#: none is given again soon: whoever asked may not listen on it yet
_OURS = _ports()


def free_port() -> int:
    """A port that nobody listens on, and that nobody else gets."""
    for port in _OURS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("there are always more")


class Server:
    """A NATS server on loopback, which a test can kill and start again."""

    def __init__(self, directory: Path, config: str) -> None:
        """Have the port put into the text of a configuration, at ``@PORT@``."""
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.file = directory / "server.conf"
        config = config.replace("@PORT@", str(self.port)).replace("@STORE@", str(directory / "js"))
        self.file.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address of clients."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> Server:
        """Start it, and wait until it listens."""
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen([SERVER, "-c", self.file], stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as one:
                if one.recv(4) == b"INFO":
                    return self
            assert self._process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError(self.log())

    def kill(self) -> None:
        """Kill it, as a crash does."""
        if self._process:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Have it do nothing until ``thaw``; its connections stay."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        # its threads may still run for a moment
        threads = Path(f"/proc/{self._process.pid}/task")
        while any(not _is_stopped(thread) for thread in threads.iterdir()):
            time.sleep(0.01)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose all that it has stored."""
        shutil.rmtree(self.directory / "js", ignore_errors=True)

    def log(self) -> str:
        """Its log."""
        return (self.directory / "log").read_text(errors="replace")


async def connect(server: Server, key: Key) -> Client:
    """Connect as a user."""
    client = Client()
    seed = str(key.seed)
    await client.connect(
        server.url, nkeys_seed=seed, inbox_prefix=own_inbox(seed), connect_timeout=5
    )
    return client


@asynccontextmanager
async def client(server: Server, key: Key) -> AsyncIterator[Client]:
    """A connection as a user, closed at the end."""
    found = await connect(server, key)
    try:
        yield found
    finally:
        await found.close()


class FakeSource:
    """Events that a test puts in, for one reader."""

    def __init__(self) -> None:
        self._batches: list[EventBatch] = []
        self._there = threading.Condition()
        self._counter = LossCounter()
        self._sequence = 0
        self._lost = 0
        self.broken: IpttctlError | None = None

    def put(self, count: int, *, link: int = 3, lost: int = 0) -> None:
        """Put a batch of events in, before which the kernel lost some."""
        self._lost += lost
        self._sequence += lost
        payload = batch_payload(
            [event(link=link, rulenum=n, time=time.monotonic_ns()) for n in range(count)],
            sequence=self._sequence,
            lost=[self._lost, 0, 0],
        )
        self._sequence += count
        with self._there:
            self._batches.append(parse_batch(payload))
            self._there.notify()

    @property
    def losses(self) -> Losses:
        return self._counter.totals()

    def read(self, timeout: float | None = None) -> Sequence[EventBatch]:
        with self._there:
            self._there.wait_for(lambda: self._batches or self.broken, timeout)
            if self.broken:
                raise self.broken
            found, self._batches = self._batches, []
        for batch in found:
            self._counter.add(batch)
        return found

    def missing(self) -> Sequence[CpuStatus]:
        return ()

    def drain(self, settle: float, limit: float) -> Iterator[EventBatch]:
        del settle, limit
        yield from self.read(0)

    @property
    def last(self) -> Sequence[CpuStatus]:
        return ()

    def close(self) -> None:
        """Nothing is open."""


class FakeTeller:
    """One story an event of the link."""

    def __init__(self, links: frozenset[int], stories: Callable[[int], Told]) -> None:
        self._links = links
        self._stories = stories

    def take(self, batches: Sequence[EventBatch]) -> list[Told]:
        return [
            self._stories(int(number))
            for batch in batches
            for link, number in zip(batch.events["link"], batch.events["rulenum"], strict=True)
            if int(link) in self._links
        ]

    def expect(self, cpus: Sequence[Reached], now: int) -> None:
        """Stories are of single events."""

    def overrun(self, cpus: Sequence[CpuStatus]) -> None:
        """Stories are of single events."""

    def idle(self) -> list[Told]:
        return []

    def end(self) -> list[Told]:
        return []


@dataclass
class FakeRunning:
    """A trace, which knows whether it was ended."""

    links: frozenset[int]
    teller: FakeTeller
    detached: bool = False
    untold: Untold = field(default_factory=Untold)
    gone: IpttctlError | None = None
    looks: int = 0
    within: int | None = None

    def look(self) -> Untold:
        self.looks += 1
        if self.gone:
            raise self.gone
        return self.untold

    def detach(self) -> Untold:
        self.detached = True
        return self.untold


def told(number: int) -> Told:
    """A line without the story, for those who do not look at it."""
    line = json.dumps({"type": "story", "packet": number})
    return Told(None, line)  # type: ignore[arg-type]  # the story is what they do not look at


@dataclass
class FakeHost:
    """A host that does nothing, and knows what it was asked for."""

    boot: str = "b0a7b0a7-0000-0000-0000-000000000001"
    story: Callable[[int], Told] = told
    done: list[tuple[str, Any]] = field(default_factory=list)
    traces: list[FakeRunning] = field(default_factory=list)
    feed: FakeSource = field(default_factory=FakeSource)
    delay: float = 0.0
    answer: list[dict[str, Any]] = field(default_factory=lambda: [{"id": 3}])
    clock: Callable[[], int] = time.monotonic_ns
    no_traces: IpttctlError | None = None

    def facts(self) -> Facts:
        return Facts("6.12.0", self.boot, "0.1.0", "0.1.0", ("limits",))

    def source(self) -> FakeSource:
        return self.feed

    def links(self) -> list[dict[str, Any]]:
        return self.answer

    def trace(self, order: TraceOrder) -> Running:
        time.sleep(self.delay)
        self.done.append(("trace", order))
        if self.no_traces:
            raise self.no_traces
        links = frozenset({100 + len(self.traces)})
        running = FakeRunning(links, FakeTeller(links, self.story))
        self.traces.append(running)
        return running

    def detach(self, link: int | str, reason: str) -> dict[str, Any]:
        self.done.append(("detach", (link, reason)))
        return {"id": link}

    def attach(self, link: Mapping[str, Any], directory: Path, reason: str) -> dict[str, Any]:
        self.done.append(("attach", (link, directory, reason)))
        return {"id": 5}

    def swap(
        self, link: Mapping[str, Any], directory: Path, rollback: float | None, reason: str
    ) -> dict[str, Any]:
        self.done.append(("swap", (link, directory, rollback, reason)))
        return {"id": 5, "link": 5}

    def apply(
        self, state: Mapping[str, Any], directory: Path, trial: TrialTerms, reason: str
    ) -> list[dict[str, Any]]:
        self.done.append(("apply", (state, directory, trial, reason)))
        return [{"action": "attach", "name": "lim", "link": 5}]

    def confirm(
        self, state: Mapping[str, Any], directory: Path, reason: str
    ) -> list[dict[str, Any]]:
        self.done.append(("confirm", (state, directory, reason)))
        return []

    def undo(self, state: Mapping[str, Any], directory: Path, reason: str) -> list[dict[str, Any]]:
        self.done.append(("undo", (state, directory, reason)))
        return []

    def watched(self) -> list[FleetLink]:
        return []

    def swapped(self, links: Collection[int]) -> list[FleetLink]:
        del links
        return []

    def confirm_link(self, link: str) -> dict[str, Any]:
        self.done.append(("confirm link", link))
        return {"id": 5}

    def rollback_link(self, link: str, reason: str) -> dict[str, Any]:
        self.done.append(("rollback link", (link, reason)))
        return {"id": 5}

    def diff(self, state: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
        self.done.append(("diff", (state, directory)))
        return []


def agent_config(server: Server, key: Key, more: str = "") -> AgentConfig:
    """A configuration that is fast, with a directory beside the server's files."""
    if "objects:" not in more:
        more += f"\nobjects: {{directory: {server.directory / 'agent'}}}\n"
    text = f"""
leaf:
  url: {server.url}
  nkey: {key.seed}
host: web1
labels: {{role: node, zone: a}}
heartbeat: 300ms
{more}"""
    return parse_config(text, "agent.yaml")


@asynccontextmanager
async def running_agent(
    config: AgentConfig, host: FakeHost, tell: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Agent]:
    """An agent that runs within the block, and drains at its end."""
    agent = Agent(config, host, ServiceManager({}), tell)
    agent.connection._longest = 0.5
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop()
        await asyncio.wait_for(task, 30)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.02)


async def kept(
    found: Client, name: str, count: int, seconds: float = 30
) -> list[tuple[FrameHead, bytes]]:
    """The frames that a stream keeps, at least as many as ``count`` items, in its order."""
    js = found.jetstream(timeout=5)
    end = time.monotonic() + seconds
    while True:
        with suppress(nats.js.errors.Error, nats.errors.Error, asyncio.TimeoutError):
            frames = []
            info = await js.stream_info(name)
            # the numbers of an empty stream may be 0 and 0
            numbers = range(info.state.first_seq, info.state.last_seq + 1)
            for number in numbers if info.state.messages else ():
                message = await js.get_msg(name, number)
                frames.append(decode(message.data or b""))
            if sum(head.count for head, _ in frames) >= count:
                return frames
        assert time.monotonic() < end, f"{name} does not have {count} items"
        await asyncio.sleep(0.1)


async def ask(
    found: Client, host: str = "web1", wait: float = 10, subject: str = "", **request: Any
) -> dict[str, Any]:
    """Ask an agent, on the subject of the verb."""
    verb = {"renew": "trace", "end": "trace"}.get(request["verb"], request["verb"])
    subject = subject or f"ipttctl.ctl.{host}.{verb}"
    answer = await found.request(subject, json.dumps(request).encode(), wait)
    decoded: dict[str, Any] = json.loads(answer.data)
    return decoded
