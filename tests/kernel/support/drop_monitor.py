# SPDX-License-Identifier: GPL-2.0
"""The kernel's drop monitor, as dropwatch(1) uses it: it counts drops by their places."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ipttctl.link.family import Family, open_socket, resolve_family
from tests.kernel.support.bpf_tracers import Counts
from tests.kernel.support.kernel import remove_module, run

_MODULE: Final = "drop_monitor"
_FAMILY: Final = "NET_DM"
_VERSION: Final = 2
_START: Final = 3
_STOP: Final = 4
_REQUEST_ACK: Final = 5
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
#: the kernel alerts a second after a drop; seconds without an alert after which there is none
_QUIET: Final = 2.0
_HEADER: Final = struct.Struct("=IHHIIBBH")
#: headers of message, family and attribute, and struct net_dm_alert_msg: the number of places
_POINTS: Final = 16 + 4 + 4 + 4
#: struct net_dm_drop_point: the place, and how many packets were dropped there
_POINT: Final = struct.Struct("=8sI")


def missing() -> str:
    """The reason why the kernel has no drop monitor; empty if it has one."""
    done = subprocess.run(["modprobe", "-nq", _MODULE], check=False)
    return "this kernel has no drop monitor (CONFIG_NET_DROP_MONITOR)" if done.returncode else ""


@contextmanager
def drop_monitor() -> Iterator[Counts]:
    """Start the monitor; its count is that of all drops."""
    run("modprobe", _MODULE)
    try:
        with open_socket() as commands, open_socket() as alerts:
            # a socket without an address hears nothing
            for sock in (commands, alerts):
                sock.bind((0, 0))
            family = resolve_family(commands, _FAMILY)
            (group,) = family.groups.values()
            alerts.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            _command(commands, family, _START)
            dropped = 0

            def count() -> dict[str, int]:
                nonlocal dropped
                while select.select([alerts], [], [], _QUIET)[0]:
                    dropped += _drops(alerts.recv(1 << 16))
                return {"drops": dropped}

            try:
                yield count
            finally:
                _command(commands, family, _STOP)
    finally:
        remove_module(_MODULE)


def _command(sock: socket.socket, family: Family, command: int) -> None:
    size = _HEADER.size
    sock.send(_HEADER.pack(size, family.id, _REQUEST_ACK, 1, 0, command, _VERSION, 0))
    # NLMSG_ERROR with 0
    assert struct.unpack_from("=IHHIIi", sock.recv(1 << 16))[1:6:4] == (2, 0)


def _drops(message: bytes) -> int:
    """The packets of an alert, of all places."""
    points = memoryview(message)[_POINTS:]
    whole = len(points) // _POINT.size * _POINT.size
    return sum(count for _, count in _POINT.iter_unpack(points[:whole]))
