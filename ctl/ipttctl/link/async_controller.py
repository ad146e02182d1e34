# SPDX-License-Identifier: GPL-2.0
"""The verbs for asyncio.

A request takes the module milliseconds, a swap more: it waits until no packet uses the old
programs. So a controller has a thread that makes its requests, and the loop goes on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from ipttctl.errors import KernelError
from ipttctl.link.controller import Controller
from ipttctl.link.wire import Connection
from ipttctl.link.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")


def _verb(
    method: Callable[Concatenate[Controller, P], T],
) -> Callable[Concatenate[AsyncController, P], Coroutine[Any, Any, T]]:
    """A verb of ``Controller`` as a coroutine with the same parameters."""

    @wraps(method, assigned=("__name__", "__doc__"))
    async def call(self: AsyncController, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda controller: method(controller, *args, **kwargs))

    return call


class AsyncController:
    """A ``Controller`` for asyncio: its verbs are coroutines, with the same parameters and errors.

        async with AsyncController() as controller:
            link = await controller.attach(TableHook(), ProgramSet({Slot.ENTRY: fd}))
            with await controller.events() as events:
                async for record in events.async_records(link.id):
                    ...

    It connects at the beginning of the block, or with the first verb. Requests of several tasks are
    made in turn, each of them whole. All tasks are of one loop.

    When a verb is cancelled, its request was never made, or is done before CancelledError is
    raised, so that its descriptors can be closed then. Whether a change was made, ``link`` and
    ``links`` tell. A stream that it would have returned is closed.
    """

    def __init__(
        self, connect: Callable[[], Connection] | None = None, *, check: bool = True
    ) -> None:
        """Prepare a connection; the parameters are those of ``Controller``."""
        self._make: Final = partial(Controller, connect, check=check)
        self._controller: Controller | None = None
        self._worker: Final = Worker()
        self._closed = False

    attach = _verb(Controller.attach)
    replace = _verb(Controller.replace)
    rename = _verb(Controller.rename)
    swap = _verb(Controller.swap)
    transact = _verb(Controller.transact)
    confirm = _verb(Controller.confirm)
    rollback = _verb(Controller.rollback)
    shadow = _verb(Controller.shadow)
    promote = _verb(Controller.promote)
    drop_shadow = _verb(Controller.drop_shadow)
    history = _verb(Controller.history)
    adopt = _verb(Controller.adopt)
    release = _verb(Controller.release)
    detach = _verb(Controller.detach)
    link = _verb(Controller.link)
    links = _verb(Controller.links)
    list_links = _verb(Controller.list_links)
    status = _verb(Controller.status)
    ruleset = _verb(Controller.ruleset)
    try_walk = _verb(Controller.try_walk)
    end_verification = _verb(Controller.end_verification)
    events = _verb(Controller.events)
    link_changes = _verb(Controller.link_changes)
    watch_links = _verb(Controller.watch_links)
    namespaces_going = _verb(Controller.namespaces_going)

    async def close(self) -> None:
        """Disconnect after the requests made so far: links that are not persistent go.

        Closing more than once does no harm. Verbs raise KernelError from now on.
        """
        if not self._closed:
            self._closed = True
            await self._worker.finish(self._disconnect)

    async def __aenter__(self) -> Self:
        try:
            await self._run(lambda _: None)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, work: Callable[[Controller], T]) -> T:
        """Have the thread do ``work``."""
        if self._closed:
            raise KernelError("asking the module", errno.EBADF, "the controller is closed")
        return await self._worker.run(partial(self._connected, work))

    def _connected(self, work: Callable[[Controller], T]) -> T:
        """In the thread: connect, unless that is done, and do ``work``."""
        if self._controller is None:
            self._controller = self._make()
        return work(self._controller)

    def _disconnect(self) -> None:
        """In the thread, at its end: disconnect."""
        if self._controller is not None:
            self._controller.close()
