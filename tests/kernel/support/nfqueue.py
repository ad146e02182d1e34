# SPDX-License-Identifier: GPL-2.0
"""A program that takes packets from a queue of netfilter, and decides over them."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ipttctl.verify.netlink import Netlink, acknowledged, attribute, request
from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace

_SUBSYSTEM: Final = 3
_VERDICT, _CONFIG = 1, 2
_CONFIG_COMMAND, _CONFIG_PARAMETERS = 1, 2
_BIND, _COPY_PACKET, _IPV4 = 1, 2, 2
_PACKET_HEADER, _VERDICT_HEADER, _MARK = 1, 2, 3
DROP, ACCEPT = 0, 1


class Queue:
    """A queue with this process behind it."""

    def __init__(self, netlink: Netlink, number: int) -> None:
        self._netlink = netlink
        self._number = number
        command = attribute(_CONFIG_COMMAND, struct.pack("!BBH", _BIND, 0, _IPV4))
        parameters = attribute(_CONFIG_PARAMETERS, struct.pack("!IB", 0xFFFF, _COPY_PACKET))
        for one in (command, parameters):
            netlink.ask(acknowledged(_SUBSYSTEM, _CONFIG, 0, [one], number))

    def decide(self, verdict: int, mark: int = 0) -> None:
        """Wait for a packet, and decide over it."""

        def arrived() -> list[bytes]:
            received = self._netlink.received()
            return [
                one.attributes[_PACKET_HEADER] for one in received if one.subsystem == _SUBSYSTEM
            ]

        [packet] = wait_for(arrived, what="a packet in the queue")
        answer = attribute(_VERDICT_HEADER, struct.pack("!I", verdict) + packet[:4])
        if mark:
            answer += attribute(_MARK, struct.pack("!I", mark))
        self._netlink.commit(request(_SUBSYSTEM, _VERDICT, 0, answer, resource=self._number))


@contextmanager
def queue(where: Namespace, number: int) -> Iterator[Queue]:
    """Take packets from a queue of a namespace."""
    fd = os.open(where.path, os.O_RDONLY)
    try:
        with Netlink(fd) as netlink:
            yield Queue(netlink, number)
    finally:
        os.close(fd)
