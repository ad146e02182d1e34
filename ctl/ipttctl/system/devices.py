# SPDX-License-Identifier: GPL-2.0
"""Network devices in any network namespace."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from typing import Final

from ipttctl.errors import PlaceMissingError, UsageError, os_reason
from ipttctl.system.netns import socket_in

_SIOCGIFINDEX: Final = 0x8933
_LONGEST: Final = 15
_IFREQ: Final = struct.Struct("16s24x")


def device_index(name: str, netns: int | None = None) -> int:
    """The index of a device by name, in the namespace behind a descriptor (None: ours).

    Raises:
        UsageError: there is no such device, or the name is not valid.
    """
    wire_name = os.fsencode(name)
    if len(wire_name) > _LONGEST:
        raise UsageError(
            f"'{name}' is no name of a device", f"the longest has {_LONGEST} bytes; see `ip link`"
        )
    with _socket_in(netns) as sock:
        request = _IFREQ.pack(wire_name)
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFINDEX, request)
        except OSError as error:
            raise PlaceMissingError(
                f"there is no device '{name}' in the network namespace: {os_reason(error)}",
                "see `ip link`, and `ip -n NAME link` for another namespace",
            ) from None
        return int.from_bytes(answer[16:20], sys.byteorder)


def _socket_in(netns: int | None) -> socket.socket:
    kind = socket.AF_INET, socket.SOCK_DGRAM
    return socket.socket(*kind) if netns is None else socket_in(netns, *kind)
