# SPDX-License-Identifier: GPL-2.0
"""The side of whoever asks: settings, hosts by selector, answers, and all that can go wrong.

asker --- hub --- leaf --- agents web1, web2
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.cli.hub_options import asking
from ipttctl.errors import UsageError
from ipttctl.fleet import asker as asker_module
from ipttctl.fleet.asker import (
    AnswerError,
    Asker,
    HubError,
    SilentHostError,
    connected,
    read_hub,
)
from ipttctl.fleet.config import HubConfig
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.heartbeat import Selector
from tests.unit.ctl.fleet.fleet_host import TwoServers
from tests.unit.ctl.fleet.support import (
    FakeHost,
    Key,
    client,
    free_port,
    running_agent,
    until,
)


@asynccontextmanager
async def two_hosts(servers: TwoServers) -> AsyncIterator[tuple[FakeHost, FakeHost]]:
    """Two hosts whose agents the hub has heard of."""
    hosts = FakeHost(), FakeHost(answer=[{"id": 7}])
    async with AsyncExitStack() as stack:
        for number, host in enumerate(hosts, 1):
            zone = "ab"[number - 1]
            text = (
                f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\n"
                f"host: web{number}.example\nlabels: {{role: node, zone: {zone}}}\n"
                "publish: {events: none}\n"
            )
            agent = await stack.enter_async_context(
                running_agent(parse_config(text, "agent.yaml"), host)
            )
            await agent.connection.wait()
        async with connected(servers.settings) as asker:
            end = time.monotonic() + 20
            while len(await asker.find(Selector(), 0.3, some=False)) < 2:
                assert time.monotonic() < end, "the hub does not hear of the hosts"
        yield hosts


@asynccontextmanager
async def plain_server(said: list[bytes]) -> AsyncIterator[int]:
    """A server without TLS that takes everybody, as somebody in between can be; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"nonce":"abc",'
            b'"auth_required":true}\r\n'
        )
        while line := await reader.readline():
            said.append(line)
            writer.write(b"PONG\r\n" if line.startswith(b"PING") else b"")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_a_request_that_is_not_utf_8_is_a_mistake_in_a_sentence() -> None:
    asker = Asker(None, HubConfig(url="nats://h:1", nkey="/none"))  # type: ignore[arg-type]  # unused
    with pytest.raises(UsageError, match="trace: there is a byte that is not UTF-8"):
        asyncio.run(asker.ask("web1", "trace", {"filter": "host caf\udce9"}))


def test_nothing_is_said_in_the_clear_where_tls_is_meant(tmp_path: Path) -> None:
    said: list[bytes] = []
    key = Key.make(tmp_path, "ann")

    async def run() -> None:
        async with plain_server(said) as port:
            hub = HubConfig(url=f"tls://127.0.0.1:{port}", nkey=str(key.seed))
            with pytest.raises(HubError, match="the server does not speak TLS"):
                async with connected(hub):
                    pass
            leaf = parse_config(
                f"leaf: {{url: 'tls://127.0.0.1:{port}', nkey: {key.seed}}}\nhost: web1\n",
                "agent.yaml",
            )
            async with running_agent(leaf, FakeHost()) as agent:
                await until(lambda: agent.connection.failures)
                assert "does not speak TLS" in agent.connection.problem
                assert agent.connection.client is None

    asyncio.run(run())
    assert said == []


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("all", ["web1.example", "web2.example"]),
        ("role=node", ["web1.example", "web2.example"]),
        ("role=node,zone!=b", ["web1.example"]),
        ("web2.example", ["web2.example"]),
        ("web2.example, web1.example", ["web1.example", "web2.example"]),
        ("host=web1.example", ["web1.example"]),
        ("web1.example,zone=b", []),
        ("role=gateway", []),
    ],
)
def test_a_selector_chooses(text: str, chosen: list[str]) -> None:
    hosts = {
        "web1.example": {"role": "node", "zone": "a"},
        "web2.example": {"role": "node", "zone": "b"},
    }
    selector = Selector.parse(text)
    assert [name for name, labels in hosts.items() if selector.chooses(name, labels)] == chosen


