# SPDX-License-Identifier: GPL-2.0
"""The options that leave out events of packets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ipttctl.link.limits import Limits
from ipttctl.options import Option


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """The options that leave out events of packets (see ``ipttctl.options``)."""

    sample: Annotated[
        str | None, Option("--sample", "report one packet of N, at random", metavar="1/N")
    ] = None
    limit_rate: Annotated[
        str | None,
        Option("--limit-rate", "report so many packets a second at most", metavar="N/s"),
    ] = None
    governor: Annotated[
        str | None,
        Option(
            "--governor",
            "leave out packets while there are more events a second, or take more of a CPU: "
            "50000/s, 20%, both with a comma; or off",
            metavar="BUDGETS",
        ),
    ] = None

    def limits(self) -> Limits | None:
        """The limits; None if there are none.

        Raises:
            UsageError: a value is not valid.
        """
        return Limits.parse(self.sample, self.limit_rate, self.governor)
