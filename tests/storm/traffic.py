# SPDX-License-Identifier: GPL-2.0
"""Packets in every namespace, at a rate that leaves the others some processor time."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.kernel.support.kernel import wait_for
from tests.kernel.support.network import Namespace, enter_namespace
from tests.storm.actor import Actor, Child
from tests.storm.journal import Journal
from tests.storm.shared import Shared

#: large and rare, so that events come in large batches: small ones are expensive to read
_BURST = 40
#: bytes of one datagram of each burst, which takes several fragments but on the loopback device
_LARGE = 3000
#: seconds between bursts
_PAUSE = 0.5
#: an emulated machine is slow: traffic has the lowest priority
_NICE = 10
_PORTS = (9, 10)


def send_bursts(address: str, ports: tuple[int, ...], going: Callable[[], bool]) -> None:
    """Send datagrams at a bounded rate while ``going`` returns true."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        while going():
            for number in range(_BURST):
                # datagrams that a rule drops or rejects, and full queues
                with suppress(OSError):
                    size = 20 + 5 * number if number else _LARGE
                    sender.sendto(bytes(size), (address, ports[number % len(ports)]))
            # the rate
            time.sleep(_PAUSE)


def start_bursts(
    namespace: Namespace, address: str, ports: tuple[int, ...], going: Callable[[], bool]
) -> Child:
    """Run ``send_bursts`` in a process in a namespace."""

    def send() -> None:
        os.nice(_NICE)
        enter_namespace(namespace.path)
        send_bursts(address, ports, going)

    child = Child(send)
    own = Path(f"/proc/{child.pid}/ns/net")
    # the namespace's name may be gone soon
    wait_for(lambda: own.stat().st_ino == namespace.inode, timeout=600, what="it has entered")
    return child


class TrafficActor(Actor):
    """Sends datagrams from one namespace to an address and pings it, until the end."""

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, place: Namespace, to: str
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._place = place
        self._to = to

    def act(self) -> None:
        """Send until the end."""
        flood = start_bursts(self._place, self._to, _PORTS, lambda: not self.shared.ended)
        ping = subprocess.Popen(
            ["ip", "netns", "exec", self._place.name, "ping", "-nq", "-i", "1", self._to],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not self.shared.ended:
                assert flood.process.exitcode is None, f"sending to {self._to} has ended"
                if ping.poll() is None:
                    self.journal.write("traffic")
                self.pause(1, 1)
        finally:
            ping.kill()
            ping.wait()
            flood.kill()
