# SPDX-License-Identifier: GPL-2.0
"""An agent with a real module: links that others attach, swap, declare, try, keep and undo.

asker --- leaf (loopback) --- agent --- module --- links in a namespace, udp to itself
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict
from nats.aio.client import Client

from ipttctl.fleet.config import LinkMode
from ipttctl.fleet.grants import Statement, sign
from ipttctl.link.controller import Controller
from tests.kernel.support.cli import Running, ipttctl, running
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, namespace, send_udp
from tests.kernel.support.objects import compile_object
from tests.unit.ctl.fleet.conftest import LEAF
from tests.unit.ctl.fleet.support import Key, Server, ask, client

pytestmark = pytest.mark.usefixtures("no_links")

PATIENCE = 120
HOOK = "nf:inet4/input"
ROLLOUT = "00000000000000a1"
VERBS = "[links, attach, swap, apply, diff, detach, confirm, rollback, status]"
SOURCE = """
#include "ipttrace.h"
IPTTRACE_LICENSE("GPL");
IPTTRACE_PACKET_PROGRAM
int all(struct __sk_buff *packet) { return %s; }
"""

Work = Callable[[Client], Coroutine[Any, Any, None]]


@pytest.fixture
def place() -> Iterator[Namespace]:
    """A namespace for the links, where datagrams from and to itself arrive at their hook."""
    with namespace("states") as made:
        yield made


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Objects of programs that see all packets, and none."""
    found = {}
    for name, result in (("all", "IPTTRACE_SELECT_PACKET"), ("none", "0")):
        directory = tmp_path_factory.mktemp("objects")
        (directory / f"{name}.c").write_text(SOURCE % result)
        found[name] = compile_object(directory / f"{name}.c", directory).read_bytes()
    return found


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class AgentPlace:
    """A leaf, an agent that may do all, and the objects in the leaf's store."""

    def __init__(self, directory: Path, programs: dict[str, bytes], place: Namespace) -> None:
        self.directory = directory
        self.programs = programs
        self.place = place
        self.agent_key, self.asker_key = (Key.make(directory, one) for one in ("agent", "asker"))
        self.signer = Key.make(directory, "signer")
        self.leaf = Server(
            directory / "leaf", LEAF % (self.agent_key.public, self.asker_key.public)
        )

    def agent(self) -> Any:
        """Run an agent within a block."""
        file = self.directory / "agent.yaml"
        listed = ", ".join(f"'{digest(data)}'" for data in self.programs.values())
        file.write_text(
            f"leaf: {{url: '{self.leaf.url}', nkey: {self.agent_key.seed}}}\nhost: web1\n"
            f"allow: {VERBS}\npublish: {{events: none}}\n"
            f"trust: {{digests: [{listed}], keys: [{self.signer.public}]}}\n"
            f"objects: {{directory: {self.directory / 'objects'}}}\n"
        )
        return running("agent", "--config", str(file), fresh=True)

    def asked(self, work: Work) -> None:
        """Do some work as somebody who asks."""

        async def run() -> None:
            async with client(self.leaf, self.asker_key) as asker:
                await work(asker)

        asyncio.run(run())

    def link(self, program: str) -> dict[str, Any]:
        """The link as a request has it."""
        one = {"digest": digest(self.programs[program]), "function": "all"}
        return {"hook": HOOK, "netns": self.place.name, "programs": {"packet": one}}

    def grants(self, mode: LinkMode) -> list[dict[str, str]]:
        """Grants for all programs in a mode, which are valid for ten minutes."""
        until = int(time.time()) + 600
        return [
            asdict(
                sign(
                    Statement(
                        digest=digest(data), hook=HOOK, hosts=["web1"], expires=until, mode=mode
                    ),
                    self.signer.seed.read_bytes(),
                )
            )
            for data in self.programs.values()
        ]


@pytest.fixture
def fleet(tmp_path: Path, programs: dict[str, bytes], place: Namespace) -> Iterator[AgentPlace]:
    made = AgentPlace(tmp_path, programs, place)
    made.leaf.start()

    async def put(asker: Client) -> None:
        store = await asker.jetstream().create_object_store("ipttctl-objects")
        for data in programs.values():
            await store.put(digest(data), data)

    made.asked(put)
    yield made
    made.leaf.kill()


def connected(agent: Running, fleet: AgentPlace) -> None:
    """Wait until an agent hears commands."""
    wait_for(lambda: f"connected to {fleet.leaf.url}" in agent.err(), PATIENCE)


