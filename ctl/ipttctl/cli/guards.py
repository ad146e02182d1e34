# SPDX-License-Identifier: GPL-2.0
"""The option that gives a swap its guards."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ipttctl.errors import UsageError
from ipttctl.link.condition import Condition
from ipttproto.family import limit

_MOST: Final = limit("MAX_GUARDS")

GuardOption = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        metavar="CONDITION",
        help="swap back as soon as this does not hold, such as 'drops < 10/s', unless `ipttctl "
        "confirm` comes first; repeatable",
    ),
]


def parse_guards(texts: list[str] | None) -> list[Condition]:
    """The conditions that --guard gives.

    Raises:
        UsageError: one is not spelled as a condition, or there are too many.
    """
    guards = [Condition.parse(text, "--guard") for text in texts or ()]
    if len(guards) > _MOST:
        raise UsageError(f"--guard: a swap has at most {_MOST} guards")
    return guards
