# SPDX-License-Identifier: GPL-2.0
"""Drops as log records of OpenTelemetry.

Attributes have the names of its semantic conventions where these have one; the others begin with
``ipttctl.`` and are in docs/fleet.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber

EVENT: Final = "ipttctl.drop"
"""The name of the event that a record is of."""

_MOST_NUMBER: Final = 2**63 - 1
_LONGEST: Final = 4096
"""Most characters of a text."""

Values = Mapping[str, Any]


def record_of(line: str, watch: str = "") -> LogRecord:
    """The record of a story that ended in a drop, a line of JSON; ``watch`` is whose story it is.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    story: Values = json.loads(line)
    end: Values = story["end"]
    values = {**_packet(story), **_sender(story), **_end(end), "ipttctl.watch": watch or None}
    return LogRecord(
        timestamp=story["time_ns"] + story["duration_ns"],
        observed_timestamp=time.time_ns(),
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        event_name=EVENT,
        body=_plain(end["text"] or end["kind"]),
        attributes={name: _plain(value) for name, value in values.items() if value is not None},
    )


def _packet(story: Values) -> dict[str, Any]:
    headers: Values = story["headers"]
    family = headers["family"]
    return {
        "network.type": f"ipv{family}" if family else None,
        "network.transport": headers["protocol"],
        "network.interface.name": story["in_device"],
        "source.address": headers["source"],
        "source.port": headers["source_port"],
        "destination.address": headers["destination"],
        "destination.port": headers["destination_port"],
        "ipttctl.length": headers["length"],
        "ipttctl.packet": story["packet"],
        "ipttctl.netns": story["netns"],
        "ipttctl.netns_name": story["netns_name"],
    }


def _sender(story: Values) -> dict[str, Any]:
    sender: Values = story["sender"] or {}
    container: Values = sender.get("container") or {}
    pod: Values = sender.get("pod") or {}
    return {
        "process.pid": sender.get("pid", story["pid"]),
        "ipttctl.comm": sender.get("comm"),
        "ipttctl.unit": sender.get("unit"),
        "container.id": container.get("id"),
        "container.name": container.get("name"),
        "k8s.pod.name": pod.get("name"),
        "k8s.namespace.name": pod.get("namespace"),
    }


def _end(end: Values) -> dict[str, Any]:
    rule: Values = end["rule"] or {}
    place = [rule.get(name) for name in ("table_family", "table", "chain")]
    return {
        "security_rule.name": rule.get("rule"),
        "security_rule.ruleset.name": " ".join(str(one) for one in place if one) or None,
        "security_rule.description": rule.get("owner_about"),
        "ipttctl.end": end["kind"],
        "ipttctl.hook": end["hook"],
        "ipttctl.rejected": end["rejected"],
        "ipttctl.rulenum": rule.get("rulenum"),
        "ipttctl.rule_handle": rule.get("rule_handle"),
        "ipttctl.owner": rule.get("owner"),
        "ipttctl.function": end["function"] or end["drop_function"],
        "ipttctl.module": end["module"] or end["drop_module"],
        "ipttctl.drop_reason": end["drop_reason"],
    }


def _plain(value: Any) -> Any:
    """A value that the protocol can hold: its numbers are signed, and its texts are UTF-8."""
    if isinstance(value, int) and not -_MOST_NUMBER <= value <= _MOST_NUMBER:
        return str(value)
    if isinstance(value, str):
        return value[:_LONGEST].encode(errors="backslashreplace").decode()
    return value
