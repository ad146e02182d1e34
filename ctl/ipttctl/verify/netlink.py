# SPDX-License-Identifier: GPL-2.0
"""Netlink messages of netfilter's subsystems: dumps, batches and notifications.

A ruleset is read in a few milliseconds that way, and compared byte by byte. A program that lists it
would have to be started for each listing, and prints only what it knows.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.system import netns

NETLINK_NETFILTER: Final = 12
TRACE_GROUP: Final = 9
"""The group of nf_tables' trace messages."""

NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 64 << 20

_ERROR, _DONE, _BATCH_BEGIN, _BATCH_END = 2, 3, 16, 17
_REQUEST, _ACK, _DUMP, _INTERRUPTED = 0x1, 0x4, 0x300, 0x10
CREATE: Final = 0x400
ECHO: Final = 0x8
_HEADER: Final = struct.Struct("=IHHII")
_FAMILY: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_RETRIES: Final = 20


class Subsystem(IntEnum):
    """Subsystems of nfnetlink."""

    CONNTRACK = 1
    LOG = 4
    NFTABLES = 10


class NftCommand(IntEnum):
    """Messages of nf_tables."""

    NEWTABLE = 0
    DELTABLE = 2
    NEWCHAIN = 3
    GETCHAIN = 4
    DELCHAIN = 5
    NEWRULE = 6
    GETRULE = 7
    DELRULE = 8
    GETSET = 10
    GETSETELEM = 13
    TRACE = 17
    GETOBJ = 19


@dataclass(frozen=True)
class SubsystemMessage:
    """One netlink message of a subsystem."""

    subsystem: int
    command: int
    family: int
    payload: bytes

    @property
    def attributes(self) -> dict[int, bytes]:
        """Its attributes by number."""
        return dict(attributes(self.payload))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a message or in a nested attribute."""
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += -(-length // 4) * 4


def attribute(kind: int, *values: bytes) -> bytes:
    """One attribute; several values are its nested attributes."""
    value = b"".join(values)
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def text(value: bytes) -> str:
    """The text of an attribute that ends with a NUL."""
    return value.rstrip(b"\0").decode(errors="replace")


def string(kind: int, value: str) -> bytes:
    """An attribute with a text."""
    return attribute(kind, value.encode() + b"\0")


def request(
    subsystem: int,
    command: int,
    family: int,
    payload: bytes = b"",
    *,
    flags: int = 0,
    resource: int = 0,
) -> bytes:
    """A message to a subsystem, without acknowledgement unless ``flags`` ask for it."""
    body = _FAMILY.pack(family, 0, resource) + payload
    kind = subsystem << 8 | command
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body


def batch(messages: Iterable[bytes]) -> bytes:
    """Messages to nf_tables as one transaction, whose end is acknowledged."""
    return b"".join((_edge(_BATCH_BEGIN, 0), *messages, _edge(_BATCH_END, 0)))


def _edge(kind: int, flags: int) -> bytes:
    body = _FAMILY.pack(0, 0, Subsystem.NFTABLES)
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body


class Netlink(Closing):
    """A netfilter socket in a network namespace."""

    def __init__(self, namespace: int, group: int = 0) -> None:
        """Open it; ``group`` are the notifications that it receives.

        Raises:
            OSError: the caller may not enter the namespace.
        """
        self._socket = netns.socket_in(
            namespace, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER
        )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((0, 0))
        if group:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def close(self) -> None:
        """Close the socket. Closing more than once does no harm."""
        self._socket.close()

    def dump(
        self, subsystem: int, command: int, family: int = 0, payload: bytes = b""
    ) -> list[SubsystemMessage]:
        """All objects of a kind, read without a change in between.

        Raises:
            OSError: the kernel refuses.
        """
        for _ in range(_RETRIES):
            self._socket.send(request(subsystem, command, family, payload, flags=_DUMP))
            messages, interrupted = self._answer()
            if not interrupted:
                return messages
        raise OSError(errno.EINTR, "the ruleset changes all the time")

    def ask(self, message: bytes) -> None:
        """Send a request that asks for an acknowledgement.

        Raises:
            OSError: the kernel refuses.
        """
        self._socket.send(message)
        self._answer()

    def commit(self, transaction: bytes) -> list[SubsystemMessage]:
        """Send a batch; returns what is echoed.

        Raises:
            OSError: the kernel refuses it.
        """
        self._socket.send(transaction)
        # the kernel has worked through the batch by now, and its answers are here
        return self.received()

    def received(self) -> list[SubsystemMessage]:
        """The notifications that are there, without waiting.

        Raises:
            OSError: some were lost (ENOBUFS), or the kernel refuses what was sent.
        """
        found: list[SubsystemMessage] = []
        with suppress(BlockingIOError):
            while True:
                data = self._socket.recv(1 << 17, socket.MSG_DONTWAIT)
                for kind, _, body in _messages(data):
                    if kind == _ERROR:
                        _raise(body)
                    else:
                        found.append(_message(kind, body))
        return found

    def _answer(self) -> tuple[list[SubsystemMessage], bool]:
        found: list[SubsystemMessage] = []
        interrupted = False
        while True:
            for kind, flags, body in _messages(self._socket.recv(1 << 17)):
                interrupted |= bool(flags & _INTERRUPTED)
                if kind == _ERROR:
                    _raise(body)
                if kind in {_ERROR, _DONE}:
                    return found, interrupted
                found.append(_message(kind, body))


def acknowledged(
    subsystem: int, command: int, family: int, payload: Sequence[bytes], resource: int = 0
) -> bytes:
    """A request for ``Netlink.ask``; ``resource`` is the subsystem's, such as a group."""
    joined = b"".join(payload)
    return request(subsystem, command, family, joined, flags=_ACK, resource=resource)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, data[offset + _HEADER.size : offset + length]
        offset += -(-length // 4) * 4


def _message(kind: int, body: bytes) -> SubsystemMessage:
    family, _, _ = _FAMILY.unpack_from(body)
    return SubsystemMessage(kind >> 8, kind & 0xFF, family, body[_FAMILY.size :])


def _raise(body: bytes) -> None:
    number = -struct.unpack_from("=i", body)[0]
    if number:
        raise OSError(number, os.strerror(number))
