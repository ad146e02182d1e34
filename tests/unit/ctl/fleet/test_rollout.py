# SPDX-License-Identifier: GPL-2.0
"""Roll-outs in waves, through a real hub and a real leaf: steps, guards, and what halts them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from ipttctl.errors import UsageError
from ipttctl.fleet import rollout
from ipttctl.fleet.guard_check import violated
from ipttctl.fleet.rollout import HaltedError
from ipttctl.fleet.rollout_record import TakenError
from ipttctl.fleet.waves import Waves
from ipttctl.link.condition import Condition
from tests.unit.ctl.fleet.fleet_host import (
    FleetHost,
    TwoServers,
    agents,
    filters,
    order_of,
    programs_of,
)
from tests.unit.ctl.fleet.rolling import NEW, OLD, asking, have, record_of, roll, undo_last
from tests.unit.ctl.fleet.support import until

DROPPING = filters(NEW)


@pytest.mark.parametrize(
    ("text", "count", "sizes"),
    [
        ("1,10%,100%", 200, [1, 19, 180]),
        ("1,10%,100%", 5, [1, 4]),
        ("100%", 3, [3]),
        ("1,2,50%,100%", 10, [1, 1, 3, 5]),
        ("1,100%", 1, [1]),
        ("10%,100%", 3, [1, 2]),
        ("100%", 0, []),
    ],
)
def test_waves_have_so_many_hosts(text: str, count: int, sizes: list[int]) -> None:
    hosts = [f"h{number}" for number in range(count)]
    found = Waves.parse(text).of(hosts)
    assert [len(wave) for wave in found] == sizes
    assert [host for wave in found for host in wave] == hosts


@pytest.mark.parametrize("text", ["", "1", "50%", "0,100%", "1,,100%", "101%", "-1,100%", "x,100%"])
def test_other_texts_are_no_waves(text: str) -> None:
    with pytest.raises(UsageError, match="--waves"):
        Waves.parse(text)


@pytest.mark.parametrize(
    ("guard", "counts", "elapsed", "words"),
    [
        ("drops < 10/s", {"packets": 50, "drops": 50}, 5, "drops < 10/s: 50 in 50 packets, 5.0s"),
        ("drops < 10/s", {"packets": 50, "drops": 49}, 5, ""),
        ("drops < 1/100", {"packets": 1000, "drops": 10}, 1, "drops < 1/100: 10 in 1000"),
        ("drops < 1/100", {"packets": 1000, "drops": 9}, 1, ""),
        # too few packets to say
        ("drops < 1/100", {"packets": 50, "drops": 50}, 1, ""),
        ("drops < 3", {"packets": 9, "drops": 3}, 1, "drops < 3: 3 in 9"),
        ("packets >= 1/s", {"packets": 0, "drops": 0}, 0.5, ""),
        ("packets >= 1/s", {"packets": 0, "drops": 0}, 2, "packets >= 1/s: 0 in 0"),
        ("packets >= 1/s", {"packets": 3, "drops": 0}, 2, ""),
    ],
)
def test_a_guard_is_checked_between_two_looks(
    guard: str, counts: dict[str, int], elapsed: float, words: str
) -> None:
    before = {"packets": 7, "drops": 7}
    now = {name: 7 + count for name, count in counts.items()}
    found = violated(Condition.parse(guard), before, now, elapsed)
    assert found.startswith(words) if words else not found


def test_all_hosts_get_the_state_wave_by_wave(servers: TwoServers) -> None:
    hosts = [FleetHost() for _ in range(3)]

    async def run() -> None:
        async with agents(servers, hosts, OLD, NEW), asking(servers) as asker:
            await have(asker, hosts, OLD)
            record, told = await roll(asker, order_of(NEW, guards=("drops < 10/s",)))
            assert record.step == "done"
            assert record.waves == [["web001"], ["web002", "web003"]]
            assert told == [
                f"roll-out {record.rollout} of state.yaml to 3 hosts",
                "wave 1 of 2: web001",
                "wave 1 of 2: kept",
                "wave 2 of 2: web002, web003",
                "wave 2 of 2: kept",
            ]
            assert all(host.programs() == programs_of(NEW) for host in hosts)
            for host in hosts:
                host.done.clear()
            # again: nothing is left to do
            record, _ = await roll(asker, order_of(NEW))
            assert record.step == "done"
            assert all(
                steps == [] for host in hosts for what, steps in host.done if what == "apply"
            )

    asyncio.run(run())


def test_the_same_again_leaves_what_undoing_goes_back_to(servers: TwoServers) -> None:
    hosts = [FleetHost() for _ in range(2)]

    async def run() -> None:
        async with agents(servers, hosts, OLD, NEW), asking(servers) as asker:
            await have(asker, hosts, OLD)
            first, _ = await roll(asker, order_of(NEW), count=2)
            again, told = await roll(asker, order_of(NEW), count=2)
            assert again == first
            assert told == [f"roll-out {first.rollout} of state.yaml is done already on 2 hosts"]
            await undo_last(asker)
            assert all(host.programs() == programs_of(OLD) for host in hosts)

    asyncio.run(run())


def test_the_same_again_is_a_new_one_where_something_has_changed(servers: TwoServers) -> None:
    hosts = [FleetHost() for _ in range(2)]

    async def run() -> None:
        async with agents(servers, hosts, OLD, NEW), asking(servers) as asker:
            await have(asker, hosts, OLD)
            first, _ = await roll(asker, order_of(NEW), count=2)
            del hosts[1].links_now["b"]
            second, _ = await roll(asker, order_of(NEW), count=2)
            # or where it is to be watched in another way
            third, _ = await roll(asker, order_of(NEW, guards=("drops < 10/s",)), count=2)
            assert len({one.rollout for one in (first, second, third)}) == 3
            assert all(host.programs() == programs_of(NEW) for host in hosts)

    asyncio.run(run())


@pytest.mark.parametrize(
    "what", ["error", "guard", "silent", "reboot", "expired", "nonsense", "huge", "fault"]
)
def test_a_host_that_fails_in_the_second_wave_has_all_undone(
    servers: TwoServers, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [FleetHost() for _ in range(3)]
    # what observes drops nothing
    new = DROPPING if what == "guard" else NEW
    order = order_of(new, guards=("drops < 10/s",))

    async def run() -> None:
        async with agents(servers, hosts, OLD, new) as running, asking(servers) as asker:
            await have(asker, hosts, OLD)
            loop = asyncio.get_running_loop()
            match what:
                case "error":
                    # only while it is tried: going back works
                    hosts[1].on_apply = _once(hosts[1])
                case "guard":
                    hosts[1].drops_a_look = 100
                case "reboot":
                    hosts[1].on_apply = lambda: loop.call_later(0.2, hosts[1].reboot)
                case "expired":
                    # as a guard of the module does
                    def expire() -> None:
                        for link in hosts[1].links_now.values():
                            link.until = link.until and 0.0

                    hosts[1].on_apply = lambda: loop.call_later(0.2, expire)
                case "nonsense":
                    monkeypatch.setattr(running[1].commands._trials, "status", lambda: {"x": 1})
                case "huge":
                    trials = running[1].commands._trials
                    monkeypatch.setattr(trials, "status", _huge(trials.status))
                case "fault":
                    monkeypatch.setattr(rollout, "violated", _fault)
                case _:
                    monkeypatch.setattr(running[1].commands, "_take", _nothing)
            with pytest.raises(HaltedError) as caught:
                await roll(asker, order, patience=2)
            sentence = {
                "error": "web002: no memory",
                "guard": "web002: link a: guard drops < 10/s: ",
                "silent": "web002: no answer to apply within",
                "reboot": "web002: it was started again",
                "expired": "web002: link a was swapped back: it was not confirmed in time",
                "nonsense": "web002: the answer to status is none",
                "huge": "web002: the answer to status is none",
                "fault": "web001: the answer to status is none: ZeroDivisionError",
            }[what]
            assert sentence in str(caught.value)
            record = await record_of(asker)
            silent = ["web002"] if what == "silent" else []
            assert record.unreached == silent
            assert record.step == ("undo" if silent else "undone")
            assert all(host.programs() == programs_of(OLD) for host in hosts)
            if silent:
                with pytest.raises(TakenError, match=f"{record.rollout} of state.yaml by ann"):
                    await roll(asker, order_of(OLD))
                monkeypatch.undo()
                with pytest.raises(HaltedError, match="undone on 3 of 3 hosts"):
                    await roll(asker, order)
                assert (await record_of(asker)).step == "undone"
            # what is late has no effect any more
            late = {"links": new.request(), "rollout": record.rollout}
            with pytest.raises(Exception, match=f"{record.rollout} was undone here"):
                await asker.ask("web001", "apply", late)

    asyncio.run(run())


@pytest.mark.parametrize("what", ["silent", "swapped", "detached", "reboot", "guard"])
def test_a_host_of_a_wave_that_was_kept_halts_those_after_it(
    servers: TwoServers, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [FleetHost() for _ in range(3)]
    # what observes drops nothing
    new = DROPPING if what == "guard" else NEW

    async def run() -> None:
        async with agents(servers, hosts, OLD, new) as running, asking(servers) as asker:
            await have(asker, hosts, OLD)
            canary = hosts[0]

            def fail() -> None:
                hosts[1].on_apply = lambda: None
                assert canary.programs() == programs_of(new)
                match what:
                    case "silent":
                        monkeypatch.setattr(running[0].commands, "_take", _nothing)
                    case "swapped":
                        link = canary.links_now["a"]
                        link.entry = OLD.links["a"].entry()
                        link.generation += 1
                    case "detached":
                        del canary.links_now["b"]
                    case "reboot":
                        canary.reboot()
                    case _:
                        canary.drops_a_look = 100

            hosts[1].on_apply = fail
            with pytest.raises(HaltedError) as caught:
                await roll(asker, order_of(new, guards=("drops < 10/s",)), patience=2)
            sentence = {
                "silent": "web001: no answer to status within",
                "swapped": "web001: link a was swapped after it was kept",
                "detached": "web001: link b is not there any more",
                "reboot": "web001: it was started again",
                "guard": "web001: link ",
            }[what]
            assert sentence in str(caught.value)
            record = await record_of(asker)
            assert record.wave == 1
            monkeypatch.undo()
            if what == "silent":
                assert record.unreached == ["web001"]
                with pytest.raises(HaltedError, match="undone on 3 of 3 hosts"):
                    await roll(asker, order_of(new, guards=("drops < 10/s",)))
            assert (await record_of(asker)).step == "undone"
            assert all(host.programs() == programs_of(OLD) for host in hosts)

    asyncio.run(run())


def test_a_filter_is_rolled_out_and_what_observes_is_never_guarded_by_drops(
    servers: TwoServers,
) -> None:
    hosts = [FleetHost(drops_a_look=100) for _ in range(2)]
    guards = ("drops < 10/s",)

    def modes() -> list[set[str]]:
        return [{link.mode for link in host.links_now.values()} for host in hosts]

    async def run() -> None:
        async with agents(servers, hosts, OLD, DROPPING), asking(servers) as asker:
            # objects that may filter may observe too
            record, _ = await roll(asker, order_of(NEW, guards=guards), count=2)
            assert record.step == "done"
            assert modes() == [{"observe"}, {"observe"}]
            with pytest.raises(HaltedError, match=r"web001: link [ab]: guard drops < 10/s"):
                await roll(asker, order_of(DROPPING, guards=guards), count=2)
            assert modes() == [{"observe"}, {"observe"}]
            for host in hosts:
                host.drops_a_look = 0
            record, _ = await roll(asker, order_of(DROPPING, guards=guards), count=2)
            assert record.step == "done"
            assert record.links["a"].mode == "filter"
            assert modes() == [{"filter"}, {"filter"}]
            # what is listed to observe does not filter
            with pytest.raises(HaltedError) as caught:
                await roll(asker, order_of(filters(OLD)), count=2)
            assert "mode filter: it is listed in trust.digests, to observe only" in str(
                caught.value
            )
            assert modes() == [{"filter"}, {"filter"}]

    asyncio.run(run())


def test_a_host_that_is_busy_is_asked_again(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests for traces, of anybody who may ask, can fill the places in which commands wait."""
    host = FleetHost()

    async def run() -> None:
        async with agents(servers, [host], NEW) as running, asking(servers) as asker:
            queue = running[0].commands._waiting
            put, count = queue.put_nowait, 0

            def full(item: Any) -> None:
                nonlocal count
                count += 1
                if count % 3:
                    raise asyncio.QueueFull
                put(item)

            monkeypatch.setattr(queue, "put_nowait", full)
            record, _ = await roll(asker, order_of(NEW), count=1)
            assert record.step == "done"
            assert count > 5
            # for so long as others may not answer
            monkeypatch.setattr(queue, "put_nowait", _always_full)
            with pytest.raises(HaltedError, match="web001: the agent is busy"):
                await roll(asker, order_of(NEW), patience=1, count=1)

    asyncio.run(run())


