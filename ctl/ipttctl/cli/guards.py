# SPDX-License-Identifier: GPL-2.0
"""Options of swaps that wait: when the module swaps back, or a shadow in."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from ipttctl.cli import durations
from ipttctl.errors import UsageError
from ipttctl.link.condition import Condition
from ipttproto import Counter
from ipttproto.family import limit

_LONGEST: Final = limit("MAX_ROLLBACK") / 1000
_MOST: Final = limit("MAX_GUARDS")
_OF_SHADOWS: Final = (Counter.AGREEMENTS, Counter.DISAGREEMENTS)

RollbackAfterOption = Annotated[
    str | None,
    typer.Option(
        "--rollback-after",
        metavar="TIME",
        help="swap back after this time (500ms, 30s, 2m) unless `ipttctl confirm` comes first",
    ),
]

GuardOption = Annotated[
    list[str] | None,
    typer.Option(
        "--guard",
        metavar="CONDITION",
        help="swap back as soon as this does not hold, such as 'drops < 10/s', unless `ipttctl "
        "confirm` comes first; repeatable",
    ),
]

PromoteIfOption = Annotated[
    list[str] | None,
    typer.Option(
        "--promote-if",
        metavar="CONDITION",
        help="--shadow: promote it as soon as this is met, such as 'disagreements < 1/10000 for "
        "10m'; repeated, as soon as all are",
    ),
]


def parse_rollback_after(text: str | None) -> float | None:
    """The seconds that --rollback-after gives.

    Raises:
        UsageError: it is not a time, or longer than a day.
    """
    return None if text is None else durations.seconds("--rollback-after", text, _LONGEST)


def parse_promote_if(texts: list[str] | None) -> list[Condition]:
    """The conditions that --promote-if gives.

    Raises:
        UsageError: one is not spelled as a condition, or is of no shadow, or there are too many.
    """
    conditions = [Condition.parse(text, "--promote-if") for text in texts or ()]
    for text, condition in zip(texts or (), conditions, strict=True):
        if condition.counter not in _OF_SHADOWS:
            raise UsageError(
                f"--promote-if: '{text}' is not about a shadow",
                f"use one of {', '.join(counter.name.lower() for counter in _OF_SHADOWS)}",
            )
    if len(conditions) > _MOST:
        raise UsageError(f"--promote-if: a shadow has at most {_MOST} conditions")
    return conditions


def parse_guards(texts: list[str] | None) -> list[Condition]:
    """The conditions that --guard gives.

    Raises:
        UsageError: one is not spelled as a condition, or there are too many.
    """
    guards = [Condition.parse(text, "--guard") for text in texts or ()]
    for text, guard in zip(texts or (), guards, strict=True):
        if guard.counter in _OF_SHADOWS:
            raise UsageError(
                f"--guard: '{text}' is about a shadow, and a swap that waits has none",
                "use it with --shadow --promote-if",
            )
    if len(guards) > _MOST:
        raise UsageError(f"--guard: a swap has at most {_MOST} guards")
    return guards
