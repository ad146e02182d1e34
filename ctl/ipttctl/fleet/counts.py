# SPDX-License-Identifier: GPL-2.0
"""The metrics that the agent's parts count themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from prometheus_client.core import Metric

from ipttctl.fleet.commands import Commands
from ipttctl.fleet.connection import LeafConnection
from ipttctl.fleet.feed import UNTOLD, Feed
from ipttctl.fleet.ledger import STREAM, UNKNOWN, StreamLedger
from ipttctl.fleet.metrics import counter, gauge, gauges
from ipttctl.fleet.publisher import Publisher
from ipttctl.fleet.reader import Reader
from ipttctl.fleet.spool import SPOOL, Spool
from ipttctl.fleet.watches import Watches
from ipttctl.frames.head import STORIES

if TYPE_CHECKING:
    from ipttctl.fleet.otlp import OtlpDrops

_NANO: Final = 1_000_000_000


class AgentCounts:
    """Reads the counts of an agent's parts."""

    def __init__(
        self,
        host: str,
        *,
        feed: Feed,
        reader: Reader,
        spool: Spool,
        ledger: StreamLedger,
        publisher: Publisher,
        connection: LeafConnection,
        commands: Commands,
        watches: Watches,
        otlp: OtlpDrops | None,
    ) -> None:
        self._host = host
        self._feed = feed
        self._reader = reader
        self._spool = spool
        self._ledger = ledger
        self._publisher = publisher
        self._connection = connection
        self._commands = commands
        self._watches = watches
        self._otlp = otlp

    def __call__(self) -> Iterator[Metric]:
        """The metrics now."""
        host, publisher = self._host, self._publisher
        yield counter("ipttctl_events_read", "Events read.", host, {(): self._feed.read})
        yield counter(
            "ipttctl_lost",
            "Items lost: events by the kernel's causes, items by bounds, stories by faults.",
            host,
            self._losses(),
            "kind",
            "cause",
        )
        yield counter("ipttctl_frames_published", "Frames stored.", host, {(): publisher.frames})
        yield counter("ipttctl_bytes_published", "Bytes of them.", host, {(): publisher.bytes})
        yield counter("ipttctl_frames_resent", "Sent again.", host, {(): publisher.again})
        yield counter(
            "ipttctl_leaf_failures",
            "Connections to the leaf that broke or could not be made.",
            host,
            {(): self._connection.failures},
        )
        yield counter(
            "ipttctl_commands",
            "Commands of others, by verb and outcome.",
            host,
            self._commands.done.copy(),
            "verb",
            "outcome",
        )
        swaps = {(outcome,): n for outcome, n in self._commands.swaps.done.copy().items()}
        yield counter(
            *("ipttctl_swaps", "Swaps for others, by what became of them.", host, swaps),
            "outcome",
        )
        drops = {("sent",): self._otlp.sent, ("lost",): self._otlp.lost} if self._otlp else {}
        yield counter("ipttctl_otlp_drops", "Drops for OpenTelemetry.", host, drops, "outcome")
        up = self._connection.client is not None
        yield gauge("ipttctl_leaf_up", "Whether the leaf is connected.", host, up)
        yield gauge("ipttctl_module_up", "Whether events are read.", host, self._reader.reading)
        yield gauge("ipttctl_traces", "Traces for others.", host, len(self._commands.leases))
        running = {(one.name,): float(one.running is not None) for one in self._watches}
        yield gauges("ipttctl_watch_up", "Whether a watch runs.", host, running, "watch")
        untold = {
            (one.name, cause): number
            for one in self._watches
            for cause, number in asdict(one.untold).items()
        }
        yield counter(
            *("ipttctl_untold", "Packets of which watches tell nothing.", host, untold),
            *("watch", "cause"),
        )
        yield gauge("ipttctl_spool_bytes", "Bytes that wait.", host, self._spool.bytes)
        lag = self._reader.lag_ns / _NANO
        yield gauge("ipttctl_lag_seconds", "From an event to its reading, the last one.", host, lag)

    def _losses(self) -> dict[tuple[str, ...], float]:
        found: Counter[tuple[str, ...]] = Counter()
        # copies: other threads count meanwhile
        for cause, number in self._feed.lost.copy().items():
            found["events", cause] += number
        found[STORIES, UNTOLD] += self._feed.untold
        for kind, number in self._spool.lost.copy().items():
            found[kind, SPOOL] += number
        for kind, number in self._ledger.lost.copy().items():
            found[kind, STREAM] += number
        found["messages", UNKNOWN] += self._ledger.unknown
        return dict(found)
