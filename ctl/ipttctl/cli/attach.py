# SPDX-License-Identifier: GPL-2.0
"""``ipttctl attach`` and ``adopt``: links that last as long as the command."""

from __future__ import annotations

from typing import Annotated

import typer

from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import (
    LinkArgument,
    Output,
    OutputOption,
    inherited,
    tell_compiling,
)
from ipttctl.cli.signals import on_ending
from ipttctl.cli.walk import verified_for
from ipttctl.errors import LinkDetachedError
from ipttctl.hooks import HookOptions, check_slots, chosen
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, LinkList
from ipttctl.link.watch import LinkWatch
from ipttctl.programs.options import ProgramOptions


@grouped
def attach(
    *,
    context: typer.Context,
    programs: ProgramOptions,
    where: HookOptions,
    persist: Annotated[
        bool, typer.Option("--persist", help="leave the link behind and return")
    ] = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Attach programs as a link: --fd rule=7 --pinned exit=/sys/fs/bpf/x --id entry=12.

    Prints the link. Without --persist the command then runs until Ctrl-C, and the link ends with
    it. Meanwhile it reports on standard error if the link waits for tables or chains, or if its
    network namespace or device disappears. If somebody else detaches the link, the exit status is
    10. The first link at chains may need a verification first: see
    `ipttctl module verify`.
    """
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
            link = controller.attach(hook, opened, persistent=persist)
            hook.release()
            output.links([link], output_form)
            output.tell_state(link)
            if not persist:
                _hold(link, watch)


def adopt(link: LinkArgument, output_form: OutputOption = Output.TEXT) -> None:
    """Take over a persistent link: from now on it ends with this command, as after attach.

    Prints the link, and runs until Ctrl-C. If somebody else detaches it, the exit status is 10.
    """
    with (
        Controller() as controller,
        controller.watch_links() as watch,
        on_ending(watch.stop),
    ):
        adopted = controller.adopt(link)
        output.links([adopted], output_form)
        output.tell_state(adopted)
        _hold(adopted, watch)


def _hold(link: Link, watch: LinkWatch) -> None:
    """Report changes of a link, until we are asked to end.

    Raises:
        LinkDetachedError: somebody else detached it.
    """
    told = list(link.hook.misses(link.id))
    for item in watch:
        if isinstance(item, LinkChange) and item.link.id != link.id:
            continue
        now = _now(link.id, item)
        if now is None:
            raise LinkDetachedError(link.id)
        misses = list(now.hook.misses(link.id))
        if misses != told:
            output.tell_state(now)
            told = misses


def _now(link_id: int, item: LinkList | LinkChange) -> Link | None:
    """The link after a change of it, or in a list; None if it is gone."""
    if isinstance(item, LinkList):
        return next((link for link in item.links if link.id == link_id), None)
    return None if item.change is Change.DETACHED else item.link
