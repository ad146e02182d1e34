# SPDX-License-Identifier: GPL-2.0
"""A trace of the agent, for somebody else or a watch: its links, and its stories."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.story_sources import StoryNames
from ipttctl.cli.trace_links import TraceLinks, loaded_programs
from ipttctl.cli.trace_places import PlacesWanted
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.events import one_namespace
from ipttctl.events.records import EventRecord
from ipttctl.fleet.host import Told, TraceOrder, Untold
from ipttctl.joins.notes import JoinNotes
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut, Limits
from ipttctl.link.losses import Losses
from ipttctl.programs.trace import TraceOptions
from ipttctl.show.render_json import dumps
from ipttctl.show.story_json import StoryJson
from ipttctl.stories.assemble import SETTLE, StoryAssembler
from ipttctl.stories.gaps import Gap
from ipttctl.stories.model import Story, is_drop
from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.peers import Peers
from ipttctl.system.who import Who
from ipttproto import EventBatch, Feature, JoinedBatches


class LocalTeller(LinkEvents):
    """Joins the events of a trace into stories."""

    def __init__(
        self,
        links: frozenset[int],
        names: StoryNames,
        *,
        drops: bool,
        await_drops: bool = False,
        within: int | None = None,
        join: bool = False,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Tell stories of the events of ``links``; with ``drops`` those of dropped packets.

        ``await_drops``: all are told, and those without a drop stay open for one as with ``drops``.
        ``within`` is the cookie of the only namespace that is looked at. With ``join`` they tell
        what joins them with stories of other hosts. ``close`` is called at the end, by the thread
        that tells.
        """
        super().__init__(links)
        self._within = within
        self._notes = JoinNotes() if join else None
        self._close = close
        self._names = names
        self._drops = drops
        self._assembler = StoryAssembler(await_drops=drops or await_drops)
        self._form = StoryJson(names.sources)
        self._found: list[Story] = []

    @property
    def full(self) -> bool:
        """Never: the lease says when it ends."""
        return False

    def take(self, batches: Sequence[EventBatch]) -> list[Told]:
        """The stories that end with some events."""
        self.show(batches)
        return self._told()

    def idle(self) -> list[Told]:  # type: ignore[override]  # here it has results
        """The stories that are due."""
        self._found += self._assembler.due(time.monotonic_ns())
        return self._told()

    def end(self) -> list[Told]:  # type: ignore[override]  # see above
        """All stories that are left."""
        self._found += self._assembler.due(time.monotonic_ns() + SETTLE)
        self._found += self._assembler.flush()
        try:
            return self._told()
        finally:
            self._close()

    def totals(
        self, losses: Losses, left_out: LeftOut, *, unfollowed: int, lost_sight: int
    ) -> None:
        """Say nothing: frames have the losses."""

    def _told(self) -> list[Told]:
        found, self._found = self._found, []
        wanted = list(filter(is_drop, found)) if self._drops else found
        if not wanted:
            return []
        lines: list[str] = list(self._form.lines(wanted))
        if self._notes is not None:
            marks = map(self._notes.told, wanted)
            lines = [_with_join(line, one) for line, one in zip(lines, marks, strict=True)]
        return list(map(Told, wanted, lines))

    def lose(self, gap: Gap) -> None:
        """Have the stories of packets that were on their way say that events were lost."""
        self._assembler.lose(gap)

    def suspect(self, gaps: Sequence[Gap]) -> None:
        """Have the stories of packets that end meanwhile say so, too."""
        self._assembler.suspect(gaps)

    def _take(self, events: JoinedBatches) -> None:
        if self._within is not None:
            events = one_namespace.within(events, self._within)
        if events:
            self.events += len(events)
            self._names.learn(events)
            if self._notes is not None:
                self._notes.take(events)
            self._found += self._assembler.add_events(events)

    def _tell_left_out(self, record: EventRecord) -> None:
        """Say nothing: the event itself is published."""


def _with_join(line: str, marks: list[dict[str, Any]]) -> str:
    """The line of a story with one more member."""
    return f'{line[:-1]},"join":{dumps(marks)}}}'


class LocalTrace:
    """The links of a trace, on a connection of its own: they end with it."""

    def __init__(self, order: TraceOrder, namespace: str | None = None) -> None:
        """Attach; packets are chosen and followed in one namespace, if one is named.

        Raises:
            IpttctlError: it cannot be, or there can be no stories.
        """
        cookie = _cookie(namespace)
        bytecode = compile_filter(order.filter) if order.filter.strip() else None
        with ExitStack() as stack:
            controller = stack.enter_context(Controller())
            # nobody said that an older module has to have the default
            governor = order.governor if Feature.LIMITS in controller.features else None
            limits = Limits.parse(order.sample, order.rate, governor)
            # of stories alone: there are no lines to fall back to
            options = StoryOptions(both_ways=order.both_ways, drops=True)
            places = PlacesWanted(options, None, None, None).places(controller)
            names = stack.enter_context(NamespaceNames().watching())
            with loaded_programs(
                TraceOptions(netns=cookie), bytecode, limits, join=order.join
            ) as programs:
                who = Who()
                links = TraceLinks(controller, places.hooks, programs)
            self.links = frozenset(links.ids)
            texts = stack.enter_context(RuleTexts(controller, names))
            story_names = StoryNames(who, names, texts, Peers(names))
            self._links = links
            self._namespace, self.within = namespace, cookie
            opened = stack.pop_all()
        self.teller = LocalTeller(
            self.links,
            story_names,
            drops=order.drops,
            await_drops=order.await_drops,
            within=cookie,
            join=order.join is not None,
            close=opened.close,
        )

    def look(self) -> Untold:
        """Look whether the links, and the namespace that they are for, are there.

        Raises:
            IpttctlError: they are not.
        """
        if _cookie(self._namespace) != self.within:
            raise UsageError(f"network namespace {self._namespace} is another one now")
        left_out, unfollowed = self._links.look()
        return Untold(left_out.packets, unfollowed)

    def detach(self) -> Untold:
        """Detach the links; closing the connection would do as well, but not count them."""
        with suppress(IpttctlError):
            self._links.detach()
        return Untold(self._links.left_out.packets, self._links.unfollowed)


def _cookie(namespace: str | None) -> int | None:
    """The cookie of a namespace, which no other one has; None if none is named."""
    return netns.resolve(namespace).cookie if namespace is not None else None
