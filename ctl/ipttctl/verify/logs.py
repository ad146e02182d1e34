# SPDX-License-Identifier: GPL-2.0
"""Messages of rules that log to a group (nfnetlink_log)."""

from __future__ import annotations

import socket
import struct
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.verify.netlink import Netlink, Subsystem, SubsystemMessage, acknowledged, attribute

GROUPS: Final = (1, 2)
_CONFIGURE: Final = 1
_BIND: Final = 1
_COPY_PACKETS: Final = 2


class Logs(Closing):
    """A listener to the groups that our rules log to; each message comes at once."""

    def __init__(self, namespace: int) -> None:
        """Bind the groups.

        Raises:
            OSError: the kernel refuses.
        """
        self._groups = []
        try:
            for group in GROUPS:
                listener = Netlink(namespace)
                self._groups.append(listener)
                self._configure(listener, group, attribute(1, bytes([_BIND])))
                mode = struct.pack("!IBx", 0xFFFF, _COPY_PACKETS)
                threshold = attribute(5, struct.pack("!I", 1))
                self._configure(listener, group, attribute(2, mode), threshold)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Unbind the groups. Closing more than once does no harm."""
        for listener in self._groups:
            listener.close()

    def received(self) -> list[SubsystemMessage]:
        """The messages that have come, by group."""
        return [message for listener in self._groups for message in listener.received()]

    @staticmethod
    def _configure(listener: Netlink, group: int, *values: bytes) -> None:
        message = acknowledged(Subsystem.LOG, _CONFIGURE, socket.AF_UNSPEC, values, group)
        listener.ask(message)
