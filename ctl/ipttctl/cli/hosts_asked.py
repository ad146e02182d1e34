# SPDX-License-Identifier: GPL-2.0
"""The order for a trace on many hosts."""

from __future__ import annotations

from dataclasses import dataclass

from ipttctl.cli.options import Output


@dataclass(frozen=True, kw_only=True)
class HostsAsked:
    """Order to trace on some hosts, and to show it in some way."""

    selector: str
    hub: str | None
    wait: float | None
    expression: str
    both_ways: bool
    drops: bool
    summary: bool
    count: int | None
    stop_after: float | None
    output: Output
