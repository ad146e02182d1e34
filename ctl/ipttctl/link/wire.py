# SPDX-License-Identifier: GPL-2.0
"""The netlink socket; ipttproto builds and parses its messages.

pyroute2 opens it in the initial network namespace, if need be, and resolves the family. Requests
are exchanged here because pyroute2's errors lack the extended acknowledgement, in which the module
says what was wrong.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from ipttctl.bpf.descriptors import ClosedError, Closing, Owned
from ipttctl.errors import (
    ExpectationError,
    IpttctlError,
    KernelError,
    LinkGoneError,
    ModuleError,
    NameTakenError,
    NoSwapWaitsError,
    OverrunError,
    OwnedError,
    PrivilegeError,
    RefusedPrivilegeError,
    SwapConfirmedError,
    SwapRolledBackError,
    SwapWaitingError,
)
from ipttctl.link.family import (
    NOTIFY_GROUP,
    Family,
    current_family,
    is_gone,
    open_socket,
    resolve_family,
    unloaded,
)
from ipttproto import (
    FAMILY,
    Acknowledgement,
    Command,
    Done,
    Feature,
    Flag,
    Group,
    Message,
    ProtocolError,
    build_request,
    features_needed,
    parse_datagram,
)
from ipttproto.attributes import HEADER_SIZE, AttributeSet, align, split
from ipttproto.family import Top
from ipttproto.messages import PAYLOAD_OFFSET

EVENT_BUFFER: Final = 32 << 20
"""Size of one observer's buffer in the kernel, in bytes."""

REPLY_TIMEOUT: Final = 30.0
"""Seconds to wait for the reply to a request, which takes at most a grace period."""

_NEWER_MODULE: Final = "run `ipttctl module build` and `ipttctl module upgrade`"

_SOL_NETLINK: Final = 270
_NETLINK_ADD_MEMBERSHIP: Final = 1
_NETLINK_BROADCAST_ERROR: Final = 4
_NETLINK_NO_ENOBUFS: Final = 5
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
#: SK_MEMINFO_DROPS is the last of them; it wraps
_MEMINFO: Final = struct.Struct("=9I")
_CAP_NET_ADMIN: Final = 12
_DATAGRAM: Final = 1 << 18
_TRUNCATED: Final = int(socket.MSG_TRUNC)
_DUMP_ATTEMPTS: Final = 16
_OWN_STATUS: Final = Path("/proc/self/status")

#: in the module's sentences about owners; a link may be busy for another reason
_OWNED: Final = "owns the link"
#: commands that do not name a link
_NOT_OF_A_LINK: Final = frozenset({Command.ATTACH, Command.RULESET})
#: commands about a swap that waits
_OF_A_WAIT: Final = frozenset({Command.CONFIRM, Command.ROLLBACK})
#: errnos that mean one thing, whatever the command is
_KINDS: Final[Mapping[int, type[KernelError]]] = {
    errno.EPERM: RefusedPrivilegeError,
    errno.ESTALE: ExpectationError,
    errno.EEXIST: NameTakenError,
    errno.EINPROGRESS: SwapWaitingError,
    errno.EALREADY: SwapConfirmedError,
    errno.ECANCELED: SwapRolledBackError,
}


