# SPDX-License-Identifier: GPL-2.0
"""The example configurations of leaf and hub, with real servers, TLS and nkeys.

agent --- leaf (domain web1) ---TLS--- hub (domain hub) --- viewer, tracer, operator
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import stat
import textwrap
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import nkeys
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.cli import run as command_line
from ipttctl.fleet.asker import HubError, SilentHostError, connected
from ipttctl.fleet.bundle import Signer
from ipttctl.fleet.config import HubConfig
from ipttctl.fleet.connection import own_inbox
from ipttctl.fleet.heartbeat import Heartbeat, Selector, find_hosts
from ipttctl.fleet.hosts_trace import START
from ipttctl.fleet.rollout import VERBS, Rollout
from ipttctl.fleet.rollout_record import RolloutStore
from ipttctl.fleet.spellings import PUBLIC_KEY
from ipttctl.fleet.uploads import upload
from ipttctl.frames.codec import decode
from ipttctl.frames.seen import Seen
from tests.unit.ctl.fleet.conftest import LEAF
from tests.unit.ctl.fleet.example_fleet import (
    EXAMPLES,
    Fleet,
    fleet,
)
from tests.unit.ctl.fleet.fleet_host import (
    FleetHost,
    bundle_of,
    heard,
    order_of,
    programs_of,
)
from tests.unit.ctl.fleet.support import (
    FakeHost,
    Key,
    Server,
    agent_config,
    ask,
    connect,
    free_port,
    kept,
    running_agent,
    until,
)
from tests.unit.ctl.fleet.test_metrics import by_rule, told
from tests.unit.ctl.stories.packets import one_story

__all__ = ["fleet"]  # a fixture

ALL = "publish: {events: all, linger: 10ms}\n"


async def refused(client: Client, subject: str) -> bool:
    """Whether the server refuses to have a user publish on a subject."""
    errors: list[Exception] = []

    async def note(error: Exception) -> None:
        errors.append(error)

    client._error_cb = note
    await client.publish(subject, b"{}")
    await client.flush()
    with suppress(AssertionError):
        await until(lambda: errors, 1)
    return any("permissions violation for publish" in str(one).lower() for one in errors)


async def deaf(client: Client, subject: str) -> bool:
    """Whether the server refuses to have a user subscribe."""
    errors: list[Exception] = []

    async def note(error: Exception) -> None:
        errors.append(error)

    client._error_cb = note
    with suppress(nats.errors.Error):
        await client.subscribe(subject)
        await client.flush()
    with suppress(AssertionError):
        await until(lambda: errors, 1)
    return any("permissions violation for subscription" in str(one).lower() for one in errors)


def test_who_has_no_key_is_nobody_on_loopback_too(fleet: Fleet) -> None:
    async def run() -> None:
        given: tuple[dict[str, Any], ...] = ({}, {"user": "agent", "password": "agent"})
        for options in given:
            client = Client()
            with pytest.raises(nats.errors.Error):
                await client.connect(
                    fleet.leaf.url, allow_reconnect=False, max_reconnect_attempts=1, **options
                )

    asyncio.run(run())


def test_the_agent_speaks_and_hears_as_its_host_alone(fleet: Fleet) -> None:
    async def run() -> None:
        client = await connect(fleet.leaf, fleet.keys["AGENT_WEB1"])
        assert await refused(client, "ipttctl.ev.web2")
        assert await refused(client, "ipttctl.ctl.web2.trace")
        assert await refused(client, "$JS.API.STREAM.DELETE.ipttctl-web1")
        assert await deaf(client, "ipttctl.ctl.web2.*")
        assert await deaf(client, "ipttctl.ev.>")
        assert not await refused(client, "ipttctl.hb.web1")
        await client.close()

    asyncio.run(run())


def test_an_agent_may_answer_for_as_long_as_is_waited_for() -> None:
    [minutes] = re.findall(r'expires: "(\d+)m"', (EXAMPLES / "leaf.conf").read_text())
    assert int(minutes) * 60 > START


def test_the_code_of_the_document_makes_keys(tmp_path: Path) -> None:
    text = (EXAMPLES.parents[1] / "fleet.md").read_text()
    [code] = [
        one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "encode_seed" in one
    ]
    names: dict[str, Any] = {}
    exec(textwrap.dedent(code), names)
    file = tmp_path / "x.nk"
    public = names["make"](str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(PUBLIC_KEY, public)
    assert bytes(nkeys.from_seed(file.read_bytes()).public_key).decode() == public


def test_a_leafs_memory_is_bounded_as_the_drop_in_says_and_its_store_is_private(
    tmp_path: Path, agent_key: Key, reader_key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (EXAMPLES / "nats-server.conf").read_text()
    [soft] = re.findall(r"^Environment=GOMEMLIMIT=(\d+)MiB$", text, re.MULTILINE)
    [hard] = re.findall(r"^MemoryMax=(\d+)M$", text, re.MULTILINE)
    assert int(soft) < int(hard)
    monkeypatch.setenv("GOMEMLIMIT", f"{soft}MiB")
    port = free_port()
    config = f"http: 127.0.0.1:{port}\n{LEAF % (agent_key.public, reader_key.public)}"
    before = os.umask(0)
    try:
        leaf = Server(tmp_path / "leaf", config).start()
    finally:
        os.umask(before)

    async def run() -> None:
        host = FakeHost()
        async with running_agent(agent_config(leaf, agent_key, ALL), host) as agent:
            host.feed.put(3)
            await until(lambda: agent.publisher.items == 3)

    try:
        asyncio.run(run())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/varz", timeout=10) as answer:
            # 2.10 does not tell
            assert json.load(answer).get("gomemlimit", int(soft) << 20) == int(soft) << 20
        modes = {
            (one.is_dir(), stat.S_IMODE(one.stat().st_mode))
            for one in (leaf.directory / "js", *(leaf.directory / "js").rglob("*"))
        }
        assert modes == {(True, 0o700), (False, 0o600)}
    finally:
        leaf.kill()


def test_an_agent_may_read_what_the_one_before_has_left_in_the_stream(
    fleet: Fleet, host: FakeHost
) -> None:
    config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], ALL)
    said: list[str] = []

    async def run() -> None:
        async with running_agent(config, host) as agent:
            host.feed.put(3)
            await until(lambda: agent.publisher.items == 3)
        next(Path(config.objects.directory).glob("stream-*.json")).unlink()
        async with running_agent(config, host, said.append) as agent:
            await until(lambda: agent.publisher.ready)
            assert [one.items for one in agent.ledger.kept()] == [3]

    asyncio.run(run())
    assert not any("cannot be read" in one for one in said)


def test_the_hub_sees_and_asks_by_rights(fleet: Fleet, host: FakeHost) -> None:
    async def run() -> None:
        config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], ALL)
        async with running_agent(config, host) as agent:
            await until(lambda: agent.connection.client)
            tracer = await fleet.user("TRACER")
            hosts: list[Heartbeat] = []
            while not hosts:
                hosts = await find_hosts(tracer, Selector.parse("role=node"), 0.5)
            assert [one.host for one in hosts] == ["web1"]
            begun = await ask(tracer, verb="trace", lease=30, filter="udp")
            assert begun["ok"], begun
            assert await refused(tracer, "ipttctl.ctl.web1.attach")
            assert await refused(tracer, "ipttctl.ctl.web1.detach")
            await tracer.close()

            viewer = await fleet.user("VIEWER")
            assert (await ask(viewer, verb="links"))["ok"]
            assert await refused(viewer, "ipttctl.ctl.web1.trace")
            assert await deaf(viewer, "ipttctl.ev.web1")
            assert not await deaf(viewer, "ipttctl.story.web1")
            await viewer.close()

            # who may do all on the hub can make the agent do no more than it allows
            operator = await fleet.user("OPERATOR")
            for request in ({"verb": "detach", "link": 3}, {"verb": "apply", "links": {}}):
                answer = await ask(operator, **request)
                assert answer["error"] == f"web1 does not allow {request['verb']}"
            assert [verb for verb, _ in host.done] == ["trace"]
            await operator.close()

    asyncio.run(run())


@asynccontextmanager
async def traced(fleet: Fleet, host: FakeHost, packets: int) -> AsyncIterator[None]:
    """An agent that has published an event and a story of each packet, for whoever traces."""
    config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], ALL)
    async with running_agent(config, host) as agent:
        await until(lambda: agent.connection.client)
        await fleet.source()
        tracer = await fleet.user("TRACER")
        try:
            while not await find_hosts(tracer, Selector.parse(""), 0.5):
                pass
            await ask(tracer, verb="trace", lease=30)
            host.feed.put(packets, link=100)
            await until(lambda: agent.publisher.items == 2 * packets)
            yield
        finally:
            await tracer.close()


def test_a_viewer_reads_from_the_stream_what_it_may_see(fleet: Fleet, host: FakeHost) -> None:
    async def run() -> None:
        async with traced(fleet, host, 2):
            viewer = await fleet.user("VIEWER")
            js = viewer.jetstream(timeout=2)
            mine = await js.pull_subscribe("ipttctl.story.web1", stream="ipttctl", durable=None)
            [message] = await mine.fetch(1, timeout=20)
            assert decode(message.data)[0].kind == "stories"
            with pytest.raises((nats.errors.Error, nats.js.errors.Error, asyncio.TimeoutError)):
                await js.pull_subscribe("ipttctl.ev.web1", stream="ipttctl", durable=None)
            await viewer.close()

    asyncio.run(run())


def settings_of(fleet: Fleet, role: str) -> str:
    """The file of settings of somebody who asks the hub."""
    file = fleet.authority.parent / f"{role}.yaml"
    url = fleet.hub.url.replace("nats://", "tls://")
    file.write_text(f"url: {url}\nnkey: {fleet.keys[role].seed}\nca: {fleet.authority}\n")
    return str(file)


def test_answers_are_heard_by_their_asker_alone(fleet: Fleet, host: FakeHost) -> None:
    """Also what comes by replies of the servers themselves."""

    async def run() -> None:
        config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], ALL)
        async with running_agent(config, host) as agent:
            await until(lambda: agent.connection.client)
            tracer = await fleet.user("TRACER")
            stolen = await fleet.user("LEAF_WEB1")
            heard_of: list[bytes] = []

            async def note(message: Msg) -> None:
                heard_of.append(message.data)

            for subject in ("_R_.>", "$JS.ACK.>", "$JS.FC.>"):
                await stolen.subscribe(subject, cb=note)
            await stolen.flush()
            others = f"{own_inbox(str(fleet.keys['TRACER'].seed)).decode()}.>"
            for client in (stolen, await fleet.user("VIEWER")):
                for subject in ("_INBOX.>", others):
                    assert await deaf(client, subject)
            while not await find_hosts(tracer, Selector.parse(""), 0.5):
                pass
            await fleet.source()
            begun = await ask(tracer, verb="trace", lease=30, filter="udp")
            assert begun["ok"], begun
            host.feed.put(10)
            reader = await tracer.jetstream().pull_subscribe("ipttctl.ev.*", stream="ipttctl")
            [frame] = await reader.fetch(1, 30)
            assert decode(frame.data)[0].count == 10
            assert heard_of == []
            await tracer.close()

    asyncio.run(run())


def test_who_may_read_stories_of_a_host_can_query_them_and_no_more(
    fleet: Fleet,
    host: FakeHost,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ipttctl.fleet.kept._ANSWER", 2.0)
    host.story = lambda number: told(one_story(by_rule(number + 1)))

    async def run() -> None:
        async with traced(fleet, host, 3):
            operator = await fleet.user("OPERATOR")
            await kept(operator, "ipttctl", 6)
            await operator.close()

    asyncio.run(run())
    query = ["query", "--hub", "-o", "csv", "SELECT count(*) AS n FROM"]
    viewer, tracer = settings_of(fleet, "VIEWER"), settings_of(fleet, "TRACER")
    for arguments, answer in (
        ([*query[:-1], f"{query[-1]} drops", "--hosts", "web1", viewer], "3"),
        ([*query[:-1], f"{query[-1]} stories", tracer], "3"),
        ([*query[:-1], f"{query[-1]} events", "--hosts", "web1", tracer], "3"),
    ):
        assert command_line(arguments) == 0, capsys.readouterr().err
        assert capsys.readouterr().out.split() == ["n", answer]
    # all hosts' stories, or events, are not for a viewer of web1's
    for arguments in (
        [*query[:-1], f"{query[-1]} drops", viewer],
        [*query[:-1], f"{query[-1]} events", "--hosts", "web1", viewer],
    ):
        assert command_line(arguments) == 1
        assert "the hub does not answer" in capsys.readouterr().err


def test_a_hub_that_is_killed_loses_nothing_and_has_nothing_twice(
    fleet: Fleet, host: FakeHost
) -> None:
    async def run() -> None:
        config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], ALL)
        async with running_agent(config, host) as agent:
            await until(lambda: agent.connection.client)
            await fleet.source()
            for _ in range(3):
                for _ in range(30):
                    host.feed.put(10)
                    await asyncio.sleep(0.01)
                fleet.hub.kill()
                for _ in range(30):
                    host.feed.put(10)
                    await asyncio.sleep(0.01)
                fleet.hub.start()
            await until(lambda: agent.publisher.items == 1800)
            # the host's own connection is not touched by it
            assert agent.connection.failures == 0
            assert agent.publisher.again == 0
            operator = await fleet.user("OPERATOR")
            # a server asks for a source again after up to 40 s
            frames = await kept(operator, "ipttctl", 1800, 120)
            await operator.close()
        seen = Seen()
        new = [head for head, _ in frames if seen.first(head)]
        assert sum(head.count for head in new) == 1800
        assert seen.missing() == 0
        assert not any(head.lost for head in new)

    asyncio.run(run())


def test_objects_come_from_the_store_of_the_hub(
    fleet: Fleet, host: FakeHost, tmp_path: Path
) -> None:
    async def run() -> None:
        digest = f"sha256:{hashlib.sha256(b'an object').hexdigest()}"
        more = (
            f"allow: [attach]\ntrust: {{digests: ['{digest}']}}\n"
            f"objects: {{directory: {tmp_path / 'objects'}, domain: hub}}\n"
        )
        config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], more)
        async with running_agent(config, host) as agent:
            await until(lambda: agent.connection.client)
            operator = await fleet.user("OPERATOR")
            while not await find_hosts(operator, Selector.parse(""), 0.5):
                pass
            store = await operator.jetstream().create_object_store("ipttctl-objects")
            await store.put(digest, b"an object")
            link = {
                "hook": "nf:inet4/input",
                "programs": {"packet": {"digest": digest, "function": "limit"}},
            }
            answer = await ask(operator, verb="attach", name="lim", link=link, wait=30)
            assert answer["ok"], answer
            await operator.close()

    asyncio.run(run())


def test_who_may_roll_out_and_who_may_not(fleet: Fleet, tmp_path: Path) -> None:
    """By the rights of the example configurations."""
    order = order_of(bundle_of(a="new"), waves="100%")

    def settings(role: str) -> HubConfig:
        url = fleet.hub.url.replace("nats://", "tls://")
        return HubConfig(url=url, nkey=str(fleet.keys[role].seed), ca=str(fleet.authority))

    async def run() -> None:
        host = FleetHost()
        digests = ", ".join(f"'{digest}'" for digest in order.bundle.objects)
        more = (
            f"allow: [{', '.join(VERBS)}]\ntrust: {{digests: [{digests}]}}\n"
            f"objects: {{directory: {tmp_path / 'objects'}, domain: hub}}\n"
        )
        config = agent_config(fleet.leaf, fleet.keys["AGENT_WEB1"], more)
        async with running_agent(config, host) as agent:
            await until(lambda: agent.connection.client)
            async with connected(settings("OPERATOR")) as operator:
                await heard(operator, 1)
                await upload(operator, order.bundle)
                rollout = Rollout(operator, RolloutStore(operator), patience=10)
                await rollout.begin(order, lambda: operator.find(Selector()))
                await rollout.run(order.bundle, Signer(None, 60))
                assert rollout.record.step == "done"
                assert host.programs() == programs_of(order.bundle)
            async with connected(settings("TRACER")) as tracer:
                with pytest.raises(HubError, match="cannot put objects"):
                    await upload(tracer, order.bundle)
                with pytest.raises(HubError, match="no record of roll-outs"):
                    await RolloutStore(tracer, patience=2).read()
                with pytest.raises(SilentHostError):
                    await tracer.ask("web1", "rollback", {"rollout": rollout.record.rollout}, 1)
            assert host.programs() == programs_of(order.bundle)

    asyncio.run(run())
