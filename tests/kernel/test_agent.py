# SPDX-License-Identifier: GPL-2.0
"""`ipttctl agent` with a real module and a real leaf: a trace that somebody else asks for, a watch.

asker --- leaf (loopback) --- agent --- module --- udp from a namespace to itself
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipttctl.frames.bodies import events_of, json_of
from ipttctl.frames.head import EVENTS, STORIES
from tests.kernel.support.cli import Running, ipttctl, running
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, namespace, send_udp
from tests.unit.ctl.fleet.conftest import LEAF
from tests.unit.ctl.fleet.support import Key, Server, ask, client, kept

COMPILING = 400
"""Seconds for a verification of the walks and a compilation, which the first trace needs."""


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace that drops datagrams to port 9."""
    with namespace("place") as made:
        made.iptables("-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "DROP")
        yield made


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Key, Key]:
    return Key.make(tmp_path, "agent"), Key.make(tmp_path, "asker")


@pytest.fixture
def leaf(tmp_path: Path, keys: tuple[Key, Key]) -> Iterator[Server]:
    server = Server(tmp_path / "leaf", LEAF % tuple(key.public for key in keys)).start()
    yield server
    server.kill()


@pytest.fixture
def agent(tmp_path: Path, leaf: Server, keys: tuple[Key, Key]) -> Iterator[Running]:
    file = tmp_path / "agent.yaml"
    file.write_text(f"leaf: {{url: '{leaf.url}', nkey: {keys[0].seed}}}\nhost: web1\n")
    with running("agent", "--config", str(file), fresh=True) as started:
        wait_for(lambda: f"connected to {leaf.url}" in started.err(), 60)
        yield started


def listed() -> list[dict[str, Any]]:
    """The links that there are."""
    return [json.loads(line) for line in ipttctl("links", "-o", "json").stdout.splitlines()]


def test_a_trace_for_others_tells_stories_and_goes_with_the_agent(
    agent: Running, leaf: Server, keys: tuple[Key, Key], place: Namespace
) -> None:
    async def traced() -> set[int]:
        async with client(leaf, keys[1]) as asker:
            refused = await ask(asker, verb="detach", link=1)
            assert refused["error"] == "web1 does not allow detach"
            begun = await ask(
                asker, verb="trace", lease=60, filter="udp port 9", drops=True, wait=COMPILING
            )
            assert begun["ok"], begun
            links = (await ask(asker, verb="links"))["links"]
            assert {one["link"] for one in links} == set(begun["links"])
            # by this thread: a child that another one forks would wait for itself at its end
            place.call(send_udp, "127.0.0.1", 9, [b"one", b"two"])
            stories: list[dict[str, Any]] = []
            kinds = set()
            for _ in range(100):
                frames = await kept(asker, "ipttctl-web1", 1)
                kinds = {head.kind for head, _ in frames}
                stories = [
                    story
                    for head, body in frames
                    if head.kind == STORIES
                    for story in json_of(head, body)
                ]
                if len(stories) >= 2 and EVENTS in kinds:
                    break
                await asyncio.sleep(0.2)
            assert kinds == {EVENTS, STORIES}
            assert {story["end"]["kind"] for story in stories} == {"dropped_by_rule"}
            assert stories[0]["end"]["rule"]["chain"] == "INPUT"
            assert "--dport 9" in stories[0]["end"]["rule"]["rule"]
            of_links = {
                int(link)
                for head, body in frames
                if head.kind == EVENTS
                for batch in events_of(head, body)
                for link in batch.events["link"]
            }
            assert of_links <= set(begun["links"])
            return set(begun["links"])

    links = asyncio.run(traced())
    assert {one["link"] for one in listed()} == links
    agent.stop(signal.SIGKILL)
    wait_for(lambda: not listed(), 30)


def test_a_watch_tells_of_drops_though_nobody_asks_and_goes_with_the_agent(
    tmp_path: Path, leaf: Server, keys: tuple[Key, Key], place: Namespace
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        f"leaf: {{url: '{leaf.url}', nkey: {keys[0].seed}}}\nhost: web1\n"
        "watch: [{name: drops, filter: udp port 9, drops: true}]\n"
    )

    async def told(count: int) -> list[dict[str, Any]]:
        """The stories that the leaf keeps, once there are so many."""
        async with client(leaf, keys[1]) as asker:
            frames = await kept(asker, "ipttctl-web1", count)
        # the events of a watch are not published
        assert {head.kind for head, _ in frames} == {STORIES}
        return [story for head, body in frames for story in json_of(head, body)]

    with running("agent", "--config", str(file), fresh=True) as watching:

        def send(times: int) -> None:
            began = "watch drops: tracing by links"
            wait_for(lambda: watching.err().count(began) == times, COMPILING, what=began)
            place.call(send_udp, "127.0.0.1", 9, [b"one", b"two"])

        send(1)
        stories = asyncio.run(told(2))
        assert {story["end"]["kind"] for story in stories} == {"dropped_by_rule"}
        assert stories[0]["end"]["rule"]["chain"] == "INPUT"
        # somebody detaches a link of it: it is begun again, and tells on
        before = {one["link"] for one in listed()}
        assert ipttctl("detach", str(min(before))).returncode == 0
        send(2)
        assert len(asyncio.run(told(4))) == 4
        assert not before & {one["link"] for one in listed()}
        assert watching.stop(signal.SIGTERM) == 0
        assert not listed()
