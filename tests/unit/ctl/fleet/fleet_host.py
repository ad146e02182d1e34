# SPDX-License-Identifier: GPL-2.0
# ruff: noqa: D102 - methods of doubles are documented where they are declared
"""Hosts whose links behave as the module's do, as far as a roll-out can tell, and servers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from nats.js.api import ExternalStream, StreamConfig, StreamSource

from ipttctl.errors import IpttctlError
from ipttctl.fleet.agent import Agent
from ipttctl.fleet.asker import Asker, connected
from ipttctl.fleet.bundle import Bundle
from ipttctl.fleet.config import HubConfig
from ipttctl.fleet.config_file import parse_config
from ipttctl.fleet.heartbeat import Selector
from ipttctl.fleet.host import FleetLink, TrialTerms
from ipttctl.fleet.requests import Declared
from ipttctl.fleet.rollout import VERBS, RolloutOrder
from ipttctl.fleet.waves import Waves
from ipttctl.link.condition import Condition
from tests.unit.ctl.fleet.support import FakeHost, Key, Server, free_port, running_agent

HUB = """
server_name: hub
listen: 127.0.0.1:@PORT@
jetstream { store_dir: "@STORE@", domain: hub, max_mem: 64MB, max_file: 1GB }
leafnodes { listen: "%s" }
accounts { FLEET { jetstream: enabled, users: [ { nkey: %s }, { nkey: %s } ] } }
"""
LEAF = """
server_name: %(name)s
listen: 127.0.0.1:@PORT@
jetstream { store_dir: "@STORE@", domain: %(name)s, max_mem: 64MB, max_file: 1GB }
accounts { FLEET { jetstream: enabled, users: [ { nkey: %(agent)s } ] } }
leafnodes {
  reconnect: 500ms
  remotes: [ { url: "nats://%(hub)s", account: FLEET, include "leaf-key.conf" } ]
}
"""


GUARD = "a guard did not hold"
_EXPIRED = "it was not confirmed in time"


@dataclass
class FakeLink:
    """A link: its programs, those of before while a swap waits, and its counters."""

    link: int
    entry: dict[str, Any]
    generation: int = 1
    before: dict[str, Any] | None = None
    until: float | None = None
    undone: str = ""
    packets: int = 0
    drops: int = 0

    @property
    def mode(self) -> str:
        """Whether it can drop packets."""
        return str(self.entry.get("mode", "observe"))


@dataclass
class FleetHost(FakeHost):
    """A host with links of the fleet, which go back by time as the module's do."""

    links_now: dict[str, FakeLink] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10, 10_000)))
    slow: float = 0.0
    error: str = ""
    drops_a_look: int = 0
    on_apply: Callable[[], object] = lambda: None

    def programs(self) -> dict[str, Any]:
        """The programs that packets meet, by the names of links."""
        self._go_back()
        return {name: one.entry["object"] for name, one in sorted(self.links_now.items())}

    def violate(self, name: str) -> None:
        """Have a swap that waits rolled back for a guard, as the module does it."""
        self._back(self.links_now[name], GUARD)

    def reboot(self) -> None:
        """Lose all links, and be another boot."""
        self.boot = self.boot[:-1] + chr(ord(self.boot[-1]) + 1)
        self.links_now = {}

    def apply(
        self, state: Mapping[str, Any], directory: Path, trial: TrialTerms, reason: str
    ) -> list[dict[str, Any]]:
        del directory, reason
        time.sleep(self.slow)
        self.on_apply()
        if self.error:
            raise IpttctlError(self.error)
        self._go_back()
        steps: list[dict[str, Any]] = []
        for name, entry in state["links"].items():
            found = self.links_now.get(name)
            if found is not None and found.mode != entry.get("mode", "observe"):
                # a link cannot change its mode
                del self.links_now[name]
                steps.append({"action": "detach", "name": name})
                found = None
            if found is None:
                found = self.links_now[name] = FakeLink(next(self.numbers), dict(entry))
                steps.append({"action": "attach", "name": name, "link": found.link})
            elif found.entry != entry:
                if found.before is not None:
                    raise IpttctlError(f"{name}: its last swap waits")
                if trial.rollback is not None or trial.guards:
                    found.before = found.entry
                    found.until = time.monotonic() + (trial.rollback or 86400)
                found.entry, found.undone = dict(entry), ""
                found.generation += 1
                steps.append({"action": "swap", "name": name, "link": found.link})
        if not any(one.before for one in self.links_now.values()):
            for name in self.links_now.keys() - state["links"].keys():
                del self.links_now[name]
                steps.append({"action": "detach", "name": name})
        self.done.append(("apply", steps))
        return steps

    def confirm(
        self, state: Mapping[str, Any], directory: Path, reason: str
    ) -> list[dict[str, Any]]:
        self._go_back()
        for name, entry in state["links"].items():
            if name not in self.links_now or self.links_now[name].entry != entry:
                raise IpttctlError(f"{name}: it is too late")
        for one in self.links_now.values():
            one.before = one.until = None
        self.done.append(("confirm", None))
        return self.apply(state, directory, TrialTerms(), reason)

    def undo(self, state: Mapping[str, Any], directory: Path, reason: str) -> list[dict[str, Any]]:
        for one in self.links_now.values():
            if one.before is not None:
                self._back(one, "somebody had it rolled back")
        self.done.append(("undo", None))
        return self.apply(state, directory, TrialTerms(), reason)

    def diff(self, state: Mapping[str, Any], directory: Path) -> list[dict[str, Any]]:
        del directory
        return [
            {"action": "swap" if name in self.links_now else "attach", "name": name}
            for name, entry in state["links"].items()
            if name not in self.links_now or self.links_now[name].entry != entry
        ]

    def watched(self) -> list[FleetLink]:
        self._go_back()
        for one in self.links_now.values():
            one.packets += 100
            one.drops += self.drops_a_look if one.mode == "filter" else 0
        return [_shown(name, one) for name, one in self.links_now.items()]

    def swapped(self, links: Collection[int]) -> list[FleetLink]:
        self._go_back()
        return [_shown(name, one) for name, one in self.links_now.items() if one.link in links]

    def _go_back(self) -> None:
        for one in self.links_now.values():
            if one.until is not None and time.monotonic() > one.until:
                self._back(one, _EXPIRED)

    def _back(self, link: FakeLink, why: str) -> None:
        assert link.before is not None
        link.entry, link.before, link.until, link.undone = link.before, None, None, why
        link.generation += 1


