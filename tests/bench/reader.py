# SPDX-License-Identifier: GPL-2.0
"""Cost of reading events and of showing them, for each event.

In a guest whose clock counts instructions these are instructions, the kernel's for the socket
included; anywhere else they are nanoseconds of one processor:

    make bench
    python -m tests.bench.reader

Datagrams as the module sends them, with three rules and the verdict of a table for each packet,
come from a socket pair and go the whole way: datagrams, losses, packet counts, text. Ten flows take
turns, or every third packet is the first of a new one; packets are of one length, or of lengths at
random. The first run warms up; the least of the others counts.
"""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ipttctl.cli.printing import lines
from ipttctl.events.filter import EventFilter
from ipttctl.events.packets import PacketCounter
from ipttctl.link.family import Family
from ipttctl.link.model import ModuleStatus
from ipttctl.link.streams import EventStream
from ipttctl.link.wire import Connection
from ipttctl.show.event_json import EventJson
from ipttctl.show.event_table import EventTable
from ipttproto import EventBatch, JoinedBatches, Kind, Verdict
from ipttproto.arrays import np as numpy
from tests.unit.ctl.support import NetlinkSocket, event, events_message
from tests.unit.proto.datagrams import FAMILY_ID

EVENTS = 4_096
RUNS = 3
#: datagrams that the socket holds at a time, whatever net.core.wmem_max says
_BURST = 8

NOWHERE = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open until the end

Consumer = Callable[[list[EventBatch]], object]


@dataclass(frozen=True)
class Case:
    """A way of reading: batches of so many events, and what for.

    ``new_flows``: every third packet is the first of its flow. ``lengths``: packets differ in them.
    """

    name: str
    batch: int
    consumer: Callable[[], Consumer]
    new_flows: bool = False
    lengths: bool = False
    wanted: EventFilter | None = None


def _array(batches: list[EventBatch]) -> object:
    return [batch.events for batch in batches]


def _shown(form: EventTable | EventJson) -> Consumer:
    packets = PacketCounter()

    def show(batches: list[EventBatch]) -> None:
        events = JoinedBatches.of(batches)
        packets.add(events)
        lines(form.lines(events), NOWHERE)

    return show


def _text() -> Consumer:
    return _shown(EventTable())


def _json() -> Consumer:
    return _shown(EventJson())


_CHOSEN = EventFilter(links=[3], kinds=[Kind.EXIT], verdicts=[Verdict.ACCEPT])

CASES = (
    Case("array", 64, lambda: _array),
    Case("array, link, kind and verdict chosen", 64, lambda: _array, wanted=_CHOSEN),
    Case("text", 64, _text),
    Case("text", 8, _text),
    Case("text, every third packet of a new flow", 64, _text, new_flows=True),
    Case("JSON lines", 64, _json),
    Case("JSON lines", 8, _json),
    Case("JSON, random lengths", 64, _json, lengths=True),
    Case("JSON, new flows", 64, _json, new_flows=True),
)


def datagrams(case: Case) -> list[bytes]:
    """The messages of a case."""
    choose = random.Random(0)
    lengths = [choose.randrange(40, 1501) if case.lengths else 60 for _ in range(EVENTS)]
    size, events = case.batch, []
    for number in range(EVENTS):
        packet, step = divmod(number, 4)
        flow = packet if case.new_flows and packet % 3 == 0 else packet % 10
        ends = {"kind": Kind.EXIT, "verdict": Verdict.ACCEPT, "cost": 1000 + number % 900}
        events.append(
            event(
                time=10**12 + number * 1000,
                skb=0xFFFF888000000000 + packet % 50 * 256,
                traversal=packet,
                saddr=(0x0A000001 + flow).to_bytes(4, "big"),
                sport=1024 + flow,
                length=lengths[packet],
                rulenum=step + 1,
                **(ends if step == 3 else {}),
            )
        )
    return [
        events_message(events[begin : begin + size], sequence=begin)
        for begin in range(0, EVENTS, size)
    ]


@contextmanager
def _stream(wanted: EventFilter | None) -> Iterator[tuple[EventStream, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    connection = Connection(NetlinkSocket(fileno=theirs.detach()), Family(FAMILY_ID, {}))
    with ours, EventStream(connection, lambda: ModuleStatus("", 0, ()), wanted) as stream:
        yield stream, ours


def cost(case: Case, messages: Sequence[bytes]) -> float:
    """The cost of an event, in ns of CPU time."""
    consume = case.consumer()
    spent = 0.0
    with _stream(case.wanted) as (stream, sender):
        for begin in range(0, len(messages), _BURST):
            for message in messages[begin : begin + _BURST]:
                sender.send(message)
            before = time.process_time()
            consume(stream.read(0))
            spent += time.process_time() - before
        assert stream.losses.events == 0
    return spent * 1e9 / EVENTS


def main() -> int:
    """Measure and print a table."""
    print(f"numpy {numpy.__version__}, Python {sys.version.split()[0]}")
    for case in CASES:
        messages = datagrams(case)
        least = min(cost(case, messages) for _ in range(RUNS))
        what = f"{case.name}, batches of {case.batch}"
        print(
            f"{what:55} {least:8.0f} an event, {1e9 / least:12,.0f} events/s at 1 GHz", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
