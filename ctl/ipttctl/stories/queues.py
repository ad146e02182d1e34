# SPDX-License-Identifier: GPL-2.0
"""Queues for programs (NFQUEUE) from which packets came back to the rest of a hook.

The kernel calls the functions behind the queue in a loop of its own (``nf_reinject()``), which
nothing watches: their tables and chains tell of rules as ever, and no event tells of the functions.
"""

from __future__ import annotations

from typing import Final

from ipttctl.stories.model import EndKind, Passage, Plot
from ipttctl.stories.steps import OF_HOOKS
from ipttproto import Kind, Verdict

_ON_ITS_WAY: Final = OF_HOOKS | {
    Kind.JOURNEY_SENT,
    Kind.JOURNEY_RECEIVED,
    Kind.JOURNEY_SOCKET,
}


def queue_behind(plot: Plot, passage: Passage) -> int | None:
    """The queue from which a packet, or its parts, came back to the rest of a passage's hook.

    None if it went into none there, or if nothing tells that it came back.
    """
    if passage.end is None or plot.record(passage.end).verdict != Verdict.QUEUE:
        return None
    # the program may answer before the packet's own CPU tells that it left the hook
    calls = [call.at for call in passage.calls if call.at is not None]
    into = [at for at in calls if plot.record(at).verdict == Verdict.QUEUE]
    queued = max(into, default=passage.end)
    since = set(range(queued + 1, len(plot.occurrences))) - plot.handed_on - {passage.end}
    went_on = any(plot.record(at).kind in _ON_ITS_WAY for at in since)
    # segments that were made for the queue come back themselves
    parts = plot.end.kind is EndKind.CONSUMED and len(plot.branches) > len(plot.folded)
    if not went_on and not (parts and plot.end.place == passage.end):
        return None
    return plot.record(passage.end).verdict_data