def _shown(name: str, link: FakeLink) -> FleetLink:
    ends = {"": "kept", _EXPIRED: "expired", GUARD: "guard"}
    return FleetLink(
        name,
        link.link,
        link.generation,
        waits=link.before is not None,
        undone=link.undone,
        counters={"packets": link.packets, "drops": link.drops},
        end="" if link.before is not None else ends.get(link.undone, "rolled back"),
    )


@dataclass
class TwoServers:
    """A hub and a leaf of it, and the settings of somebody who asks."""

    hub: Server
    leaf: Server
    agent: Key
    settings: HubConfig
    asker: Key
    directory: Path
    #: where leaves find the hub, and what they show there
    place: str
    leaf_key: Key


def hub_server(directory: Path, place: str, leaf_key: Key, asker: Key) -> Server:
    """A hub that leaves find at an address and port; it is not started yet."""
    return Server(directory / "hub", HUB % (place, leaf_key.public, asker.public))


def leaf_server(directory: Path, hub: str, leaf_key: Key, agent: Key, name: str = "leaf") -> Server:
    """A leaf of a hub at an address and port; it is not started yet."""
    place = directory / name
    place.mkdir()
    (place / "leaf-key.conf").write_text(f"nkey: {leaf_key.seed.read_text()}\n")
    return Server(place, LEAF % {"name": name, "agent": agent.public, "hub": hub})


async def keep_leaf(servers: TwoServers, hosts: Sequence[str]) -> None:
    """Have the hub keep what the leaf has of hosts, once all of them are heard."""
    async with connected(servers.settings) as asker:
        for _ in range(60):
            if len(await asker.find(Selector(), 1, some=False)) == len(hosts):
                break
        sources = [
            StreamSource(name=f"ipttctl-{host}", external=ExternalStream(api="$JS.leaf.API"))
            for host in hosts
        ]
        js = asker.client.jetstream(timeout=20)
        await js.add_stream(StreamConfig(name="ipttctl", sources=sources, max_bytes=64 << 20))


@contextmanager
def two_servers(directory: Path) -> Iterator[TwoServers]:
    """Run a hub and a leaf within a block."""
    agent, asker, leaf_key = (Key.make(directory, name) for name in ("agent", "asker", "leaf"))
    place = f"127.0.0.1:{free_port()}"
    hub = hub_server(directory, place, leaf_key, asker).start()
    try:
        leaf = leaf_server(directory, place, leaf_key, agent).start()
        try:
            settings = HubConfig(url=hub.url, nkey=str(asker.seed))
            yield TwoServers(hub, leaf, agent, settings, asker, directory, place, leaf_key)
        finally:
            leaf.kill()
    finally:
        hub.kill()


