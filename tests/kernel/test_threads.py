# SPDX-License-Identifier: GPL-2.0
"""Objects that threads and tasks share, and the end of these objects while others use them."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from ipttctl.bpf.maps import Map
from ipttctl.bpf.specs import MapSpec
from ipttctl.errors import KernelError, LinkGoneError, ProgramError
from ipttctl.events.records import decode_events
from ipttctl.hooks.nf import NfHook
from ipttctl.link.async_controller import AsyncController
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, LinkList, ProgramSet
from ipttctl.link.streams import EventStream
from ipttctl.programs.payloads import PayloadTypes
from ipttproto import Slot, Verdict
from tests.kernel.conftest import MakeProgram
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import COMMAND_TIMEOUT, wait_for
from tests.kernel.support.network import Namespace, namespace, send_udp
from tests.kernel.support.nf import attach, nf_hook, socket_filter
from tests.kernel.support.rcu_reader import Reader, rcu_reader, waits_for_readers

T = TypeVar("T")

THREADS = 6
#: BPF_MAP_TYPE_HASH
HASH = 1
TURNS = 8
PACKETS = 2000
#: seconds; a swap takes about as long
PAUSE = 0.002


@pytest.fixture
def place() -> Iterator[Namespace]:
    with namespace("threads") as made:
        yield made


@contextmanager
def threads(*work: Callable[[], T]) -> Iterator[list[Future[T]]]:
    """Threads that do something; their exceptions are ours at the end."""
    with ThreadPoolExecutor(len(work)) as pool:
        running = [pool.submit(one) for one in work]
        yield running
        for one in running:
            one.result(10 * COMMAND_TIMEOUT)


def test_threads_share_a_controller(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """An answer goes to the thread that asked, whatever others ask at the same time."""
    fds = [socket_filter(make_program, asm.returning(0), name=f"n{n}").fd for n in range(2)]

    def live(number: int) -> None:
        name, other = f"thread{number}", f"other{number}"
        hook = NfHook.parse(f"nf:inet4/output@{number}", netns=place.path)
        link = controller.attach(hook, ProgramSet({Slot.PACKET: fds[0]}), name=name)
        for turn in range(1, TURNS + 1):
            swap = ProgramSet({Slot.PACKET: fds[turn % 2]})
            done = controller.swap(link.id, swap, expect_generation=turn, reason=name)
            assert (done.id, done.generation, done.reason) == (link.id, turn + 1, name)
            found = controller.link(name)
            assert (found.id, nf_hook(found).priority) == (link.id, number)
            assert [e.generation for e in controller.history(link.id)][-1] == turn + 1
            assert name in {one.name for one in controller.list_links().links}
            with pytest.raises(LinkGoneError, match=other):
                controller.detach(other)
        assert controller.detach(name).id == link.id

    with threads(*(partial(live, number) for number in range(THREADS))):
        pass
    assert controller.links() == []


def test_a_controller_is_closed_while_threads_use_it(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """They learn it, and nobody writes to a file that got the number of the socket."""
    program = socket_filter(make_program, asm.returning(0))
    shared = Controller()
    link = attach(shared, program, "nf:inet4/output", place)
    begun = threading.Barrier(THREADS + 2)
    end = threading.Event()

    def ask_on() -> None:
        while True:
            shared.link(link.id)
            shared.status()

    def ask() -> None:
        begun.wait()
        with pytest.raises(KernelError, match="the connection is closed") as refused:
            ask_on()
        assert refused.value.errno == errno.EBADF

    def open_others() -> int:
        """Take each number that becomes free; nothing may arrive there."""
        begun.wait()
        opened = 0
        while not end.is_set():
            reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            os.sched_yield()
            with pytest.raises(BlockingIOError):
                os.read(reading, 1)
            os.close(reading)
            os.close(writing)
            opened += 1
        return opened

    with threads(open_others) as others, threads(*[ask] * THREADS) as running:
        begun.wait()
        shared.close()
        for one in running:
            one.result(COMMAND_TIMEOUT)
        end.set()
    assert others[0].result() > 0
    wait_for(lambda: controller.links() == [], what="the link is gone with its owner")


def test_threads_share_a_map() -> None:
    """Each has keys of its own; then the map is closed while they use it."""
    spec = MapSpec("shared", HASH, 4, 8, 64)
    begun = threading.Barrier(THREADS + 2)
    end = threading.Event()

    turns = [0] * THREADS

    def use_on(shared: Map, number: int) -> None:
        key = number.to_bytes(4, "little")
        while True:
            value = turns[number].to_bytes(8, "little")
            shared.update(key, value)
            assert shared.lookup(key) == value
            assert dict(shared.items())[key] == value
            assert shared.delete(key)
            assert shared.lookup(key) is None
            turns[number] += 1

    def use(shared: Map, number: int) -> None:
        begun.wait()
        with pytest.raises(ProgramError, match="the map is closed"):
            use_on(shared, number)

    def make_others() -> None:
        """Maps that get the number as soon as it is free; nothing may be set there."""
        begun.wait()
        while not end.is_set():
            with Map.create(spec) as other:
                os.sched_yield()
                assert list(other.items()) == []

    with Map.create(spec) as shared:
        users = [partial(use, shared, number) for number in range(THREADS)]
        with threads(make_others), threads(*users) as running:
            begun.wait()
            wait_for(lambda: all(turns), timeout=COMMAND_TIMEOUT, what="all threads are at work")
            shared.close()
            for one in running:
                one.result(COMMAND_TIMEOUT)
            end.set()
    assert all(turns)


def test_threads_share_a_stream(
    controller: Controller, make_program: MakeProgram, place: Namespace
) -> None:
    """Each event is read once, the sum of losses is right, and closing ends who waits."""
    link = attach(
        controller, socket_filter(make_program, asm.returning(1)), "nf:inet4/output", place
    )
    stream = controller.events()
    begun = threading.Barrier(THREADS + 1)

    def follow() -> Counter[tuple[int, int]]:
        seen: Counter[tuple[int, int]] = Counter()
        begun.wait()
        for batch in stream:
            seen.update((record.cpu, record.sequence) for record in decode_events(batch))
            assert stream.losses.events >= 0
        return seen

    with threads(*[follow] * THREADS) as running:
        begun.wait()
        place.call(send_udp, "127.0.0.1", 9, [b"x"] * PACKETS)
        emitted = controller.link(link.id).stats.events
        wait_for(lambda: not stream.wait(timeout=0.5), what="all is read")
        # they wait now, and nothing comes any more
        stream.close()
        seen: Counter[tuple[int, int]] = Counter()
        for one in running:
            seen.update(one.result(COMMAND_TIMEOUT))
    controller.detach(link.id)
    assert emitted >= PACKETS
    assert set(seen.values()) == {1}
    assert len(seen) + stream.losses.events == emitted


def test_tasks_share_a_controller(make_program: MakeProgram, place: Namespace) -> None:
    """The loop goes on during requests; a cancelled swap has been made, or never will be."""
    old, new = (socket_filter(make_program, asm.returning(1), name=name) for name in ("old", "new"))
    hook = NfHook.parse("nf:inet4/output", netns=place.path)

    async def story(reader: Reader) -> None:
        async with AsyncController() as controller:
            link = await controller.attach(hook, ProgramSet({Slot.PACKET: old.fd}), name="web")
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.001)

            @asynccontextmanager
            async def swap(
                turn: int, *, wait: bool = False
            ) -> AsyncIterator[asyncio.Task[Link | None]]:
                """A swap behind another request, for the block to cancel."""
                # a descriptor of its own, closed as soon as the caller is rid of the swap
                fd = os.dup((old, new)[turn % 2].fd)
                first = asyncio.create_task(controller.links())
                await asyncio.sleep(0)
                programs = ProgramSet({Slot.PACKET: fd})
                task = asyncio.create_task(
                    controller.swap("web", programs, labels={"t": str(turn)}, wait=wait)
                )
                yield task
                with suppress(asyncio.CancelledError):
                    await task
                os.close(fd)
                assert await first

            async def is_made(turn: int) -> bool:
                now = await controller.link(link.id)
                if now.labels.get("t") != str(turn):
                    return False
                assert now.programs[Slot.PACKET].id == (old, new)[turn % 2].id
                return True

            ticking = asyncio.create_task(tick())
            made = 0
            # at any moment
            for turn in range(TURNS):
                async with swap(turn) as task:
                    await asyncio.sleep(PAUSE * turn)
                    task.cancel()
                made += await is_made(turn)
                assert (await controller.link(link.id)).generation == 1 + made
            # during the request, before it is made, after it
            reader.begin()
            async with swap(TURNS, wait=True) as task:
                while not any(map(waits_for_readers, Path("/proc/self/task").iterdir())):
                    await asyncio.sleep(PAUSE)
                task.cancel()
                queued = asyncio.create_task(
                    controller.swap("web", ProgramSet({Slot.PACKET: new.fd}))
                )
                before = ticks
                await asyncio.sleep(PAUSE)
                assert ticks > before
                queued.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await queued
                assert not task.done()
                reader.end()
            assert task.cancelled()
            assert await is_made(TURNS)
            async with swap(TURNS + 1) as task:
                await task
                assert not task.cancel()
            assert await is_made(TURNS + 1)
            assert (await controller.link(link.id)).generation == 3 + made
            ticking.cancel()
            await follow(controller)

    async def follow(controller: AsyncController) -> None:
        """Events and changes of links, each in a task."""
        with await controller.events() as events, await controller.watch_links() as watch:
            types = PayloadTypes()
            listed = await anext(aiter(watch))
            assert isinstance(listed, LinkList)
            [link] = listed.links
            types.learn(link)
            place.run("ping", "-q", "-f", "-c", "25", "127.0.0.1")
            async with asyncio.timeout(COMMAND_TIMEOUT):
                count = 0
                async for record in events.async_records(link.id):
                    assert record.verdict is Verdict.ACCEPT
                    assert types.value(record) is None
                    count += 1
                    if count == 20:
                        break
            # the rest of that batch is gone with the iteration, and later ones are still there
            await controller.rename("web", "edge")
            async with asyncio.timeout(COMMAND_TIMEOUT):
                async for change in watch:
                    assert not isinstance(change, LinkList)
                    assert change.link.name == "edge"
                    break
            rest = [len(batch) async for batch in events.async_drain()]
            assert sum(rest) <= 30
            assert events.losses.events == 0

    with rcu_reader() as reader:
        asyncio.run(story(reader))


def test_streams_end_while_their_readers_wait(controller: Controller) -> None:
    """A controller may be closed before its streams, and those by another thread than reads."""
    own = Controller()
    streams: list[EventStream] = [own.events() for _ in range(3)]
    begun = threading.Barrier(len(streams) + 1)

    def follow(stream: EventStream) -> list[object]:
        begun.wait()
        return list(stream)

    with threads(*(partial(follow, stream) for stream in streams)) as running:
        begun.wait()
        own.close()
        for stream in streams:
            stream.close()
        assert [one.result(COMMAND_TIMEOUT) for one in running] == [[]] * 3
    assert controller.links() == []
