# SPDX-License-Identifier: GPL-2.0
"""``ipttctl trace --hosts``: one story a packet, across all hosts that it passed."""

from __future__ import annotations

from ipttctl.cli.hosts_asked import HostsAsked
from ipttctl.cli.hub_options import asking, chosen_hosts
from ipttctl.fleet.needs import require


def trace_hosts(asked: HostsAsked) -> None:
    """Trace on many hosts until the end that was asked for."""
    require("msgspec", "nats", "nkeys")
    from ipttctl.cli.hosts_run import run_on_hosts  # noqa: PLC0415  # 140 ms; nats may be missing

    chosen = chosen_hosts(asked.selector)
    asking(asked.hub, lambda asker: run_on_hosts(asker, asked, chosen), wait=asked.wait)
