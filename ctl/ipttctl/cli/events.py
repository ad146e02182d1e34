# SPDX-License-Identifier: GPL-2.0
"""``ipttctl events`` and ``stats``."""

from __future__ import annotations

from typing import Annotated

import typer

from ipttctl import render_json, render_text
from ipttctl.cli import output
from ipttctl.cli.options import Output, OutputOption
from ipttctl.cli.output import EventPrinter
from ipttctl.cli.signals import on_ending
from ipttctl.cli.view import EventView
from ipttctl.controller import Controller


def events(
    link: Annotated[
        int | None, typer.Option("--link", metavar="N", min=1, help="of this link only")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-c", "--catch-count", min=1, help="end after so many")
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="what happens to links, instead of packets")
    ] = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Follow the events of links that exist, whoever made them.

    Ends with Ctrl-C, or after -c events, and tells what it saw and what was lost. On standard
    error a line "listening" says that nothing is missed from now on.
    """
    if links:
        _follow_links(link, count, output_form)
    else:
        _follow_events(link, count, output_form)


def stats(output_form: OutputOption = Output.TEXT) -> None:
    """Show the module, its event streams and what they lost since it was loaded."""
    with Controller() as controller:
        status = controller.status()
    if output_form is Output.JSON:
        output.lines([render_json.dumps(render_json.status(status))])
    else:
        heading = f"module {status.version} protocol {status.fingerprint:08x}"
        output.lines([heading, *render_text.cpu_table(status.cpus)])


def _follow_events(link: int | None, count: int | None, form: Output) -> None:
    with Controller() as controller:
        if link is not None:
            controller.link(link)
        with controller.events() as stream, on_ending(stream.stop):
            output.note("listening")
            view = EventView(EventPrinter(form, link_columns=True), link, count)
            while not stream.stopped and not view.full:
                for batch in stream.read():
                    view.show(batch)
            for batch in stream.drain():
                view.show(batch)
            output.totals(view.events, view.packets.count, stream.losses)


def _follow_links(link: int | None, count: int | None, form: Output) -> None:
    with (
        Controller() as controller,
        controller.link_changes() as stream,
        on_ending(stream.stop),
    ):
        output.note("listening")
        shown = 0
        for change in stream:
            if link is None or change.link.id == link:
                output.change(change, form)
                shown += 1
            if shown == count:
                break
