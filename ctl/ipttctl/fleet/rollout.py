# SPDX-License-Identifier: GPL-2.0
"""A roll-out: a state for hosts in waves, each tried, watched and kept, or all undone.

The record says which step is being taken before it is taken, and each step can be taken again: an
agent knows the roll-out by its name. So whoever begins the same roll-out again goes on from there,
wherever the one before was killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ipttctl.errors import IpttctlError
from ipttctl.escape import escape
from ipttctl.fleet.asker import (
    PATIENCE,
    AnswerError,
    Asker,
    BusyError,
    HubError,
    SilentHostError,
)
from ipttctl.fleet.bundle import Bundle, Signer
from ipttctl.fleet.guard_check import violated
from ipttctl.fleet.heartbeat import Heartbeat
from ipttctl.fleet.host_status import StatusAnswer, hosts_changed, read_status, why_not_there
from ipttctl.fleet.rollout_record import RolloutRecord, RolloutStore, TakenError
from ipttctl.fleet.tasks import end_tasks
from ipttctl.fleet.waves import Waves
from ipttctl.link.condition import Condition
from ipttctl.numbers import counted, shortened

VERBS: Final = ("apply", "confirm", "rollback", "status")
"""The verbs that hosts have to allow."""

_BEAT: Final = 1.0
_AT_A_TIME: Final = 64
_LOOK: Final = 0.25
_HUB_PATIENCE: Final = 120.0
_RELEASE: Final = 5.0


class HaltedError(IpttctlError):
    """The roll-out was halted, and undone as far as hosts could be reached."""


class _HaltError(Exception):
    """A reason to halt."""


@dataclass(frozen=True)
class RolloutOrder:
    """The state that is wanted, and how it is to be rolled out."""

    file: str
    who: str
    bundle: Bundle
    waves: Waves
    chosen: str
    """The selector, as it was written."""
    names: frozenset[str]
    """The hosts that it names, if it does."""
    guards: tuple[Condition, ...]
    pause: float
    rollback_after: float

    @property
    def same(self) -> str:
        """A digest of all that tells it from another order, but not of who gives it."""
        parts = (
            self.bundle.request(),
            self.waves.sizes,
            self.chosen,
            list(map(str, self.guards)),
            self.pause,
            self.rollback_after,
        )
        return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()

    def record(self, hosts: Collection[Heartbeat]) -> RolloutRecord:
        """The record of a new roll-out to some hosts."""
        return RolloutRecord(
            rollout=secrets.token_hex(8),
            same=self.same,
            # names of files and users may have bytes that are not UTF-8
            file=str(escape(self.file)),
            who=str(escape(self.who)),
            links=dict(self.bundle.links),
            guards=list(map(str, self.guards)),
            pause=self.pause,
            rollback_after=self.rollback_after,
            waves=self.waves.of([one.host for one in hosts]),
            boots={one.host: one.boot for one in hosts},
        )

    def meant(self, record: RolloutRecord) -> bool:
        """Whether a record is of this order, and its hosts may be meant by it."""
        hosts = record.hosts
        return (
            record.same == self.same
            and (not self.names or self.names >= set(hosts))
            and record.waves == self.waves.of(hosts)
            and (record.links, record.guards)
            == (dict(self.bundle.links), list(map(str, self.guards)))
            and (record.pause, record.rollback_after) == (self.pause, self.rollback_after)
        )


class Rollout:
    """Takes the steps of a roll-out, as its only holder."""

    def __init__(
        self,
        asker: Asker,
        store: RolloutStore,
        tell: Callable[[str], None] = lambda _: None,
        *,
        patience: float = 60.0,
        lease: float = 5.0,
        look: float = 1.0,
    ) -> None:
        """Ask hosts by a connection; ``tell`` is called with a sentence for each step.

        A host that does not answer for ``patience`` seconds is silent. A holder whose record does
        not change for ``lease`` seconds is dead. Hosts are looked at every ``look`` seconds.
        """
        self._asker = asker
        self._store = store
        self._tell = tell
        self._patience = patience
        self._lease = lease
        self._look = look
        self._token = secrets.token_hex(8)
        self._lock = asyncio.Lock()
        self._few = asyncio.Semaphore(_AT_A_TIME)
        self._record: RolloutRecord | None = None

    @property
    def record(self) -> RolloutRecord:
        """The record as it was written last."""
        assert self._record is not None
        return self._record

    async def begin(self, order: RolloutOrder, hosts: Callable[[], Any]) -> bool:
        """Begin a roll-out to the hosts that a call finds, or go on with the same one.

        If the last one was the same, and these hosts are as it left them, there is nothing to do:
        a new one would have nothing to go back to but what it brings. Returns whether it is new.

        Raises:
            TakenError: another one is not at its end.
            HubError: the hub is gone.
        """
        found = await self._store.read()
        if found is None or found.ended:
            there = await hosts()
            if found and order.meant(found) and await self._stands(found, there):
                self._record = found
                count = counted(len(there), "host")
                self._tell(f"roll-out {found.rollout} of {found.file} is done already on {count}")
                return False
            record = order.record(there)
            await self._put(record)
            count = counted(len(record.boots), "host")
            self._tell(f"roll-out {record.rollout} of {record.file} to {count}")
            return True
        if found.same != order.same:
            raise TakenError(
                f"roll-out {found.rollout} of {found.file} by {found.who} is not at its end "
                f"({found.where()})",
                "begin the same one again, or run `ipttctl fleet undo`",
            )
        if not order.meant(found):
            # the hub is not to have us sign for others, or watch less
            raise TakenError(
                f"the record of roll-out {found.rollout} has hosts, or terms, that are not meant"
            )
        await self._take(found)
        return False

    async def begin_undoing(self, why: str) -> None:
        """Have the last roll-out undone, by ``run``.

        Raises:
            TakenError: there is none, it was undone already, or somebody rolls it out.
        """
        found = await self._store.read()
        if found is None or found.step == "undone":
            raise TakenError("there is no roll-out to undo")
        await self._take(found)
        if found.step != "undo":
            await self._change(step="undo", why=str(escape(why)))

    async def run(self, bundle: Bundle | None, signer: Signer, *, leave: bool = False) -> None:
        """Take all steps that are left. With ``leave`` hosts that are silent are not undone.

        Raises:
            HaltedError: it was undone.
            TakenError: somebody else has taken it over.
            HubError: the hub is gone for long; begin the same one again later.
        """
        async with self._beating():
            try:
                while not self.record.ended and self.record.step != "undo":
                    await self._step(bundle, signer)
            except _HaltError as error:
                await self._change(step="undo", why=str(error))
            if self.record.step == "undo":
                await self._undo(leave=leave)

    async def release(self) -> None:
        """Let somebody else go on at once; if the hub is gone, they have to wait."""
        if self._record and self._record.holder and not self._record.ended:
            with suppress(IpttctlError, TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await self._change(holder="")

    async def _stands(self, record: RolloutRecord, hosts: Collection[Heartbeat]) -> bool:
        """Whether a roll-out is done, to these hosts, and they are as it left them."""
        if record.step != "done" or record.boots != {one.host: one.boot for one in hosts}:
            return False
        found = await hosts_changed(self._asker, record, min(self._patience, PATIENCE))
        return record.kept == record.hosts and not (found.changed or found.unknown)

    async def _step(self, bundle: Bundle | None, signer: Signer) -> None:
        record = self.record
        hosts = record.waves[record.wave] if record.waves else []
        called = f"wave {record.wave + 1} of {len(record.waves)}"
        match record.step:
            case "apply":
                assert bundle is not None
                self._tell(f"{called}: {_few(hosts)}")
                await self._apply(hosts, bundle, signer)
                await self._change(step="watch")
            case "watch":
                # those that were kept may fail of what others do now, or later than their pause
                await self._watch(record.reached)
                await self._change(step="confirm")
            case _:
                await self._all(hosts, "confirm", lambda _: {"rollout": record.rollout})
                self._tell(f"{called}: kept")
                if record.wave + 1 < len(record.waves):
                    await self._change(step="apply", wave=record.wave + 1)
                else:
                    await self._change(step="done")

    async def _apply(self, hosts: list[str], bundle: Bundle, signer: Signer) -> None:
        record = self.record
        links = bundle.request()

        def request(host: str) -> dict[str, Any]:
            return {
                "links": links,
                "rollout": record.rollout,
                "rollback_after": record.rollback_after,
                "guards": record.guards,
                "grants": msgspec.to_builtins(signer.grants(host, bundle)),
            }

        await self._all(hosts, "apply", request)

    async def _watch(self, hosts: list[str]) -> None:
        """Look at hosts until the pause is over, twice at least: guards are about differences."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.record.pause
        first: dict[str, tuple[StatusAnswer, float]] = {}

        def heard(host: str, answer: dict[str, Any]) -> None:
            # others may be silent, or slow, meanwhile
            now = self._status(host, answer)
            before, since = first.setdefault(host, (now, loop.time()))
            if before is not now:
                self._check_guards(host, before, now, loop.time() - since)

        await self._all(hosts, "status", lambda _: {}, heard)
        over = False
        while not over:
            await asyncio.sleep(max(0.0, min(self._look, end - loop.time())))
            await self._all(hosts, "status", lambda _: {}, heard)
            over = loop.time() >= end

    def _status(self, host: str, answer: dict[str, Any]) -> StatusAnswer:
        """The status of a host, which has the state on trial, or has kept it."""
        try:
            status = read_status(host, answer)
        except AnswerError as error:
            raise _HaltError(str(error)) from None
        if why := why_not_there(self.record, host, status):
            raise _HaltError(f"{host}: {why}")
        return status

    def _check_guards(
        self, host: str, first: StatusAnswer, now: StatusAnswer, elapsed: float
    ) -> None:
        before = {one.link: one.counters for one in first.links}
        for link in now.links:
            # one that waits for its name, which the link has that it takes the place of, is new
            nameless = link.name == str(link.link)
            if link.link not in before or not (nameless or link.name in self.record.links):
                continue
            for text in self.record.guards:
                guard = Condition.parse(text)
                if why := violated(guard, before[link.link], link.counters, elapsed):
                    raise _HaltError(f"{host}: link {link.name}: guard {why}")

    async def _undo(self, *, leave: bool) -> None:
        """Have all hosts go back that may have the new state."""
        record = self.record
        self._tell(f"halted: {record.why}")
        hosts = record.reached

        async def undo(host: str) -> str | None:
            try:
                async with self._few:
                    await self._answer(host, "rollback", {"rollout": record.rollout})
            except (SilentHostError, AnswerError) as error:
                self._tell(f"not undone: {error}")
                return host
            return None

        results = await asyncio.gather(*map(undo, hosts))
        unreached = [host for host in results if host is not None]
        over = leave or not unreached
        await self._change(step="undone" if over else "undo", unreached=unreached)
        undone = f"undone on {len(hosts) - len(unreached)} of {len(hosts)} hosts"
        if not unreached:
            raise HaltedError(f"roll-out {record.rollout} {undone}: {record.why}")
        raise HaltedError(
            f"roll-out {record.rollout} {undone}: {record.why}; not on {_few(unreached)}",
            ""
            if leave
            else "run it again to undo the rest, or `ipttctl fleet undo --leave-silent`",
        )

    async def _all(
        self,
        hosts: Collection[str],
        verb: str,
        request: Callable[[str], dict[str, Any]],
        heard: Callable[[str, dict[str, Any]], None] = lambda *_: None,
    ) -> None:
        """Ask hosts at once, until each has answered; the first failure is a reason to halt.

        ``heard`` is called with each answer as it comes, and may halt too.
        """

        async def one(host: str) -> None:
            async with self._few:
                answer = await self._answer(host, verb, request(host))
                try:
                    heard(host, answer)
                except _HaltError:
                    raise
                # whatever a host answers, the others are undone
                except Exception as error:
                    fault = type(error).__name__
                    raise _HaltError(f"{host}: the answer to {verb} is none: {fault}") from error

        tasks = [asyncio.create_task(one(host)) for host in hosts]
        try:
            if tasks:
                # who is asked yet is told to go back anyway
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            await end_tasks(tasks)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [one for one in results if isinstance(one, BaseException)]
        # those that are cancelled are so because of another one
        failures.sort(key=lambda one: isinstance(one, asyncio.CancelledError))
        for failure in failures[:1]:
            if isinstance(failure, SilentHostError | AnswerError):
                raise _HaltError(str(failure))
            raise failure

    async def _answer(self, host: str, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer of a host, asked again as long as it may not have heard.

        Time in which the hub is gone does not count.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        client = self._asker.client
        while True:
            seen = client.stats["reconnects"]
            left = max(_LOOK, end - loop.time())
            asking = asyncio.create_task(self._asker.ask(host, verb, request, left))
            try:
                while not asking.done() and _same(client, seen):
                    await asyncio.wait({asking}, timeout=_LOOK)
            finally:
                await end_tasks([asking])
            gone = asking.cancelled() or not _same(client, seen)
            if not asking.cancelled() and _decides(asking.exception()):
                return asking.result()
            if gone:
                await self._reconnected()
                end = loop.time() + self._patience
            elif loop.time() >= end:
                return asking.result()
            await asyncio.sleep(_LOOK)

    async def _reconnected(self) -> None:
        """Wait for the hub."""
        client = self._asker.client
        try:
            async with asyncio.timeout(_HUB_PATIENCE):
                while not client.is_connected:
                    if client.is_closed:
                        raise TimeoutError
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            raise HubError("the hub is gone", "begin the same roll-out again later") from None

    async def _take(self, found: RolloutRecord) -> None:
        """Take a roll-out over, unless whoever holds it is alive."""
        if found.holder and not found.ended:
            self._tell(f"roll-out {found.rollout} has a holder: waiting whether it is alive")
            before = await self._store.revision()
            await asyncio.sleep(self._lease)
            if await self._store.revision() != before:
                raise TakenError(
                    f"roll-out {found.rollout} of {found.file} is under way by {found.who} "
                    f"({found.where()})"
                )
        await self._put(found)
        self._tell(f"going on with roll-out {found.rollout}: {found.where()}")

    async def _put(self, record: RolloutRecord) -> None:
        record = msgspec.structs.replace(record, holder=self._token)
        await self._store.put(record)
        self._record = record

    async def _change(self, **changes: Any) -> None:
        async with self._lock:
            record = msgspec.structs.replace(self.record, **changes)
            await self._store.put(record)
            self._record = record

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        """Show that we are alive. If somebody else has taken the roll-out over, stop at once."""
        task = asyncio.current_task()
        assert task is not None
        taken: list[IpttctlError] = []

        async def beat() -> None:
            try:
                while True:
                    await asyncio.sleep(min(_BEAT, self._lease / 4))
                    await self._change(beat=self.record.beat + 1)
            except (TakenError, HubError) as error:
                taken.append(error)
                task.cancel()

        beating = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            if taken and task.uncancel() == 0:
                raise taken[0] from None
            raise
        finally:
            # a change that is half way is brought to its end
            async with self._lock:
                beating.cancel()
            await end_tasks([beating])


def _decides(error: BaseException | None) -> bool:
    """Whether a host has looked at a request, and did it, or says no."""
    return error is None or (isinstance(error, AnswerError) and not isinstance(error, BusyError))


def _same(client: Any, reconnects: int) -> bool:
    """Whether the connection is the one that it was."""
    return bool(client.is_connected) and client.stats["reconnects"] == reconnects


def _few(hosts: Collection[str]) -> str:
    """Some hosts in words."""
    return shortened(sorted(hosts), 8)
