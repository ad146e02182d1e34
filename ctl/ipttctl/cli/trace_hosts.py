# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace --hosts``: one story a packet, across all hosts that it passed."""

from __future__ import annotations

from ipttctl.cli.hosts_asked import HostsAsked
from ipttctl.cli.hub_options import asking


def trace_hosts(asked: HostsAsked) -> None:
    """Trace on many hosts until the end that was asked for."""
    from ipttctl.cli.hosts_run import run_on_hosts  # noqa: PLC0415  # asyncio: 40 ms

    asking(asked.hub, lambda asker: run_on_hosts(asker, asked), wait=asked.wait)
