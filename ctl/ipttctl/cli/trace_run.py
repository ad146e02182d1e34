# SPDX-License-Identifier: GPL-2.0
"""The course of a trace: links are attached, and what they report goes to one use of it."""

from __future__ import annotations

import errno
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli.output import tell_state
from ipttctl.cli.printing import note
from ipttctl.cli.progress import ProgressLine
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.cli.signals import on_ending
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.story_sources import StoryNames
from ipttctl.cli.subjects import ChosenNamespaces, ChosenProcess, Subjects
from ipttctl.cli.trace_links import TraceLinks, TracePrograms, loaded_programs
from ipttctl.cli.trace_loop import TraceLoop
from ipttctl.cli.trace_options import PacketChoice
from ipttctl.cli.trace_places import Backend, Places, PlacesWanted, tell_unseen
from ipttctl.cli.traced_command import trace_end
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import KernelError, ModuleError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import Link
from ipttctl.link.streams import EventStream
from ipttctl.programs.limit_options import LimitOptions
from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.peers import Peers
from ipttctl.system.who import Who
from ipttproto import Feature

_GOVERNOR: Final = "200000/s,50%"
"""The governor of a trace, unless --governor says another."""

_NANO: Final = 1_000_000_000

_NO_STORIES: Final = {errno.EBUSY, errno.EOPNOTSUPP, errno.ENOSPC}
"""Refusals of a journey or of the spine with which lines may still do.

Something else redirects the function, the kernel has no such steps, or there are too many links.
"""


@dataclass(frozen=True)
class AskedTrace:
    """A command line that makes sense: what is traced, and until when.

    ``snaplen`` is the number of bytes of packets that are kept.
    """

    packets: PacketChoice
    stories: StoryOptions
    command: str | None
    limits: LimitOptions
    snaplen: int = 0


@dataclass(frozen=True)
class Traced:
    """A trace whose links are attached.

    ``stories``: its events make stories. ``texts`` are None unless rules are shown.
    """

    controller: Controller
    events: EventStream
    links: TraceLinks
    stories: bool
    names: NamespaceNames
    who: Who
    line: ProgressLine
    texts: RuleTexts | None = None

    def story_names(self) -> StoryNames:
        """The sources of names of this host."""
        return StoryNames(self.who, self.names, self.texts, Peers(self.names))


class TraceUse(Protocol):
    """The use that is made of a trace's events."""

    def shows_rules(self, *, stories: bool) -> bool:
        """Whether the texts of rules are wanted."""

    def begin(self, traced: Traced) -> None:
        """Do what is to be done before anything is told."""

    def view(self, traced: Traced) -> LinkEvents:
        """The taker of the events."""


def run_trace(asked: AskedTrace, use: TraceUse) -> None:
    """Trace packets until the end that is asked for."""
    packets = asked.packets
    with ExitStack() as stack:
        namespaces = ChosenNamespaces([] if packets.namespace is None else [packets.namespace])
        pid = packets.wanted.pid
        process = None if pid is None else stack.enter_context(closing(ChosenProcess(pid)))
        controller = stack.enter_context(Controller())
        names = stack.enter_context(NamespaceNames().watching())
        bytecode = compile_filter(packets.expression) if packets.expression.strip() else None
        wanted = replace(packets.wanted, netns=namespaces.latest)
        governed = _governed(asked.limits, controller)
        where = PlacesWanted(asked.stories, packets.backend, packets.family, namespaces.held)
        places = where.places(controller)
        # it lets the namespace go
        watched = namespaces.watched(controller, names)
        with loaded_programs(wanted, bytecode, governed, asked.snaplen) as programs:
            # not earlier: the events of other links would pile up during the compilation
            changes = stack.enter_context(controller.link_changes())
            events = stack.enter_context(controller.events())
            # it has to know the clocks before the first event
            who = Who()
            links, places = _attached(controller, where, places, programs)
        stack.enter_context(watched)

        def go_on(cookie: int) -> None:
            assert packets.namespace is not None
            try:
                found = netns.find(packets.namespace)
            except UsageError:
                # it went meanwhile, and that is told next
                return
            loaded = loaded_programs(
                replace(wanted, netns=cookie), bytecode, governed, asked.snaplen
            )
            with found, loaded as programs:
                if found.identity.cookie == cookie:
                    links.follow(found, programs)

        with on_ending(events.stop):
            traced = Traced(controller, events, links, places.stories, names, who, ProgressLine())
            use.begin(traced)
            _tell_links(links, places, packets.backend)
            # where nftables' chains cannot be watched, only legacy rules are seen
            seen = packets.backend if places.sees_chains else Backend.LEGACY
            tell_unseen(packets.namespace, seen, stories=places.stories)
            if use.shows_rules(stories=places.stories):
                texts = stack.enter_context(RuleTexts(controller, names))
                traced = replace(traced, texts=texts)
            view = use.view(traced)
            subjects = Subjects(namespaces, process, go_on)
            _run(TraceLoop(events, changes, links, view, subjects, traced.line), asked)


def _run(loop: TraceLoop, asked: AskedTrace) -> None:
    """Run a trace to its end."""
    options = asked.stories
    try:
        with trace_end(asked.command, options.stop_after, options.patience_ns / _NANO) as end:
            loop.follow(end)
        loop.finish()
    except ModuleError:
        loop.line.clear()
        # what was told of packets so far is worth something
        loop.view.end()
        raise


def _governed(options: LimitOptions, controller: Controller) -> Limits | None:
    """The limits of options; without a governor, its default, if the module has any."""
    if options.governor is None and Feature.LIMITS in controller.features:
        options = replace(options, governor=_GOVERNOR)
    return options.limits()


def _attached(
    controller: Controller, where: PlacesWanted, places: Places, programs: TracePrograms
) -> tuple[TraceLinks, Places]:
    """Attach the links; at the places for lines if those for stories cannot be had."""
    try:
        return TraceLinks(controller, places.hooks, programs), places
    except KernelError as error:
        if not places.stories or error.errno not in _NO_STORIES:
            raise
        places = where.instead(controller, str(error))
        return TraceLinks(controller, places.hooks, programs), places


def _tell_links(links: TraceLinks, places: Places, backend: Backend | None) -> None:
    """Name the links, and code that is not loaded.

    That is not told if the code of another back end is, and none was chosen.
    """
    there = list(links.there.values())
    if places.stories:
        note(f"tracing: links {', '.join(str(link.id) for link in there)}")
    else:
        for link in there:
            note(f"tracing: link {link.id}")
    if backend is not None or all(map(_misses, there)):
        for link in there:
            tell_state(link)


def _misses(link: Link) -> bool:
    return bool(list(link.hook.misses(link.id)))
