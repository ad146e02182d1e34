# SPDX-License-Identifier: GPL-2.0
"""The record of roll-outs: what is believed of it, who holds one, and going on after a kill."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from nats.js.kv import KeyValue

from ipttctl.fleet.asker import Asker, HubError
from ipttctl.fleet.rollout import Rollout
from ipttctl.fleet.rollout_record import RolloutStore, TakenError
from tests.unit.ctl.fleet.fleet_host import (
    FleetHost,
    TwoServers,
    agents,
    order_of,
    programs_of,
)
from tests.unit.ctl.fleet.rolling import NEW, OLD, asking, have, record_of, roll, undo_last
from tests.unit.ctl.fleet.support import until


async def put_record(asker: Asker) -> tuple[KeyValue, dict[str, Any]]:
    """Put a record into the bucket; returns the bucket, and the record as it is there."""
    store = RolloutStore(asker)
    await store.read()
    await store.put(order_of(NEW).record([]))
    bucket = await asker.client.jetstream().key_value("ipttctl-rollouts")
    return bucket, json.loads((await bucket.get("current")).value or b"")


def test_names_that_are_not_utf_8_are_escaped_in_a_record() -> None:
    record = replace(order_of(NEW), file="caf\udce9.yaml", who="\udcff@vm").record([])
    found = json.loads(msgspec.json.encode(record))
    assert (found["file"], found["who"]) == ("caf\\xe9.yaml", "\\xff@vm")


@pytest.mark.parametrize(
    ("step", "kept"),
    [
        *(("apply", ["a"]), ("watch", ["a"]), ("confirm", ["a"]), ("done", ["a", "b"])),
        *(("undo", []), ("undone", [])),
    ],
)
def test_hosts_have_kept_the_waves_before(step: Any, kept: list[str]) -> None:
    record = msgspec.structs.replace(
        order_of(NEW).record([]), waves=[["a"], ["b"]], boots={"a": "", "b": ""}, wave=1, step=step
    )
    assert record.kept == kept


def test_a_user_whose_name_is_not_utf_8_can_undo(servers: TwoServers) -> None:
    async def run() -> None:
        async with asking(servers) as asker:
            await put_record(asker)
            await Rollout(asker, RolloutStore(asker)).begin_undoing("\udcff@vm wants it so")
            assert (await record_of(asker)).why == "\\xff@vm wants it so"

    asyncio.run(run())


@pytest.mark.parametrize(
    "forged",
    [
        {"waves": [["web001", "web002"]], "boots": {"web001": "", "web002": ""}},
        {"guards": []},
        {"pause": 0.0},
        {"rollback_after": 86400.0},
        {"links": {}},
        # all at once
        {"waves": [["web001", "web003"]], "boots": {"web001": "", "web003": ""}},
    ],
)
def test_a_record_that_says_what_is_not_meant_is_refused(
    servers: TwoServers, forged: dict[str, Any]
) -> None:
    async def run() -> None:
        async with asking(servers) as asker:
            order = replace(
                order_of(NEW, guards=("drops < 10/s",)),
                chosen="web001,web003",
                names=frozenset({"web001", "web003"}),
            )
            store = RolloutStore(asker)
            await store.read()
            await store.put(msgspec.structs.replace(order.record([]), **forged))
            with pytest.raises(TakenError, match="has hosts, or terms, that are not meant"):
                await roll(asker, order)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("forged", "why"),
    [
        # those that grants would be signed for are not those that were checked
        ({"waves": [["web001", "web002"]], "boots": {"web001": ""}}, "not those that were found"),
        ({"waves": [["web001"], ["web001"]], "boots": {"web001": ""}}, "that were found"),
        ({"waves": [["a b"]], "boots": {"a b": ""}}, "is no name of a host"),
        ({"waves": [["web001"]], "boots": {"web001": ""}, "wave": 7}, "it has no wave 8"),
        ({"more": None}, "damaged"),
    ],
)
def test_a_record_that_makes_no_sense_is_told_in_a_sentence(
    servers: TwoServers, forged: dict[str, Any], why: str
) -> None:
    async def run() -> None:
        async with asking(servers) as asker:
            bucket, record = await put_record(asker)
            deep = b"[" * 5000 + b"]" * 5000
            text = json.dumps(record | forged).encode().replace(b"null", deep)
            await bucket.put("current", text)
            with pytest.raises(HubError, match=why):
                await RolloutStore(asker).read()

    asyncio.run(run())


def test_a_record_that_was_removed_is_none(servers: TwoServers) -> None:
    """As is advised where it is damaged; the next one follows what is left of it."""
    host = FleetHost()

    async def run() -> None:
        async with agents(servers, [host], NEW), asking(servers) as asker:
            await roll(asker, order_of(NEW), count=1)
            kv = await asker.client.jetstream().key_value("ipttctl-rollouts")
            await kv.delete("current")
            assert await RolloutStore(asker).read() is None
            record, _ = await roll(asker, order_of(NEW), count=1)
            assert record.step == "done"

    asyncio.run(run())


def test_two_people_exclude_each_other(servers: TwoServers) -> None:
    hosts = [FleetHost()]

    async def run() -> None:
        async with (
            agents(servers, hosts, OLD, NEW),
            asking(servers) as ann,
            asking(servers) as bob,
        ):
            slow = order_of(NEW)
            first = asyncio.create_task(roll(ann, slow, count=1))
            await until(lambda: hosts[0].done)
            with pytest.raises(TakenError, match="is not at its end"):
                await roll(bob, order_of(OLD), count=1)
            # the same one is taken over from the dead only
            slow_again = Rollout(bob, RolloutStore(bob), lease=0.3)
            with pytest.raises(TakenError, match="is under way by ann"):
                await slow_again.begin(slow, lambda: None)
            record, _ = await first
            assert record.step == "done"

    asyncio.run(run())


def test_of_two_who_begin_at_once_one_is_refused(servers: TwoServers) -> None:
    async def run() -> None:
        async with asking(servers) as ann, asking(servers) as bob:
            stores = [RolloutStore(one) for one in (ann, bob)]
            for store in stores:
                assert await store.read() is None
            records = [order_of(NEW).record([]), order_of(OLD).record([])]
            results = await asyncio.gather(
                *(store.put(one) for store, one in zip(stores, records, strict=True)),
                return_exceptions=True,
            )
            assert sorted(type(one).__name__ for one in results) == ["NoneType", "TakenError"]

    asyncio.run(run())


def test_a_hub_that_is_killed_during_a_wave_holds_it_up(servers: TwoServers) -> None:
    hosts = [FleetHost() for _ in range(3)]

    async def run() -> None:
        async with agents(servers, hosts, OLD, NEW), asking(servers) as asker:
            await have(asker, hosts, OLD)
            for host in hosts:
                host.done.clear()
            rolling = asyncio.create_task(roll(asker, order_of(NEW), patience=20))
            await until(lambda: hosts[1].done)
            servers.hub.kill()
            await asyncio.sleep(1)
            servers.hub.start()
            record, _ = await asyncio.wait_for(rolling, 60)
            assert record.step == "done"
            assert all(host.programs() == programs_of(NEW) for host in hosts)

    asyncio.run(run())


KILLED = """
import asyncio, os, signal, sys
from ipttctl.fleet.asker import Asker, HubError, connected
from ipttctl.fleet.config import HubConfig
from ipttctl.fleet.rollout_record import RolloutStore
from tests.unit.ctl.fleet.fleet_host import bundle_of, order_of
from tests.unit.ctl.fleet.rolling import NEW, roll

