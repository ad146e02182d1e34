# SPDX-License-Identifier: GPL-2.0
"""Network namespaces: from names and numbers to the namespaces themselves.

The kernel reuses the inode number of a namespace that is gone at once. Its cookie (SO_NETNS_COOKIE)
is not reused until the next boot: it is the namespace's identity.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import PlaceMissingError, PrivilegeError, UsageError, os_reason

_T = TypeVar("_T")

NAMED: Final = (Path("/run/netns"), Path("/var/run/netns"), Path("/run/docker/netns"))
"""Directories where `ip netns`, container runtimes and Docker keep namespaces by name."""

OWN: Final = Path("/proc/self/ns/net")
"""The network namespace of the caller."""

_OF_THREAD: Final = Path("/proc/thread-self/ns/net")
_INITIAL: Final = Path("/proc/1/ns/net")
_NS_GET_NSTYPE: Final = 0xB703
_CLONE_NEWNET: Final = 0x40000000
_SO_NETNS_COOKIE: Final = 71
_NUMBER: Final = re.compile(r"(?P<inode>\d{1,20})(@(?P<cookie>\d{1,20}))?", re.ASCII)
_HOW: Final = "give an inode number, a name from `ip netns` or a path such as /proc/PID/ns/net"


@dataclass(frozen=True)
class Identity:
    """The identity of a network namespace; as text ``INODE@COOKIE``."""

    inode: int
    cookie: int

    def __str__(self) -> str:
        return f"{self.inode}@{self.cookie}"


class Namespace(Closing):
    """An open network namespace: it stays until ``close``, or until the object is dropped.

    ``path`` is where it was found; another namespace may be there by now.
    """

    def __init__(self, path: Path) -> None:
        """Open the namespace at a path.

        Raises:
            UsageError: the file is not a network namespace.
            PrivilegeError: the caller may not open it.
            OSError: it cannot be opened otherwise.
        """
        try:
            # opening a device to look at it could have effects
            if path.stat().st_dev != OWN.stat().st_dev:
                raise _not_one(path)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise PrivilegeError(
                f"cannot open network namespace {path}: {os_reason(error)}", "run it as root"
            ) from None
        self.path = path
        self._fd = fd
        self._close = weakref.finalize(self, os.close, fd)
        if not _is_network(fd):
            self.close()
            raise _not_one(path)
        self.inode = os.fstat(fd).st_ino

    @cached_property
    def identity(self) -> Identity:
        """The namespace's identity.

        Raises:
            PrivilegeError: the caller may not enter the namespace, which this needs.
        """
        return identity(self._fd, str(self.path))

    @property
    def name(self) -> str | None:
        """The namespace's name, if it was found in a directory of names."""
        return self.path.name if self.path.parent in NAMED else None

    def fileno(self) -> int:
        """The namespace's descriptor; the object keeps ownership."""
        return self._fd

    def close(self) -> None:
        """Release the namespace. Closing more than once does no harm."""
        self._close()


