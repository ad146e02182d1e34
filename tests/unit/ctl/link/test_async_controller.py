# SPDX-License-Identifier: GPL-2.0
"""The controller for asyncio: its thread, cancellation, the end, streams."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import pytest

from ipttctl.errors import KernelError, LinkGoneError, ModuleError
from ipttctl.hooks.table import TableHook
from ipttctl.link.async_controller import AsyncController
from ipttctl.link.model import LinkList, ProgramSet
from ipttctl.link.streams import EventStream
from ipttctl.link.watch import LinkWatch
from ipttctl.link.wire import Connection
from ipttproto import Command, Slot
from tests.unit.ctl.support import (
    FakeModule,
    RefusalError,
    event,
    events_message,
    link,
    notification,
    status,
)

T = TypeVar("T")

SECONDS = 30


def run(story: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(story, SECONDS))


class Slow:
    """A request that the module answers when it is told to."""

    def __init__(self, answer: Sequence[Mapping[str, Any]]) -> None:
        self.answer = answer
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, *_: object) -> Sequence[Mapping[str, Any]]:
        """Answer."""
        self.begun.set()
        assert self.go_on.wait(SECONDS)
        return self.answer


@pytest.fixture
def slow(module: FakeModule) -> Iterator[Slow]:
    made = module.handlers[Command.SWAP] = Slow([link()])
    yield made
    made.go_on.set()


@asynccontextmanager
async def swapping(controller: AsyncController, slow: Slow) -> AsyncIterator[asyncio.Task[object]]:
    """A task whose swap is with the module."""
    task: asyncio.Task[object] = asyncio.create_task(controller.swap(3, ProgramSet({})))
    async with asyncio.timeout(SECONDS):
        while not slow.begun.is_set():
            await asyncio.sleep(0.001)
    yield task
    slow.go_on.set()
    with suppress(asyncio.CancelledError, KernelError):
        await task


def test_verbs_have_the_parameters_results_and_errors_of_the_other(module: FakeModule) -> None:
    module.handlers[Command.ATTACH] = lambda *_: [link(link=7)]

    async def story() -> None:
        async with AsyncController(module.connect) as controller:
            made = await controller.attach(
                TableHook(), ProgramSet({Slot.ENTRY: 0}), name="web", reason="a test"
            )
            assert made.id == 7
            assert [one.id for one in await controller.links()] == [3]
            with pytest.raises(TypeError, match="unexpected keyword"):
                await controller.confirm(3, wrong=4)  # type: ignore[call-arg]  # to be refused

    run(story())
    [sent] = module.requested(Command.ATTACH)
    assert (sent["name"], sent["reason-text"]) == ("web", "a test")


def test_connecting_fails_as_it_does_without_asyncio() -> None:
    def refuse() -> Connection:
        raise ModuleError("the ipttrace module is not loaded")

    async def enter() -> None:
        async with AsyncController(refuse):
            raise AssertionError

    async def ask() -> None:
        controller = AsyncController(refuse)
        for _ in range(2):
            with pytest.raises(ModuleError, match="not loaded"):
                await controller.status()
        await controller.close()

    with pytest.raises(ModuleError, match="not loaded"):
        run(enter())
    run(ask())


def test_the_loop_goes_on_while_the_module_is_asked(module: FakeModule, slow: Slow) -> None:
    async def story() -> None:
        async with (
            AsyncController(module.connect) as controller,
            swapping(controller, slow) as task,
        ):
            other = asyncio.create_task(controller.link(3))
            for _ in range(10):
                await asyncio.sleep(0.001)
            assert not task.done()
            # in turn, and not as the answer of the swap
            assert not other.done()
            assert not module.requested(Command.GET)
            slow.go_on.set()
            assert (await other).id == 3

    run(story())


def test_a_cancelled_request_is_done_or_was_never_made(module: FakeModule, slow: Slow) -> None:
    async def story() -> None:
        async with AsyncController(module.connect) as controller:
            async with swapping(controller, slow) as task:
                waiting = asyncio.create_task(controller.detach(3))
                await asyncio.sleep(0.01)
                for one in (waiting, task, task):
                    one.cancel()
                    await asyncio.sleep(0.01)
                # the descriptors of a swap under way are in use
                assert waiting.cancelled()
                assert not task.done()
                slow.go_on.set()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await controller.status()

    run(story())
    assert len(module.requested(Command.SWAP)) == 1
    assert not module.requested(Command.DETACH)


def test_a_stream_that_nobody_gets_is_closed(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[EventStream] = []
    close = EventStream.close

    def closing(stream: EventStream) -> None:
        made.append(stream)
        close(stream)

    monkeypatch.setattr(EventStream, "close", closing)

    async def story() -> None:
        async with AsyncController(module.connect) as controller:
            slow = Slow([status()])
            module.handlers[Command.STATS] = slow
            task = asyncio.create_task(controller.events())
            while not slow.begun.is_set():
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.sleep(0.01)
            slow.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(story())
    [stream] = made
    assert stream.fileno() == -1


def test_closing_comes_after_the_requests_so_far(module: FakeModule, slow: Slow) -> None:
    async def story() -> None:
        controller = AsyncController(module.connect)
        async with swapping(controller, slow) as task:
            later = asyncio.create_task(controller.link(3))
            await asyncio.sleep(0.01)
            closing = asyncio.create_task(controller.close())
            await asyncio.sleep(0.01)
            # not even a cancelled close leaves links behind
            closing.cancel()
            await asyncio.sleep(0.01)
            assert not closing.done()
            with pytest.raises(KernelError, match="the controller is closed") as refused:
                await controller.link(3)
            assert refused.value.errno == errno.EBADF
            slow.go_on.set()
            assert await task
            assert (await later).id == 3
            with pytest.raises(asyncio.CancelledError):
                await closing
        await controller.close()

    before = threading.active_count()
    run(story())
    deadline = time.monotonic() + SECONDS
    # one of the module's, which ends with its connection
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_links_are_watched(module: FakeModule) -> None:
    async def story() -> list[object]:
        seen: list[object] = []
        async with AsyncController(module.connect) as controller:
            with await controller.watch_links() as watch:
                async for item in watch:
                    seen.append(item)
                    if isinstance(item, LinkList):
                        for number in (8, 9):
                            told = link(**{"links-sequence": number})
                            module.multicast(notification(Command.LINK_CHANGED, told))
                    if len(seen) == 3:
                        break
                asyncio.get_running_loop().call_later(0.05, watch.stop)
                seen += [item async for item in watch]
        return seen

    listed, *changes = run(story())
    assert isinstance(listed, LinkList)
    assert len(changes) == 2


def test_the_rest_is_read_and_losses_are_exact(module: FakeModule) -> None:
    async def story() -> tuple[int, int]:
        async with AsyncController(module.connect) as controller:
            with await controller.events() as events:
                module.multicast(events_message([event(), event()], cpu=1, sequence=10))
                async for batch in events:
                    assert len(batch) == 2
                    break
                module.handlers[Command.STATS] = lambda *_: [status([0, 15])]
                # of the module's five events, one more comes
                later = events_message([event()], cpu=1, sequence=12)
                asyncio.get_running_loop().call_later(0.05, module.multicast, later)
                rest = [len(batch) async for batch in events.async_drain(settle=0.3)]
                return sum(rest), events.losses.observer

    assert run(story()) == (1, 2)


def test_a_cancelled_drain_ends_at_once(module: FakeModule) -> None:
    async def story() -> None:
        async with AsyncController(module.connect) as controller:
            with await controller.events() as events:
                module.handlers[Command.STATS] = lambda *_: [status([5])]

                async def drain() -> None:
                    async for _ in events.async_drain(settle=SECONDS, limit=SECONDS):
                        pass

                task = asyncio.create_task(drain())
                await asyncio.sleep(0.1)
                began = time.monotonic()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert time.monotonic() - began < SECONDS / 3
                assert events.stopped

    run(story())


def test_gone_links_are_an_error_of_their_own(module: FakeModule) -> None:
    def refuse(*_: object) -> Sequence[Mapping[str, Any]]:
        raise RefusalError(errno.ENOENT, {"message": "there is no such link"})

    module.handlers[Command.GET] = refuse

    async def story() -> None:
        async with AsyncController(module.connect) as controller:
            await controller.link(3)

    with pytest.raises(LinkGoneError):
        run(story())


def test_the_end_of_the_module_ends_iterations(module: FakeModule) -> None:
    async def story() -> None:
        async with AsyncController(module.connect) as controller:
            with await controller.events() as events, await controller.watch_links() as watch:

                async def follow(stream: EventStream | LinkWatch) -> None:
                    async for _ in stream:
                        pass

                tasks = [asyncio.create_task(follow(stream)) for stream in (events, watch)]
                await asyncio.sleep(0.1)
                module.reload(0)
                for task in tasks:
                    with pytest.raises(ModuleError, match="was unloaded"):
                        await task

    run(story())