def object_of(text: str) -> bytes:
    """Bytes that stand for an object: nobody loads them."""
    return f"\x7fELF {text}".encode()


def bundle_of(**programs: str) -> Bundle:
    """Links by their names, each with a program that a text stands for."""
    objects = {f"sha256:{digest_of(text)}": object_of(text) for text in programs.values()}
    links = {
        name: msgspec.convert(
            {
                "hook": "nf:inet4/input",
                "programs": {"packet": {"digest": f"sha256:{digest_of(text)}", "function": "all"}},
            },
            Declared,
        )
        for name, text in programs.items()
    }
    return Bundle(links, objects)


def filters(bundle: Bundle) -> Bundle:
    """The same links in mode filter."""
    links = {
        name: msgspec.structs.replace(link, mode="filter") for name, link in bundle.links.items()
    }
    return Bundle(links, bundle.objects)


def digest_of(text: str) -> str:
    """The digest of an object, in hex."""
    return hashlib.sha256(object_of(text)).hexdigest()


def programs_of(bundle: Bundle) -> dict[str, Any]:
    """The programs that a host has which has applied a bundle."""
    return {name: link.entry()["object"] for name, link in sorted(bundle.links.items())}


def order_of(
    bundle: Bundle,
    waves: str = "1,100%",
    guards: tuple[str, ...] = (),
    *,
    pause: float = 0.4,
    rollback_after: float = 30,
) -> RolloutOrder:
    """An order for all hosts, with a short pause."""
    return RolloutOrder(
        file="state.yaml",
        who="ann",
        bundle=bundle,
        waves=Waves.parse(waves),
        chosen="all",
        names=frozenset(),
        guards=tuple(map(Condition.parse, guards)),
        pause=pause,
        rollback_after=rollback_after,
    )


@asynccontextmanager
async def agents(
    servers: TwoServers,
    hosts: list[FleetHost],
    *bundles: Bundle,
    first: int = 1,
    wait: bool = True,
    more: str = "",
) -> AsyncIterator[list[Agent]]:
    """Agents web001, web002... of some hosts, which may run the objects of bundles.

    They may in the modes of their links. With ``wait`` the hub has heard of them by then. There may
    be ``more`` in their configurations.
    """
    listed = {
        mode: sorted(
            {
                program.digest
                for bundle in bundles
                for link in bundle.links.values()
                for program in link.programs.values()
                if link.mode == mode
            }
        )
        for mode in ("observe", "filter")
    }
    async with AsyncExitStack() as stack:
        found = []
        for number, host in enumerate(hosts, first):
            config = agent_text(servers, number, listed["observe"], listed["filter"], more)
            found.append(await stack.enter_async_context(running_agent(config, host)))
        for agent in found:
            await agent.connection.wait()
        if wait:
            async with connected(servers.settings) as asker:
                await heard(asker, len(hosts))
        yield found


def agent_text(
    servers: TwoServers,
    number: int,
    digests: list[str],
    filtering: Sequence[str] = (),
    more: str = "",
) -> Any:
    """The configuration of an agent; ``filtering`` are objects that may filter."""
    name = f"web{number:03d}"
    listed, dropping = (", ".join(f"'{one}'" for one in some) for some in (digests, filtering))
    text = (
        f"leaf: {{url: '{servers.leaf.url}', nkey: {servers.agent.seed}}}\nhost: {name}\n"
        f"labels: {{role: node}}\nallow: [{', '.join(VERBS)}, diff]\n"
        f"trust: {{digests: [{listed}], filters: [{dropping}]}}\n"
        "publish: {events: none}\nheartbeat: 1s\n"
        f"objects: {{directory: {servers.directory / 'objects' / name}, domain: hub}}\n"
        f"drain: 500ms\nspool: {{bytes: 1048576}}\nstream: {{bytes: 4194304}}\n{more}"
    )
    return parse_config(text, "agent.yaml")


async def heard(asker: Asker, count: int, seconds: float = 30) -> None:
    """Wait until the hub hears of as many hosts."""
    end = time.monotonic() + seconds
    names: set[str] = set()
    while len(names) < count:
        assert time.monotonic() < end, "the hub does not hear of the hosts"
        names |= {one.host for one in await asker.find(Selector(), 0.5, some=False)}
