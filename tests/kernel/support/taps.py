# SPDX-License-Identifier: GPL-2.0
"""Packets at the devices of network namespaces, seen by packet sockets as tcpdump does it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from ipttctl.system.netns import socket_in
from tests.kernel.support.network import Namespace

_ALL: Final = 0x0003
_IPV4: Final = 0x0800
_OUTGOING: Final = 4
_RCVBUFFORCE: Final = 33
_WITH_PORTS: Final = frozenset({socket.IPPROTO_TCP, socket.IPPROTO_UDP})


class Sight(NamedTuple):
    """An IPv4 packet at a device, by the headers that it had there."""

    namespace: str
    device: str
    sent: bool
    protocol: int
    source: str
    destination: str
    sport: int
    dport: int
    length: int
    identification: int
    offset: int

    @property
    def place(self) -> str:
        """``router to r2``, ``right from eth0``: namespace, direction and device."""
        return f"{self.namespace} {'to' if self.sent else 'from'} {self.device}"


class Taps:
    """Packet sockets on all devices of some namespaces."""

    def __init__(self, sockets: Sequence[tuple[str, socket.socket]]) -> None:
        self._sockets = sockets
        self._seen: list[Sight] = []

    def seen(self) -> list[Sight]:
        """All IPv4 packets so far, in their order in each namespace."""
        for name, one in self._sockets:
            while True:
                try:
                    data, (device, kind, direction, *_) = one.recvfrom(1 << 16)
                except BlockingIOError:
                    break
                if kind == _IPV4:
                    self._seen.append(_sight(name, device, direction == _OUTGOING, data))
        return list(self._seen)


def _sight(namespace: str, device: str, sent: bool, data: bytes) -> Sight:
    length, identification, fragment = struct.unpack_from("!HHH", data, 2)
    protocol, offset = data[9], fragment & 0x1FFF
    source, destination = (socket.inet_ntoa(data[at : at + 4]) for at in (12, 16))
    ports = (0, 0)
    behind = (data[0] & 0xF) * 4
    if protocol in _WITH_PORTS and not offset and len(data) >= behind + 4:
        ports = struct.unpack_from("!HH", data, behind)
    return Sight(
        namespace,
        device,
        sent,
        protocol,
        source,
        destination,
        *ports,
        length,
        identification,
        offset,
    )


@contextmanager
def taps(*namespaces: Namespace) -> Iterator[Taps]:
    """Watch all devices of namespaces."""
    with ExitStack() as stack:
        sockets = []
        for where in namespaces:
            fd = os.open(where.path, os.O_RDONLY)
            try:
                # without the header of the link, which not all devices have
                one = socket_in(fd, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
            finally:
                os.close(fd)
            stack.enter_context(one)
            one.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 16 << 20)
            one.setblocking(False)
            sockets.append((where.name, one))
        yield Taps(sockets)
