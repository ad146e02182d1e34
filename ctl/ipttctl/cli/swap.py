# SPDX-License-Identifier: GPL-2.0
"""``ipttctl swap``, ``confirm`` and ``history``."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Final

import typer

from ipttctl.cli import durations, output
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import (
    LinkArgument,
    Output,
    OutputOption,
    inherited,
    tell_compiling,
)
from ipttctl.errors import UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.model import Swap
from ipttctl.numbers import U32_MAX
from ipttctl.programs.options import ProgramOptions
from ipttctl.programs.slots import Expectations, ExpectedGeneration
from ipttctl.system.inherited import Inherited
from ipttproto.family import limit

_LONGEST: Final = limit("MAX_ROLLBACK") / 1000


@grouped
def swap(
    *,
    context: typer.Context,
    programs: ProgramOptions,
    link: Annotated[
        int | None, typer.Argument(metavar="[LINK]", min=1, max=U32_MAX, help="id of the link")
    ] = None,
    expected: Expectations,
    rollback_after: Annotated[
        str | None,
        typer.Option(
            "--rollback-after",
            metavar="TIME",
            help="swap back after this time (500ms, 30s, 2m) unless `ipttctl confirm` comes first",
        ),
    ] = None,
    transaction: Annotated[
        str | None,
        typer.Option(
            "--txn",
            metavar="FILE",
            help="several links in one step, all or none: a YAML or JSON list; - is standard input",
        ),
    ] = None,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Replace all programs, the filter and the cookie of a link in one step.

    Replaces the whole set: unnamed slots become empty, as do filter and cookie if not given.
    Prints the new state of the link.

    With --txn FILE holds the links and their programs, as a list with an object for each link:
    "link" and this command's options by their long names, as in
    [{"link": 3, "fd": {"rule": 7}, "expect-gen": 1}, {"link": 4, "pinned": {"packet": "/x/y"}}].
    If anything is refused, none of them is swapped.

    The kernel module itself keeps --rollback-after, so that it holds even if ipttctl is killed.
    Until then the links cannot be swapped again.
    """
    back = (
        None
        if rollback_after is None
        else durations.seconds("--rollback-after", rollback_after, _LONGEST)
    )
    if transaction is not None:
        if link is not None or programs.given or expected.given:
            raise UsageError("--txn has links, programs and expectations in its file")
        _transact(transaction, inherited(context), back, output_form)
        return
    if link is None:
        raise UsageError("give the id of a link, or --txn")
    expected_programs = expected.programs()
    choice = programs.choice(inherited(context))
    with Controller() as controller, choice.open(tell_compiling) as opened:
        changed = controller.swap(
            link,
            opened,
            expect_generation=expected.expect_generation,
            expect_programs=expected_programs,
            rollback_after=back,
        )
        output.links([changed], output_form)


@grouped
def confirm(
    *,
    link: LinkArgument,
    expected: ExpectedGeneration,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Keep a swap made with --rollback-after, of the link and of those swapped together with it.

    --expect-gen is the generation that swap printed. Without it any waiting swap is
    confirmed, somebody else's too if the own one was rolled back before. Prints the link.
    """
    with Controller() as controller:
        confirmed = controller.confirm(link, expect_generation=expected.expect_generation)
        output.links([confirmed], output_form)


def history(link: LinkArgument, output_form: OutputOption = Output.TEXT) -> None:
    """Show the last generations of a link, oldest first: the change, its time and its author."""
    with Controller() as controller:
        output.history(controller.history(link), output_form)


def _transact(file: str, left_open: Inherited, rollback_after: float | None, form: Output) -> None:
    from ipttctl.cli.transaction import read_transaction  # noqa: PLC0415  # yaml: 10 ms

    changes = read_transaction(file, left_open)
    with Controller() as controller, ExitStack() as stack:
        swaps = [
            Swap(
                change.link,
                stack.enter_context(change.choice.open(tell_compiling)),
                change.expect_generation,
                change.expect_programs,
            )
            for change in changes
        ]
        output.links(controller.transact(swaps, rollback_after=rollback_after), form)
