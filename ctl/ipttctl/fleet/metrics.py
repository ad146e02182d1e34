# SPDX-License-Identifier: GPL-2.0
"""Counters for Prometheus, on the host's loopback unless the configuration says otherwise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ipttctl.fleet.config import MetricsOptions
from ipttctl.fleet.host import Told
from ipttctl.fleet.metrics_server import MetricsServer
from ipttctl.show.told_drops import drops_in
from ipttctl.stories.model import is_drop

OTHER: Final = "(others)"
"""The rule of drops by rules that have no counter of their own."""

_LONGEST: Final = 120

Numbers = Callable[[], Iterator[Metric]]
Values = Mapping[str, Any]


class AgentMetrics:
    """Counts stories, and reads everything else from the agent when it is asked."""

    def __init__(self, config: MetricsOptions, host: str, numbers: Numbers) -> None:
        """``numbers`` gives the metrics that the agent's parts count themselves."""
        self._config = config
        self._rules: set[tuple[str, str]] = set()
        self.registry = CollectorRegistry()
        self._stories = Counter(
            "ipttctl_stories",
            "Stories by their end, and the watch that they are of.",
            ["host", "end", "watch"],
            registry=self.registry,
        )
        self._drops = Counter(
            "ipttctl_drops",
            "Dropped packets of stories, copies and parts too, by the rule, and the watch.",
            ["host", "chain", "rule", "watch"],
            registry=self.registry,
        )
        self._host = host
        self.registry.register(_Collector(numbers))
        self._stop: Callable[[], None] = lambda: None
        self.address: tuple[Any, ...] = ()
        """Address and port, once it serves."""

    def start(self) -> None:
        """Serve."""
        server = MetricsServer(self._config.address, self._config.port, self.registry)
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join(5)

        self._stop = stop
        self.address = server.server_address[:2]

    def stop(self) -> None:
        """Serve no more."""
        self._stop()

    def told(self, stories: Sequence[Told], watch: str = "") -> None:
        """Count stories of a watch, or of traces for others."""
        for one in stories:
            self._stories.labels(self._host, one.story.end.kind.value, watch).inc()
            for drop in drops_in(json.loads(one.line)) if is_drop(one.story) else ():
                self._drops.labels(self._host, *self._rule(drop["end"]), watch).inc()

    def _rule(self, end: Values) -> tuple[str, str]:
        """The labels for the rule that a story ended at; there are only so many different ones."""
        found = rule_of(end)
        if found not in self._rules:
            if len(self._rules) >= self._config.rules:
                return OTHER, OTHER
            self._rules.add(found)
        return found


class _Collector:
    """Metrics that are read when they are asked for."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        yield from self._numbers()


def counter(name: str, text: str, host: str, values: Mapping[Any, float], *labels: str) -> Metric:
    """A counter for each tuple of labels."""
    family = CounterMetricFamily(name, text, labels=["host", *labels])
    for key, value in values.items():
        family.add_metric([host, *key], value)
    return family


def gauge(name: str, text: str, host: str, value: float) -> Metric:
    """A gauge."""
    return gauges(name, text, host, {(): value})


def gauges(name: str, text: str, host: str, values: Mapping[Any, float], *labels: str) -> Metric:
    """A gauge for each tuple of labels."""
    family = GaugeMetricFamily(name, text, labels=["host", *labels])
    for key, value in values.items():
        family.add_metric([host, *key], value)
    return family


def rule_of(end: Values) -> tuple[str, str]:
    """Chain and rule at which a packet was dropped, by the end of its story.

    Where it was no rule, these are the hook, and the function or the kernel's reason.
    """
    rule = end.get("rule")
    if isinstance(rule, dict):
        names = [rule.get(name) for name in ("table_family", "table", "chain")]
        where = " ".join(str(name) for name in names if name)
        text = rule.get("rule") or rule.get("rulenum") or rule.get("kind") or ""
    else:
        where = end.get("hook") or ""
        text = end.get("function") or end.get("drop_reason") or end.get("drop_function") or ""
        if end.get("queue_full"):
            text = "queue of connections full"
    return _label(where), _label(text)


def _label(value: object) -> str:
    """A value as a label, which has to be UTF-8: names of chains and rules may be any bytes."""
    return str(value)[:_LONGEST].encode(errors="backslashreplace").decode()
