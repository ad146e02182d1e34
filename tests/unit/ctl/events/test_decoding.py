# SPDX-License-Identifier: GPL-2.0
"""Arbitrary bytes at a socket: streams, records, replies and their printed form."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ipttctl.errors import IpttctlError, ModuleError
from ipttctl.events.records import decode_events
from ipttctl.link import wire
from ipttctl.link.controller import require_same_protocol
from ipttctl.link.family import Family
from ipttctl.link.model import Link, LinkChange, ModuleStatus
from ipttctl.link.streams import EventStream, LinkChangeStream, Stream
from ipttctl.link.wire import Connection
from ipttproto import Command, ProtocolError, parse_batch

# what imports it takes is not the input's: whichever example decodes first would have it counted
from ipttproto import arrays as _arrays  # noqa: F401  # see above
from ipttproto.family import Top
from tests.unit.ctl.support import NetlinkSocket, event, events_message, link, notification
from tests.unit.proto.datagrams import FAMILY_ID, anything, batches, bounded, mutated, values_of

EXAMPLES = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@contextmanager
def connected() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the other end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, Connection(NetlinkSocket(fileno=theirs.detach()), Family(FAMILY_ID, {})) as opened:
        yield opened, ours


def _status() -> ModuleStatus:
    return ModuleStatus("", 0, ())


def _size(data: list[bytes]) -> int:
    """The bytes of datagrams, which are no more than a socket takes."""
    size = sum(len(datagram) for datagram in data)
    assume(size < 1 << 17)
    return size


def _read(stream: Stream[Any], kernel: socket.socket, data: list[bytes]) -> list[Any]:
    """Read a stream of datagrams; it may report that they violate the protocol."""
    found = []
    for datagram in data:
        kernel.send(datagram)
    for _ in data:
        with suppress(ProtocolError):
            found += stream.read(0)
    return found


@EXAMPLES
@given(st.lists(anything().filter(bool), min_size=1, max_size=4))
def test_event_streams(data: list[bytes]) -> None:
    """A stream passes over invalid messages or reports them, and continues with valid ones."""
    size = _size(data)
    with connected() as (connection, kernel), EventStream(connection, _status) as stream:
        with bounded(size):
            for batch in _read(stream, kernel, data):
                assert len(decode_events(batch)) == len(batch.events)
            assert stream.losses.events >= 0
        kernel.send(events_message([event(rulenum=77)], cpu=1 << 31, sequence=1 << 62))
        last = [record for batch in stream.read(5) for record in decode_events(batch)]
        assert [record.rulenum for record in last] == [77]


@EXAMPLES
@given(st.lists(anything().filter(bool), min_size=1, max_size=4))
def test_link_change_streams(data: list[bytes]) -> None:
    size = _size(data)
    with connected() as (connection, kernel), LinkChangeStream(connection) as stream:
        with bounded(size):
            assert all(isinstance(c, LinkChange) for c in _read(stream, kernel, data))
        kernel.send(notification(Command.LINK_SWAPPED, link(generation=9)))
        assert [change.link.generation for change in stream.read(5)] == [9]


@EXAMPLES
@given(data=st.lists(anything().filter(bool), min_size=1, max_size=4))
# the end of an interrupted dump, as an answer to a request that is no dump
@example(data=[bytes.fromhex("10000000 0300 1000 01000000 00000000")])
def test_replies(monkeypatch: pytest.MonkeyPatch, data: list[bytes]) -> None:
    """A request is answered, is refused, or is known to have got no valid answer."""
    monkeypatch.setattr(wire, "REPLY_TIMEOUT", 0.0)
    size = _size(data)
    with connected() as (connection, kernel), bounded(size):
        for datagram in data:
            kernel.send(datagram)
        with suppress(IpttctlError, ProtocolError):
            for reply in connection.request(Command.GET, {"link": 3}, "asking"):
                Link.from_attributes(reply)
        with suppress(IpttctlError, ProtocolError):
            for reply in connection.dump(Command.GET, "listing"):
                Link.from_attributes(reply)


@EXAMPLES
@given(st.lists(values_of(Top), max_size=3))
@example([{"cpu": [{"lost-ring": 1}]}])
def test_any_attributes_are_a_status_and_links(replies: list[dict[str, Any]]) -> None:
    """Any attributes give a status, by which the protocol is recognised, and links."""
    with suppress(ModuleError):
        require_same_protocol(ModuleStatus.from_attributes(replies))
    for reply in replies:
        Link.from_attributes(reply)
        for command in Command:
            LinkChange.from_message(command, reply)


@EXAMPLES
@given(st.one_of(batches(), mutated(batches())))
def test_records(data: bytes) -> None:
    with bounded(len(data)), suppress(ProtocolError):
        batch = parse_batch(data)
        records = decode_events(batch)
        assert [record.sequence - batch.sequence for record in records] == [*range(len(records))]
