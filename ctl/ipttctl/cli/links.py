# SPDX-License-Identifier: GPL-2.0
"""``ipttctl attach``, ``adopt``, ``detach`` and ``links``."""

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
    ExclusiveOption,
    ExpectGenerationOption,
    ExpectProgramOption,
    ForceOption,
    LabelOption,
    LinkArgument,
    Output,
    OutputOption,
    ReasonOption,
    inherited,
    tell_compiling,
)
from ipttctl.cli.signals import on_ending, wait_ending
from ipttctl.cli.walk import verified_for
from ipttctl.errors import LinkDetachedError, LinkGoneError, UsageError
from ipttctl.hooks import HookOptions, check_slots, chosen
from ipttctl.link.controller import Controller
from ipttctl.link.measurement import Measurement
from ipttctl.link.model import Change, Link, LinkChange, LinkList
from ipttctl.link.names import LinkRef, parse_labels, parse_link, parse_name, parse_reason
from ipttctl.link.watch import LinkWatch
from ipttctl.programs.options import ProgramOptions, expected_programs


@grouped
def attach(
    *,
    context: typer.Context,
    programs: ProgramOptions,
    where: HookOptions,
    persist: Annotated[
        bool, typer.Option("--persist", help="leave the link behind and return")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="a name that no other link has"),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="swap the programs of the link of this name, if there is"),
    ] = False,
    exclusive: ExclusiveOption = False,
    label: LabelOption = [],  # noqa: B006 - typer copies it
    reason: ReasonOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Attach programs as a link: --fd rule=7 --pinned exit=/sys/fs/bpf/x --id entry=12.

    Prints the link. Without --persist the command then runs until Ctrl-C, and the link ends with
    it. Meanwhile it reports on standard error if the link waits for tables or chains, or if its
    network namespace or device disappears. If somebody else detaches the link, the exit status is
    10. It ends with 0 when the link is released, or taken by force: it then goes on
    without the command. The first link at chains may take a verification, as
    `ipttctl module verify` says.

    Every command takes --name in place of the link's id. If another link has the name, the exit
    status is 11. With --replace, which needs --persist and --name, that link's programs are swapped
    instead, if it is persistent and at this hook, and if nobody else swaps it at the same time.
    Labels that it has stay unless --label is given.
    """
    if replace and (name is None or not persist):
        raise UsageError("--replace is of a link that stays: give --name and --persist too")
    if exclusive and persist:
        raise UsageError("a link that stays has no owner", "leave out --exclusive or --persist")
    called = None if name is None else parse_name("--name", name)
    labels = parse_labels("--label", label) or None
    why = parse_reason("--reason", reason)
    left_open = inherited(context)
    hook = chosen(where, left_open)
    choice = programs.choice(left_open)
    check_slots(hook, choice.sources)
    with Controller() as controller:
        verified_for(controller, [hook])
        with (
            choice.open(tell_compiling) as opened,
            controller.watch_links() as watch,
            on_ending(watch.stop),
        ):
            if called is not None and replace:
                link = controller.replace(called, hook, opened, labels=labels, reason=why)
            else:
                link = controller.attach(
                    hook,
                    opened,
                    persistent=persist,
                    exclusive=exclusive,
                    name=called,
                    labels=labels,
                    reason=why,
                )
            hook.release()
            output.links([link], output_form)
            output.tell_state(link)
            if not persist:
                _hold(link, watch)


def adopt(
    link: LinkArgument,
    exclusive: ExclusiveOption = False,
    force: ForceOption = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Take over a persistent link: from now on it ends with this command, as after attach.

    Prints the link, and runs until Ctrl-C. If somebody else detaches it, the exit status is 10. It
    ends with 0 when the link is released, or adopted by somebody else with --force: the link then
    goes on without it. With --force a link is taken from its owner.
    """
    wanted = parse_link(link)
    with (
        Controller() as controller,
        controller.watch_links() as watch,
        on_ending(watch.stop),
    ):
        adopted = controller.adopt(wanted, exclusive=exclusive, force=force)
        output.links([adopted], output_form)
        output.tell_state(adopted)
        _hold(adopted, watch)


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


def detach(
    links: Annotated[
        list[str] | None, typer.Argument(metavar="LINK...", help="ids or names of links")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="every link there is")] = False,
    *,
    expect_generation: ExpectGenerationOption = None,
    expect_program: ExpectProgramOption = [],  # noqa: B006 - typer copies it
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
    expected = expected_programs(expect_program)
    with Controller() as controller:

        def remove(link: LinkRef) -> None:
            gone = controller.detach(
                link,
                expect_generation=expect_generation,
                expect_programs=expected,
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


def _hold(link: Link, watch: LinkWatch) -> None:
    """Report changes of a link, until we are asked to end, or it is not ours any more.

    Raises:
        LinkDetachedError: somebody else detached it.
    """
    told = list(link.hook.misses(link.id))
    for item in watch:
        if isinstance(item, LinkChange) and item.link.id != link.id:
            continue
        now = _now(link.id, item)
        if isinstance(item, LinkChange):
            output.tell_force(item)
        if now is None:
            raise LinkDetachedError(link.id)
        if now.owner_portid != link.owner_portid:
            output.note(f"link {link.id} is not ours any more: {_whose(now)}")
            return
        misses = list(now.hook.misses(link.id))
        if misses != told:
            output.tell_state(now)
            told = misses


def _whose(link: Link) -> str:
    if link.persistent:
        return "it was released, and stays"
    return f"process {link.owner_pid} ({link.owner_comm}) owns it"


def _now(link_id: int, item: LinkList | LinkChange) -> Link | None:
    """The link after a change of it, or in a list; None if it is gone."""
    if isinstance(item, LinkList):
        return next((link for link in item.links if link.id == link_id), None)
    return None if item.change is Change.DETACHED else item.link
