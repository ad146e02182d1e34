# SPDX-License-Identifier: GPL-2.0
"""Network namespaces that live for a moment, made like those of container runtimes.

One process does everything: starting `ip` and `iptables` takes longer than such a namespace lives.
"""

from __future__ import annotations

import ctypes
import fcntl
import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.system import netns
from tests.kernel.support.kernel import COMMAND_TIMEOUT
from tests.kernel.support.network import CLONE_NEWNET

_NAMES: Final = Path("/run/netns")
_MS_BIND: Final = 4096
_MNT_DETACH: Final = 2
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_IPT_SO_GET_INFO: Final = 64
_GETINFO_SIZE: Final = 84
_fork = multiprocessing.get_context("fork")


def enter_new() -> None:
    """Enter a new namespace with its loopback up and a filter table without rules."""
    _call("unshare", CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
        # the kernel creates a table when it is first asked for
        asked = b"filter".ljust(_GETINFO_SIZE, b"\0")
        libc = ctypes.CDLL(None, use_errno=True)
        size = ctypes.c_uint32(_GETINFO_SIZE)
        if libc.getsockopt(
            sock.fileno(), socket.SOL_IP, _IPT_SO_GET_INFO,
            ctypes.create_string_buffer(asked, _GETINFO_SIZE), ctypes.byref(size),
        ):  # fmt: skip  # pairs together
            raise OSError(ctypes.get_errno(), "no filter table")


@contextmanager
def called(name: str) -> Iterator[None]:
    """Give the current namespace a name, like `ip netns add`."""
    file = _NAMES / name
    file.touch(exist_ok=False)
    _call("mount", b"/proc/self/ns/net", os.fsencode(file), None, _MS_BIND, None)
    try:
        yield
    finally:
        _call("umount2", os.fsencode(file), _MNT_DETACH)
        file.unlink()


def send(port: int) -> None:
    """Send a datagram over the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", port))


@dataclass(frozen=True)
class Life:
    """The identity of a namespace, and for how many seconds it had its name."""

    identity: netns.Identity
    seconds: float


def live(name: str, port: int, seconds: float) -> Life:
    """Make a namespace, send a datagram in it, and leave it; it has its name for ``seconds``."""
    ours, theirs = _fork.Pipe()

    def process() -> None:
        enter_new()
        begin = time.monotonic()
        with called(name):
            send(port)
            identity = netns.resolve("/proc/self/ns/net")
            # the life of the namespace is what is asked for
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
        theirs.send((identity, time.monotonic() - begin))

    child = _fork.Process(target=process, daemon=True)
    child.start()
    assert ours.poll(COMMAND_TIMEOUT), f"{name} does not come"
    life = Life(*ours.recv())
    child.join(COMMAND_TIMEOUT)
    assert child.exitcode == 0
    return life


def _call(function: str, *arguments: bytes | int | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments):
        raise OSError(ctypes.get_errno(), function)