class Connection(Closing):
    """A generic-netlink socket that speaks the family.

    Requests may be made from several threads, and ``close`` also called from signal handlers. A
    request or a ``held`` block that has begun still completes.
    """

    def __init__(
        self,
        sock: socket.socket,
        family: Family,
        current: Callable[[], Family | None] | None = None,
    ) -> None:
        """Take ownership of ``sock``; see ``open``.

        ``current`` looks the family up once more; by default it counts as unchanged.
        """
        self._current = current or (lambda: family)
        self._gone = False
        self._unsure = False
        self._socket = sock
        self._open = Owned(sock.fileno(), lambda _: sock.close())
        self._family = family
        self._sequence = 0
        self._lock = threading.Lock()
        self._unsolicited: deque[Message] = deque()
        self._joined = False
        self._drops: int | None = None
        """How many messages the kernel had dropped last; None if it tells with ENOBUFS."""
        self.features: Feature | None = None
        """The features of the module, which requests may need; None as long as nobody asked."""

    @classmethod
    def open(cls) -> Self:
        """Connect to the module from any network namespace.

        Raises:
            PrivilegeError: the caller lacks CAP_NET_ADMIN.
            ModuleError: the module is not loaded, or cannot be reached from here.
        """
        require_privilege()
        sock = open_socket()
        try:
            for option in (_NETLINK_EXT_ACK, _NETLINK_CAP_ACK, _NETLINK_GET_STRICT_CHK):
                sock.setsockopt(_SOL_NETLINK, option, 1)
            sock.bind((0, 0))
            family = resolve_family(sock, FAMILY)
            return cls(sock, family, partial(current_family, family))
        except BaseException:
            sock.close()
            raise

    def request(
        self, command: Command, attributes: Mapping[str, Any], action: str
    ) -> list[dict[str, Any]]:
        """Send a request; returns the attributes of each reply.

        ``action`` describes the request in errors.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: the link is not as the request expects.
            NameTakenError: another link has the name.
            SwapWaitingError: the link's last swap waits.
            SwapConfirmedError: it was confirmed already.
            SwapRolledBackError: it was rolled back already.
            NoSwapWaitsError: it did not have to wait, or there was none.
            PrivilegeError: the caller may not do this.
            ModuleError: the module was unloaded since this connection was made, or lacks a feature.
            KernelError: the module refused otherwise, or did not answer.
        """
        self._check_features(command, attributes, action)
        with self._lock, self._used(action):
            return self._exchange(command, attributes, action, Flag.ACK)

    def dump(self, command: Command, action: str) -> list[dict[str, Any]]:
        """Send a dump request; returns the attributes of each part of one consistent reply.

        Raises:
            PrivilegeError: the caller may not do this.
            KernelError: the module refused, or the list changed during every attempt.
        """
        with self._lock, self._used(action):
            for _ in range(_DUMP_ATTEMPTS):
                with suppress(_InterruptedDumpError):
                    return self._exchange(command, {}, action, Flag.DUMP)
        raise _InterruptedDumpError(action)

    def join(self, group: Group, buffer: int = EVENT_BUFFER) -> None:
        """Subscribe to a multicast group, with room for ``buffer`` bytes in the kernel.

        When that is full, messages are dropped: events until there is room again, others until the
        socket is empty.

        Raises:
            PrivilegeError: the caller may not listen to it.
            ModuleError: the module has no such group, or was unloaded.
        """
        number = self._family.groups.get(group)
        if number is None:
            raise ModuleError(
                f"the ipttrace module has no group '{group}': it is of another build",
                "run `ipttctl module build` and `ipttctl module load`",
            )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        try:
            # the module has to learn of a subscriber whose socket is full at the moment
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_BROADCAST_ERROR, 1)
            if group == Group.EVENTS:
                # Otherwise the kernel drops all until the socket is empty. Not in other groups: if
                # the module has no memory for a message to them, it tells with ENOBUFS alone.
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
                self._drops = self._count_drops()
            # before the group itself: from here on we are told when the family goes
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, NOTIFY_GROUP)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, number)
        except PermissionError:
            raise PrivilegeError(
                f"listening to '{group}' needs CAP_NET_ADMIN", "run ipttctl as root"
            ) from None
        self._joined = True
        # it may have gone before that
        self._check_family()

    def receive(self) -> list[Message]:
        """The messages available now, without waiting.

        Raises:
            OverrunError: the kernel dropped messages; of events this is told once all are read.
            ModuleError: the module was unloaded; all its messages have been returned.
            ProtocolError: a message violates the protocol.
            ClosedError: the connection is closed.
        """
        if self._unsolicited:
            messages = list(self._unsolicited)
            self._unsolicited.clear()
            return messages
        if self._gone:
            raise unloaded(self._current())
        try:
            with self._open:
                data = self._read(socket.MSG_DONTWAIT)
        except BlockingIOError:
            if self.dropped():
                raise OverrunError from None
            self._end_overrun()
            return []
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                self._unsure = True
                raise OverrunError from None
            raise
        self._note_end(data)
        return [m for m in parse_datagram(self._family.id, data) if isinstance(m, Message)]

    def dropped(self) -> bool:
        """Whether the kernel has dropped events since this was told last.

        Raises:
            ClosedError: the connection is closed.
        """
        if self._drops is None:
            return False
        with self._open:
            drops = self._count_drops()
        if drops == self._drops:
            return False
        self._drops, self._unsure = drops, True
        return True

    @property
    def gone(self) -> bool:
        """Whether it is known that the module was unloaded: nothing comes any more."""
        return self._gone

    def fileno(self) -> int:
        """The socket's descriptor, readable when ``receive`` has something; -1 once closed."""
        return -1 if self._open.closed else self._socket.fileno()

    def held(self) -> AbstractContextManager[int]:
        """Get the socket's descriptor, kept open within the block.

        Raises:
            ClosedError: the connection is closed.
        """
        return self._open

    def close(self) -> None:
        """Close the socket: the module detaches the links that it owns."""
        self._open.close()

    def _note_end(self, data: bytes) -> None:
        """Take note if a datagram says that the family is gone."""
        if self._joined and is_gone(self._family, data):
            self._gone = True

    def _count_drops(self) -> int:
        """The number of messages that the kernel has dropped for this socket, modulo 2^32."""
        data = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        drops: int = _MEMINFO.unpack(data)[-1]
        return drops

    def _end_overrun(self) -> None:
        """Look whether the family is still there, if the message about its end may be lost.

        Not before all messages are read: the end comes behind them, and with ENOBUFS the kernel
        drops all until the socket is empty.
        """
        if self._unsure:
            self._unsure = False
            self._check_family()

    def _check_features(self, command: Command, attributes: Mapping[str, Any], action: str) -> None:
        """Check that the module has the features that a request needs.

        Raises:
            ModuleError: it lacks one.
        """
        if self.features is None:
            return
        needed = features_needed(command, attributes)
        lacking = [feature for feature in needed if feature not in self.features]
        if lacking:
            what = "; ".join(feature.doc for feature in lacking)
            raise ModuleError(
                f"{action}: the loaded ipttrace module is older than this, and lacks: {what}",
                _NEWER_MODULE,
            )

    def _check_family(self) -> None:
        """Check that the module is still the one that this is connected to.

        Raises:
            ModuleError: it is not.
        """
        now = self._current()
        if now is None or now.id != self._family.id:
            self._gone = True
            raise unloaded(now)

    @contextmanager
    def _used(self, action: str) -> Iterator[None]:
        """Keep the socket open within the block."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._open)
            except ClosedError:
                raise KernelError(action, errno.EBADF, "the connection is closed") from None
            yield

    def _exchange(
        self, command: Command, attributes: Mapping[str, Any], action: str, flags: Flag
    ) -> list[dict[str, Any]]:
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        try:
            request = build_request(
                self._family.id, command, attributes, sequence=self._sequence, flags=flags
            )
        except ProtocolError as error:
            raise KernelError(action, errno.EINVAL, str(error)) from None
        try:
            self._socket.send(request)
        except OSError as error:
            raise KernelError(action, error.errno or errno.EIO) from None
        return self._replies(command, request, action)

    def _replies(self, command: Command, request: bytes, action: str) -> list[dict[str, Any]]:
        replies: list[dict[str, Any]] = []
        interrupted = False
        for message in self._answers(action):
            match message:
                case Acknowledgement(errno=0):
                    return replies
                case Acknowledgement():
                    if message.errno == errno.ENOENT and not message.message:
                        # of the kernel: the module would say what there is not
                        self._check_family()
                    raise refusal(command, request, message, action)
                case Done():
                    if interrupted or message.flags & Flag.DUMP_INTERRUPTED:
                        raise _InterruptedDumpError(action)
                    if message.errno:
                        raise KernelError(action, message.errno)
                    return replies
                case Message():
                    interrupted |= bool(message.flags & Flag.DUMP_INTERRUPTED)
                    replies.append(message.attributes())
        raise AssertionError("the answers ended")

    def _answers(self, action: str) -> Iterator[Message | Acknowledgement | Done]:
        """The replies to the last request; messages to a group are put aside."""
        while True:
            if not wait_readable([self._socket.fileno()], REPLY_TIMEOUT):
                raise KernelError(action, errno.ETIMEDOUT, "the module does not answer")
            try:
                data = self._read(0)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(action, error.errno or errno.EIO) from None
                if self._joined:
                    # messages to the group were dropped
                    continue
                raise KernelError(
                    action, errno.ENOBUFS, "the kernel had no memory to say whether it was done"
                ) from None
            self._note_end(data)
            for message in parse_datagram(self._family.id, data):
                if message.sequence == self._sequence:
                    yield message
                elif isinstance(message, Message) and not message.sequence:
                    self._unsolicited.append(message)

    def _read(self, flags: int) -> bytes:
        data, _, status, _ = self._socket.recvmsg(_DATAGRAM, 0, flags)
        if status & _TRUNCATED:
            raise ProtocolError(f"a datagram is longer than {_DATAGRAM} bytes")
        return data


class _InterruptedDumpError(KernelError):
    """The links changed while a dump listed them."""

    def __init__(self, action: str) -> None:
        super().__init__(action, errno.EINTR, "the links change faster than they can be listed")


def wait_readable(descriptors: list[int], timeout: float | None) -> list[int]:
    """The descriptors that are readable, after at most ``timeout`` seconds; None has no limit."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    milliseconds = None if timeout is None else max(0, round(timeout * 1000))
    return [descriptor for descriptor, _ in poll.poll(milliseconds)]


