# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace``: the rules that packets meet, the verdicts, and their cost."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Annotated, Final, Literal

import typer

from ipttctl.bpf.filters import compile_filter
from ipttctl.cli import selection
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import ColumnsOption, Output, OutputOption, RulesOption
from ipttctl.cli.output import EventPrinter, event_columns, tell_state, totals
from ipttctl.cli.printing import note
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.cli.signals import on_ending
from ipttctl.cli.stream_head import begin_stream
from ipttctl.cli.subjects import ChosenNamespaces, ChosenProcess, Subjects
from ipttctl.cli.trace_links import TraceLinks
from ipttctl.cli.view import EventView
from ipttctl.cli.walk import verified
from ipttctl.errors import IpttctlError, UsageError
from ipttctl.escape import word
from ipttctl.families import IP
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import Link, ProgramSet
from ipttctl.link.streams import EventStream, LinkChangeStream
from ipttctl.numbers import U32_MAX
from ipttctl.programs import trace as trace_programs
from ipttctl.programs.limit_options import LimitOptions
from ipttctl.rules import backends
from ipttctl.show.event_text import TimeFormat
from ipttctl.system import netns
from ipttctl.system.namespace_names import NamespaceNames
from ipttproto import Feature

_GOVERNOR: Final = "200000/s,50%"
"""The governor of a trace, unless --governor says another."""

_MOST_ASKED: Final = 64
"""Most namespaces whose rules are looked for at the start."""

_MOST_NAMED: Final = 8
"""Most namespaces without rules that a line names."""


