# SPDX-License-Identifier: GPL-2.0
"""Copies and parts of a packet: those that nobody cares about, and ends that are theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipttctl.events.records import EventRecord
from ipttctl.stories.model import BranchStep, EndKind, Plot, StoryEnd
from ipttctl.stories.occurrences import drops_without_reason, function_of

_TAPS: Final = frozenset(
    {
        b"packet_rcv",
        b"packet_rcv_fanout",
        b"packet_rcv_spkt",
        b"tpacket_rcv",
        b"dev_queue_xmit_nit",
        # a socket that is closed before all was read
        b"skb_queue_purge",
        b"skb_queue_purge_reason",
    }
)
"""Functions that drop clones for packet sockets."""

_ERRORS: Final = frozenset(
    {
        b"inet_sock_destruct",
        b"ip_icmp_error",
        b"ipv6_icmp_error",
        b"skb_errqueue_purge",
        b"skb_complete_tx_timestamp",
        b"__skb_complete_tx_timestamp",
    }
)
"""Functions that drop clones for the queue of a socket's errors and times of sending.

A copy that is for the socket itself has come to it.
"""

_OF_CLONES: Final = _TAPS | _ERRORS

_ICMP: Final = frozenset({b"icmp_rcv", b"icmpv6_rcv", b"ping_rcv"})
"""Functions that look for a socket for an ICMP message."""

_REPLACING: Final = frozenset(
    {
        # segments were queued in its place
        b"nfqnl_enqueue_packet",
        # a program gave it more payload than there is room for
        b"nfqnl_mangle",
        b"nfqnl_recv_verdict",
        # each segment is encrypted by itself
        b"xfrm_output_gso",
        b"xfrm_output",
    }
)
"""Functions that free a packet as if they dropped it once its copies or parts stand for it.

Compilers put those that are called once into their callers, which are named too.
"""


def is_nothing(plot: Plot) -> bool:
    """Whether a branch met no hook, socket or device, nor did its own branches.

    Parts that are dropped before their device sends them have met none either, as at a queueing
    discipline: these are told unless they are clones.
    """
    if any(not isinstance(step, BranchStep) for step in plot.steps):
        return False
    if len(plot.folded) != len(plot.branches):
        return False
    return plot.end.kind is not EndKind.KERNEL or is_drop_of_clone(plot.record(plot.end.at))


def is_drop_of_clone(dropped: EventRecord) -> bool:
    """Whether an event tells that a clone was dropped that nobody cares about."""
    return function_of(dropped) in _OF_CLONES


def ended_in_copies(
    end: StoryEnd,
    records: Sequence[EventRecord],
    branches: Sequence[Plot],
    begins: Sequence[int],
) -> bool:
    """Whether a packet that the kernel freed as if it dropped it had done its duty.

    ``begins`` are the numbers of events before each branch began.
    """
    if end.kind is not EndKind.KERNEL:
        return False
    function = function_of(records[end.at])
    if function in _ICMP:
        # raw sockets get copies before ICMP looks for a socket of its own: raw_local_deliver()
        return any(branch.end.kind is EndKind.DELIVERED for branch in branches)
    if function in _REPLACING and drops_without_reason(records[end.at]):
        return any(begun >= end.at for begun in begins)
    return False
