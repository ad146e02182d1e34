# SPDX-License-Identifier: GPL-2.0
"""The exchange with the module, and the exceptions for its refusals."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ipttctl.errors import (
    ExpectationError,
    IpttctlError,
    KernelError,
    LinkGoneError,
    ModuleError,
    OverrunError,
    PrivilegeError,
)
from ipttctl.link import family as families
from ipttctl.link import wire
from ipttctl.link.family import Family, current_family, open_socket, resolve_family
from ipttctl.link.wire import (
    Connection,
    bad_attribute,
    refusal,
    require_privilege,
)
from ipttctl.system import netns
from ipttproto import (
    Acknowledgement,
    Command,
    Flag,
    Group,
    ProtocolError,
    build_request,
    parse_batch,
)
from ipttproto.attributes import HEADER_SIZE, split
from ipttproto.family import Top
from ipttproto.messages import PAYLOAD_OFFSET
from tests.unit.ctl.support import (
    FAMILY_ID,
    FakeModule,
    NetlinkSocket,
    RefusalError,
    events_message,
    family_gone,
    link,
    no_such_link,
    notification,
)
from tests.unit.ctl.support import event as event_members

SIOCGSKNS = 0x894C
SOL_NETLINK = 270
NETLINK_USERSOCK = 2
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12

ATTACH: dict[str, Any] = {
    "hook": 1,
    "programs": {"program": [{"slot": 1, "fd": 5}, {"slot": 2, "fd": 6}], "cookie": 1},
}


def attach_request() -> bytes:
    return build_request(FAMILY_ID, Command.ATTACH, ATTACH, sequence=9)


def offset_of(*path: int) -> int:
    """The offset in attach_request() of the attribute at this path of indexes, nest by nest."""
    request = attach_request()
    start, end = PAYLOAD_OFFSET, len(request)
    for depth, index in enumerate(path):
        attributes = list(split(memoryview(request)[start:end]))
        for _, payload in attributes[:index]:
            start += HEADER_SIZE + (len(payload) + 3 & ~3)
        if depth < len(path) - 1:
            start, end = (
                start + HEADER_SIZE,
                start + HEADER_SIZE + len(attributes[index][1]),
            )
    return start


def test_request_returns_the_replies(module: FakeModule) -> None:
    module.handlers[Command.GET] = lambda *_: [link(), link(link=4)]
    with module.connect() as connection:
        replies = connection.request(Command.GET, {"link": 3}, "looking")
    assert [reply["link"] for reply in replies] == [3, 4]
    assert module.requested(Command.GET) == [{"link": 3}]


def test_threads_get_the_answers_to_their_own_requests(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests of others come while an answer is under way."""
    monkeypatch.setattr(wire, "REPLY_TIMEOUT", 5.0)
    threads, requests = 8, 100
    module.handlers[Command.GET] = lambda _, asked: [link(link=asked["link"])]
    together = threading.Barrier(threads)
    with module.connect() as connection:

        def ask(first: int) -> list[bool]:
            together.wait()
            return [
                connection.request(Command.GET, {"link": number}, "looking")[0]["link"] == number
                for number in range(first, first + requests)
            ]

        with ThreadPoolExecutor(threads) as pool:
            asked = list(pool.map(ask, range(1, threads * requests, requests)))
    assert asked == [[True] * requests] * threads


def test_refusal_carries_all_the_kernel_said(module: FakeModule) -> None:
    def refuse(*_: Any) -> Any:
        extack = {"message": "no such file descriptor is open", "offset": offset_of(1, 1, 1)}
        raise RefusalError(errno.EBADF, extack)

    module.handlers[Command.ATTACH] = refuse
    with module.connect() as connection, pytest.raises(KernelError) as caught:
        connection.request(Command.ATTACH, ATTACH, "attaching")
    assert caught.value.errno == errno.EBADF
    assert caught.value.extack == "no such file descriptor is open"
    assert caught.value.attribute == "programs.program.fd"
    assert str(caught.value) == (
        "attaching: no such file descriptor is open [EBADF] (attribute programs.program.fd)"
    )


def test_connection_works_after_a_refusal(module: FakeModule) -> None:
    module.handlers[Command.GET] = no_such_link
    with module.connect() as connection:
        with pytest.raises(LinkGoneError):
            connection.request(Command.GET, {"link": 3}, "looking")
        assert connection.request(Command.STATS, {}, "asking")


