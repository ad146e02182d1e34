# SPDX-License-Identifier: GPL-2.0
"""``ipttctl events``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Annotated

import typer

from ipttctl.cli import output
from ipttctl.cli.event_options import EventOptions
from ipttctl.cli.groups import grouped
from ipttctl.cli.left_out import LeftOutSince
from ipttctl.cli.options import ColumnsOption, Output, OutputOption, RulesOption, inherited
from ipttctl.cli.output import EventPrinter
from ipttctl.cli.printing import note
from ipttctl.cli.rule_texts import RuleTexts
from ipttctl.cli.signals import on_ending
from ipttctl.cli.stream_head import begin_stream
from ipttctl.cli.subjects import ChosenNamespaces, Subjects
from ipttctl.cli.view import EventView
from ipttctl.errors import LinkGoneError, ModuleError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, HistoryEntry, Link, LinkChange, LinkList
from ipttctl.link.names import LinkRef
from ipttctl.link.streams import EventStream
from ipttctl.programs.payloads import PayloadTypes
from ipttctl.system.namespace_names import NamespaceNames


@grouped
def events(
    *,
    context: typer.Context,
    wanted: EventOptions,
    count: Annotated[
        int | None, typer.Option("-c", "--catch-count", min=1, help="end after this many")
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="changes of links, instead of packets")
    ] = False,
    rules: RulesOption = None,
    columns: ColumnsOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Follow the events of existing links, whoever made them.

    Some options choose events. Repeating an option means OR; different options mean AND. There can
    be any number of observers, each with its own choice. An observer that is slow or stopped loses
    only its own events. Rules are shown as `ipttctl trace` shows them.

    Ends with Ctrl-C, after -c events, or when all namespaces of --netns are gone. A namespace given
    by its name is waited for instead, and followed once the name exists again. At the end it prints
    how many events it showed, how many were lost, and how many packets limits left out. Losses
    count all events, as nobody can know which of the lost ones were wanted. The line "listening" on
    standard error says that nothing is missed from then on. If the module is unloaded, the exit
    status is 3.

    With --links it begins with the links as they are, and changes follow without a gap. When
    changes were lost, because more came than were read, it says so and lists the links again.
    """
    for namespace in wanted.namespace:
        inherited(context).check_path(namespace)
    if links:
        if wanted.of_packets:
            raise UsageError("--links takes no option that chooses packets", "use --link")
        if columns is not None or rules is not None:
            option = "--rules" if columns is None else "--columns"
            raise UsageError(f"{option} is of packets", "leave out --links")
        _follow_links(frozenset(wanted.links), count, output_form)
    else:
        shown = output.event_columns(columns, output_form)
        _follow_events(wanted, count, output_form, shown, rules)


def _follow_events(
    wanted: EventOptions,
    count: int | None,
    form: Output,
    columns: Sequence[str] | None,
    rules: bool | None,
) -> None:
    namespaces = ChosenNamespaces(wanted.namespace)
    subjects = Subjects(namespaces)
    links = wanted.links
    # what makes no sense is told without a module too
    wanted.filter((), ())
    shows_rules = EventPrinter.shows_rules(rules, form, columns)
    with Controller() as controller, NamespaceNames().watching() as names:
        ids = [_id(controller, one) for one in links]
        chosen = wanted.filter(ids, namespaces.cookies)
        types = PayloadTypes(controller.link)
        begin_stream("events", controller, form)
        with (
            controller.events(chosen) as stream,
            namespaces.watched(controller, names),
            on_ending(stream.stop),
            RuleTexts(controller, names) if shows_rules else nullcontext() as texts,
        ):
            begin = controller.links()
            for known in begin:
                types.learn(known)
            note("listening")
            printer = EventPrinter(
                form,
                link_columns=True,
                columns=columns,
                names=names,
                payload=types.value,
                rules=texts.of if texts else None,
            )
            view = EventView(printer, None, count)
            with _told_at_the_end(view, stream, LeftOutSince(controller, begin, ids)):
                while not stream.stopped and not view.full and not subjects.ended():
                    stream.wait(*subjects.descriptors())
                    view.show(stream.read(0))
                for batch in stream.drain():
                    view.show([batch])


def _id(controller: Controller, link: LinkRef) -> int:
    """The id of a link that must exist."""
    found = controller.link(link)
    return link if isinstance(link, int) else found.id


@contextmanager
def _told_at_the_end(
    view: EventView, stream: EventStream, left_out: LeftOutSince
) -> Iterator[None]:
    """Print the totals at the end, also if that is the module's."""

    def tell() -> None:
        total = left_out.total(view.left_out)
        output.totals(view.events, view.packets.count, stream.losses, total)

    try:
        yield
    except ModuleError:
        tell()
        raise
    tell()


def _follow_links(links: Collection[LinkRef], count: int | None, form: Output) -> None:
    with (
        Controller() as controller,
        controller.watch_links() as watch,
        on_ending(watch.stop),
    ):
        names = NamespaceNames()
        begin_stream("links", controller, form)
        shown = 0
        for item in watch:
            if isinstance(item, LinkList):
                _tell_list(item, links, form, names)
            elif _is_wanted(item.link, links):
                output.change(item, form, names, _made(controller, item))
                shown += 1
            if shown == count:
                break


def _tell_list(
    listed: LinkList, links: Collection[LinkRef], form: Output, names: NamespaceNames
) -> None:
    """Show a list of links, the first one or one after a loss."""
    if listed.overrun:
        note("changes of links were lost: more came than were read; listing links again")
    wanted = [link for link in listed.links if _is_wanted(link, links)]
    output.link_list(replace(listed, links=tuple(wanted)), form, names)
    if not listed.overrun:
        note("listening")


def _is_wanted(link: Link, links: Collection[LinkRef]) -> bool:
    """Whether a link is one of those that are given; without any, all are wanted."""
    return not links or link.id in links or link.name in links


def _made(controller: Controller, change: LinkChange) -> HistoryEntry | None:
    """The origin of a link's new generation: its author, and whether it is a roll-back."""
    if change.change is not Change.SWAPPED:
        return None
    # by now the link may be gone, or swapped many times
    with suppress(LinkGoneError):
        for entry in controller.history(change.link.id):
            if entry.generation == change.link.generation:
                return entry
    return None