async def done(asker: Client, **request: Any) -> dict[str, Any]:
    """The answer to a request that is done."""
    answer = await ask(asker, wait=PATIENCE, **request)
    assert answer["ok"], (request["verb"], answer)
    return answer


async def refused(asker: Client, **request: Any) -> str:
    """The sentence of a refusal."""
    answer = await ask(asker, wait=PATIENCE, **request)
    assert not answer["ok"], (request["verb"], answer)
    return str(answer["error"])


def actions(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The steps of an answer."""
    return [(one["action"], one["name"]) for one in answer["steps"]]


def listed() -> list[dict[str, Any]]:
    """The links that there are."""
    return [json.loads(line) for line in ipttctl("links", "-o", "json").stdout.splitlines()]


def succeeded(*arguments: str) -> str:
    """The output of a command that succeeds."""
    ended = ipttctl(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def program_tags() -> dict[str, set[str]]:
    """The tags of the programs of each link."""
    with Controller() as controller:
        return {
            link.name: {one.tag for one in link.programs.values()} for link in controller.links()
        }


def test_single_links_are_attached_swapped_rolled_back_confirmed_and_detached(
    fleet: AgentPlace,
) -> None:
    async def work(asker: Client) -> None:
        made = await done(asker, verb="attach", name="one", link=fleet.link("none"))
        assert made["link"]["name"] == "one"
        before = program_tags()
        fleet.place.call(send_udp, "127.0.0.1", 9, [b"one"])
        assert listed()[0]["packets"] >= 1
        for verb in ("rollback", "confirm"):
            swapped = await done(
                asker, verb="swap", name="one", link=fleet.link("all"), rollback_after=600
            )
            assert swapped["link"]["generation"] > made["link"]["generation"]
            assert program_tags() != before
            assert (await done(asker, verb=verb, name="one"))["link"]["name"] == "one"
            assert (program_tags() == before) is (verb == "rollback")
        two = await refused(asker, verb="swap", name="two", link=fleet.link("all"))
        assert "there is no such link" in two
        links = (await done(asker, verb="links"))["links"]
        assert [one["name"] for one in links] == ["one"]
        elsewhere = fleet.link("all") | {"hook": "nf:inet4/output"}
        assert "is not at" in await refused(asker, verb="swap", name="one", link=elsewhere)
        assert (await done(asker, verb="detach", link="one"))["link"]["name"] == "one"
        assert listed() == []

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(work)


def test_a_state_is_applied_and_others_links_are_left_alone(fleet: AgentPlace) -> None:
    async def work(asker: Client) -> None:
        await done(asker, verb="attach", name="other", link=fleet.link("none"))
        two = {"a": fleet.link("none"), "b": fleet.link("all")}
        assert actions(await done(asker, verb="diff", links=two)) == [
            ("attach", "a"),
            ("attach", "b"),
        ]
        assert actions(await done(asker, verb="apply", links=two)) == [
            ("attach", "a"),
            ("attach", "b"),
        ]
        assert actions(await done(asker, verb="apply", links=two)) == []
        assert actions(await done(asker, verb="diff", links=two)) == []
        assert set(program_tags()) == {"a", "b", "other"}
        one = {"a": fleet.link("all")}
        found = actions(await done(asker, verb="apply", links=one))
        assert sorted(found) == [("detach", "b"), ("swap", "a")]
        assert set(program_tags()) == {"a", "other"}
        status = await done(asker, verb="status")
        assert [one["name"] for one in status["links"]] == ["a"]
        assert (status["rollout"], status["state"]) == (None, "none")
        await done(asker, verb="apply", links={})
        assert set(program_tags()) == {"other"}
        await done(asker, verb="detach", link="other")

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(work)


def test_a_roll_out_is_kept_or_undone_as_a_whole(fleet: AgentPlace) -> None:
    async def work(asker: Client) -> None:
        old = {"a": fleet.link("none"), "gone": fleet.link("none")}
        new = {"a": fleet.link("all"), "b": fleet.link("all")}
        await done(asker, verb="apply", links=old)
        before = program_tags()
        trial: dict[str, Any] = {"verb": "apply", "links": new, "rollback_after": 600}

        async def tried(rollout: str, **more: Any) -> None:
            await done(asker, **trial, rollout=rollout, **more)
            # what is to go stays until the swap is kept
            assert set(program_tags()) == {"a", "b", "gone"}
            status = await done(asker, verb="status")
            assert (status["rollout"], status["state"]) == (rollout, "trial")
            waiting = {one["name"]: one["waits"] for one in status["links"]}
            assert waiting == {"a": True, "b": False, "gone": False}

        first, second, third = (f"{number:016x}" for number in (1, 2, 3))
        await tried(first)
        assert actions(await done(asker, **trial, rollout=first)) == []
        assert f"{first} is on trial here" in await refused(asker, **trial, rollout=second)
        await done(asker, verb="rollback", rollout=first)
        assert program_tags() == before
        await done(asker, verb="rollback", rollout=first)
        assert f"{first} was undone here" in await refused(asker, **trial, rollout=first)
        assert "is not on trial" in await refused(asker, verb="confirm", rollout=first)

        # kept, and undone afterwards all the same
        await tried(second)
        await done(asker, verb="confirm", rollout=second)
        assert set(program_tags()) == {"a", "b"}
        await done(asker, verb="confirm", rollout=second)
        assert (await done(asker, verb="status"))["state"] == "kept"
        await done(asker, verb="rollback", rollout=second)
        assert program_tags() == before

        # a guard that does not hold: the module goes back by itself
        await tried(third, guards=["packets < 1/10s"])
        fleet.place.call(send_udp, "127.0.0.1", 9, [b"one", b"two", b"three"])
        for _ in range(100):
            status = await done(asker, verb="status")
            if status["state"] != "trial":
                break
            await asyncio.sleep(0.1)
        assert status["state"] == "failed", status
        assert "a guard did not hold: packets < 1/10s" in status["why"], status
        assert "a guard did not hold" in await refused(asker, verb="confirm", rollout=third)
        assert "a guard did not hold" in await refused(asker, **trial, rollout=third)
        await done(asker, verb="rollback", rollout=third)
        assert program_tags() == before
        await done(asker, verb="apply", links={})
        assert listed() == []

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(work)


def test_a_filter_drops_packets_only_with_leave_to_filter(fleet: AgentPlace) -> None:
    async def work(asker: Client) -> None:
        link = fleet.link("none") | {"mode": "filter"}
        attach: dict[str, Any] = {"verb": "attach", "name": "lim", "link": link}
        why = await refused(asker, **attach, grants=fleet.grants("observe"))
        assert "mode filter: it is listed in trust.digests, to observe only" in why
        assert "the grant is for mode observe" in why
        assert listed() == []
        grants = fleet.grants("filter")
        made = await done(asker, **attach, grants=grants)
        assert (made["link"]["mode"], made["link"]["drops"]) == ("filter", 0)
        fleet.place.call(send_udp, "127.0.0.1", 9, [b"one", b"two"])
        assert listed()[0]["drops"] >= 2
        # who may have it observe has no say about the one that filters
        observing = {"verb": "swap", "name": "lim", "link": fleet.link("all")}
        why = await refused(asker, **observing)
        assert f"not at {HOOK}@filter in mode observe, but {HOOK}@filter in mode filter" in why
        await done(
            asker,
            verb="swap",
            name="lim",
            link=fleet.link("all") | {"mode": "filter"},
            grants=grants,
        )
        await done(asker, verb="detach", link="lim")

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(work)


def test_the_module_itself_ends_a_first_filter_that_drops_too_much(fleet: AgentPlace) -> None:
    async def work(asker: Client) -> None:
        await done(asker, verb="apply", links={"lim": fleet.link("none")})
        before = program_tags()
        links = {"lim": fleet.link("none") | {"mode": "filter"}}
        await done(
            asker,
            verb="apply",
            links=links,
            rollout=ROLLOUT,
            rollback_after=600,
            guards=["drops < 10/s"],
            grants=fleet.grants("filter"),
        )
        # the one that observes is there until the other one is kept
        modes = {one["mode"]: one["outcome"] == "waiting" for one in listed()}
        assert modes == {"observe": False, "filter": True}
        fleet.place.call(send_udp, "127.0.0.1", 9, [b"one"] * 50)

        def filtering() -> dict[str, Any]:
            [found] = [one for one in listed() if one["mode"] == "filter"]
            return found

        # nobody asks the agent meanwhile
        wait_for(lambda: filtering()["outcome"] != "waiting", PATIENCE)
        dropped = filtering()["drops"]
        assert dropped >= 10
        fleet.place.call(send_udp, "127.0.0.1", 9, [b"one"] * 50)
        assert filtering()["drops"] == dropped
        status = await done(asker, verb="status")
        assert status["state"] == "failed"
        assert "was swapped back: a guard did not hold: drops < 10/s" in status["why"]
        await done(asker, verb="rollback", rollout=ROLLOUT)
        assert program_tags() == before
        assert [one["mode"] for one in listed()] == ["observe"]
        await done(asker, verb="apply", links={})

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(work)


def test_a_roll_out_outlives_its_agent(fleet: AgentPlace) -> None:
    new = {"a": fleet.link("all")}

    async def first(asker: Client) -> None:
        await done(asker, verb="apply", links={"a": fleet.link("none")})
        await done(asker, verb="apply", links=new, rollout=ROLLOUT, rollback_after=600)

    async def second(asker: Client) -> None:
        assert (await done(asker, verb="status"))["state"] == "trial"
        await done(asker, verb="apply", links=new, rollout=ROLLOUT, rollback_after=600)
        await done(asker, verb="confirm", rollout=ROLLOUT)
        assert [one["waits"] for one in (await done(asker, verb="status"))["links"]] == [False]
        await done(asker, verb="apply", links={})

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(first)
        agent.stop(signal.SIGKILL)
    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(second)


def test_a_roll_out_that_nobody_confirms_is_told_as_undone(fleet: AgentPlace) -> None:
    async def work(asker: Client) -> None:
        await done(asker, verb="apply", links={"a": fleet.link("none")})
        before = program_tags()
        # the module goes back with a, the agent with b
        links = {"a": fleet.link("all"), "b": fleet.link("all")}
        await done(asker, verb="apply", links=links, rollout=ROLLOUT, rollback_after=1)
        for _ in range(100):
            status = await done(asker, verb="status")
            if status["state"] == "undone":
                break
            await asyncio.sleep(0.1)
        assert status["rollout"] == ROLLOUT
        assert status["why"] == "link a was swapped back: it was not confirmed in time"
        assert program_tags() == before
        await done(asker, verb="rollback", rollout=ROLLOUT)
        await done(asker, verb="apply", links={})

    with fleet.agent() as agent:
        connected(agent, fleet)
        fleet.asked(work)


def test_a_file_is_rolled_out_by_the_command_line(fleet: AgentPlace) -> None:
    """A filter is compiled here, signed, tried on the host, and undone as it drops too much."""
    directory = fleet.directory
    hub = directory / "hub.yaml"
    hub.write_text(f"url: {fleet.leaf.url}\nnkey: {fleet.asker_key.seed}\n")
    state = directory / "state.yaml"
    source = directory / "lim.c"
    state.write_text(
        f"links:\n  lim:\n    hook: {HOOK}\n    netns: {fleet.place.name}\n    mode: filter\n"
        "    source: {packet: 'lim.c:all'}\n"
    )
    common = ("--hub", str(hub))
    apply = (
        *("fleet", "apply", str(state), "--hosts", "web1", "--sign", str(fleet.signer.seed)),
        *("--patience", f"{PATIENCE}s", "--rollback-after", "300s", *common),
    )
    with fleet.agent() as agent:
        connected(agent, fleet)
        source.write_text(SOURCE % "IPTTRACE_ACCEPT")
        succeeded(*apply, "--pause", "1s")
        before = program_tags()
        assert set(before) == {"lim"}
        rows = succeeded("fleet", "hosts", *common).splitlines()
        assert rows[1].split()[0] == "web1"

        source.write_text(SOURCE % "IPTTRACE_DROP")
        with running(*apply, "--pause", "60s", "--guard", "drops < 10/s", fresh=True) as rolling:
            wait_for(lambda: program_tags() != before, PATIENCE)
            fleet.place.call(send_udp, "127.0.0.1", 9, [b"one"] * 50)
            assert rolling.process.wait(PATIENCE) == 1
        why = "web1: link lim was swapped back: a guard did not hold: drops < 10/s: "
        assert why in rolling.err()
        dropped = listed()[0]["drops"]
        assert dropped >= 10
        # they pass again
        fleet.place.call(send_udp, "127.0.0.1", 9, [b"one"] * 50)
        assert listed()[0]["drops"] == dropped
        assert "undone on 1 of 1 hosts" in rolling.err()
        assert program_tags() == before

        succeeded(*apply, "--pause", "1s")
        assert program_tags() != before
        succeeded("fleet", "undo", "--patience", f"{PATIENCE}s", *common)
        assert program_tags() == before
        assert "undone" in succeeded("fleet", "status", *common)

        async def end(asker: Client) -> None:
            await done(asker, verb="apply", links={})

        fleet.asked(end)