@pytest.mark.parametrize(
    ("command", "number", "kind", "code"),
    [
        (Command.SWAP, errno.ENOENT, LinkGoneError, 6),
        (Command.DETACH, errno.ENODEV, LinkGoneError, 6),
        (Command.SWAP, errno.ESTALE, ExpectationError, 7),
        (Command.ATTACH, errno.EPERM, PrivilegeError, 5),
        (Command.ATTACH, errno.ENODEV, KernelError, 1),
        (Command.ATTACH, errno.EINVAL, KernelError, 1),
    ],
)
def test_errno_chooses_the_exception(
    command: Command, number: int, kind: type[IpttctlError], code: int
) -> None:
    error = refusal(command, attach_request(), Acknowledgement(9, number), "doing")
    assert isinstance(error, kind)
    assert isinstance(error, KernelError)
    assert error.exit_code == code
    assert error.errno == number
    assert errno.errorcode[number] in str(error)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((0,), "hook"),
        ((1,), "programs"),
        ((1, 0), "programs.program"),
        ((1, 0, 0), "programs.program.slot"),
        ((1, 1, 1), "programs.program.fd"),
        ((1, 2), "programs.cookie"),
    ],
)
def test_offset_names_the_attribute(path: tuple[int, ...], name: str) -> None:
    answer = Acknowledgement(9, errno.EINVAL, offset=offset_of(*path))
    assert bad_attribute(attach_request(), answer) == name


def test_missing_attribute_is_named() -> None:
    number = Top.by_name["programs"].number
    answer = Acknowledgement(9, errno.EINVAL, missing=number)
    assert bad_attribute(attach_request(), answer) == "programs"
    nested = Acknowledgement(9, errno.EINVAL, missing=2, missing_nest=offset_of(1, 0))
    assert bad_attribute(attach_request(), nested) == "programs.program.fd"


def test_unknown_attribute_is_named_by_number() -> None:
    request = attach_request() + bytes.fromhex("08004d00 01000000")
    answer = Acknowledgement(9, errno.EINVAL, offset=len(request) - 8)
    assert bad_attribute(request, answer) == "ipttrace attribute 77"


def test_offset_outside_the_attributes_names_nothing() -> None:
    answer = Acknowledgement(9, errno.EINVAL, offset=3)
    assert bad_attribute(attach_request(), answer) is None


def test_dump_is_repeated_when_interrupted(module: FakeModule) -> None:
    """A dump is interrupted in its first part, unknown to the later ones, or at its end."""
    module.handlers[Command.GET] = lambda *_: [link(), link(link=4)]
    module.dump_flags = [(Flag.DUMP_INTERRUPTED, Flag(0)), (Flag(0), Flag.DUMP_INTERRUPTED)]
    with module.connect() as connection:
        assert len(connection.dump(Command.GET, "listing")) == 2
    assert len(module.requests) == 3


def test_dump_gives_up_at_last(module: FakeModule) -> None:
    module.handlers[Command.GET] = lambda *_: [link()]
    module.dump_flags = [(Flag.DUMP_INTERRUPTED, Flag(0))] * 1000
    with module.connect() as connection, pytest.raises(KernelError, match="change faster"):
        connection.dump(Command.GET, "listing")


def test_group_messages_between_replies_are_kept(module: FakeModule) -> None:
    def answer(*_: Any) -> Any:
        module.multicast(events_message([event_members()]))
        return [link()]

    module.handlers[Command.GET] = answer
    with module.connect() as connection:
        assert len(connection.request(Command.GET, {"link": 3}, "looking")) == 1
        [message] = connection.receive()
        assert message.command == Command.EVENTS
        assert connection.receive() == []


def test_late_answer_to_an_earlier_request_is_passed_over(module: FakeModule) -> None:
    stale = build_request(FAMILY_ID, Command.GET, link(link=99), sequence=12345)

    def answer(*_: Any) -> Any:
        module.multicast(stale)
        return [link()]

    module.handlers[Command.GET] = answer
    with module.connect() as connection:
        replies = connection.request(Command.GET, {"link": 3}, "looking")
        assert [reply["link"] for reply in replies] == [3]
        assert connection.receive() == []