def require_privilege(status: Path = _OWN_STATUS) -> None:
    """Check that the caller may use the family at all.

    Raises:
        PrivilegeError: the caller lacks CAP_NET_ADMIN.
    """
    lines = status.read_text().splitlines()
    line = next((line for line in lines if line.startswith("CapEff:")), "CapEff: 0")
    if not int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1:
        raise PrivilegeError("ipttctl needs CAP_NET_ADMIN and CAP_BPF", "run it as root")


def refusal(command: Command, request: bytes, answer: Acknowledgement, action: str) -> IpttctlError:
    """The exception for a negative acknowledgement."""
    kind = _KINDS.get(answer.errno, KernelError)
    if answer.errno == errno.EBUSY and _OWNED in answer.message:
        kind = OwnedError
    elif answer.errno in {errno.ENOENT, errno.ENODEV} and command not in _NOT_OF_A_LINK:
        kind = LinkGoneError
    elif answer.errno == errno.ENODATA and command in _OF_A_WAIT:
        kind = NoSwapWaitsError
    return kind(action, answer.errno, answer.message, bad_attribute(request, answer))


def bad_attribute(request: bytes, answer: Acknowledgement) -> str | None:
    """The dotted name of the attribute that an acknowledgement calls bad or missing."""
    if answer.missing is not None:
        nest = [("", Top)]
        if answer.missing_nest is not None:
            nest = [
                (f"{path}.", inner)
                for offset, path, inner in _walk(Top, request, PAYLOAD_OFFSET, len(request))
                if offset == answer.missing_nest and inner is not None
            ]
        for prefix, space in nest:
            return prefix + _name(space, answer.missing)
    if answer.offset:
        for offset, path, _ in _walk(Top, request, PAYLOAD_OFFSET, len(request)):
            if offset == answer.offset:
                return path
    return None


def _walk(
    space: AttributeSet, request: bytes, start: int, end: int
) -> Iterator[tuple[int, str, AttributeSet | None]]:
    """(offset, dotted name, nested set) of each attribute in a request, nests before content.

    If a nest occurs several times, each name ends with its index.
    """
    attributes = list(split(memoryview(request)[start:end]))
    counts = Counter(number for number, _ in attributes)
    seen: Counter[int] = Counter()
    for number, payload in attributes:
        attribute = space.by_number.get(number)
        name, nested = _name(space, number), attribute.nested if attribute else None
        if space is Top and nested and counts[number] > 1:
            name = f"{name}[{seen[number]}]"
            seen[number] += 1
        yield start, name, nested
        inside = start + HEADER_SIZE
        if nested:
            for offset, path, inner in _walk(nested, request, inside, inside + len(payload)):
                yield offset, f"{name}.{path}", inner
        start = inside + align(len(payload))


def _name(space: AttributeSet, number: int) -> str:
    attribute = space.by_number.get(number)
    return attribute.name if attribute else f"{space.name} attribute {number}"
