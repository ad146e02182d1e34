# SPDX-License-Identifier: GPL-2.0
"""Tasks that are ended, also those that forget that they were cancelled."""

from __future__ import annotations

import asyncio

import pytest

from ipttctl.fleet.tasks import end_tasks, run_together


async def forgetful(times: int) -> None:
    """Go on when cancelled, as often as that, as behind wait_for() with its answer there."""
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not times:
                raise
            times -= 1


def test_a_task_that_forgets_that_it_was_cancelled_is_ended() -> None:
    async def run() -> None:
        tasks = [asyncio.create_task(forgetful(times)) for times in range(3)]
        await asyncio.sleep(0)
        await end_tasks(tasks)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(run())


def test_tasks_are_ended_although_who_ends_them_is_cancelled() -> None:
    async def run() -> None:
        inner = asyncio.create_task(forgetful(2))
        ending = asyncio.create_task(end_tasks([inner]))
        await asyncio.sleep(0.01)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert inner.cancelled()

    asyncio.run(run())


def test_parts_end_together_with_who_runs_them() -> None:
    async def run() -> None:
        together = asyncio.create_task(run_together(forgetful(1), forgetful(0)))
        await asyncio.sleep(0.01)
        others = asyncio.all_tasks() - {together, asyncio.current_task()}
        assert len(others) == 2
        await end_tasks([together])
        assert together.cancelled()
        assert all(task.done() for task in others)

    asyncio.run(run())


def test_a_part_that_fails_ends_the_others() -> None:
    async def failing() -> None:
        raise OSError("gone")

    async def run() -> None:
        with pytest.raises(OSError, match="gone"):
            await run_together(forgetful(1), failing())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
