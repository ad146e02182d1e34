# SPDX-License-Identifier: GPL-2.0
"""Leases of traces, when several things happen to them at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from ipttctl.fleet import leases as leases_module
from ipttctl.fleet.grants import RefusedError
from ipttctl.fleet.host import Running, Untold
from ipttctl.fleet.leases import Leases
from ipttctl.fleet.tasks import end_tasks
from tests.unit.ctl.fleet.support import FakeRunning, FakeTeller, told, until


def running() -> FakeRunning:
    return FakeRunning(frozenset({1}), FakeTeller(frozenset({1}), told))


async def sees_all(_: Running) -> str:
    """Find nothing wrong with a trace."""
    return ""


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

        leases = Leases(2, 60, 3600, end, sees_all)
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


def test_a_trace_whose_links_went_is_ended_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "_LOOK", 0.02)
    monkeypatch.setattr(leases_module, "_MOST_BROKEN", 2)

    async def run() -> None:
        gone: dict[int, str] = {}
        ended = []

        async def end(trace: str, _: Running) -> Untold:
            ended.append(trace)
            return Untold()

        async def look(one: Running) -> str:
            return gone.get(id(one), "")

        async def start(_: str) -> Running:
            return running()

        leases = Leases(4, 60, 3600, end, look)
        begun = [(await leases.begin(60, start))[0] for _ in range(4)]
        task = asyncio.create_task(leases.run())
        for number, lease in enumerate(begun[:3]):
            gone[id(lease.running)] = f"link {number} is gone"
        await until(lambda: len(ended) == 3)
        assert ended == [lease.trace for lease in begun[:3]]
        assert len(leases) == 1
        assert leases.renew(begun[3].trace, 60) > 0
        assert leases.expired == 0
        for lease, why in zip(begun, ["no such trace", "link 1 is gone", "link 2"], strict=False):
            with pytest.raises(RefusedError, match=why):
                leases.renew(lease.trace, 60)
            with pytest.raises(RefusedError, match=why):
                await leases.end(lease.trace)
        await end_tasks([task])

    asyncio.run(run())


def test_a_trace_that_is_ended_while_it_is_looked_at_is_ended_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases_module, "_LOOK", 0.0)

    async def run() -> None:
        looking, go_on = asyncio.Event(), asyncio.Event()
        ended = []

        async def end(trace: str, _: Running) -> Untold:
            ended.append(trace)
            return Untold()

        async def look(_: Running) -> str:
            looking.set()
            await go_on.wait()
            return "its links were detached"

        async def start(_: str) -> Running:
            return running()

        leases = Leases(2, 60, 3600, end, look)
        lease, _ = await leases.begin(60, start)
        task = asyncio.create_task(leases.run())
        await looking.wait()
        await leases.end(lease.trace)
        go_on.set()
        await asyncio.sleep(0.05)
        assert ended == [lease.trace]
        with pytest.raises(RefusedError, match="no such trace"):
            leases.renew(lease.trace, 60)
        await end_tasks([task])

    asyncio.run(run())
