# SPDX-License-Identifier: GPL-2.0
"""Queues of netfilter (NFQUEUE): programs that listen to one in a network namespace."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ipttctl.system import netns

_LISTENERS: Final = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
"""A line for each queue that a program listens to (nfnetlink_queue.c), if anybody can."""


def any_listener(namespace: int, listeners: Path = _LISTENERS) -> bool:
    """Whether a program listens to a queue in the namespace behind a descriptor.

    Raises:
        OSError: the caller may not enter it, or may not look.
    """

    def look() -> bool:
        try:
            return bool(listeners.read_text())
        except FileNotFoundError:
            return False

    return netns.within(namespace, look)
