# SPDX-License-Identifier: GPL-2.0
"""``ipttctl links`` and ``detach``."""

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
    Output,
    OutputOption,
)
from ipttctl.cli.signals import wait_ending
from ipttctl.errors import LinkGoneError, UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import Link
from ipttctl.numbers import U32_MAX
from ipttctl.programs.slots import Expectations


@grouped
def detach(
    *,
    links: Annotated[
        list[int] | None, typer.Argument(metavar="LINK...", min=1, max=U32_MAX, help="ids of links")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="every link there is")] = False,
    expected: Expectations,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Remove links, whoever owns them. Prints the final state of each."""
    if bool(links) == everything:
        raise UsageError("give ids of links, or --all")
    programs = expected.programs()
    with Controller() as controller:

        def remove(link_id: int) -> None:
            gone = controller.detach(
                link_id, expect_generation=expected.expect_generation, expect_programs=programs
            )
            output.links([gone], output_form)

        for link_id in links or ():
            remove(link_id)
        if everything:
            for link in controller.links():
                with suppress(LinkGoneError):
                    remove(link.id)


def links(
    link: Annotated[
        int | None, typer.Argument(metavar="LINK", min=1, max=U32_MAX, help="only this one")
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
    with Controller() as controller:

        def look() -> list[Link]:
            return controller.links() if link is None else [controller.link(link)]

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
