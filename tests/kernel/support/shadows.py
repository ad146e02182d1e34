# SPDX-License-Identifier: GPL-2.0
"""Programs with verdicts by port, and datagrams that meet them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import Namespace, namespace

#: offset of the low byte of the destination's port, behind an IPv4 header without options
_PORT = 23


def dropping(*ports: int) -> bytes:
    """A socket filter that drops the datagrams to some ports, which are below 256."""
    tests = b"".join(
        asm.jump_if_equal(asm.R0, port, 2 + len(ports) - place)
        for place, port in enumerate(ports, 1)
    )
    return (
        asm.mov_reg(asm.R6, asm.R1)
        + asm.load_packet_byte(_PORT)
        + tests
        + asm.returning(1)
        + asm.returning(0)
    )


def exchange(expected: Mapping[int, int], each: int) -> None:
    """Send ``each`` datagrams to each port of loopback, and check how many of them arrive."""
    with ExitStack() as stack:
        receivers = {}
        for port in expected:
            receivers[port] = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            receivers[port].bind(("127.0.0.1", port))
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for port in expected:
            for _ in range(each):
                try:
                    sender.sendto(b"x", ("127.0.0.1", port))
                except PermissionError:
                    # that is how a sender learns of a drop in output
                    assert expected[port] < each
        for port, receiver in receivers.items():
            receiver.settimeout(COMMAND_TIMEOUT)
            for _ in range(expected[port]):
                receiver.recv(16)
            receiver.setblocking(False)
            with suppress(BlockingIOError):
                receiver.recv(16)
                raise AssertionError(f"more than {expected[port]} datagrams came to port {port}")


@contextmanager
def quiet_place(name: str = "shadow") -> Iterator[Namespace]:
    """A namespace in which nobody sends anything but the tests."""
    with namespace(name) as place:
        yield place