url, seed, left = sys.argv[1], sys.argv[2], [int(sys.argv[3])]

def counted(method, before):
    async def run(self, *arguments, **options):
        if before and not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await method(self, *arguments, **options)
        left[0] -= 1
        if not before and left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return run

put = RolloutStore.put
async def step(self, record):
    # beats are no steps
    if self.__dict__.get("_step") == (record.wave, record.step):
        return await put(self, record)
    self._step = record.wave, record.step
    return await counted(put, True)(self, record)
RolloutStore.put = step
ask = Asker.ask
async def asked(self, host, verb, request, timeout):
    if verb == "status":
        return await ask(self, host, verb, request, timeout)
    return await counted(ask, False)(self, host, verb, request, timeout)
Asker.ask = asked

async def main():
    async with connected(HubConfig(url=url, nkey=seed)) as asker:
        await roll(asker, order_of(NEW), count=2)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

STEPS = 11
"""Steps of a roll-out to two hosts in two waves: 7 records, 2 times apply, 2 times confirm."""


@pytest.mark.parametrize("left", range(STEPS + 1))
def test_a_roll_out_goes_on_wherever_it_was_killed(servers: TwoServers, left: int) -> None:
    hosts = [FleetHost() for _ in range(2)]

    async def run() -> None:
        async with agents(servers, hosts, OLD, NEW), asking(servers) as asker:
            await have(asker, hosts, OLD)
            arguments = (servers.hub.url, str(servers.asker.seed), str(left))
            killed = await asyncio.create_subprocess_exec(
                sys.executable, "-c", KILLED, *arguments, stderr=asyncio.subprocess.PIPE
            )
            _, err = await asyncio.wait_for(killed.communicate(), 60)
            assert killed.returncode == -signal.SIGKILL, err.decode()
            record = await RolloutStore(asker).read()
            assert (record is None) == (left == 0)
            assert record is None or record.ended == (left == STEPS)
            before = record and record.rollout
            again, _ = await roll(asker, order_of(NEW), count=2)
            assert again.step == "done"
            assert before is None or again.rollout == before
            assert all(host.programs() == programs_of(NEW) for host in hosts)
            assert not any(one.before for host in hosts for one in host.links_now.values())
            await undo_last(asker)
            assert all(host.programs() == programs_of(OLD) for host in hosts)

    asyncio.run(run())


def test_a_roll_out_that_was_killed_can_be_undone(servers: TwoServers) -> None:
    hosts = [FleetHost() for _ in range(2)]

    async def run() -> None:
        async with agents(servers, hosts, OLD, NEW), asking(servers) as asker:
            await have(asker, hosts, OLD)
            # between the second wave's apply and its confirmation
            arguments = (servers.hub.url, str(servers.asker.seed), "7")
            killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, *arguments)
            assert await asyncio.wait_for(killed.wait(), 60) == -signal.SIGKILL
            assert hosts[0].programs() == programs_of(NEW)
            await undo_last(asker)
            assert all(host.programs() == programs_of(OLD) for host in hosts)

    asyncio.run(run())


def test_a_record_can_be_read_by_anybody(servers: TwoServers) -> None:
    async def run() -> None:
        async with asking(servers) as asker:
            _, found = await put_record(asker)
            assert (found["file"], found["who"], found["step"]) == ("state.yaml", "ann", "apply")

    asyncio.run(run())
