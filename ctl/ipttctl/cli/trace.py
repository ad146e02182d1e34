# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace``: what became of packets, the rules that they met, the verdicts and the cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ipttctl.cli.groups import grouped
from ipttctl.cli.hosts_asked import HostsAsked
from ipttctl.cli.hub_options import HubOption, WaitOption
from ipttctl.cli.looks import Look, event_view, story_view
from ipttctl.cli.options import ColumnsOption, Output, OutputOption, RulesOption
from ipttctl.cli.output import EventPrinter, event_columns
from ipttctl.cli.story_options import StoryOptions
from ipttctl.cli.stream_head import begin_stream
from ipttctl.cli.trace_hosts import trace_hosts
from ipttctl.cli.trace_options import (
    AddressOption,
    BackendOption,
    CommandOption,
    CountOption,
    FilterArgument,
    IcmpIdOption,
    NamespaceOption,
    Only4Option,
    Only6Option,
    PidOption,
    PortOption,
    PreciseOption,
    ProtocolOption,
    RelativeOption,
    VerboseOption,
    packet_choice,
    time_format,
)
from ipttctl.cli.trace_run import AskedTrace, Traced, run_trace
from ipttctl.cli.view import LinkEvents
from ipttctl.errors import UsageError
from ipttctl.programs.limit_options import LimitOptions

HostsTracedOption = Annotated[
    str | None,
    typer.Option(
        "--hosts",
        metavar="SELECTOR",
        help="trace on other hosts, one story a packet: names, labels as 'role=node,zone!=b', all",
    ),
]


@grouped
def trace(
    *,
    expression: FilterArgument = None,
    address: AddressOption = None,
    protocol: ProtocolOption = "any",
    port: PortOption = None,
    icmp_id: IcmpIdOption = None,
    pid: PidOption = None,
    namespace: NamespaceOption = None,
    count: CountOption = None,
    precise: PreciseOption = False,
    relative: RelativeOption = False,
    only4: Only4Option = False,
    only6: Only6Option = False,
    backend: BackendOption = None,
    stories: StoryOptions,
    command: CommandOption = None,
    limits: LimitOptions,
    rules: RulesOption = None,
    verbose: VerboseOption = False,
    columns: ColumnsOption = None,
    hosts: HostsTracedOption = None,
    hub: HubOption = None,
    wait: WaitOption = None,
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
    A packet that is followed is left out of all links or of none; with --lines, unless there is
    --follow, each link decides for itself. How many packets were left out is told meanwhile and at
    the end.

    Ends with Ctrl-C, after -c stories or events, after --stop-after, with the command of --cmd, or
    when the process of -p or the namespace of -N has ended. The command has no input, its output
    goes to standard error, and it is asked to end if the trace ends first. A namespace given by its
    name is waited for instead, and followed once the name exists again. At the end it prints how
    many stories it told, how many events there were and how many were lost. The line "tracing:
    link" on standard error, with the numbers of the links, says that packets are watched from then
    on.

    With --hosts the hosts of a fleet trace: those that the selector chooses, as they are reached by
    the hub (see docs/fleet.md). The stories of a packet on several hosts are shown together, in the
    order of its way. Only FILTER, --both-ways, --drops, --summary, -c, --stop-after and
    -o go with it.
    """
    if hosts is not None:
        _refuse_local(
            ("-H", address),
            ("--proto", protocol != "any"),
            ("-P", port),
            ("--icmpid", icmp_id),
            ("-p", pid),
            ("-N", namespace),
            ("-T", precise),
            ("-t", relative),
            ("-4", only4),
            ("-6", only6),
            ("--backend", backend),
            ("--lines", stories.lines),
            ("--patience", stories.patience),
            ("--no-follow", stories.follow is False),
            ("--cmd", command),
            ("--sample", limits.sample),
            ("--limit-rate", limits.limit_rate),
            ("--governor", limits.governor),
            ("--rules", rules is not None),
            ("-v", verbose),
            ("--columns", columns),
        )
        stories.check()
        trace_hosts(
            HostsAsked(
                selector=hosts,
                hub=hub,
                wait=wait,
                expression=" ".join(expression or []),
                both_ways=stories.both_ways,
                drops=stories.drops,
                summary=stories.summary,
                count=count,
                stop_after=stories.stop_after,
                output=output,
            )
        )
        return
    if hub is not None:
        raise UsageError("--hub is for other hosts", "add --hosts")
    if wait is not None:
        raise UsageError("--wait is for other hosts", "add --hosts")
    times = time_format(precise=precise, relative=relative)
    packets = packet_choice(
        expression=expression,
        address=address,
        protocol=protocol,
        port=port,
        icmp_id=icmp_id,
        pid=pid,
        namespace=namespace,
        only4=only4,
        only6=only6,
        backend=backend,
    )
    stories.check()
    if columns is not None and not stories.lines:
        raise UsageError("--columns is of lines", "add --lines")
    shown = event_columns(columns, output)
    # what makes no sense is told without a module too
    limits.limits()
    run_trace(
        AskedTrace(packets, stories, command, limits),
        _Printed(Look(output, times, verbose, count), stories, rules, shown),
    )


def _refuse_local(*options: tuple[str, object]) -> None:
    """Refuse options that other hosts are not asked for."""
    for name, given in options:
        if given is not None and given is not False:
            raise UsageError(f"{name} does not go with --hosts", "say it in FILTER, if it can be")


@dataclass(frozen=True)
class _Printed:
    """The use of a trace that prints it."""

    look: Look
    stories: StoryOptions
    rules: bool | None
    columns: tuple[str, ...] | None

    def shows_rules(self, *, stories: bool) -> bool:
        """Whether rules are shown; stories have them unless that is not wanted."""
        if stories:
            return self.rules is not False
        return EventPrinter.shows_rules(self.rules, self.look.output, self.columns)

    def begin(self, traced: Traced) -> None:
        """Print the first record of JSON."""
        stream = "stories" if traced.stories else "trace"
        begin_stream(stream, traced.controller, self.look.output)

    def view(self, traced: Traced) -> LinkEvents:
        """Print stories, or events."""
        if traced.stories:
            clear = traced.line.clear
            names = traced.story_names()
            return story_view(self.look, self.stories, names, traced.links.ids, clear)
        rules = traced.texts.of if traced.texts else None
        return event_view(self.look, self.columns, traced.names, traced.links.ids, rules)
