# SPDX-License-Identifier: GPL-2.0
"""``ipttctl attach`` and ``adopt``: links that last as long as the command."""

from __future__ import annotations

from typing import Annotated

import typer

from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.keep import KeepingCommand, KeepOptions
from ipttctl.cli.options import (
    ExclusiveOption,
    ForceOption,
    LinkArgument,
    Output,
    OutputOption,
    ReasonOption,
    inherited,
    tell_compiling,
)
from ipttctl.cli.printing import note
from ipttctl.cli.signals import on_ending
from ipttctl.cli.walk import verified_for
from ipttctl.errors import LinkDetachedError, UsageError
from ipttctl.hooks import HookOptions, check_slots, chosen
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkChange, LinkList
from ipttctl.link.names import LabelOptions, parse_link, parse_name, parse_reason
from ipttctl.link.watch import LinkWatch
from ipttctl.programs.options import ProgramOptions

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("attach", cls=KeepingCommand)
@grouped
def attach(
    *,
    context: typer.Context,
    programs: ProgramOptions,
    keep: KeepOptions,
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
    label: LabelOptions,
    reason: ReasonOption = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Attach programs as a link: --fd rule=7 --pinned exit=/sys/fs/bpf/x --id entry=12.

    Prints the link. Without --persist the command then runs until Ctrl-C, and the link ends with
    it. Meanwhile it reports on standard error if the link waits for tables or chains, or if its
    network namespace or device disappears. If somebody else detaches the link, the exit status is
    10. It ends with 0 when the link is released, or taken by force: it then goes on without the
    command. The first link at chains may need a verification first: see `ipttctl module verify`.

    Every command takes --name in place of the link's id. If another link has the name, the exit
    status is 11. With --replace, which needs --persist and --name, that link's programs are swapped
    instead, if it is persistent and at this hook, and if nobody else swaps it at the same time.
    Labels that it has stay unless --label is given; --keep-maps and --keep keep more, as with
    `ipttctl swap`.
    """
    if replace and (name is None or not persist):
        raise UsageError("--replace is of a link that stays: give --name and --persist too")
    if keep.given and not replace:
        raise UsageError("a new link has nothing to keep", "give --replace too")
    if exclusive and persist:
        raise UsageError("a link that stays has no owner", "leave out --exclusive or --persist")
    called = None if name is None else parse_name("--name", name)
    labels = label.labels()
    why = parse_reason("--reason", reason)
    left_open = inherited(context)
    hook = chosen(where, left_open)
    choice = programs.choice(left_open)
    check_slots(hook, choice.sources)
    kept = keep.kept()
    with Controller() as controller:
        verified_for(controller, [hook])
        if called is not None and replace:
            with kept.open_named(controller, called, choice) as (opened, generation):
                link = controller.replace(
                    called,
                    hook,
                    opened,
                    expect_generation=generation,
                    labels=labels,
                    reason=why,
                    keep=kept.parts,
                )
            hook.release()
            _show(link, output_form)
            return
        with (
            choice.open(tell_compiling) as opened,
            controller.watch_links() as watch,
            on_ending(watch.stop),
        ):
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
            _show(link, output_form)
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
        _show(adopted, output_form)
        _hold(adopted, watch)


def _show(link: Link, form: Output) -> None:
    output.links([link], form)
    output.tell_state(link)


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
            note(f"link {link.id} is not ours any more: {_whose(now)}")
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
