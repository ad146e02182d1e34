# SPDX-License-Identifier: GPL-2.0
"""Roll-outs of two states, old and new, as tests take them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ipttctl.fleet.asker import Asker, connected
from ipttctl.fleet.bundle import Bundle, Signer
from ipttctl.fleet.heartbeat import Heartbeat, Selector
from ipttctl.fleet.rollout import HaltedError, Rollout, RolloutOrder
from ipttctl.fleet.rollout_record import RolloutRecord, RolloutStore
from ipttctl.fleet.uploads import upload
from tests.unit.ctl.fleet.fleet_host import FleetHost, TwoServers, bundle_of, programs_of

OLD = bundle_of(a="old", gone="old")
NEW = bundle_of(a="new", b="new")
NO_GRANTS = Signer(None, 60)


@asynccontextmanager
async def asking(servers: TwoServers) -> AsyncIterator[Asker]:
    async with connected(servers.settings) as asker:
        for bundle in (OLD, NEW):
            await upload(asker, bundle)
        yield asker


async def roll(
    asker: Asker, order: RolloutOrder, patience: float = 5, count: int = 3
) -> tuple[RolloutRecord, list[str]]:
    """Roll out, or go on; returns the record, and what was told."""
    told: list[str] = []
    rollout = Rollout(
        asker, RolloutStore(asker), told.append, patience=patience, lease=1.0, look=0.1
    )

    async def hosts() -> list[Heartbeat]:
        found: list[Heartbeat] = []
        end = time.monotonic() + 20
        while len(found) < count:
            assert time.monotonic() < end
            found = await asker.find(Selector(), 1.5)
        return found

    await rollout.begin(order, hosts)
    try:
        await rollout.run(order.bundle, NO_GRANTS)
    finally:
        await rollout.release()
    return rollout.record, told


async def undo_last(asker: Asker, count: int = 2) -> None:
    """Have the last roll-out undone, on as many hosts."""
    rollout = Rollout(asker, RolloutStore(asker), patience=5, lease=1.0)
    await rollout.begin_undoing("ann wants it so")
    undone = f"undone on {count} of {count} hosts: ann wants it so"
    with pytest.raises(HaltedError, match=undone):
        await rollout.run(None, NO_GRANTS)


async def record_of(asker: Asker) -> RolloutRecord:
    found = await RolloutStore(asker).read()
    assert found is not None
    return found


async def have(asker: Asker, hosts: list[FleetHost], bundle: Bundle) -> None:
    """Have hosts declare a state, as before a roll-out."""
    for number in range(1, len(hosts) + 1):
        await asker.ask(f"web{number:03d}", "apply", {"links": bundle.request()})
    assert all(host.programs() == programs_of(bundle) for host in hosts)
