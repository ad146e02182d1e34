# SPDX-License-Identifier: GPL-2.0
"""Cost of an agent that publishes so many events a second into a real leaf.

    .build/venv/bin/python -m tests.load.fleet_agent [EVENTS_A_SECOND [SECONDS]]

Events come in batches of 64, as the module sends them; making them is not measured, parsing them
is. CPU time is that of the agent's process, of which one CPU is 100%.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from ipttctl.link.losses import LossCounter, Losses
from ipttproto import EventBatch, parse_batch
from ipttproto.family import Batch
from tests.unit.ctl.fleet.conftest import LEAF
from tests.unit.ctl.fleet.support import (
    FakeHost,
    FakeSource,
    Key,
    Server,
    agent_config,
    client,
    kept,
    running_agent,
    until,
)
from tests.unit.ctl.support import batch_payload, event

_BATCH: Final = 64
_HEADER: Final = 4
_TEMPLATES: Final = 64


class PacedSource(FakeSource):
    """So many events a second, each time as many as are due."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self._rate = rate
        self._totals = LossCounter()
        self._number = 0
        self._begin = 0.0
        self._templates = templates(Random(1), _TEMPLATES)
        self.go = False

    @property
    def losses(self) -> Losses:
        """None: nothing is lost before it is read."""
        return self._totals.totals()

    def read(self, timeout: float | None = None) -> Sequence[EventBatch]:
        """The batches that are due."""
        if not self.go:
            time.sleep(timeout or 0)
            self._begin = time.monotonic()
            return []
        # the module sends what a CPU has after 10 ms
        time.sleep(0.01)
        due = int((time.monotonic() - self._begin) * self._rate / _BATCH)
        found = []
        while self._number < due:
            payload = bytearray(self._templates[self._number % _TEMPLATES])
            payload[_HEADER : _HEADER + 8] = (self._number * _BATCH).to_bytes(8, sys.byteorder)
            found.append(parse_batch(bytes(payload)))
            self._number += 1
        for batch in found:
            self._totals.add(batch)
        return found

    def drain(self, settle: float, limit: float) -> Iterator[EventBatch]:
        """Nothing is left."""
        del settle, limit
        return iter(())


def templates(random: Random, count: int) -> list[bytes]:
    """Batches of events as the module sends them, of 64 each."""
    return [batch_payload(_events(random)) for _ in range(count)]


def _events(random: Random) -> list[dict[str, Any]]:
    """Events of packets of random flows, four of each packet."""
    found = []
    for _ in range(_BATCH // 4):
        members = {
            "packet": random.getrandbits(40),
            "skb": 0xFFFF888000000000 + 256 * random.getrandbits(30),
            "sport": random.randrange(1024, 65536),
            "saddr": random.randbytes(4) + bytes(12),
            "length": random.randrange(40, 1500),
            "ct_id": random.getrandbits(32),
        }
        for number in range(4):
            at = time.monotonic_ns() + random.getrandbits(20)
            traversal = random.getrandbits(32)
            found.append(event(**members, rulenum=number, time=at, traversal=traversal))
    return found


async def measure(rate: int, seconds: float, directory: Path) -> str:
    """Publish for some seconds; returns a line of figures."""
    assert Batch.sizeof() > 8
    agent_key, reader_key = (Key.make(directory, name) for name in ("agent", "reader"))
    leaf = Server(directory / "leaf", LEAF % (agent_key.public, reader_key.public)).start()
    source = PacedSource(rate)
    config = agent_config(leaf, agent_key, "publish: {events: all}\nstream: {bytes: 900000000}\n")
    try:
        async with running_agent(config, FakeHost(feed=source)) as agent:
            await until(lambda: agent.publisher.ready)
            await asyncio.sleep(0.3)
            source.go = True
            before, begin = _cpu(), time.monotonic()
            await asyncio.sleep(seconds)
            events = agent.feed.read
            await until(lambda: agent.publisher.items >= events)
            took, cpu = time.monotonic() - begin, _cpu() - before
            source.go = False
            # the frame that is not full
            await asyncio.sleep(0.5)
            await until(lambda: agent.publisher.idle)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            lost = sum(agent.spool.lost.values()) + sum(agent.ledger.lost.values())
            size = agent.publisher.bytes / agent.publisher.items
            async with client(leaf, reader_key) as reader:
                stored = sum(h.count for h, _ in await kept(reader, "ipttctl-web1", events))
            return (
                f"{events / took:.0f} events/s read, {agent.publisher.items} published, "
                f"{stored} stored, {lost} lost; agent {cpu / took:.0%} of a CPU; "
                f"{size:.0f} bytes an event; leaf {_rss(leaf) / 1e6:.0f} MB; "
                f"agent {memory / 1e3:.0f} MB"
            )
    finally:
        leaf.kill()


def _cpu() -> float:
    used = os.times()
    return used.user + used.system


def _rss(server: Server) -> int:
    assert server._process is not None
    text = Path(f"/proc/{server._process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Print the figures."""
    rate = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with tempfile.TemporaryDirectory() as directory:
        print(asyncio.run(measure(rate, seconds, Path(directory))))


if __name__ == "__main__":
    main()
