# SPDX-License-Identifier: GPL-2.0
"""Time of a roll-out in waves to many agents, and of its being undone.

    .build/venv/bin/python -m tests.load.fleet_waves [HOSTS [WAVES]]

Agents run in a few processes, behind two leaves of one hub, all on this machine. Their hosts load
nothing: a link takes them no time, so that what is measured is the roll-out itself.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from ipttctl.fleet.asker import Asker, connected
from ipttctl.fleet.bundle import Signer
from ipttctl.fleet.heartbeat import Heartbeat, Selector
from ipttctl.fleet.rollout import HaltedError, Rollout
from ipttctl.fleet.rollout_record import RolloutStore
from ipttctl.fleet.uploads import upload
from tests.unit.ctl.fleet.fleet_host import (
    FleetHost,
    TwoServers,
    agents,
    bundle_of,
    heard,
    leaf_server,
    order_of,
    two_servers,
)
from tests.unit.ctl.fleet.support import Key, Server

_IN_A_PROCESS: Final = 50
_PAUSE: Final = 1.0
_PATIENCE: Final = 120.0
NEW: Final = bundle_of(a="new", b="new")


@contextmanager
def second_leaf(servers: TwoServers) -> Iterator[Server]:
    """Run another leaf of the hub within a block."""
    leaf = leaf_server(
        servers.directory, servers.place, servers.leaf_key, servers.agent, "leaf2"
    ).start()
    try:
        yield leaf
    finally:
        leaf.kill()


async def run_agents(directory: Path, url: str, first: int, count: int) -> None:
    """Be the process of some agents, until standard input ends."""
    key = Key("", directory / "agent.nk")
    leaf = Server.__new__(Server)
    leaf.port = int(url.rsplit(":", 1)[1])
    servers = TwoServers(leaf, leaf, key, None, key, directory, "", key)  # type: ignore[arg-type]  # unused
    hosts = [FleetHost() for _ in range(count)]
    async with agents(servers, hosts, NEW, first=first, wait=False):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def fleet(servers: TwoServers, other: Server, count: int) -> AsyncIterator[None]:
    """Run as many agents within a block."""
    started = []
    # two at least, so that each leaf has some
    step = min(_IN_A_PROCESS, max(1, count // 2))
    for number, first in enumerate(range(1, count + 1, step)):
        url = (servers.leaf, other)[number % 2].url
        some = min(step, count + 1 - first)
        arguments = (str(servers.directory), url, str(first), str(some))
        started.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.load.fleet_waves", "--agents", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )
    try:
        for one in started:
            assert one.stdout is not None
            assert await one.stdout.readline() == b"ready\n"
        yield
    finally:
        for one in started:
            assert one.stdin is not None
            one.stdin.close()
        await asyncio.gather(*(one.wait() for one in started))


async def measure(asker: Asker, count: int, waves: str) -> None:
    """Roll out and undo, and print how long each part takes."""
    begin = time.monotonic()
    told: list[tuple[float, str]] = []

    def tell(text: str) -> None:
        told.append((time.monotonic() - begin, text))

    async def hosts() -> list[Heartbeat]:
        return await asker.find(Selector(), 5)

    found = await hosts()
    print(f"{len(found)} hosts are heard of")
    order = order_of(NEW, waves, ("drops < 10/s",), pause=_PAUSE, rollback_after=120)
    await upload(asker, NEW)
    rollout = Rollout(asker, RolloutStore(asker), tell, patience=_PATIENCE)

    async def known() -> list[Heartbeat]:
        return found

    begin = time.monotonic()
    await rollout.begin(order, known)
    await rollout.run(NEW, Signer(None, 0))
    whole = time.monotonic() - begin
    told.pop(0)
    for (since, _), (until, _), wave in zip(
        told[::2], told[1::2], rollout.record.waves, strict=True
    ):
        print(f"wave of {len(wave):4}: {until - since - _PAUSE:6.2f} s and the pause")
    print(f"roll-out of {count}: {whole:6.2f} s, of which {_PAUSE * len(told) / 2:g} s are pauses")
    begin = time.monotonic()
    undoing = Rollout(asker, RolloutStore(asker), patience=_PATIENCE)
    await undoing.begin_undoing("measured")
    try:
        await undoing.run(None, Signer(None, 0))
    except HaltedError as error:
        print(f"undone in      {time.monotonic() - begin:6.2f} s: {error}")
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"who asks: {used.ru_utime + used.ru_stime:.1f} s of CPU, {used.ru_maxrss / 1024:.0f} MB")


async def main(count: int, waves: str) -> None:
    """Measure with servers and agents of its own."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(two_servers(directory))
        other = stack.enter_context(second_leaf(servers))
        async with fleet(servers, other, count), connected(servers.settings) as asker:
            await heard(asker, count, 120)
            await measure(asker, count, waves)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agents"]:
        place, leaf_url, first_number, number_of = sys.argv[2:]
        asyncio.run(run_agents(Path(place), leaf_url, int(first_number), int(number_of)))
    else:
        arguments = sys.argv[1:]
        asyncio.run(
            main(
                int(arguments[0]) if arguments else 200,
                arguments[1] if len(arguments) > 1 else "1,10%,100%",
            )
        )
