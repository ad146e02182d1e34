# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace``: what became of packets, the rules that they met, the verdicts and the cost."""

from __future__ import annotations

import errno
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli import selection
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import ColumnsOption, Output, OutputOption, RulesOption
from ipttctl.cli.output import EventPrinter, event_columns, tell_state
from ipttctl.cli.printing import note
from ipttctl.cli.progress import ProgressLine
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.cli.signals import on_ending
from ipttctl.cli.story_forms import story_form
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.story_sources import StoryNames
from ipttctl.cli.stream_head import begin_stream
from ipttctl.cli.subjects import ChosenNamespaces, ChosenProcess, Subjects
from ipttctl.cli.trace_links import TraceLinks, TracePrograms, loaded_programs
from ipttctl.cli.trace_loop import TraceLoop
from ipttctl.cli.trace_places import Backend, Family, Places, PlacesWanted, tell_no_rules
from ipttctl.cli.trace_stories import StoryView
from ipttctl.cli.traced_command import trace_end
from ipttctl.cli.view import EventView, LinkEvents
from ipttctl.errors import KernelError, ModuleError, UsageError
from ipttctl.families import IP
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import Link
from ipttctl.numbers import U32_MAX
from ipttctl.programs import trace as trace_programs
from ipttctl.programs.limit_options import LimitOptions
from ipttctl.show.event_text import TimeFormat
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


@grouped
def trace(
    *,
    expression: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILTER",
            help="tcpdump expression, in one or several words; it runs before anything else",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "-H",
            "--ipaddr",
            metavar="ADDRESS",
            help="either end: an address or a network, v4 or v6",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--proto", metavar="PROTO", help="a name as in /etc/protocols, icmp6, a number, any"
        ),
    ] = "any",
    port: Annotated[
        str | None,
        typer.Option(
            "-P",
            "--port",
            metavar="PORT",
            help="either end: a number or a name as in /etc/services",
        ),
    ] = None,
    icmp_id: Annotated[
        int | None, typer.Option("--icmpid", min=0, max=65535, help="identifier of a ping")
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option("-p", "--pid", min=1, max=U32_MAX, help="process that sends the packet"),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("-N", "--netns", metavar="NETNS", help="inode number, name or path"),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("-c", "--catch-count", min=1, help="end after this many stories, or events"),
    ] = None,
    precise: Annotated[
        bool, typer.Option("-T", "--time", help="clock time to the nanosecond")
    ] = False,
    relative: Annotated[
        bool, typer.Option("-t", "--timestamp", help="seconds since the first event, to the us")
    ] = False,
    only4: Annotated[bool, typer.Option("-4", "--ipv4", help="IPv4 only")] = False,
    only6: Annotated[bool, typer.Option("-6", "--ipv6", help="IPv6 only")] = False,
    backend: Annotated[
        Backend | None,
        typer.Option("--backend", help="rules of iptables-legacy only, or of nftables only"),
    ] = None,
    stories: StoryOptions,
    command: Annotated[
        str | None,
        typer.Option(
            "--cmd",
            metavar="COMMAND",
            help="run this line by a shell once packets are watched, and end after it",
        ),
    ] = None,
    limits: LimitOptions,
    rules: RulesOption = None,
    verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            help="every rule and function of a story; with --lines columns for link and generation",
        ),
    ] = False,
    columns: ColumnsOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Trace packets through iptables and nftables: what became of each, and which rule decided it.

    Each packet is one story, told when it ends: the rules that decided or changed something, the
    devices and network namespaces on its way, and who dropped or took it. Packets are chosen where
    they first meet a hook at which filter and options fit, and followed from there on, whatever NAT
    makes of their addresses, into other namespaces too. Those that no rule decides over have a
    story as well. -v shows all that a packet met.

    With --lines each rule that matches and each verdict is shown by itself, with its cost. Filter
    and options are asked again at each hook then, unless there is --follow: so after NAT they have
    to fit the new addresses. On a terminal of less than 200 columns each packet has a heading, with
    its rules and verdicts below. Otherwise, and in a pipe, each of these is one line with all
    columns, or those of --columns.

    Stories need a module that follows packets, and hooks that it may watch; where that is not so,
    it says so and shows lines.

    Each rule is shown as it was when the packet passed, in the syntax of the program that wrote it;
    where that cannot be said for certain, "rule uncertain" and the reason.

    Rules of iptables-nft and of nft are those of nftables. On a kernel where the module's walks
    through their chains and along the hooks are not verified yet, that is done first, once: see
    `ipttctl module verify`.

    So that a trace does no harm, a governor leaves packets out, with all their events, while these
    are more than 200,000 a second or take more than half of one CPU; --governor sets other budgets.
    Each link decides for itself. How many packets were left out is told meanwhile and at the end.

    Ends with Ctrl-C, after -c stories or events, after --stop-after, with the command of --cmd, or
    when the process of -p or the namespace of -N has ended. The command has no input, its output
    goes to standard error, and it is asked to end if the trace ends first. A namespace given by its
    name is waited for instead, and followed once the name exists again. At the end it prints how
    many stories it told, how many events there were and how many were lost. The line "tracing:
    link" on standard error, with the numbers of the links, says that packets are watched from then
    on.
    """
    if precise and relative:
        raise UsageError("-T and -t exclude each other")
    if only4 and only6:
        raise UsageError("-4 and -6 exclude each other", "leave both out for both")
    family: Family = 4 if only4 else 6 if only6 else None
    host = None if address is None else selection.network(address)
    if host and family not in {None, host.version}:
        raise UsageError(f"--ipaddr: {address} is not of IPv{family}")
    number = selection.protocol(protocol)
    port_number = None if port is None else selection.port(port, number)
    stories.check()
    if columns is not None and not stories.lines:
        raise UsageError("--columns is of lines", "add --lines")
    shown = event_columns(columns, output)
    # what makes no sense is told without a module too
    limits.limits()

    _trace(
        _Request(
            expression=" ".join(expression or []),
            wanted=trace_programs.TraceOptions(
                address=host,
                protocol=number,
                port=port_number,
                icmp_id=icmp_id,
                pid=pid,
                family=None if family is None else int(IP[family]),
            ),
            family=family,
            namespace=namespace,
            backend=backend,
            stories=stories,
            command=command,
            limits=limits,
            rules=rules,
            columns=shown,
            look=_Look(output, _time_format(precise, relative), verbose, count),
        )
    )


@dataclass(frozen=True)
class _Look:
    """The options on how things are shown, and how many."""

    output: Output
    time_format: TimeFormat
    verbose: bool
    count: int | None


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A command line that makes sense."""

    expression: str
    wanted: trace_programs.TraceOptions
    family: Family
    namespace: str | None
    backend: Backend | None
    stories: StoryOptions
    command: str | None
    limits: LimitOptions
    rules: bool | None
    columns: tuple[str, ...] | None
    look: _Look


