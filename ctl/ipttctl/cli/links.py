# SPDX-License-Identifier: GPL-2.0
"""``ipttctl links``, ``detach``, ``release`` and ``rename``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

from ipttctl.bpf import syscalls
from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import (
    ForceOption,
    LinkArgument,
    Output,
    OutputOption,
    ReasonOption,
)
from ipttctl.cli.signals import wait_ending
from ipttctl.errors import LinkGoneError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import Link
from ipttctl.link.names import LinkRef, parse_link, parse_name, parse_reason
from ipttctl.programs.slots import Expectations


def release(
    link: LinkArgument, force: ForceOption = False, output_form: OutputOption = Output.TEXT
) -> None:
    """Make a link persistent: it no longer ends with its owner, and can be adopted by another.

    An attach or adopt that held it ends with status 0. Prints the link.
    """
    wanted = parse_link(link)
    with Controller() as controller:
        output.links([controller.release(wanted, force=force)], output_form)


def rename(
    link: LinkArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="a name that no other link has")],
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Give a link another name, or its first one. Prints the link.

    If another link has the name, the exit status is 11.
    """
    wanted, called = parse_link(link), parse_name("NAME", name)
    with Controller() as controller:
        output.links([controller.rename(wanted, called)], output_form)


@grouped
def detach(
    *,
    links: Annotated[
        list[str] | None, typer.Argument(metavar="LINK...", help="ids or names of links")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="every link there is")] = False,
    expected: Expectations,
    reason: ReasonOption = None,
    force: ForceOption = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Remove links, whoever owns them. Prints the final state of each.

    A link that somebody owns exclusively goes by --force only.
    """
    if bool(links) == everything:
        raise UsageError("give ids or names of links, or --all")
    wanted = list(map(parse_link, links or ()))
    why = parse_reason("--reason", reason)
    programs = expected.programs()
    with Controller() as controller:

        def remove(link: LinkRef) -> None:
            gone = controller.detach(
                link,
                expect_generation=expected.expect_generation,
                expect_programs=programs,
                reason=why,
                force=force,
            )
            output.links([gone], output_form)

        for one in wanted:
            remove(one)
        if everything:
            for link in controller.links():
                with suppress(LinkGoneError):
                    remove(link.id)


def links(
    link: Annotated[
        str | None, typer.Argument(metavar="LINK", help="only this one, by id or name")
    ] = None,
    measure: Annotated[
        float | None,
        typer.Option(
            "--measure",
            metavar="SECONDS",
            min=0.01,
            max=86400,
            help="measure run times for this long, and show the runs and ns a run",
        ),
    ] = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Show links, as a table on a terminal, otherwise one a line.

    The runs of each slot are always counted. Their time is counted only while the kernel measures
    it: with sysctl kernel.bpf_stats_enabled, or with --measure, which slows all BPF programs
    meanwhile.
    """
    wanted = None if link is None else parse_link(link)
    with Controller() as controller:

        def look() -> list[Link]:
            return controller.links() if wanted is None else [controller.link(wanted)]

        found, measured = (look(), {}) if measure is None else _measured(look, measure)
        if output_form is Output.TEXT and sys.stdout.isatty():
            from ipttctl.show.link_table import print_links  # noqa: PLC0415  # rich: 15 ms

            print_links(found, measured)
        else:
            output.links(found, output_form, measured)


def _measured(
    look: Callable[[], list[Link]], seconds: float
) -> tuple[list[Link], dict[int, Measurement]]:
    """The links after ``seconds``, and by id the measurements of their programs."""
    measuring = syscalls.enable_run_time()
    try:
        before, begin = {link.id: link for link in look()}, time.monotonic()
        wait_ending(seconds)
        after, end = look(), time.monotonic()
    finally:
        os.close(measuring)
    return after, {
        link.id: Measurement.between(before.get(link.id), link, end - begin) for link in after
    }
