# SPDX-License-Identifier: GPL-2.0
"""Messages to the service manager that started us, as sd_notify(3) sends them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_MICRO: Final = 1_000_000


class ServiceManager:
    """The receiver of our messages; without one nothing is sent.

    ``interval`` is how often it wants to hear of us, in seconds, None if it does not.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Take the receiver from the environment."""
        address = environment.get("NOTIFY_SOCKET", "")
        # an abstract name, which begins with a NUL in the address
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.interval: float | None = None
        meant = environment.get("WATCHDOG_PID", str(os.getpid()))
        with suppress(ValueError):
            if self._address and int(meant) == os.getpid():
                self.interval = int(environment.get("WATCHDOG_USEC", "")) / _MICRO

    def tell(self, *states: str, status: str | None = None) -> None:
        """Send states, such as ``READY=1``, and a status in words; a failure is ignored."""
        lines = [*states]
        if status is not None:
            lines.append(f"STATUS={' '.join(status.split())}")
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            message = "\n".join(lines).encode(errors="backslashreplace")
            sock.sendto(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._address)

    def reloading(self) -> None:
        """Say that the configuration is read again; ``READY=1`` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
