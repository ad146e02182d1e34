# SPDX-License-Identifier: GPL-2.0
"""Network devices of any network namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from typing import Final

from ipttctl.errors import UsageError, os_reason
from ipttctl.netns import socket_in

_SIOCGIFINDEX: Final = 0x8933
_IFREQ: Final = struct.Struct("16si20x")


def device_index(name: str, netns: int | None = None) -> int:
    """The index of a device by its name in a namespace, given by a descriptor; None is ours.

    Raises:
        UsageError: there is no such device.
    """
    with _socket_in(netns) as sock:
        request = _IFREQ.pack(os.fsencode(name), 0)
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFINDEX, request)
        except OSError as error:
            raise UsageError(
                f"there is no device '{name}' in the network namespace: {os_reason(error)}",
                "see `ip link`, and `ip -n NAME link` for another namespace",
            ) from None
        index = _IFREQ.unpack(answer)[1]
        if not isinstance(index, int):
            raise TypeError("an interface index is not a number")
        return index


def _socket_in(netns: int | None) -> socket.socket:
    kind = socket.AF_INET, socket.SOCK_DGRAM
    return socket.socket(*kind) if netns is None else socket_in(netns, *kind)
