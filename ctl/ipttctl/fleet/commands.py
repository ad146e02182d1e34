# SPDX-License-Identifier: GPL-2.0
"""Commands from others: read, checked against what this host allows, done, answered in bounds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from ipttctl.errors import IpttctlError, os_reason
from ipttctl.fleet import grants, objects, subjects
from ipttctl.fleet.config import AgentConfig
from ipttctl.fleet.config_file import seconds
from ipttctl.fleet.grants import RefusedError
from ipttctl.fleet.host import AgentHost, Running, TraceOrder, Untold
from ipttctl.fleet.leases import Leases
from ipttctl.fleet.reasons import reason
from ipttctl.fleet.requests import (
    ApplyRequest,
    AttachRequest,
    ConfirmRequest,
    DetachRequest,
    EndRequest,
    LinksRequest,
    RenewRequest,
    Request,
    RollbackRequest,
    StatusRequest,
    SwapRequest,
    TraceRequest,
    declared,
    parse,
    verb_of,
)
from ipttctl.fleet.swap_counts import FAILURES, SwapCounts
from ipttctl.fleet.tasks import run_together
from ipttctl.fleet.trials import Trials
from ipttctl.show.render_json import dumps

LONGEST_REPLY: Final = 256 * 1024
"""Most bytes of an answer; of a list that is longer, as much as fits."""

_MOST_WAITING: Final = 16
_PER_SECOND: Final = 50
_LONGEST_ERROR: Final = 500
_EXPIRY: Final = 0.5
_EXPIRY_AGAIN: Final = 10.0
_SWAPS: Final = 1.0

_WHY: Final = "asked for by the fleet"
"""The reason of changes, which the histories of links keep."""

Answer = dict[str, Any]


class Commands:
    """Does what is asked on the host's subject, one command after the other.

    Leases are renewed meanwhile, since some commands take long.
    """

    def __init__(
        self,
        config: AgentConfig,
        host: AgentHost,
        on_host: Callable[[Callable[[], Any]], Awaitable[Any]],
        began: Callable[[str, Running], None],
        ended: Callable[[str], None],
        *,
        tell: Callable[[str], None] = lambda _: None,
        lost: Callable[[], int] = lambda: 0,
        stories: Callable[[], int] = lambda: 0,
    ) -> None:
        """Have ``on_host`` call the host; ``began`` and ``ended`` are told of traces.

        ``tell`` is called with a sentence for the log. ``lost`` is the number of events and stories
        that the agent has lost so far, ``stories`` the number of its next story.
        """
        self._tell = tell
        self._lost = lost
        self._stories = stories
        self._config = config
        self._host = host
        self._on_host = on_host
        self.swaps = SwapCounts(host)
        """Numbers of swaps, by what became of them."""
        self._trials = Trials(
            *(host, Path(config.own_objects.directory), _WHY, self.swaps.took),
            allowed="apply" in config.allow,
        )
        self._began = began
        self._ended = ended
        self._waiting: asyncio.Queue[tuple[Client, Msg, Request]] = asyncio.Queue(_MOST_WAITING)
        self._tokens = float(_PER_SECOND)
        self._since = time.monotonic()
        traces = config.traces
        self.leases = Leases(
            *(traces.most, seconds(traces.lease), seconds(traces.longest)),
            end=self._end_trace,
            look=self._look_at,
        )
        """The traces that run."""
        self.done: Counter[tuple[str, str]] = Counter()
        """Numbers of commands, by verb and outcome."""

    async def listen(self, client: Client) -> None:
        """Take commands of a connection."""

        async def take(message: Msg) -> None:
            await self._take(client, message)

        await client.subscribe(
            subjects.control(self._config.token), cb=take, pending_msgs_limit=4 * _MOST_WAITING
        )

    async def run(self) -> None:
        """Do commands and end traces until cancelled."""
        await run_together(self.leases.run(), self._do_all(), self._expire(), self._look_at_swaps())

    def overrun(self) -> None:
        """Count a command that nobody looked at, because more came than were taken."""
        self.done["?", "too many"] += 1

    async def _expire(self) -> None:
        """Undo roll-outs that nobody has kept in time."""
        due, pause, told = True, _EXPIRY, ""
        while True:
            failed = False
            if due:
                pause = _EXPIRY
                try:
                    if said := await self._on_host(self._trials.expire):
                        self._tell(said)
                # the module is not loaded, perhaps: there is nothing then, or later
                except Exception as error:
                    failed, pause = True, _EXPIRY_AGAIN
                    if told != str(error):
                        told = str(error)
                        self._tell(f"a roll-out that was not kept in time is not undone: {told}")
            await asyncio.sleep(pause)
            # after a reboot its time is on another clock
            due = failed or self._trials.due

    async def _look_at_swaps(self) -> None:
        """Count swaps that were confirmed or rolled back, by whomever."""
        while True:
            await asyncio.sleep(_SWAPS)
            if self.swaps.waiting:
                with suppress(*FAILURES):
                    await self._on_host(self.swaps.look)

    async def _take(self, client: Client, message: Msg) -> None:
        # an answer elsewhere would have us publish where only we may
        if not message.reply.startswith(subjects.REPLIES):
            self.done["?", "no reply"] += 1
            return
        if not self._has_token():
            self.done["?", "too many"] += 1
            return
        verb = "?"
        try:
            request = parse(message.data)
            verb = verb_of(request)
            if message.subject != subjects.control(self._config.token, verb):
                raise RefusedError(f"{verb} is asked for on a subject of its own")
            self._check_allowed(request)
        except IpttctlError as error:
            self.done[verb, "refused"] += 1
            await _answer(client, message, bounded(_failure(error)))
            return
        if isinstance(request, RenewRequest):
            await self._answered(client, message, request)
            return
        try:
            self._waiting.put_nowait((client, message, request))
        except asyncio.QueueFull:
            self.done[verb, "busy"] += 1
            busy = _failure(RefusedError("the agent is busy"))
            await _answer(client, message, bounded(busy | {"busy": True}))

    async def _do_all(self) -> None:
        while True:
            await self._answered(*await self._waiting.get())

    async def _answered(self, client: Client, message: Msg, request: Request) -> None:
        verb, outcome = verb_of(request), "failed"
        try:
            data = bounded({"ok": True, **await self._do(client, request)})
            outcome = "done"
        except IpttctlError as error:
            data = bounded(_failure(error))
        except OSError as error:
            data = bounded(_failure(RefusedError(os_reason(error))))
        # whatever others ask for, the agent goes on
        except Exception as error:
            fault = type(error).__name__
            report = RefusedError(f"the agent failed: {fault}", "please report it")
            data = bounded(_failure(report))
            self._tell(f"{verb} failed by {fault}: {error}")
        self.done[verb, outcome] += 1
        await _answer(client, message, data)

    def _check_allowed(self, request: Request) -> None:
        verb = verb_of(request)
        if verb not in self._config.allow:
            raise RefusedError(f"{self._config.host} does not allow {verb}")
        if isinstance(request, TraceRequest):
            self._check_told(request)
        trust = self._config.trust
        known: dict[grants.Grant, grants.Statement | str] = {}
        for _, link in declared(request):
            for program in link.programs.values():
                grants.check(
                    program.digest,
                    link.hook,
                    self._config.host,
                    getattr(request, "grants", ()),
                    trust,
                    mode=link.mode,
                    known=known,
                )

    def _check_told(self, request: TraceRequest) -> None:
        """Check that there is something to read of a trace: without a key of joins, events do."""
        publish = self._config.publish
        if not publish.stories and (request.join is not None or publish.events == "none"):
            raise RefusedError("no stories are published here: publish.stories is false")

    async def _do(self, client: Client, request: Request) -> Answer:
        """Do what brings no programs, or have them first."""
        match request:
            case LinksRequest():
                answer: Answer = {"links": await self._on_host(self._host.links)}
            case TraceRequest():
                answer = await self._trace(request)
            case RenewRequest():
                lease = self.leases.renew(request.trace, request.lease)
                answer = {"lease": lease, "clock": self._host.clock(), **self._progress()}
            case EndRequest():
                untold = await self.leases.end(request.trace)
                answer = {"untold": untold and asdict(untold), **self._progress()}
            case DetachRequest():
                detach = partial(self._host.detach, request.link, _WHY)
                answer = {"link": await self._on_host(detach)}
            case StatusRequest():
                answer = await self._on_host(self._trials.status)
            case ConfirmRequest(name=str(name)):
                answer = {"link": await self._on_host(partial(self._host.confirm_link, name))}
            case RollbackRequest(name=str(name)):
                rollback = partial(self._host.rollback_link, name, _WHY)
                answer = {"link": await self._on_host(rollback)}
            case ConfirmRequest(rollout=str(rollout)):
                answer = await self._on_host(partial(self._trials.confirm, rollout))
            case RollbackRequest(rollout=str(rollout)):
                # by then the directory may have been emptied
                needed = await self._on_host(partial(self._trials.needed, rollout))
                await objects.fetch(client, self._config.own_objects, needed)
                answer = await self._on_host(partial(self._trials.rollback, rollout))
            case _:
                links = [link for _, link in declared(request)]
                digests = {one.digest for link in links for one in link.programs.values()}
                place = await objects.fetch(client, self._config.own_objects, digests)
                used = await self._on_host(self._trials.used)
                await asyncio.to_thread(objects.prune, self._config.own_objects, digests | used)
                answer = await self._on_host(partial(self._run_programs, request, place))
        return answer

    def _run_programs(self, request: Request, place: Path) -> Answer:
        """Do what brings programs, which lie in ``place``; in the host's thread."""
        host = self._host
        entries = {name: link.entry() for name, link in declared(request)}
        state = {"links": entries}
        match request:
            case AttachRequest():
                one = {"name": request.name, **entries[request.name]}
                return {"link": host.attach(one, place, _WHY)}
            case SwapRequest():
                one = {"name": request.name, **entries[request.name]}
                made = host.swap(one, place, request.rollback_after, _WHY)
                self.swaps.took([{"action": "swap", "link": made["link"]}])
                return {"link": made}
            case ApplyRequest():
                return {"steps": self._trials.apply(request)}
        return {"steps": host.diff(state, place)}

    async def _trace(self, request: TraceRequest) -> Answer:
        order = TraceOrder(
            request.filter,
            request.both_ways,
            request.drops,
            self._config.traces.governor,
            bytes.fromhex(request.join) if request.join is not None else None,
            await_drops=request.await_drops,
        )

        async def start(trace: str) -> Running:
            running: Running = await self._on_host(lambda: self._host.trace(order))
            self._began(trace, running)
            return running

        lease, left = await self.leases.begin(request.lease, start)
        links = sorted(lease.running.links)
        return {"trace": lease.trace, "links": links, "lease": left, "lost": self._lost()}

    async def _look_at(self, running: Running) -> str:
        """The reason why a trace does not see any more what it should; empty if it does."""
        try:
            await self._on_host(running.look)
        except Exception as error:
            why = reason(error)
            self._tell(f"a trace of others is ended: {why}")
            return why
        return ""

    def _progress(self) -> Answer:
        """What readers compare with the frames that have come."""
        return {"lost": self._lost(), "stories": self._stories()}

    async def _end_trace(self, trace: str, running: Running) -> Untold | None:
        try:
            untold: Untold = await self._on_host(running.detach)
        # the module went, and the links with it, or else it is a fault: other traces have to end
        except Exception as error:
            self.done["trace", "end failed"] += 1
            self._tell(f"a trace did not end as it should: {error}")
            return None
        else:
            return untold
        finally:
            self._ended(trace)

    def _has_token(self) -> bool:
        """Whether one more command may come in this second."""
        now = time.monotonic()
        self._tokens = min(_PER_SECOND, self._tokens + (now - self._since) * _PER_SECOND)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _failure(error: IpttctlError) -> Answer:
    return {"ok": False, "error": " ".join(str(error).split())[:_LONGEST_ERROR]}


async def _answer(client: Client, message: Msg, data: bytes) -> None:
    # the connection may be gone, and with it whoever asked
    with suppress(nats.errors.Error, OSError):
        await client.publish(message.reply, data)


def bounded(answer: Answer) -> bytes:
    """An answer within the bound; where a list is too long, its end is left out and counted."""
    data = _encoded(answer)
    while len(data) > LONGEST_REPLY:
        name = max(answer, key=lambda key: len(_encoded(answer[key])))
        whole = answer[name]
        if not isinstance(whole, list) or not whole:
            return _encoded({"ok": False, "error": "the answer is too long"})
        left = len(whole) * LONGEST_REPLY // (len(data) + 1)
        out = answer.get("left_out", 0) + len(whole) - left
        answer = {**answer, name: whole[:left], "left_out": out}
        data = _encoded(answer)
    return data


def _encoded(value: object) -> bytes:
    """JSON. Anybody can give a label or a process a byte that is not UTF-8: it is escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return dumps(value).encode()
