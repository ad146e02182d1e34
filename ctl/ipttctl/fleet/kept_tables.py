# SPDX-License-Identifier: GPL-2.0
"""Tables of what the hub keeps, with the columns of those of recordings."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from ipttctl.fleet import subjects
from ipttctl.fleet.asker import AnswerError, Asker, SilentHostError
from ipttctl.fleet.heartbeat import Heartbeat, Selector
from ipttctl.fleet.kept import KeptFrames, ReadBounds
from ipttctl.fleet.kept_losses import RunLosses
from ipttctl.fleet.ledger import UNKNOWN
from ipttctl.frames.bodies import events_of, json_lines
from ipttctl.frames.head import EVENTS, STORIES, FrameError, FrameHead
from ipttctl.numbers import counted, shortened
from ipttctl.recordings.extra import arrow
from ipttctl.recordings.rows import Row
from ipttctl.recordings.table_maker import OF_STORIES, Sink, TableMaker

_MOST_RUNS: Final = 1 << 15
_MOST_OF_HOST: Final = 256
"""Runs of a host of which rows are made: one that makes runs up takes no other's place. An agent
that ends again and again, and is started each time, has as many in some hours."""

_MOST_WAITING: Final = 1 << 15
"""Rows of all runs that wait to be made a batch of."""

_MOST_NUMBER: Final = 2**63 - 1
_SHOWN_HOSTS: Final = 8

Where = tuple[str, str, str]
"""Host, boot and run."""

Tell = Callable[[str], None]


@dataclass
class _Run:
    """The tables of a run so far, and what its frames say of it."""

    maker: TableMaker
    began: int
    ended: int
    losses: RunLosses = field(default_factory=RunLosses)
    damaged: int = 0


class _NoNames:
    """The names of namespaces, which frames do not have; stories have theirs."""

    def name(self, cookie: int, moment: int | None = None) -> str | None:
        """None."""
        del cookie, moment
        return None  # a name is what others return


class KeptTables:
    """Makes the rows of tables; ``finish`` makes those of links and hosts."""

    def __init__(self, sink: Sink, wanted: frozenset[str]) -> None:
        """Give rows of the ``wanted`` tables to a sink."""
        self._sink = sink
        self._wanted = wanted
        self._runs: dict[Where, _Run] = {}
        #: rows of all runs that wait
        self._waiting = 0
        #: the number of runs of each host, and of frames of further ones; by its token of subjects,
        #: since names with dots and '_' may have the same
        self._of_hosts: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    @property
    def kinds(self) -> list[str]:
        """The kinds of frames that are needed."""
        kinds = {EVENTS: {"events", "hosts"}, STORIES: {*OF_STORIES, "hosts"}}
        return [kind for kind, tables in kinds.items() if self._wanted & tables]

    def take(self, head: FrameHead, body: bytes) -> None:
        """Make the rows of a frame."""
        run = self._run(head)
        if run is None:
            return
        run.began, run.ended = min(run.began, head.time), max(run.ended, head.time)
        run.losses.take(head)
        before = run.maker.waiting
        try:
            if head.kind == EVENTS and head.count:
                run.maker.take_events(events_of(head, body))
            elif head.kind == STORIES:
                run.maker.take_stories(json_lines(head, body))
        # the values of an event may be such as no column holds
        except (FrameError, arrow().ArrowException, OverflowError):
            run.damaged += 1
        self._waiting += run.maker.waiting - before
        if self._waiting >= _MOST_WAITING:
            self._flush()

    def finish(self, hosts: Sequence[Heartbeat], links: Mapping[str, Sequence[Any]]) -> list[str]:
        """Give on the rest, with hosts that were heard of, and links by the names of hosts.

        Returns:
            Sentences on what was left out.
        """
        self._flush()
        heard = {(one.host, one.boot, one.run): one for one in hosts}
        for where in heard.keys() - self._runs.keys():
            self._runs[where] = _Run(self._maker(where), 0, 0)
        for where, run in sorted(self._runs.items()):
            alive = heard.get(where)
            run.maker.put_rows("hosts", [_host_row(run, alive)])
            if alive:
                run.maker.put_rows("links", [*map(_link_row, links.get(where[0], ()))])
        found = []
        if damaged := sum(run.damaged for run in self._runs.values()):
            found.append(f"{damaged} frames or stories that cannot be read passed over")
        if self._left_out:
            names = shortened(sorted(self._left_out), _SHOWN_HOSTS)
            frames = counted(self._left_out.total(), "frame")
            found.append(f"left out: {frames} of {names}, of more than {_MOST_OF_HOST} runs")
        return found

    def _run(self, head: FrameHead) -> _Run | None:
        where = head.host, head.boot, head.run
        run = self._runs.get(where)
        if run is None:
            host = subjects.host_token(head.host)
            if len(self._runs) >= _MOST_RUNS or self._of_hosts[host] >= _MOST_OF_HOST:
                self._left_out[host] += 1
                return None
            self._of_hosts[host] += 1
            run = self._runs[where] = _Run(self._maker(where), head.time, head.time)
        return run

    def _maker(self, where: Where) -> TableMaker:
        def unread(_: int) -> None:
            self._runs[where].damaged += 1

        return TableMaker(where, _NoNames(), self._sink, self._wanted, unread)

    def _flush(self) -> None:
        self._waiting = 0
        for where, run in self._runs.items():
            try:
                run.maker.flush()
            except (arrow().ArrowException, OverflowError):
                self._runs[where].damaged += 1
                run.maker.drop()


async def write_kept(
    asker: Asker,
    chosen: Selector,
    bounds: ReadBounds,
    *,
    sink: Sink,
    wanted: frozenset[str],
    tell: Tell,
) -> None:
    """Give the rows of what the hub keeps to a sink; ``tell`` takes sentences on what is missing.

    Raises:
        HubError: it cannot be read.
    """
    hosts: list[Heartbeat] = []
    if chosen.terms or wanted & {"hosts", "links"}:
        hosts = await asker.find(chosen, some=bool(chosen.terms))
    names = chosen.names or (frozenset(one.host for one in hosts) if chosen.terms else frozenset())
    tables = KeptTables(sink, wanted)
    frames = KeptFrames(asker, bounds)
    if tables.kinds:
        async with aclosing(frames.read(tables.kinds, names, chosen.names)) as read:
            async for head, body in read:
                # the connection is heard meanwhile
                await asyncio.to_thread(tables.take, head, body)
    links = await _links(asker, hosts, tell) if "links" in wanted else {}
    if "links" in wanted and (silent := sorted(chosen.names - {one.host for one in hosts})):
        tell(f"the links of {', '.join(silent)} are not known: nothing is heard of it")
    for sentence in [*frames.sentences(), *tables.finish(hosts, links)]:
        tell(sentence)


async def _links(asker: Asker, hosts: Sequence[Heartbeat], tell: Tell) -> dict[str, Sequence[Any]]:
    """The links that hosts have now; what a host answers may be anything."""
    found: dict[str, Sequence[Any]] = {}
    for one in hosts:
        try:
            answer = await asker.ask(one.host, "links", {})
        except (AnswerError, SilentHostError) as error:
            tell(str(error))
            continue
        links = answer.get("links")
        found[one.host] = links if isinstance(links, list) else []
    return found


def _link_row(link: Any) -> Row:
    known = link if isinstance(link, dict) else {}
    return (
        _number(known.get("link")),
        _word(known.get("name")),
        _word(known.get("hook")),
        _number(known.get("generation")),
    )


def _number(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -_MOST_NUMBER <= value <= _MOST_NUMBER else None


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _host_row(run: _Run, alive: Heartbeat | None) -> Row:
    losses = run.losses
    # those of which nobody knows what they held are messages
    unread = losses.unread.total() - losses.unread[UNKNOWN]
    away = losses.away(EVENTS).total() + losses.away(STORIES).total()
    # whoever speaks as a host may say any numbers
    lost, away = (min(count, _MOST_NUMBER) for count in (unread, away))
    return (
        *((alive.module or None) if alive else None, None),  # no fingerprint is told
        *(run.began or None, run.ended or None, False if alive else None),
        *(run.maker.events, run.maker.stories, lost, away, run.damaged),
    )