class Backend(enum.StrEnum):
    """Where rules are held."""

    LEGACY = "legacy"
    """The tables of iptables-legacy."""
    NFT = "nft"
    """The chains of nftables, which iptables-nft writes too."""


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
        int | None, typer.Option("-c", "--catch-count", min=1, help="end after this many events")
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
    limits: LimitOptions,
    rules: RulesOption = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="columns for link and generation")
    ] = False,
    columns: ColumnsOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Trace packets through iptables and nftables: each rule that matches, each verdict, its cost.

    Each rule is shown as it was when the packet passed, in the syntax of the program that wrote it;
    where that cannot be said for certain, "rule uncertain" and the reason.

    Rules of iptables-nft and of nft are those of nftables. On a kernel where the module's walk
    through their chains is not verified yet, that is done first, once: see `ipttctl module verify`.

    On a terminal of less than 200 columns each packet has a heading, with its rules and verdicts
    below. Otherwise, and in a pipe, each of these is one line with all columns, or those of
    --columns.

    So that a trace does no harm, a governor leaves packets out, with all their events, while these
    are more than 200,000 a second or take more than half of one CPU; --governor sets other budgets.
    Each link decides for itself. How many packets were left out is told meanwhile and at the end.

    Ends with Ctrl-C, after -c events, or when the process of -p or the namespace of -N has ended. A
    namespace given by its name is waited for instead, and followed once the name exists again. At
    the end it prints how many events it showed and how many were lost. The line "tracing: link N"
    on standard error, one for each back end, says that packets are watched from then on.
    """
    if precise and relative:
        raise UsageError("-T and -t exclude each other")
    if only4 and only6:
        raise UsageError("-4 and -6 exclude each other", "leave both out for both")
    family: Literal[4, 6] | None = 4 if only4 else 6 if only6 else None
    host = None if address is None else selection.network(address)
    if host and family not in {None, host.version}:
        raise UsageError(f"--ipaddr: {address} is not of IPv{family}")
    number = selection.protocol(protocol)
    port_number = None if port is None else selection.port(port, number)
    shown = event_columns(columns, output)
    # what makes no sense is told without a module too
    limits.limits()

    with ExitStack() as stack:
        namespaces = ChosenNamespaces([] if namespace is None else [namespace])
        process = None if pid is None else stack.enter_context(closing(ChosenProcess(pid)))
        controller = stack.enter_context(Controller())
        names = stack.enter_context(NamespaceNames().watching())
        bytecode = compile_filter(" ".join(words)) if any(words := expression or []) else None
        governed = _governed(limits, controller)

        wanted = trace_programs.TraceOptions(
            address=host,
            protocol=number,
            port=port_number,
            icmp_id=icmp_id,
            pid=pid,
            netns=namespaces.latest,
            family=None if family is None else int(IP[family]),
        )
        places = list(_places(controller, backend, family, namespaces.held))
        # it lets the namespace go
        watched = namespaces.watched(controller, names)
        with _programs(wanted, bytecode, governed) as programs:
            # not earlier: the events of other links would pile up during the compilation
            changes = stack.enter_context(controller.link_changes())
            events = stack.enter_context(controller.events())
            links = TraceLinks(controller, places, programs)
        stack.enter_context(watched)

        def follow(cookie: int) -> None:
            assert namespace is not None
            try:
                found = netns.find(namespace)
            except UsageError:
                # it went meanwhile, and that is told next
                return
            with found, _programs(replace(wanted, netns=cookie), bytecode, governed) as programs:
                if found.identity.cookie == cookie:
                    links.follow(found, programs)

        with on_ending(events.stop):
            begin_stream("trace", controller, output)
            _tell_links(list(links.there.values()), backend)
            # where nftables' chains cannot be watched, only legacy rules are seen
            sees_nft = any(isinstance(place, ChainHook) for place in places)
            _tell_no_rules(namespace, backend if sees_nft else Backend.LEGACY)
            texts = None
            if EventPrinter.shows_rules(rules, output, shown):
                texts = stack.enter_context(RuleTexts(controller, names))
            printer = EventPrinter(
                output,
                time_format=_time_format(precise, relative),
                link_columns=verbose,
                columns=shown,
                names=names,
                links=links.ids,
                rules=texts,
            )
            view = EventView(printer, links.ids, count)
            _follow(events, changes, links, view, Subjects(namespaces, process, follow))
            _finish(events, links, view)


def _governed(options: LimitOptions, controller: Controller) -> Limits | None:
    """The limits of options; without a governor, its default, if the module has any."""
    if options.governor is None and Feature.LIMITS in controller.features:
        options = replace(options, governor=_GOVERNOR)
    return options.limits()


def _time_format(precise: bool, relative: bool) -> TimeFormat:
    if precise:
        return TimeFormat.NANOSECONDS
    return TimeFormat.RELATIVE if relative else TimeFormat.CLOCK


def _follow(
    events: EventStream,
    changes: LinkChangeStream,
    links: TraceLinks,
    view: EventView,
    subjects: Subjects,
) -> None:
    """Show events until stopped or nothing can come."""
    while links.there and not events.stopped:
        if not events.wait(changes.fileno(), *subjects.descriptors()):
            continue
        for change in changes.read(0):
            links.take(change)
        view.show(events.read(0))
        if view.full or subjects.ended():
            break


def _finish(events: EventStream, links: TraceLinks, view: EventView) -> None:
    """Detach the links, and show what they have reported until then, and the totals."""
    links.detach()
    for batch in events.drain():
        view.show([batch])
    totals(view.events, view.packets.count, events.losses, links.left_out)
    for link_id in links.taken:
        note(f"link {link_id} was detached by somebody else")


@contextmanager
def _programs(
    wanted: trace_programs.TraceOptions, bytecode: bytes | None, limits: Limits | None
) -> Iterator[ProgramSet]:
    """The programs for these options, open until a link holds them."""
    programs = trace_programs.load_trace_programs(
        wanted,
        on_compile=lambda: note("compiling the BPF programs (once; takes some seconds)..."),
    )
    try:
        fds = {slot: program.fd for slot, program in programs.items()}
        yield ProgramSet(fds, bytecode, limits=limits)
    finally:
        for program in programs.values():
            program.close()


def _places(
    controller: Controller,
    backend: Backend | None,
    family: Literal[4, 6] | None,
    namespace: netns.Namespace | None,
) -> Iterator[Hook]:
    """The hooks to attach to; chains only where the module may walk through them.

    Those are chains of a namespace, if one was chosen: packets elsewhere pay nothing. Tables have
    no such place; there the entry program chooses.

    Raises:
        IpttctlError: only chains are wanted, and the module may not.
    """
    if backend is not Backend.NFT:
        yield TableHook(family)
    if backend is Backend.LEGACY:
        return
    try:
        verified(controller, ", or --backend legacy")
    except IpttctlError as error:
        if backend is Backend.NFT:
            raise
        note(f"rules of nftables are not seen: {error}")
    else:
        yield ChainHook(netns=namespace)


def _tell_links(links: list[Link], backend: Backend | None) -> None:
    """Name the links, and code that is not loaded.

    That is not told if the code of another back end is, and none was chosen.
    """
    for link in links:
        note(f"tracing: link {link.id}")
    if backend is not None or all(list(link.hook.misses(link.id)) for link in links):
        for link in links:
            tell_state(link)


def _tell_no_rules(namespace: str | None, backend: Backend | None) -> None:
    """Say where no back end that is watched holds a rule.

    That is the namespace chosen. Without one it is ours, and those that have names.
    """
    if namespace is not None:
        with suppress(IpttctlError), netns.find(namespace) as found:
            _tell(_no_rules(found, backend), f"network namespace {namespace}")
        return
    with suppress(IpttctlError, OSError), netns.Namespace(netns.OWN) as found:
        _tell(_no_rules(found, backend), "this network namespace")
    without: dict[str, list[str]] = {}
    for found in islice(netns.named(), _MOST_ASKED):
        if found.inode != netns.own() and (sentence := _no_rules(found, backend)):
            without.setdefault(sentence, []).append(word(found.path.name))
    for sentence, where in without.items():
        _tell(sentence, f"network namespace{'s' if len(where) > 1 else ''} {_listed(where)}")


def _tell(sentence: str | None, where: str) -> None:
    if sentence:
        note(sentence.format(where=where))


def _no_rules(namespace: netns.Namespace, backend: Backend | None) -> str | None:
    """The sentence on a namespace, with ``{where}`` in its place; None if rules are seen there."""
    try:
        held = backends.holders(namespace.fileno())
    except (IpttctlError, OSError):
        # it went, or may not be asked
        return None
    if backend is None and not held.legacy and not held.nft:
        return "no rules in {where}: neither iptables-legacy nor nftables holds any"
    if backend is Backend.LEGACY and not held.legacy:
        others = "; nftables holds some" if held.nft else ""
        return f"iptables-legacy holds no rules in {{where}}{others}"
    if backend is Backend.NFT and not held.nft:
        others = "; iptables-legacy holds some" if held.legacy else ""
        return f"nftables holds no rules in {{where}}{others}"
    return None


def _listed(names: list[str]) -> str:
    """Names in a sentence, the first few of them."""
    if len(names) <= _MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
