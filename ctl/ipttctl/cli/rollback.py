# SPDX-License-Identifier: GPL-2.0
"""``ipttctl confirm`` and ``rollback``: the end of a swap that waits."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from ipttctl.cli import output
from ipttctl.cli.groups import grouped
from ipttctl.cli.options import ForceOption, Output, OutputOption, ReasonOption
from ipttctl.errors import UsageError
from ipttctl.link.controller import Controller
from ipttctl.link.names import parse_link, parse_reason
from ipttctl.numbers import decimal
from ipttctl.programs.slots import ExpectedGeneration

_TRANSACTION: Final = "txn:"
_U64_MAX: Final = (1 << 64) - 1

SwapArgument = Annotated[
    str,
    typer.Argument(
        metavar="LINK|TXN",
        help="the swap: id or name of one of its links, or txn: and the number of its transaction",
    ),
]


@grouped
def confirm(
    *,
    swap: SwapArgument,
    expected: ExpectedGeneration,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Keep a swap that waits, of a link and of those swapped together with it.

    --expect-gen is the generation that swap printed. Without it any waiting swap is
    confirmed, somebody else's too if the own one was rolled back before. txn:17 is the swap with
    this number (transaction in JSON, and in history). Prints the link.

    If it was confirmed already, the exit status is 13; 14 if it was rolled back; 15 if there is no
    swap that waits.
    """
    wanted = _swap(swap, expected)
    with Controller() as controller:
        output.links([controller.confirm(**wanted)], output_form)


@grouped
def rollback(
    *,
    swap: SwapArgument,
    expected: ExpectedGeneration,
    reason: ReasonOption = None,
    force: ForceOption = False,
    output_form: OutputOption = Output.TEXT,
) -> None:
    """Undo a swap that waits, at once, of a link and of those swapped together with it.

    Packets meet the programs of before from then on. --expect-gen and txn:17 are as for confirm.
    Prints the links.

    If the swap was confirmed, the exit status is 13; 14 if it was rolled back already; 15 if there
    is no swap that waits.
    """
    wanted = _swap(swap, expected)
    why = parse_reason("--reason", reason)
    with Controller() as controller:
        output.links(controller.rollback(**wanted, reason=why, force=force), output_form)


def _swap(text: str, expected: ExpectedGeneration) -> dict[str, Any]:
    """The arguments of a controller's method for a swap that waits."""
    generation = expected.expect_generation
    if not text.startswith(_TRANSACTION):
        return {"link": parse_link(text), "expect_generation": generation}
    number = decimal(text.removeprefix(_TRANSACTION), _U64_MAX)
    if not number:
        raise UsageError(f"'{text}' is no number of a transaction", "see `ipttctl history LINK`")
    if generation is not None:
        raise UsageError("--expect-gen is of a link, not of a transaction")
    return {"transaction": number}
