# SPDX-License-Identifier: GPL-2.0
"""No event is lost without being counted."""

from __future__ import annotations

from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import ProgramSet
from ipttctl.link.wire import Connection
from ipttproto import EventBatch, Group, Slot, parse_batch
from tests.kernel.conftest import MakeProgram
from tests.kernel.support.network import namespace, send_udp
from tests.storm.observers import observe

PACKETS = 3000
#: in bytes; a few batches take more
BUFFER = 1 << 15


def test_a_full_socket_silences_nobody(controller: Controller, make_program: MakeProgram) -> None:
    """Events arrive again once the socket has been read: the module does not take it for absent."""
    with namespace("alone") as alone, observe(controller, BUFFER) as stream:
        alone.iptables("-A", "OUTPUT", "-p", "udp")
        link = controller.attach(TableHook(), ProgramSet({Slot.EXIT: make_program().fd}))
        for _ in range(5):
            overruns = stream.overruns
            while stream.overruns == overruns:
                alone.call(send_udp, "127.0.0.1", 9, [b"x"] * 500)
                # a read may report an overrun and nothing else
                while stream.read(0.1) or stream.read(0.1):
                    pass
            # no request for the status, which would show the module that somebody is there
            alone.call(send_udp, "127.0.0.1", 9, [b"x"])
            seen = sum(len(batch.events) for batch in stream.read(5))
            assert seen > 0
        controller.detach(link.id)


def test_events_come_again_once_there_is_room(
    controller: Controller, make_program: MakeProgram
) -> None:
    """Long before all that was there has been read."""
    with (
        namespace("alone") as alone,
        Connection.open() as slow,
        controller.events() as witness,
    ):
        slow.join(Group.EVENTS, 1 << 17)
        alone.iptables("-A", "OUTPUT", "-p", "udp")
        link = controller.attach(TableHook(), ProgramSet({Slot.EXIT: make_program().fd}))
        alone.call(send_udp, "127.0.0.1", 9, [b"x"] * PACKETS)
        # both sockets have got what they have room for
        for _ in witness.drain():
            pass
        before = {cpu.cpu: cpu.sequence for cpu in witness.last}
        assert slow.dropped()
        # the first may be smaller than the one that is to come
        for _ in range(3):
            assert _batches(slow)
        alone.call(send_udp, "127.0.0.1", 9, [b"x"])
        assert sum(map(len, witness.drain())) > 0
        left = list(iter(lambda: _batches(slow), []))
        assert len(left) > 1
        assert any(batch.sequence >= before[batch.cpu] for one in left for batch in one)
        controller.detach(link.id)


def _batches(connection: Connection) -> list[EventBatch]:
    """The events of the next message; none if there is none."""
    return [parse_batch(message.payload) for message in connection.receive()]


def test_the_only_observer_overruns(controller: Controller, make_program: MakeProgram) -> None:
    """The socket is full again and again, and no other observer takes the events."""
    with namespace("alone") as alone, observe(controller, BUFFER) as stream:
        alone.iptables("-A", "OUTPUT", "-p", "udp")
        link = controller.attach(TableHook(), ProgramSet({Slot.EXIT: make_program().fd}))
        # nothing is read meanwhile
        for _ in range(3):
            alone.call(send_udp, "127.0.0.1", 9, [b"x"] * (PACKETS // 3))
        received = sum(len(batch.events) for batch in stream.drain())
        asked = controller.detach(link.id).stats.events
        assert stream.overruns > 0
        assert stream.losses.observer > 0
        assert asked >= PACKETS
        assert asked == received + stream.losses.events
