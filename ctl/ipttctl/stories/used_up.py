# SPDX-License-Identifier: GPL-2.0
"""Packets that the kernel has used, and frees as it frees those that it drops.

It gives no reason then. So does every connection of TCP, whose last packets are of this kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ipttctl.events.records import EventRecord
from ipttctl.stories.occurrences import drops_without_reason, function_of
from ipttproto import EventFlag

_OF_CONNECTIONS: Final = frozenset({b"tcp_rcv_state_process", b"tcp_drop_reason"})
"""Functions that free, without a reason, what has come to a connection and brought no data.

In 6.1 that is most of what comes after a FIN in either direction (tcp_rcv_state_process())."""

_OF_ENDED: Final = b"sk_stream_kill_queues"
"""The end of a connection that no process has any more: frees the FIN that has ended it."""

_WITHOUT_SOCKET: Final = frozenset({b"tcp_v4_rcv", b"tcp_v6_rcv", b"icmpv6_rcv"})
"""Functions that free, without a reason, what they have handled without a full socket."""


def is_used_up(records: Sequence[EventRecord], dropped: int, *, at_socket: bool) -> bool:
    """Whether the event of a drop is of a packet that was used, or of one that is not wanted here.

    ``at_socket``: it had come to a socket, and nowhere else since.
    """
    record = records[dropped]
    function = function_of(record)
    if at_socket and function == _OF_ENDED:
        return True
    if not record.flags & EventFlag.UNSAID:
        return False
    if at_socket:
        return function in _OF_CONNECTIONS
    malformed = any(one.flags & EventFlag.TRUNCATED for one in records)
    return function in _WITHOUT_SOCKET and not malformed


def may_be_used_up(dropped: EventRecord) -> bool:
    """Whether the event of a drop may be none, by itself: it depends on the others."""
    function = function_of(dropped)
    if function == _OF_ENDED or goes_with_another(dropped, is_part=True):
        return True
    silent = bool(dropped.flags & EventFlag.UNSAID)
    return silent and function in _OF_CONNECTIONS | _WITHOUT_SOCKET


def goes_with_another(dropped: EventRecord, *, is_part: bool) -> bool:
    """Whether a packet is freed as a part of another one, which the kernel reports as a drop.

    Parts that were merged without copying hang on the whole, whatever becomes of it. On Linux 6.1
    the function is another one, which drops for other reasons too.
    """
    function = function_of(dropped)
    if function == b"kfree_skb_list_reason":
        return is_part and drops_without_reason(dropped)
    return function == b"skb_release_data"