@pytest.mark.parametrize("text", ["a b", "=x", "all,web1", "web1,all", "role==x", "x!", "é"])
def test_another_text_is_no_selector(text: str) -> None:
    with pytest.raises(UsageError, match="chooses no hosts"):
        Selector.parse(text)


def test_hosts_are_found_and_asked_through_the_hub(servers: TwoServers) -> None:
    async def run() -> None:
        async with two_hosts(servers) as hosts, connected(servers.settings) as asker:
            [one] = await asker.find(Selector.parse("zone=a"))
            assert (one.host, one.labels) == ("web1.example", {"role": "node", "zone": "a"})
            assert (one.boot, one.version, one.allow) == (
                hosts[0].boot,
                "0.1.0",
                ["trace", "links"],
            )
            assert len(one.run) >= 8
            assert await asker.ask("web2.example", "links", {}) == {"links": [{"id": 7}]}
            begun = await asker.ask("web1.example", "trace", {"lease": 30})
            renewed = await asker.ask(
                "web1.example", "renew", {"trace": begun["trace"], "lease": 30}
            )
            assert renewed["lease"] > 29
            with pytest.raises(AnswerError, match=r"^web1\.example: .* does not allow detach$"):
                await asker.ask("web1.example", "detach", {"link": 3})
            with pytest.raises(SilentHostError, match=r"^web3: there is no agent that hears links"):
                await asker.ask("web3", "links", {})
            with pytest.raises(SilentHostError, match=r"^web3: nothing is heard of it within"):
                await asker.find(Selector.parse("web1.example,web3"))
            with pytest.raises(SilentHostError, match="no host that is meant"):
                await asker.find(Selector.parse("role=gateway"), 0.3)
            assert await asker.find(Selector.parse("role=gateway"), 0.3, some=False) == []

    asyncio.run(run())


def test_an_asker_waits_as_long_as_it_is_told_and_no_longer_than_it_has_to(
    servers: TwoServers,
) -> None:
    async def run() -> None:
        async with two_hosts(servers):
            async with connected(servers.settings, 0.3) as asker:
                with pytest.raises(SilentHostError, match=r"nothing is heard of it within 0\.3 s"):
                    await asker.find(Selector.parse("web1.example,web3"))
            async with connected(servers.settings, 600) as asker, asyncio.timeout(60):
                found = await asker.find(Selector.parse("web1.example,web2.example"))
                assert [one.host for one in found] == ["web1.example", "web2.example"]

    asyncio.run(run())


