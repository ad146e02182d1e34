# SPDX-License-Identifier: GPL-2.0
"""Sockets of nf_tables inside a network namespace: consistent snapshots, and changes.

Asking loads nf_tables, where it is a module: see ``backends.nft_present``.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import KernelError, OverrunError
from ipttctl.rules import messages
from ipttctl.rules.messages import End, NftMessage, NftMessageKind, RawChain, RawRule, RawTable
from ipttctl.system.netns import socket_in

_T = TypeVar("_T")

BUFFER: Final = 4 << 20
"""Bytes of changes that wait in the kernel; more than that, and the ruleset is read again."""

MOST_BYTES: Final = 192 << 20
"""Most bytes that the rules of a namespace may take here, some 200,000 rules."""

ATTEMPTS: Final = 5
"""How often a snapshot is tried that a change interrupts."""

_NETLINK_NETFILTER: Final = 12
_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_SO_RCVBUFFORCE: Final = 33
_SO_NETNS_COOKIE: Final = 71
_DATAGRAM: Final = 1 << 17
_TIMEOUT: Final = 5.0
_READ_AT_ONCE: Final = 256


class ChangedError(Exception):
    """The ruleset changed during every attempt to read it."""


class TooLargeError(Exception):
    """The ruleset is larger than the limit."""


@dataclass(frozen=True)
class Snapshot:
    """A ruleset in one generation. The rules of a chain are in their order."""

    generation: int
    tables: Sequence[RawTable]
    chains: Sequence[RawChain]
    rules: Sequence[RawRule]


class Asking(Closing):
    """A socket that asks for rulesets."""

    def __init__(self, namespace: int, most_bytes: int = MOST_BYTES) -> None:
        """Open it in the network namespace behind a descriptor.

        Raises:
            OSError: the caller may not enter the namespace.
        """
        self._socket = _socket_in(namespace)
        self._socket.settimeout(_TIMEOUT)
        self._sequence = 0
        self._most_bytes = most_bytes

    def generation(self) -> int:
        """The current generation (NFT_MSG_GETGEN).

        Raises:
            KernelError: the kernel refuses, or does not answer.
        """
        # an answer, and no end of one
        for message in self._ask(NftMessageKind.GET_GENERATION):
            if isinstance(message, NftMessage) and message.kind is NftMessageKind.NEW_GENERATION:
                return messages.parse_generation(message)
        raise KernelError("asking for the ruleset's generation", errno.EPROTO)

    def snapshot(self) -> Snapshot:
        """Read the whole ruleset.

        Raises:
            ChangedError: it changed during every attempt.
            TooLargeError: it is larger than the limit.
            KernelError: the kernel refuses, or does not answer.
        """

        def read() -> tuple[list[RawTable], list[RawChain], list[RawRule]]:
            return (
                self._dump(NftMessageKind.GET_TABLE, messages.parse_table),
                self._dump(NftMessageKind.GET_CHAIN, messages.parse_chain),
                self._dump(NftMessageKind.GET_RULE, messages.parse_rule),
            )

        generation, found = self._consistently(read)
        return Snapshot(generation, *found)

    def any_rule(self) -> bool:
        """Whether there is a rule in any table; the first one is enough.

        Raises:
            KernelError: the kernel refuses, or does not answer.
        """
        return any(
            isinstance(message, NftMessage) for message in self._ask(NftMessageKind.GET_RULE)
        )

    def rules(self, family: int, table: str, chain: str | None = None) -> tuple[int, list[RawRule]]:
        """The rules of a table or a chain in their order, and their generation; raises as above."""
        names = [(1, table)] if chain is None else [(1, table), (2, chain)]

        def read() -> list[RawRule]:
            found = self._dump(NftMessageKind.GET_RULE, messages.parse_rule, family, names)
            # older kernels do not select
            return [r for r in found if r.table == table and chain in {None, r.chain}]

        return self._consistently(read)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _consistently(self, read: Callable[[], _T]) -> tuple[int, _T]:
        """Read within one generation."""
        for _ in range(ATTEMPTS):
            before = self.generation()
            self._expected = before & 0xFFFF
            try:
                found = read()
            except _InterruptedError:
                continue
            if self.generation() == before:
                return before, found
        raise ChangedError

    def _dump(
        self,
        kind: NftMessageKind,
        parse: Callable[[NftMessage], _T],
        family: int = 0,
        names: Sequence[tuple[int, str]] = (),
    ) -> list[_T]:
        found: list[_T] = []
        size = 0
        interrupted = False
        for message in self._ask(kind, family, names):
            interrupted |= bool(message.flags & messages.INTERRUPTED)
            if isinstance(message, NftMessage):
                interrupted |= message.generation != self._expected
                size += len(message.body) + messages.OVERHEAD
                if size > self._most_bytes:
                    raise TooLargeError
                found.append(parse(message))
        if interrupted:
            raise _InterruptedError
        return found

    def _ask(
        self, kind: NftMessageKind, family: int = 0, names: Sequence[tuple[int, str]] = ()
    ) -> Iterator[NftMessage | End]:
        """The messages of the reply to a request, its end included."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        action = "reading the ruleset"
        try:
            self._socket.send(messages.request(kind, self._sequence, family, names))
            while True:
                for message in messages.split(self._socket.recv(_DATAGRAM)):
                    if message.sequence != self._sequence:
                        continue  # the rest of a reply that nobody wanted any more
                    if isinstance(message, End) and message.errno:
                        raise KernelError(action, message.errno)
                    yield message
                    if isinstance(message, End) or kind is NftMessageKind.GET_GENERATION:
                        return
        except OSError as error:
            raise KernelError(action, error.errno or errno.ETIMEDOUT) from None


class Listening(Closing):
    """A socket that gets the changes of a ruleset, from the moment it is open."""

    def __init__(self, namespace: int, buffer: int = BUFFER) -> None:
        """Open it in the network namespace behind a descriptor, with room for ``buffer`` bytes.

        Raises:
            OSError: the caller may not enter the namespace, or not listen there.
        """
        self._socket = _socket_in(namespace)
        try:
            self._socket.setblocking(False)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
            except OSError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, messages.GROUP)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor that is readable when there are changes."""
        return self._socket.fileno()

    def receive(self) -> list[NftMessage]:
        """The changes available now, up to a limit.

        Raises:
            OverrunError: the kernel dropped some.
        """
        found: list[NftMessage] = []
        for _ in range(_READ_AT_ONCE):
            try:
                datagram = self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise OverrunError from None
                raise
            found += [m for m in messages.split(datagram) if isinstance(m, NftMessage)]
        return found

    def wait(self, seconds: float) -> bool:
        """Wait for changes; returns whether there are any."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(round(seconds * 1000)))

    def discard(self) -> None:
        """Throw away what waits, before the ruleset is read."""
        for _ in range(1 << 20):
            try:
                self._socket.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def cookie(self) -> int:
        """The cookie of the namespace that the socket is in."""
        value = self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int.from_bytes(value, sys.byteorder)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class _InterruptedError(Exception):
    """The ruleset changed during a dump."""


def _socket_in(namespace: int) -> socket.socket:
    sock = socket_in(namespace, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        sock.bind((0, 0))
    except BaseException:
        sock.close()
        raise
    return sock
