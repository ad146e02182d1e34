# SPDX-License-Identifier: GPL-2.0
"""Leases of traces, when several things happen to them at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from ipttctl.fleet.grants import RefusedError
from ipttctl.fleet.host import Running, Untold
from ipttctl.fleet.leases import Leases
from tests.unit.ctl.fleet.support import FakeRunning, FakeTeller, told


def running() -> FakeRunning:
    return FakeRunning(frozenset({1}), FakeTeller(frozenset({1}), told))


@pytest.mark.parametrize("what", ["ended", "renewed"])
def test_a_trace_is_ended_or_renewed_while_another_one_ends(what: str) -> None:
    async def run() -> None:
        ending = asyncio.Event()
        go_on = asyncio.Event()
        ended = []

        async def end(trace: str, _: Running) -> Untold:
            ended.append(trace)
            ending.set()
            await go_on.wait()
            return Untold()

        async def start(_: str) -> Running:
            return running()

        leases = Leases(2, 60, 3600, end)
        traces = [(await leases.begin(0, start))[0].trace for _ in range(2)]
        task = asyncio.create_task(leases.run())
        await asyncio.wait_for(ending.wait(), 20)
        [first] = ended
        [other] = {*traces} - {first}
        # both are due, and the first one takes its time
        if what == "renewed":
            assert leases.renew(other, 60) > 0
            go_on.set()
        else:
            asker = asyncio.create_task(leases.end(other))
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.wait_for(asker, 20)
        done, _ = await asyncio.wait([task], timeout=0.2)
        assert not done, "it goes on with other traces"
        assert ended == ([first] if what == "renewed" else [first, other])
        assert len(leases) == (what == "renewed")
        assert leases.expired == 1
        with pytest.raises(RefusedError):
            leases.renew(first, 60)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
