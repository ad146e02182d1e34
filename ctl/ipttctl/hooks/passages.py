# SPDX-License-Identifier: GPL-2.0
"""Events of a passage through a table or a base chain, which both kinds of hook have."""

from __future__ import annotations

from typing import Any

from ipttctl.events import describe
from ipttctl.events.records import EventRecord
from ipttproto import EventFlag


def passage_values(
    record: EventRecord, *, left: bool = False, decided: bool = False, known: bool = False
) -> dict[str, Any]:
    """The values of JSON for an event of a passage.

    Args:
        record: the event.
        left: the packet left the table or base chain.
        decided: the event has a verdict with its data.
        known: NAT did not consult the table or chain.
    """
    flags = record.flags
    verdict = describe.verdict_name(record.verdict)
    dropped, queued = decided and verdict == "DROP", decided and verdict == "QUEUE"
    return {
        "traversal": record.traversal,
        "table": describe.text(record.table),
        "chain": describe.text(record.chain),
        "ruleset": record.ruleset or None,
        "uncertain": bool(flags & EventFlag.UNCERTAIN),
        "rules": record.rules if flags & EventFlag.COUNTED and not known else None,
        "verdict": verdict if left else None,
        "errno": (
            describe.error_name(record.verdict_data) if dropped and record.verdict_data else None
        ),
        "queue": record.verdict_data if queued else None,
        "queue_bypass": bool(flags & EventFlag.QUEUE_BYPASS) if queued else None,
        "cost_ns": record.cost if left else None,
    }