def _trace(asked: _Request) -> None:
    with ExitStack() as stack:
        namespaces = ChosenNamespaces([] if asked.namespace is None else [asked.namespace])
        pid = asked.wanted.pid
        process = None if pid is None else stack.enter_context(closing(ChosenProcess(pid)))
        controller = stack.enter_context(Controller())
        names = stack.enter_context(NamespaceNames().watching())
        bytecode = compile_filter(asked.expression) if asked.expression.strip() else None
        wanted = replace(asked.wanted, netns=namespaces.latest)
        governed = _governed(asked.limits, controller)
        where = PlacesWanted(asked.stories, asked.backend, asked.family, namespaces.held)
        places = where.places(controller)
        # it lets the namespace go
        watched = namespaces.watched(controller, names)
        with loaded_programs(wanted, bytecode, governed) as programs:
            # not earlier: the events of other links would pile up during the compilation
            changes = stack.enter_context(controller.link_changes())
            events = stack.enter_context(controller.events())
            # it has to know the clocks before the first event
            who = Who()
            links, places = _attached(controller, where, places, programs)
        stack.enter_context(watched)

        def go_on(cookie: int) -> None:
            assert asked.namespace is not None
            try:
                found = netns.find(asked.namespace)
            except UsageError:
                # it went meanwhile, and that is told next
                return
            loaded = loaded_programs(replace(wanted, netns=cookie), bytecode, governed)
            with found, loaded as programs:
                if found.identity.cookie == cookie:
                    links.follow(found, programs)

        with on_ending(events.stop):
            begin_stream("stories" if places.stories else "trace", controller, asked.look.output)
            _tell_links(links, places, asked.backend)
            # where nftables' chains cannot be watched, only legacy rules are seen
            seen = asked.backend if places.sees_chains else Backend.LEGACY
            tell_no_rules(asked.namespace, seen)
            line = ProgressLine()
            texts = None
            if _shows_rules(asked, places):
                texts = stack.enter_context(RuleTexts(controller, names))
            view: LinkEvents
            if places.stories:
                view = _story_view(asked, StoryNames(who, names, texts, Peers(names)), links, line)
            else:
                view = _event_view(asked, names, links, texts)
            subjects = Subjects(namespaces, process, go_on)
            _run(TraceLoop(events, changes, links, view, subjects, line), asked)


def _run(loop: TraceLoop, asked: _Request) -> None:
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


def _story_view(
    asked: _Request, names: StoryNames, links: TraceLinks, line: ProgressLine
) -> StoryView:
    look = asked.look
    form = story_form(
        look.output,
        names.sources,
        summary=asked.stories.summary,
        verbose=look.verbose,
        time_format=look.time_format,
    )
    return StoryView(form, asked.stories, names, links.ids, look.count, clear=line.clear)


def _event_view(
    asked: _Request, names: NamespaceNames, links: TraceLinks, rules: RuleTexts | None
) -> EventView:
    look = asked.look
    printer = EventPrinter(
        look.output,
        time_format=look.time_format,
        link_columns=look.verbose,
        columns=asked.columns,
        names=names,
        links=links.ids,
        rules=rules,
    )
    return EventView(printer, links.ids, look.count)


def _governed(options: LimitOptions, controller: Controller) -> Limits | None:
    """The limits of options; without a governor, its default, if the module has any."""
    if options.governor is None and Feature.LIMITS in controller.features:
        options = replace(options, governor=_GOVERNOR)
    return options.limits()


def _time_format(precise: bool, relative: bool) -> TimeFormat:
    if precise:
        return TimeFormat.NANOSECONDS
    return TimeFormat.RELATIVE if relative else TimeFormat.CLOCK


def _shows_rules(asked: _Request, places: Places) -> bool:
    """Whether rules are shown; stories have them unless that is not wanted."""
    if places.stories:
        return asked.rules is not False
    return EventPrinter.shows_rules(asked.rules, asked.look.output, asked.columns)


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