def _always_full(_: Any) -> None:
    raise asyncio.QueueFull


def test_guards_are_looked_at_however_short_the_pause_is(servers: TwoServers) -> None:
    host = FleetHost(drops_a_look=100)

    async def run() -> None:
        async with agents(servers, [host], DROPPING), asking(servers) as asker:
            order = order_of(DROPPING, guards=("drops < 10/s",), pause=0.001)
            with pytest.raises(HaltedError, match=r"web001: link [ab]: guard drops < 10/s"):
                await roll(asker, order, count=1)

    asyncio.run(run())


def test_a_guard_halts_while_another_host_is_silent(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [FleetHost(), FleetHost()]

    async def run() -> None:
        async with agents(servers, hosts, DROPPING) as running, asking(servers) as asker:

            def silence() -> None:
                monkeypatch.setattr(running[0].commands, "_take", _nothing)
                hosts[1].drops_a_look = 100

            order = order_of(DROPPING, "100%", guards=("drops < 10/s",), pause=20)
            hosts[1].on_apply = lambda: loop.call_later(1, silence)
            loop = asyncio.get_running_loop()
            rolling = asyncio.create_task(roll(asker, order, patience=15, count=2))
            await until(lambda: hosts[1].drops_a_look)
            begin = loop.time()
            await until(lambda: ("undo", None) in hosts[1].done)
            assert loop.time() - begin < 10
            monkeypatch.undo()
            with pytest.raises(HaltedError, match=r"web002: link [ab]: guard drops < 10/s"):
                await rolling

    asyncio.run(run())


def test_a_link_that_waits_for_its_name_is_guarded_too(servers: TwoServers) -> None:
    """A link in another mode has no name as long as the one that it replaces is there."""
    host = FleetHost(drops_a_look=100)

    def nameless() -> None:
        for name in [name for name, link in host.links_now.items() if link.mode == "filter"]:
            link = host.links_now.pop(name)
            host.links_now[str(link.link)] = link

    async def run() -> None:
        async with agents(servers, [host], DROPPING), asking(servers) as asker:
            record = order_of(DROPPING, guards=("drops < 10/s",), pause=2)
            watched = host.watched

            def unnamed() -> Any:
                nameless()
                return watched()

            host.watched = unnamed  # type: ignore[method-assign]  # as the module does
            with pytest.raises(HaltedError, match=r"web001: link \d+: guard drops < 10/s"):
                await roll(asker, record, count=1)

    asyncio.run(run())


@pytest.mark.parametrize("restarted", [False, True])
def test_what_nobody_keeps_is_undone_by_the_agent(servers: TwoServers, restarted: bool) -> None:
    """New links and those that went too, which the module's own time is not about."""
    host = FleetHost()
    rollout = "00000000000000aa"
    trial = {"links": NEW.request(), "rollout": rollout, "rollback_after": 1}

    async def run() -> None:
        async with agents(servers, [host], OLD, NEW), asking(servers) as asker:
            await have(asker, [host], OLD)
            await asker.ask("web001", "apply", trial)
            assert "b" in host.programs()
            if not restarted:
                await until(lambda: host.programs() == programs_of(OLD))
                status = await asker.ask("web001", "status", {})
                assert (status["rollout"], status["state"]) == (rollout, "undone")
        if restarted:
            await asyncio.sleep(1)
            assert "b" in host.programs()
            async with agents(servers, [host], OLD, NEW):
                await until(lambda: host.programs() == programs_of(OLD))

    asyncio.run(run())


def test_what_is_kept_stays(servers: TwoServers) -> None:
    host = FleetHost()
    trial = {"links": NEW.request(), "rollout": "00000000000000aa", "rollback_after": 1}

    async def run() -> None:
        async with agents(servers, [host], OLD, NEW), asking(servers) as asker:
            await asker.ask("web001", "apply", trial)
            await asker.ask("web001", "confirm", {"rollout": trial["rollout"]})
            await asyncio.sleep(2)
            assert host.programs() == programs_of(NEW)
            assert (await asker.ask("web001", "status", {}))["state"] == "kept"

    asyncio.run(run())


def _once(host: FleetHost) -> Any:
    """Have the next change of a host fail."""

    def fail() -> None:
        host.error = "" if host.error else "no memory"

    return fail


def _huge(status: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Have a host tell numbers whose difference has more digits than Python writes."""
    drops = itertools.cycle((-9 * 10**4298, 10**4300 - 1))

    def told() -> dict[str, Any]:
        found = status()
        number = next(drops)
        for link in found["links"]:
            link["counters"] = {"packets": 1, "drops": number}
        return found

    return told


def _fault(*_: Any) -> str:
    raise ZeroDivisionError


async def _nothing(*_: Any) -> None:
    """Take a command and do nothing."""