def test_an_agent_is_connected_once_its_server_knows_what_it_listens_to(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else whoever hears its first heartbeat may find that nobody is there to be asked."""

    async def run() -> None:
        text = (
            f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\n"
            "host: web1.example\npublish: {events: none}\n"
        )
        async with running_agent(parse_config(text, "agent.yaml"), FakeHost()) as agent:
            listen, listened = agent.commands.listen, asyncio.Event()

            async def frozen(client: Client) -> None:
                servers.leaf.freeze()
                await listen(client)
                listened.set()

            monkeypatch.setattr(agent.commands, "listen", frozen)
            await asyncio.wait_for(listened.wait(), 20)
            await asyncio.sleep(0.5)
            assert agent.connection.client is None
            servers.leaf.thaw()
            await asyncio.wait_for(agent.connection.wait(), 20)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the answer to links is none"),
        (b"[1]", "the answer to links is none"),
        (b'{"ok": 1}', "the answer to links is none"),
        (b"[" * 100_000, "the answer to links is none"),
        (json.dumps({"ok": True, "links": "x" * 300_000}).encode(), "the answer to links is none"),
        (b'{"ok": false, "error": "a\\nb"}', "a b"),
    ],
)
def test_a_host_may_answer_anything(servers: TwoServers, data: bytes, error: str) -> None:
    async def run() -> None:
        async def answer(message: Msg) -> None:
            await message.respond(data)

        async with (
            connected(servers.settings) as asker,
            client(servers.hub, servers.asker) as bad,
        ):
            await bad.subscribe("ipttctl.ctl.bad.*", cb=answer)
            await bad.flush()
            with pytest.raises(AnswerError) as caught:
                await asker.ask("bad", "links", {}, 5)
            assert str(caught.value) == f"bad: {error}"

    asyncio.run(run())


def test_a_host_that_does_not_answer_in_time_is_silent(servers: TwoServers) -> None:
    async def run() -> None:
        async with connected(servers.settings) as asker:
            await asker.client.subscribe("ipttctl.ctl.slow.*")
            with pytest.raises(SilentHostError, match=r"^slow: no answer to links within 0\.2 s"):
                await asker.ask("slow", "links", {}, 0.2)

    asyncio.run(run())


def test_a_connection_that_breaks_is_made_again(servers: TwoServers) -> None:
    async def run() -> None:
        async with two_hosts(servers), connected(servers.settings) as asker:
            servers.hub.kill()
            with pytest.raises((HubError, SilentHostError)):
                await asker.ask("web1.example", "links", {}, 0.5)
            servers.hub.start()
            end = time.monotonic() + 30
            while True:
                try:
                    assert (await asker.ask("web1.example", "links", {}, 1))["links"]
                    break
                except (HubError, SilentHostError):
                    assert time.monotonic() < end, "it does not come back"
                    await asyncio.sleep(0.1)

    asyncio.run(run())


def test_a_hub_that_is_not_there_or_refuses_is_one_line(
    servers: TwoServers, tmp_path: Path
) -> None:
    async def reason(settings: HubConfig) -> str:
        with pytest.raises(HubError) as caught:
            async with connected(settings):
                pass
        return str(caught.value)

    async def run() -> None:
        nobody = HubConfig(url=f"nats://127.0.0.1:{free_port()}", nkey=str(servers.asker.seed))
        assert (await reason(nobody)).startswith(f"no connection to {nobody.url}: ")
        stranger = HubConfig(url=servers.hub.url, nkey=str(Key.make(tmp_path, "stranger").seed))
        assert "uthorization" in await reason(stranger)
        no_seed = tmp_path / "no.nk"
        no_seed.write_text("nothing")
        bad = HubConfig(url=servers.hub.url, nkey=str(no_seed))
        assert "\n" not in await reason(bad)

    asyncio.run(run())


def test_settings_are_found_and_checked(
    servers: TwoServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(asker_module, "SYSTEM_FILE", tmp_path / "etc/hub.yaml")
    with pytest.raises(UsageError, match="there is neither"):
        read_hub()
    text = f"url: {servers.hub.url}\nnkey: {servers.asker.seed}\n"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hub.yaml").write_text(text)
    assert read_hub() == servers.settings
    (home / ".config/ipttctl").mkdir(parents=True)
    (home / ".config/ipttctl/hub.yaml").write_text(f"{text}bucket: mine\n")
    assert read_hub().bucket == "mine"
    other = tmp_path / "other.yaml"
    other.write_text(f"url: {servers.hub.url}\n")
    with pytest.raises(UsageError, match=r"other\.yaml: whoever asks has to say who it is"):
        read_hub(str(other))
    other.write_text(f"{text}nky: x\n")
    with pytest.raises(UsageError, match=r"other\.yaml, line 3: nky: there is no such key"):
        read_hub(str(other))
    servers.asker.seed.chmod(0o640)
    with pytest.raises(UsageError, match=r"hub\.yaml, line 2: nkey: others than its owner may"):
        read_hub()


def test_a_command_line_asks_by_its_settings(servers: TwoServers, tmp_path: Path) -> None:
    file = tmp_path / "hub.yaml"
    file.write_text(f"url: {servers.hub.url}\nnkey: {servers.asker.seed}\n")

    async def work(asker: Asker) -> str:
        await asker.client.flush()
        return asker.hub.url

    assert asking(str(file), work) == servers.hub.url