@contextmanager
def initial_namespace() -> Iterator[int | None]:
    """A descriptor of the initial network namespace; None if the caller is in it."""
    try:
        inside = OWN.stat().st_ino == _INITIAL.stat().st_ino
        netns = None if inside else os.open(_INITIAL, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        netns = None
    try:
        yield netns
    finally:
        if netns is not None:
            os.close(netns)


def own() -> int:
    """The inode number of the caller's network namespace."""
    return OWN.stat().st_ino


def find(text: str, directories: Iterable[Path] = NAMED) -> Namespace:
    """Open the namespace given as an inode number, as ``INODE@COOKIE``, as a name or a path.

    A number is a name only if no namespace has it: a name that somebody gives to another one does
    not change which is meant.

    Raises:
        UsageError: there is no such network namespace, or another one has the number.
        PrivilegeError: the caller may not open it, or may not see its cookie.
    """
    number = _NUMBER.fullmatch(text)
    if number is None:
        return _named(text, directories)
    try:
        found = _numbered(int(number["inode"]), directories)
    except PlaceMissingError as error:
        if number["cookie"] is not None:
            raise
        with suppress(PlaceMissingError):
            return _named(text, directories)
        raise error from None
    if number["cookie"] is not None and found.identity.cookie != int(number["cookie"]):
        found.close()
        raise PlaceMissingError(
            f"network namespace {text} is gone: another one has its inode number",
            "see `lsns -t net`",
        )
    return found


def resolve(text: str, directories: Iterable[Path] = NAMED) -> Identity:
    """The identity of a namespace that is given as for ``find``; raises as ``find``."""
    with find(text, directories) as found:
        return found.identity


def named(directories: Iterable[Path] = NAMED) -> Iterator[Namespace]:
    """The namespaces that have names, each once, and open until the next one."""
    seen = set()
    for path in _named_files(directories):
        # skip files that are not namespaces
        with suppress(OSError, UsageError, PrivilegeError), Namespace(path) as found:
            if found.inode not in seen:
                seen.add(found.inode)
                yield found


def identity(namespace: int, called: str) -> Identity:
    """The identity of the namespace behind a descriptor; ``called`` names it in errors.

    Raises:
        PrivilegeError: the caller may not enter the namespace, which this needs.
    """
    cookie = cookies([namespace])[0]
    if isinstance(cookie, OSError):
        raise PrivilegeError(
            f"cannot enter network namespace {called}: {os_reason(cookie)}",
            "run it as root (CAP_SYS_ADMIN)",
        )
    return Identity(os.fstat(namespace).st_ino, cookie)


def cookies(namespaces: Sequence[int]) -> list[int | OSError]:
    """The cookies of the namespaces behind descriptors, or the error for each failure."""
    own_inode = own()

    def cookie(namespace: int) -> int | OSError:
        try:
            if os.fstat(namespace).st_ino != own_inode:
                _enter(namespace)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                value = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        except OSError as error:
            return error
        return int.from_bytes(value, "little")

    # our own first, while the thread is still in it
    order = sorted(namespaces, key=lambda fd: os.fstat(fd).st_ino != own_inode)
    found = _in_thread(lambda: {fd: cookie(fd) for fd in order})
    return [found[fd] for fd in namespaces]


def socket_in(namespace: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in the network namespace behind a descriptor.

    Raises:
        OSError: the caller may not enter it, or it is not a network namespace.
    """
    return within(namespace, lambda: socket.socket(family, kind, protocol))


def within(namespace: int, call: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own, inside the network namespace behind a descriptor.

    The thread ends there: whatever else the function changes of its thread concerns nobody.

    Raises:
        OSError: the caller may not enter it, or it is not a network namespace.
    """

    def inside() -> _T:
        _enter(namespace)
        return call()

    return _in_thread(inside)


def create() -> Namespace:
    """Make a network namespace without a name, which is gone when nobody has it open.

    Raises:
        PrivilegeError: the caller may not make one.
    """

    def make() -> Namespace:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            number = ctypes.get_errno()
            raise PrivilegeError(
                f"cannot make a network namespace: {os.strerror(number)}",
                "run it as root (CAP_SYS_ADMIN)",
            )
        return Namespace(_OF_THREAD)

    return _in_thread(make)


def _in_thread(call: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own, which ends then; its errors are raised here."""
    found: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        # it is raised where somebody waits for it
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


@contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Have this thread, and the programs that it starts, in the namespace behind a descriptor.

    Raises:
        OSError: the caller may not enter it.
    """
    before = os.open(_OF_THREAD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(namespace)
        try:
            yield
        finally:
            _enter(before)
    finally:
        os.close(before)


def _enter(namespace: int) -> None:
    """Move this thread into a namespace; it must end there, or move back.

    setns(2) affects one thread only. A child process would copy all our memory.
    """
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _is_network(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def _not_one(path: Path) -> PlaceMissingError:
    return PlaceMissingError(f"{path} is not a network namespace", _HOW)


def everywhere(directories: Iterable[Path] = NAMED) -> Iterator[tuple[int, Path]]:
    """Inode number and path of namespaces: ours, those with names, and those of processes.

    One namespace can come several times.
    """
    device = OWN.stat().st_dev
    for path in (OWN, *_named_files(directories), *Path("/proc").glob("[0-9]*/ns/net")):
        # skip files that are not namespaces, and processes that end meanwhile
        with suppress(OSError):
            status = path.stat()
            if status.st_dev == device:
                yield status.st_ino, path


def _numbered(inode: int, directories: Iterable[Path]) -> Namespace:
    denied = None
    for number, path in everywhere(directories):
        if number != inode:
            continue
        try:
            found = Namespace(path)
        except PrivilegeError as error:
            denied = error
        except (OSError, UsageError):
            continue
        else:
            if found.inode == inode:
                return found
            found.close()
    raise denied or PlaceMissingError(
        f"no name and no process has network namespace {inode}", "see `ip netns` and `lsns -t net`"
    )


def _named_files(directories: Iterable[Path]) -> Iterator[Path]:
    for directory in directories:
        with suppress(OSError):
            yield from sorted(directory.iterdir())


def _named(text: str, directories: Iterable[Path]) -> Namespace:
    candidates = [Path(text)] if "/" in text else [directory / text for directory in directories]
    denied = None
    for path in candidates:
        try:
            return Namespace(path)
        except PrivilegeError as error:
            denied = error
        # ValueError: a NUL in it
        except (OSError, ValueError):
            continue
    raise denied or PlaceMissingError(f"there is no network namespace '{text}'", _HOW)
