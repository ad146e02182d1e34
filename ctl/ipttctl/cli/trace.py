# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace``: the rules that packets meet, the verdicts, and their cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ipttctl.cli import selection
from ipttctl.cli.options import ColumnsOption, Output, OutputOption
from ipttctl.cli.output import EventPrinter, event_columns, note, tell_state, totals
from ipttctl.cli.signals import on_ending
from ipttctl.cli.subjects import ChosenNamespaces, ChosenProcess, Subjects
from ipttctl.cli.view import EventView
from ipttctl.errors import LinkGoneError, UsageError
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, ProgramSet
from ipttctl.link.streams import EventStream, LinkChangeStream
from ipttctl.numbers import U32_MAX
from ipttctl.programs import trace as trace_programs
from ipttctl.programs.choice import compiled
from ipttctl.show.event_text import TimeFormat
from ipttctl.system.namespace_names import NamespaceNames


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
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="columns for link and generation")
    ] = False,
    columns: ColumnsOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Trace packets through iptables: each rule that matches, each verdict and its cost.

    On a terminal of less than 200 columns each packet has a heading, with its rules and verdicts
    below. Otherwise, and in a pipe, each of these is one line with all columns, or those of
    --columns.

    Ends with Ctrl-C, after -c events, or when the process of -p or the namespace of -N has ended. A
    namespace given by its name is waited for instead, and followed once the name exists again. At
    the end it prints how many events it showed and how many were lost. The line "tracing: link N"
    on standard error says that packets are watched from then on.
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

    with ExitStack() as stack:
        namespaces = ChosenNamespaces([] if namespace is None else [namespace])
        process = None if pid is None else stack.enter_context(closing(ChosenProcess(pid)))
        controller = stack.enter_context(Controller())
        names = stack.enter_context(NamespaceNames().watching())
        bytecode = compiled(" ".join(expression) if expression else None)

        wanted = trace_programs.TraceOptions(
            address=host,
            protocol=number,
            port=port_number,
            icmp_id=icmp_id,
            pid=pid,
            netns=namespaces.latest,
        )
        stack.enter_context(namespaces.watched(controller, names))
        with _programs(wanted, bytecode) as programs:
            # not earlier: the events of other links would pile up during the compilation
            changes = stack.enter_context(controller.link_changes())
            events = stack.enter_context(controller.events())
            link = controller.attach(TableHook(family), programs)

        def follow(cookie: int) -> None:
            with (
                suppress(LinkGoneError),
                _programs(replace(wanted, netns=cookie), bytecode) as programs,
            ):
                controller.swap(link.id, programs)

        with on_ending(events.stop):
            _announce(link)
            if namespace is None and not link.hook.waiting:
                _tell_no_tables()
            time_format = TimeFormat.CLOCK
            if precise or relative:
                time_format = TimeFormat.NANOSECONDS if precise else TimeFormat.RELATIVE
            printer = EventPrinter(
                output,
                time_format=time_format,
                link_columns=verbose,
                columns=shown,
                names=names,
            )
            view = EventView(printer, link.id, count)
            there = _follow(events, changes, link.id, view, Subjects(namespaces, process, follow))
            if there:
                controller.detach(link.id)
            for batch in events.drain():
                view.show(batch)
            totals(view.events, view.packets.count, events.losses)
            if not there:
                note(f"link {link.id} was detached by somebody else")


def _follow(
    events: EventStream,
    changes: LinkChangeStream,
    link: int,
    view: EventView,
    subjects: Subjects,
) -> bool:
    """Show events until stopped or nothing can come; returns whether the link still exists."""
    while not events.stopped:
        if not events.wait(changes.fileno(), *subjects.descriptors()):
            continue
        for change in changes.read(0):
            if change.link.id != link:
                continue
            if change.change is Change.DETACHED:
                return False
            if change.change is Change.CHANGED:
                tell_state(change.link)
        for batch in events.read(0):
            view.show(batch)
        if view.full or subjects.ended():
            break
    return True


@contextmanager
def _programs(wanted: trace_programs.TraceOptions, bytecode: bytes | None) -> Iterator[ProgramSet]:
    """The programs for these options, open until a link holds them."""
    programs = trace_programs.load_trace_programs(
        wanted,
        on_compile=lambda: note("compiling the BPF programs (once; takes some seconds)..."),
    )
    try:
        fds = {slot: program.fd for slot, program in programs.items()}
        yield ProgramSet(fds, bytecode)
    finally:
        for program in programs.values():
            program.close()


def _announce(link: Link) -> None:
    note(f"tracing: link {link.id}")
    tell_state(link)


def _tell_no_tables() -> None:
    """Warn that a namespace without legacy tables will never show anything."""
    lists = (Path(f"/proc/net/{family}_tables_names") for family in ("ip", "ip6"))
    if not any(names.is_file() and names.read_text().strip() for names in lists):
        note(
            "this network namespace has no table of iptables-legacy: nothing will be seen here "
            "(tables of iptables-nft and nft are not watched)"
        )
