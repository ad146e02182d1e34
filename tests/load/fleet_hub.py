# SPDX-License-Identifier: GPL-2.0
"""Load of a hub that keeps what many agents publish, each so many events a second.

    .build/venv/bin/python -m tests.load.fleet_hub [AGENTS [EVENTS_A_SECOND [SECONDS]]]

agents --- two leaves, a stream for each agent --- hub, one stream that sources all of these

Agents are what publishes of an agent (spool and publisher), many in a process; reading and telling
stories are not in it, see ``tests.load.fleet_agent`` for those. Servers and agents share this
machine. CPU is in percent of one.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from nats.aio.client import Client
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.fleet.asker import connected
from ipttctl.fleet.config import HubConfig
from ipttctl.fleet.kept import KeptFrames, ReadBounds
from ipttctl.fleet.ledger import StreamLedger
from ipttctl.fleet.ledger_keeper import LedgerKeeper
from ipttctl.fleet.publisher import Publisher
from ipttctl.fleet.spool import Spool
from ipttctl.fleet.stream import wanted
from ipttctl.frames.bodies import events_body
from ipttctl.frames.head import EVENTS
from ipttctl.frames.writer import FrameNumbers
from ipttproto import parse_batch
from tests.load.fleet_agent import templates
from tests.unit.ctl.fleet.support import Key, Server, agent_config, client, free_port

_LEAVES: Final = 2
_PROCESSES: Final = 4
_FRAME: Final = 64
"""Events of a frame, which an agent fills or sends after 100 ms."""

HUB: Final = """
server_name: hub
listen: 127.0.0.1:@PORT@
jetstream { store_dir: "@STORE@", domain: hub, max_mem: 64MB, max_file: 20GB }
leafnodes { listen: "127.0.0.1:%d" }
accounts { FLEET { jetstream: enabled, users: [ { nkey: %s }, { nkey: %s } ] } }
"""
LEAF: Final = """
server_name: leaf%d
listen: 127.0.0.1:@PORT@
jetstream { store_dir: "@STORE@", domain: leaf%d, max_mem: 64MB, max_file: 20GB }
accounts { FLEET { jetstream: enabled, users: [ { nkey: %s } ] } }
leafnodes {
  remotes: [ { url: "nats://127.0.0.1:%d", account: FLEET, include "leaf-key.conf" } ]
}
"""


@dataclass
class Done:
    """Counts of the agents of a process."""

    frames: int = 0
    events: int = 0
    lost: int = 0
    resent: int = 0
    cpu: float = 0.0


def warn(text: str) -> None:
    """Tell something that is not a figure."""
    print(text, file=sys.stderr)


async def publish(server: Server, key: Key, first: int, count: int, rate: int, secs: float) -> Done:
    """Publish as agents ``first``... do, each ``rate`` events a second."""
    random = Random(first)
    bodies = [events_body([parse_batch(one)]) for one in templates(random, 16)]
    async with client(server, key) as connection:

        async def mine() -> Client:
            return connection

        agents = []
        for number in range(first, first + count):
            config = agent_config(server, key, "stream: {bytes: 67108864}\n")
            stream = wanted(config).evolve(
                name=f"ipttctl-web{number}",
                subjects=[f"ipttctl.ev.web{number}", f"ipttctl.story.web{number}"],
            )
            numbers = FrameNumbers(f"web{number}", "boot")
            spool = Spool(numbers, 32 << 20)
            place = server.directory / f"agent/web{number}.json"
            ledger = StreamLedger(86_400)
            keeper = LedgerKeeper(ledger, place, f"web{number}", numbers.run, warn)
            made = Publisher(spool, f"web{number}", stream, keeper, mine)
            agents.append((spool, made))
        tasks = [asyncio.create_task(one.run()) for _, one in agents]
        while not all(one.ready for _, one in agents):
            await asyncio.sleep(0.05)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before, begin = sum(os.times()[:2]), time.monotonic()
        put = 0
        while (now := time.monotonic() - begin) < secs:
            due = int(now * rate * count / _FRAME)
            for number in range(put, due):
                form, body = bodies[number % len(bodies)]
                agents[number % count][0].put(EVENTS, _FRAME, form, body)
            put = due
            await asyncio.sleep(0.01)
        while not all(one.idle for _, one in agents):
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return Done(
        frames=sum(one.frames for _, one in agents),
        events=sum(one.items for _, one in agents),
        lost=sum(sum(spool.lost.values()) for spool, _ in agents),
        resent=sum(one.again for _, one in agents),
        cpu=(sum(os.times()[:2]) - before) / secs,
    )


async def kept(
    hub: Server, leaves: list[Server], key: Key, agents: int, workers: list[Any], secs: float
) -> str:
    """Have the hub keep it all; returns a line of figures."""
    async with client(hub, key) as operator:
        js = operator.jetstream(timeout=60)
        sources = [
            StreamSource(
                name=f"ipttctl-web{number}",
                external=ExternalStream(api=f"$JS.leaf{_leaf(number, agents)}.API"),
            )
            for number in range(agents)
        ]
        await js.add_stream(StreamConfig(name="ipttctl", sources=sources, max_bytes=15 << 30))
        before, begin = _cpu(hub), time.monotonic()
        before_leaves = sum(map(_cpu, leaves))
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        await asyncio.sleep(secs)
        behind = (await js.stream_info("ipttctl")).state
        cpu = (_cpu(hub) - before) / (time.monotonic() - begin)
        of_leaves = (sum(map(_cpu, leaves)) - before_leaves) / (time.monotonic() - begin)
        found = await asyncio.to_thread(lambda: [json.loads(w.stdout.readline()) for w in workers])
        total = Done(**{name: sum(one[name] for one in found) for name in asdict(Done())})
        published = time.monotonic() - begin
        limit = time.monotonic() + 300
        while (state := (await js.stream_info("ipttctl")).state).messages < total.frames:
            assert time.monotonic() < limit, (state.messages, total.frames)
            await asyncio.sleep(0.1)
        took = time.monotonic() - begin
    reading = time.monotonic()
    again = await read(hub, key)
    reading = time.monotonic() - reading
    return (
        f"{agents} agents: {total.events / took:.0f} events/s, {total.frames / took:.0f} frames/s; "
        f"{total.events} events published in {published:.1f} s, all at the hub after {took:.1f} s, "
        f"at {secs:.0f} s it had {behind.messages} of {total.frames} frames; "
        f"lost {total.lost}, resent {total.resent}, twice {state.messages - total.frames}; "
        f"hub {cpu:.0%} of a CPU, {_rss(hub) / 1e6:.0f} MB; leaves {of_leaves:.0%}; "
        f"agents {total.cpu:.0%} of a CPU; "
        f"{state.bytes / total.events:.0f} bytes an event; "
        f"{again} events read again in {reading:.1f} s"
    )


async def read(hub: Server, key: Key) -> int:
    """The events that are read of the hub in the bounds of a query."""
    settings = HubConfig(url=hub.url, nkey=str(key.seed))
    async with connected(settings) as asker:
        frames = KeptFrames(asker, ReadBounds(time.time() - 3600, 512 << 20, 120))
        return sum([head.count async for head, _ in frames.read([EVENTS], frozenset())])


def _leaf(number: int, agents: int) -> int:
    return number * _LEAVES // agents


def measure(agents: int, rate: int, secs: float, directory: Path) -> str:
    """Run servers and agents; returns a line of figures."""
    agent, operator, link = (Key.make(directory, name) for name in ("agent", "operator", "leaf"))
    port = free_port()
    with ExitStack() as stack:
        hub = Server(directory / "hub", HUB % (port, link.public, operator.public)).start()
        stack.callback(hub.kill)
        workers, leaves = [], []
        for number in range(_LEAVES):
            place = directory / f"leaf{number}"
            place.mkdir()
            (place / "leaf-key.conf").write_text(f"nkey: {link.seed.read_text()}\n")
            leaf = Server(place, LEAF % (number, number, agent.public, port)).start()
            stack.callback(leaf.kill)
            leaves.append(leaf)
            each = agents // _PROCESSES
            for part in range(_PROCESSES // _LEAVES):
                first = (number * _PROCESSES // _LEAVES + part) * each
                numbers = (leaf.port, agent.seed, first, each, rate, secs)
                worker = subprocess.Popen(
                    [sys.executable, "-m", "tests.load.fleet_hub", "worker", *map(str, numbers)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                stack.callback(worker.kill)
                workers.append(worker)
        for worker in workers:
            assert worker.stdout
            assert worker.stdout.readline() == "ready\n"
        return asyncio.run(kept(hub, leaves, operator, each * _PROCESSES, workers, secs))


def _cpu(server: Server) -> float:
    assert server._process is not None
    text = Path(f"/proc/{server._process.pid}/stat").read_text()
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _rss(server: Server) -> int:
    assert server._process is not None
    text = Path(f"/proc/{server._process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(port: str, seed: str, first: str, count: str, rate: str, secs: str) -> None:
    """Publish, and print what was done."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(Path(directory), "")
        server.port = int(port)
        key = Key("", Path(seed))
        done = asyncio.run(publish(server, key, int(first), int(count), int(rate), float(secs)))
    print(json.dumps(asdict(done)), flush=True)


def main() -> None:
    """Print the figures."""
    if sys.argv[1:2] == ["worker"]:
        work(*sys.argv[2:])
        return
    given = dict(enumerate(sys.argv[1:]))
    agents, rate = int(given.get(0, "200")), int(given.get(1, "500"))
    secs = float(given.get(2, "20"))
    with tempfile.TemporaryDirectory() as directory:
        print(measure(agents, rate, secs, Path(directory)))


if __name__ == "__main__":
    main()
