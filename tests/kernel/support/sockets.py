# SPDX-License-Identifier: GPL-2.0
"""Netlink sockets of other processes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_GENERIC: Final = 16


def waiting(port: int) -> int:
    """The bytes pending in the kernel for the generic netlink socket of a port."""
    lines = Path("/proc/net/netlink").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(int(row[4]) for row in rows if (int(row[1]), int(row[2])) == (_GENERIC, port))