def test_value_that_does_not_fit_is_refused_before_it_is_sent(module: FakeModule) -> None:
    with module.connect() as connection, pytest.raises(KernelError, match="below 1"):
        connection.request(Command.GET, {"link": 0}, "looking")
    assert module.requests == []


def test_joining_a_group_that_the_module_lacks(module: FakeModule) -> None:
    with module.connect() as connection, pytest.raises(ModuleError, match="no group 'nothing'"):
        connection.join("nothing")  # type: ignore[arg-type]  # a group of another build


def test_receive_does_not_wait(module: FakeModule) -> None:
    with module.connect() as connection:
        assert connection.receive() == []
        module.multicast(notification(Command.LINK_ATTACHED, link()))
        assert [m.command for m in connection.receive()] == [Command.LINK_ATTACHED]


def test_a_dump_that_ends_with_an_error(module: FakeModule) -> None:
    module.handlers[Command.GET] = lambda *_: [link()]
    module.dump_error = errno.ENOMEM
    with module.connect() as connection, pytest.raises(KernelError) as caught:
        connection.dump(Command.GET, "listing links")
    assert caught.value.errno == errno.ENOMEM


def test_a_request_that_cannot_be_sent(module: FakeModule) -> None:
    connection = module.connect()
    module.close()
    with connection, pytest.raises(KernelError) as caught:
        connection.request(Command.GET, {"link": 3}, "looking")
    assert caught.value.errno == errno.EPIPE


def test_the_socket_is_asked_for_sentences_and_strict_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without these options the kernel's own errors have neither a sentence nor an attribute."""
    seen: list[list[int]] = []

    def resolve(sock: socket.socket, _: str) -> Family:
        options = (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK)
        seen.append([sock.getsockopt(SOL_NETLINK, option) for option in options])
        return Family(FAMILY_ID, {})

    monkeypatch.setattr(wire, "require_privilege", lambda: None)
    monkeypatch.setattr(wire, "resolve_family", resolve)
    Connection.open().close()
    assert seen == [[1, 1, 1]]


class FailingSocket(NetlinkSocket):
    """A socket whose reads fail as often as requested, with the errors of a netlink socket."""

    errors: ClassVar[list[int]] = []

    def recvmsg(self, *arguments: Any) -> Any:
        """Raise the next error, or read."""
        if self.errors:
            raise OSError(self.errors.pop(0), "")
        return super().recvmsg(*arguments)


