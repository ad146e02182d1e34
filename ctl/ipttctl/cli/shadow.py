# SPDX-License-Identifier: GPL-2.0
"""``ipttctl promote`` and ``drop-shadow``; ``swap --shadow`` gives a link its shadow."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.guards import (
    GuardOption,
    RollbackAfterOption,
    parse_guards,
    parse_rollback_after,
)
from ipttctl.cli.options import ForceOption, LinkArgument, Output, OutputOption, ReasonOption
from ipttctl.link.controller import Controller
from ipttctl.link.names import parse_link, parse_reason
from ipttctl.programs.slots import ExpectedGeneration

_MOST: Final = (1 << 64) - 1

ExpectedShadow = Annotated[
    int | None,
    typer.Option(
        "--expect-shadow",
        metavar="N",
        min=1,
        max=_MOST,
        help="only if the link's shadow has this number, which swap --shadow printed",
    ),
]


@grouped
def promote(
    *,
    link: LinkArgument,
    expected: ExpectedGeneration,
    expect_shadow: ExpectedShadow = None,
    rollback_after: RollbackAfterOption = None,
    guard: GuardOption = None,
    reason: ReasonOption = None,
    force: ForceOption = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Swap the shadow of a link in, for a generation of its own. Prints the link.

    Without --expect-shadow it is whichever shadow the link has now, somebody else's too. The counts
    of agreements and disagreements stay until the link has another shadow. --rollback-after and
    --guard are as for swap.
    """
    wanted = parse_link(link)
    why = parse_reason("--reason", reason)
    guards = parse_guards(guard)
    back = parse_rollback_after(rollback_after)
    with Controller() as controller:
        promoted = controller.promote(
            wanted,
            expect_generation=expected.expect_generation,
            expect_shadow=expect_shadow,
            rollback_after=back,
            guards=guards,
            reason=why,
            force=force,
        )
        output.links([promoted], output_form)


@grouped
def drop_shadow(
    *,
    link: LinkArgument,
    expected: ExpectedGeneration,
    expect_shadow: ExpectedShadow = None,
    force: ForceOption = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Take the shadow of a link away. Prints the link, with the last counts.

    --expect-shadow is as for promote.
    """
    wanted = parse_link(link)
    with Controller() as controller:
        dropped = controller.drop_shadow(
            wanted,
            expect_generation=expected.expect_generation,
            expect_shadow=expect_shadow,
            force=force,
        )
        output.links([dropped], output_form)
