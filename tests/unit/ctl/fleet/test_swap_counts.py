# SPDX-License-Identifier: GPL-2.0
"""Swaps are counted once each, by what became of them, however they came about."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from ipttctl.errors import IpttctlError, ModuleError
from ipttctl.fleet import commands
from ipttctl.fleet.host import FleetLink
from ipttctl.fleet.requests import ApplyRequest
from ipttctl.fleet.rollout import HaltedError
from ipttctl.fleet.swap_counts import SwapCounts
from ipttctl.fleet.trials import Trials
from tests.unit.ctl.fleet.fleet_host import FleetHost, TwoServers, agents, order_of
from tests.unit.ctl.fleet.rolling import NEW, OLD, asking, have, roll
from tests.unit.ctl.fleet.support import until
from tests.unit.ctl.fleet.test_metrics import fetch, samples

ROLLOUT = "00000000000000aa"


class Swapping:
    """A host with a declared state, roll-outs there, and the counts."""

    def __init__(self, directory: Path) -> None:
        self.host = FleetHost()
        self.counts = SwapCounts(self.host)
        self.trials = Trials(self.host, directory, "a test", self.counts.took)
        self.trials.apply(ApplyRequest(links=dict(OLD.links)))

    def try_new(self, seconds: float = 3600) -> None:
        """Put the new state on trial."""
        self.trials.apply(
            ApplyRequest(links=dict(NEW.links), rollout=ROLLOUT, rollback_after=seconds)
        )


@pytest.fixture
def swapping(tmp_path: Path) -> Swapping:
    return Swapping(tmp_path)


def test_what_is_new_is_no_swap(swapping: Swapping) -> None:
    assert swapping.counts.done == {}
    assert not swapping.counts.waiting


def test_a_swap_is_counted_when_it_is_kept(swapping: Swapping) -> None:
    swapping.try_new()
    swapping.counts.look()
    assert swapping.counts.done == {}
    assert swapping.counts.waiting
    swapping.trials.confirm(ROLLOUT)
    assert swapping.counts.done == {"kept": 1}
    assert not swapping.counts.waiting


def test_a_swap_for_good_is_kept(swapping: Swapping) -> None:
    swapping.trials.apply(ApplyRequest(links=dict(NEW.links)))
    assert swapping.counts.done == {"kept": 1}


def test_roll_backs_are_counted_by_their_cause(swapping: Swapping) -> None:
    swapping.try_new(1e-9)
    # it went back before anybody could look
    assert swapping.counts.done == {"expired": 1}
    swapping.trials.rollback(ROLLOUT)
    swapping.trials.apply(
        ApplyRequest(links=dict(NEW.links), rollout="00000000000000ab", rollback_after=3600)
    )
    swapping.host.violate("a")
    swapping.counts.look()
    assert swapping.counts.done == {"expired": 1, "guard": 1}
    swapping.trials.rollback("00000000000000ab")
    swapping.trials.apply(
        ApplyRequest(links=dict(NEW.links), rollout="00000000000000ac", rollback_after=3600)
    )
    swapping.trials.rollback("00000000000000ac")
    assert swapping.counts.done == {"expired": 1, "guard": 1, "rolled back": 1}


@pytest.mark.parametrize(("end", "counted"), [("guard", {"guard": 1}), ("kept", {})])
def test_a_new_filter_that_went_back_is_a_swap(
    swapping: Swapping, monkeypatch: pytest.MonkeyPatch, end: str, counted: dict[str, int]
) -> None:
    """It passes every packet first, and is swapped in."""
    monkeypatch.setattr(swapping.host, "swapped", lambda _: [FleetLink("b", 99, 2, end=end)])
    swapping.counts.took([{"action": "attach", "name": "b", "link": 99}])
    assert swapping.counts.done == counted


def test_the_next_swap_says_that_the_one_before_was_kept(swapping: Swapping) -> None:
    swapping.try_new()
    link = swapping.host.links_now["a"]
    link.before = link.until = None
    link.generation += 1
    swapping.counts.look()
    assert swapping.counts.done == {"kept": 1}


def test_what_nobody_saw_is_unknown(swapping: Swapping) -> None:
    swapping.try_new()
    link = swapping.host.links_now["a"]
    link.before = link.until = None
    link.generation += 2
    swapping.counts.look()
    assert swapping.counts.done == {"unknown": 1}
    swapping.trials.rollback(ROLLOUT)
    swapping.trials.apply(
        ApplyRequest(links=dict(NEW.links), rollout="00000000000000ab", rollback_after=3600)
    )
    before = swapping.counts.done["unknown"]
    del swapping.host.links_now["a"]
    swapping.counts.look()
    assert swapping.counts.done["unknown"] == before + 1


def test_a_look_that_fails_fails_no_command(
    swapping: Swapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(_: Collection[int]) -> list[FleetLink]:
        raise ModuleError("the module is not loaded")

    monkeypatch.setattr(swapping.host, "swapped", swapped)
    swapping.trials.apply(ApplyRequest(links=dict(NEW.links)))
    assert swapping.counts.done == {"unknown": 1}
    with pytest.raises(IpttctlError):
        swapping.counts.look()


def test_roll_outs_are_counted_with_what_the_module_makes_of_them(
    servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_SWAPS", 0.05)
    host = FleetHost()

    async def run() -> str:
        more = "metrics: {port: 0}\n"
        async with (
            agents(servers, [host], OLD, NEW, more=more) as [agent],
            asking(servers) as asker,
        ):
            await have(asker, [host], OLD)
            loop = asyncio.get_running_loop()

            def violated_soon() -> None:
                host.on_apply = lambda: None
                loop.call_soon_threadsafe(loop.call_later, 0.3, host.violate, "a")

            host.on_apply = violated_soon
            with pytest.raises(HaltedError, match="a guard did not hold"):
                await roll(asker, order_of(NEW, pause=20), count=1)
            await until(lambda: agent.commands.swaps.done == {"guard": 1})
            await roll(asker, order_of(NEW), count=1)
            await until(lambda: not agent.commands.swaps.waiting)
            await until(lambda: agent.metrics and agent.metrics.address)
            assert agent.metrics
            return await asyncio.to_thread(fetch, agent.metrics.address[1])

    found = samples(asyncio.run(run()))
    swaps = {
        dict(labels)["outcome"]: n
        for (name, labels), n in found.items()
        if name == "ipttctl_swaps_total"
    }
    assert swaps == {"guard": 1, "kept": 1}
