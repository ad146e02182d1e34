# SPDX-License-Identifier: GPL-2.0
"""The options of ``trace`` that make no sense once a trace is recorded, each with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ipttctl.errors import UsageError
from ipttctl.options import Option, options_of

_LIMITS = "what a trace left out is not in its recording, and what it did not is shown"


@dataclass(frozen=True, kw_only=True)
class LiveOptions:
    """Options that are known to be refused (see ``ipttctl.options``); the help is the reason."""

    command: Annotated[
        str | None,
        Option("--cmd", "nothing is watched any more while it would run", hidden=True),
    ] = None
    follow: Annotated[
        bool | None,
        Option(
            "--follow/--no-follow",
            "whether packets were followed was decided when they were recorded",
            hidden=True,
        ),
    ] = None
    sample: Annotated[str | None, Option("--sample", _LIMITS, hidden=True)] = None
    limit_rate: Annotated[str | None, Option("--limit-rate", _LIMITS, hidden=True)] = None
    governor: Annotated[str | None, Option("--governor", _LIMITS, hidden=True)] = None

    def check(self) -> None:
        """Check that none is given.

        Raises:
            UsageError: one is.
        """
        for given in options_of(type(self)):
            if (value := getattr(self, given.field)) is not None:
                yes, _, no = given.option.name.partition("/")
                name = no if value is False else yes
                raise UsageError(f"{name}: {given.option.help}", "leave it out")