@pytest.fixture
def failing(module: FakeModule, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The errors with which the next reads of the connections fail."""
    errors: list[int] = []
    monkeypatch.setattr(FailingSocket, "errors", errors)
    module.socket_type = FailingSocket
    module.handlers[Command.GET] = lambda *_: [link()]
    return errors


def test_an_answer_that_was_dropped_is_an_error(module: FakeModule, failing: list[int]) -> None:
    failing.append(errno.ENOBUFS)
    with module.connect() as connection, pytest.raises(KernelError, match="no memory to say"):
        connection.request(Command.GET, {"link": 3}, "looking")
    assert failing == []


def test_a_listener_that_lost_messages_still_gets_its_answer(
    module: FakeModule, failing: list[int]
) -> None:
    with module.connect() as connection:
        connection.join(Group.LINKS)
        failing += [errno.ENOBUFS, errno.ENOBUFS]
        [reply] = connection.request(Command.GET, {"link": 3}, "looking")
    assert reply["link"] == 3
    assert failing == []


def test_a_connection_to_a_module_that_was_unloaded(module: FakeModule) -> None:
    """The kernel's bare ENOENT is not about a link."""
    with module.connect() as connection:
        module.reload()
        for again in (connection.request, connection.request):
            with pytest.raises(ModuleError, match=r"loaded again: .* start again") as told:
                again(Command.GET, {"link": 3}, "looking")
            assert told.value.exit_code == 3
        with pytest.raises(ModuleError, match="was unloaded"):
            connection.dump(Command.GET, "listing")
        module.life = 0
        with pytest.raises(ModuleError, match="was unloaded; run `ipttctl module load`"):
            connection.request(Command.ATTACH, {"hook": 1}, "attaching")


def test_a_module_that_was_reloaded_before_joining(module: FakeModule) -> None:
    with module.connect() as connection:
        module.life += 1
        with pytest.raises(ModuleError, match="loaded again"):
            connection.join(Group.LINKS)


def test_what_came_before_the_end_is_read_first(module: FakeModule) -> None:
    with module.connect() as connection:
        connection.join(Group.LINKS)
        module.multicast(family_gone(FAMILY_ID + 1))
        module.multicast(notification(Command.LINK_CHANGED, link()))
        assert connection.receive() == []
        assert len(connection.receive()) == 1
        assert not connection.gone
        module.multicast(notification(Command.LINK_DETACHED, link()))
        module.reload(0)
        assert len(connection.receive()) == 1
        assert connection.receive() == []
        for _ in range(2):
            with pytest.raises(ModuleError, match="was unloaded"):
                connection.receive()


def test_the_end_may_be_among_what_was_dropped(module: FakeModule, failing: list[int]) -> None:
    """It is looked for when the socket is empty: before that the kernel still drops messages."""
    with module.connect() as connection:
        connection.join(Group.LINKS)
        for still_there in (True, False):
            module.multicast(notification(Command.LINK_CHANGED, link()))
            failing.append(errno.ENOBUFS)
            with pytest.raises(OverrunError):
                connection.receive()
            assert len(connection.receive()) == 1
            if still_there:
                assert connection.receive() == []
            else:
                module.life += 1
                with pytest.raises(ModuleError, match="loaded again"):
                    connection.receive()


class Multicast:
    """A real netlink socket's multicast: to the events, in a network namespace of its own."""

    def __init__(self, namespace: int) -> None:
        kind = socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK
        self._sender = netns.socket_in(namespace, *kind)
        observer = netns.socket_in(namespace, *kind)
        observer.bind((0, 0))
        groups = {str(Group.EVENTS): 1, str(Group.LINKS): 2}
        self.family: Family | None = Family(FAMILY_ID, groups)
        self.connection = Connection(observer, self.family, lambda: self.family)

    def send(self, sequence: int) -> None:
        """Send a batch of an event with this number to both groups."""
        message = events_message([event_members()], sequence=sequence)
        for mask in (0b01, 0b10):
            # once the group has it, nobody is there under the number 0
            with suppress(ConnectionRefusedError):
                self._sender.sendto(message, (0, mask))

    def read(self) -> list[int]:
        """The numbers of the next events; none if there are none."""
        return [parse_batch(message.payload).sequence for message in self.connection.receive()]

    def read_all(self) -> list[int]:
        """Those of all that are there."""
        numbers: list[int] = []
        while True:
            with suppress(OverrunError):
                if not (found := self.read()):
                    return numbers
                numbers += found

    def fill(self) -> int:
        """Send until the socket is full; the number of the last event that it has room for."""
        for number in range(1000):
            self.send(number)
        return max(self.read_all())

    def close(self) -> None:
        """Close both sockets."""
        self.connection.close()
        self._sender.close()


@pytest.fixture
def multicast() -> Iterator[Multicast]:
    try:
        namespace = netns.create()
    except PrivilegeError as error:
        pytest.skip(str(error))
    with namespace, closing(Multicast(namespace.fileno())) as multicast:
        yield multicast


def test_events_come_again_as_soon_as_there_is_room(multicast: Multicast) -> None:
    """Not only once all is read; and each loss is told once."""
    multicast.connection.join(Group.EVENTS, buffer=1 << 14)
    room = multicast.fill()
    assert room > 5
    for number in range(room + 6):
        multicast.send(number)
    assert multicast.connection.dropped()
    assert [multicast.read() for _ in range(3)] == [[0], [1], [2]]
    for number in (1000, 1001):
        multicast.send(number)
    assert multicast.read_all() == [*range(3, room + 1), 1000, 1001]
    assert not multicast.connection.dropped()


def test_changes_of_links_come_again_once_all_are_read(multicast: Multicast) -> None:
    """The kernel tells with ENOBUFS too that the module had no memory for one."""
    multicast.connection.join(Group.LINKS, buffer=1 << 14)
    room = multicast.fill()
    for number in range(room + 6):
        multicast.send(number)
    with pytest.raises(OverrunError):
        multicast.read()
    assert [multicast.read() for _ in range(3)] == [[0], [1], [2]]
    multicast.send(1000)
    assert multicast.read_all() == [*range(3, room + 1)]
    multicast.send(1001)
    assert multicast.read_all() == [1001]


def test_the_end_may_be_among_events_that_were_dropped(multicast: Multicast) -> None:
    multicast.connection.join(Group.EVENTS, buffer=1 << 14)
    multicast.fill()
    for number in range(1000):
        multicast.send(number)
    multicast.family = None
    assert multicast.read() == [0]
    with pytest.raises(ModuleError, match="was unloaded"):
        multicast.read_all()


def test_the_count_of_dropped_events_wraps(
    multicast: Multicast, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([2**32 - 1, 2**32 - 1, 0, 0])
    monkeypatch.setattr(Connection, "_count_drops", lambda _: next(counts))
    multicast.connection.join(Group.EVENTS)
    assert [multicast.connection.dropped() for _ in range(3)] == [False, True, False]


def test_other_errors_of_reading_are_told(module: FakeModule, failing: list[int]) -> None:
    failing += [errno.EBADF, errno.EBADF]
    with module.connect() as connection:
        with pytest.raises(KernelError) as caught:
            connection.request(Command.GET, {"link": 3}, "looking")
        assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match="Errno 9"):
            connection.receive()


def test_a_datagram_that_is_cut_short_is_an_error(
    module: FakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_DATAGRAM", 1 << 10)
    with module.connect() as connection:
        module.multicast(bytes(1 << 10))
        module.multicast(bytes((1 << 10) + 1))
        with pytest.raises(ProtocolError, match="1024 are there"):
            connection.receive()
        with pytest.raises(ProtocolError, match="longer than 1024 bytes"):
            connection.receive()


def test_privilege_is_read_from_the_effective_capabilities(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t0000000000001000\n")
    require_privilege(status)
    status.write_text("Name:\tx\nCapPrm:\t0000000000001000\nCapEff:\t000001ffffffefff\n")
    with pytest.raises(PrivilegeError, match="as root"):
        require_privilege(status)


@pytest.fixture
def sock() -> Any:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as sock:
        sock.bind((0, 0))
        yield sock


def test_real_families_resolves_a_family_with_its_groups(sock: socket.socket) -> None:
    family = resolve_family(sock, "nlctrl")
    assert family.id == 16
    assert "notify" in family.groups


def test_real_families_a_family_that_is_not_there(sock: socket.socket) -> None:
    with pytest.raises(ModuleError, match=r"ipttctl module load"):
        resolve_family(sock, "no-such-family")


def test_real_families_a_name_that_none_can_have(sock: socket.socket) -> None:
    with pytest.raises(KernelError, match="looking up family 'xxx"):
        resolve_family(sock, "x" * 200)


def test_real_families_the_module_is_not_there_or_not_to_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Family(FAMILY_ID, {})
    monkeypatch.setattr(families, "FAMILY", "no-such-family")
    monkeypatch.setattr(families, "_MODULE_DIRECTORY", tmp_path / "ipttrace")
    assert current_family(known) is None
    (tmp_path / "ipttrace").mkdir()
    assert current_family(known) is known
    monkeypatch.setattr(families, "FAMILY", "nlctrl")
    now = current_family(known)
    assert now
    assert now.id == 16


@pytest.fixture
def other_namespace() -> Iterator[Path]:
    """A network namespace other than the current one."""
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        if not process.stdout.readline():
            pytest.skip("may not make network namespaces here")
        yield Path(f"/proc/{process.pid}/ns/net")
        process.kill()


def namespace_of(sock: socket.socket) -> int:
    namespace = fcntl.ioctl(sock.fileno(), SIOCGSKNS)
    try:
        return os.fstat(namespace).st_ino
    finally:
        os.close(namespace)


def test_socket_is_in_the_initial_namespace_wherever_we_are(
    other_namespace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_socket() as sock:
        assert namespace_of(sock) == netns.own()
    monkeypatch.setattr(netns, "_INITIAL", other_namespace)
    with open_socket() as sock:
        assert namespace_of(sock) == other_namespace.stat().st_ino != netns.own()
        assert not sock.get_inheritable()
        sock.bind((0, 0))
        assert resolve_family(sock, "nlctrl").id == 16


def test_socket_is_in_our_namespace_if_the_initial_one_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netns, "_INITIAL", tmp_path / "hidden")
    with open_socket() as sock:
        assert namespace_of(sock) == netns.own()
    monkeypatch.setattr(netns, "_INITIAL", tmp_path)
    with open_socket() as sock:
        assert namespace_of(sock) == netns.own()
