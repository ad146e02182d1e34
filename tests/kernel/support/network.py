# SPDX-License-Identifier: GPL-2.0
"""Network namespaces with a cable between them, and traffic in them.

    left                 router                  right
10.77.1.2 --- veth --- 10.77.1.1
                       10.77.2.1 --- veth --- 10.77.2.2
fd77:1::2              fd77:1::1
                       fd77:2::1              fd77:2::2
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.kernel.support.kernel import COMMAND_TIMEOUT, run, wait_for

CLONE_NEWNET = 0x40000000
_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Namespace:
    """A network namespace by its name."""

    name: str

    @property
    def path(self) -> Path:
        """The file that refers to it."""
        return Path("/run/netns") / self.name

    @property
    def inode(self) -> int:
        """The number by which the kernel identifies it."""
        return self.path.stat().st_ino

    def run(self, *command: str, check: bool = True, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a command in the namespace and return its output."""
        return run("ip", "netns", "exec", self.name, *command, check=check, timeout=timeout)

    def iptables(self, *arguments: str) -> str:
        """Change or list the IPv4 tables."""
        return self.run("iptables-legacy", *arguments)

    def iptables_nft(self, *arguments: str) -> str:
        """Change or list the IPv4 rules that nftables holds for iptables."""
        return self.run("iptables-nft", *arguments)

    def ip6tables(self, *arguments: str) -> str:
        """Change or list the IPv6 tables."""
        return self.run("ip6tables-legacy", *arguments)

    def counted(self, chain: str, table: str = "filter") -> int:
        """The number of packets that the first IPv4 rule of a chain has counted."""
        listing = self.iptables("-t", table, "-nvxL", chain)
        return int(listing.splitlines()[2].split()[0])

    def restore(self, rules: str, *, ipv6: bool = False) -> None:
        """Replace the tables that ``rules`` names, like iptables-restore."""
        tool = "ip6tables-legacy-restore" if ipv6 else "iptables-legacy-restore"
        run("ip", "netns", "exec", self.name, tool, text=rules)

    def ping(self, address: str, *options: str, check: bool = True) -> str:
        """Ping once, quietly; ``options`` are further options of ping."""
        return self.run("ping", "-n", "-q", "-c", "1", "-W", "2", *options, address, check=check)

    def start(self, target: Callable[..., None], *arguments: Any) -> BaseProcess:
        """Call ``target`` in a child process in the namespace."""

        def enter() -> None:
            enter_namespace(self.path)
            target(*arguments)

        process = _fork.Process(target=enter, daemon=True)
        process.start()
        return process

    def call(
        self, target: Callable[..., None], *arguments: Any, timeout: float = COMMAND_TIMEOUT
    ) -> None:
        """Call ``target`` in the namespace and wait; AssertionError if it failed."""
        process = self.start(target, *arguments)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
        assert process.exitcode == 0, f"{target.__name__}: exit {process.exitcode}"


def enter_namespace(path: Path) -> None:
    """Move this thread into the network namespace at ``path`` (setns(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


@contextmanager
def namespace(name: str) -> Iterator[Namespace]:
    """A new namespace with its loopback up; deleted at the end."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield Namespace(name)
    finally:
        run("ip", "netns", "delete", name)
        wait_for(lambda: not (Path("/run/netns") / name).exists(), what=f"{name} is gone")


@dataclass(frozen=True)
class Network:
    """The namespaces of the drawing above."""

    left: Namespace
    router: Namespace
    right: Namespace

    left_address: str = "10.77.1.2"
    right_address: str = "10.77.2.2"
    router_address: str = "10.77.1.1"
    left_address6: str = "fd77:1::2"
    right_address6: str = "fd77:2::2"
    router_address6: str = "fd77:1::1"


def ip_batch(namespace_name: str, *commands: str) -> None:
    """Run ``ip`` commands in a namespace, all in one process: most of the time is its start."""
    run("ip", "-n", namespace_name, "-batch", "-", text="\n".join(commands))


def _addresses(device: str, net: int, host: int) -> list[str]:
    """The commands that give a device its addresses in a network of the drawing, and set it up."""
    return [
        f"address add 10.77.{net}.{host}/24 dev {device}",
        f"address add fd77:{net}::{host}/64 dev {device} nodad",
        # neighbours are asked from this address; the kernel's own is not usable at once
        f"link set {device} addrgenmode none",
        f"address add fe80::{host}/64 dev {device} nodad",
        f"link set {device} up",
    ]


@contextmanager
def network(prefix: str = "t") -> Iterator[Network]:
    """Three namespaces in a row; the router forwards."""
    with (
        namespace(f"{prefix}-left") as left,
        namespace(f"{prefix}-router") as router,
        namespace(f"{prefix}-right") as right,
    ):
        for number, end in ((1, left), (2, right)):
            ip_batch(
                router.name,
                f"link add r{number} type veth peer name eth0 netns {end.name}",
                *_addresses(f"r{number}", number, 1),
            )
            ip_batch(
                end.name,
                *_addresses("eth0", number, 2),
                f"route add default via 10.77.{number}.1",
                f"route add default via fd77:{number}::1",
            )
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        yield Network(left, router, right)


def send_udp(address: str, port: int, payloads: list[bytes], source_port: int = 0) -> None:
    """Send datagrams, one for each payload."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        if source_port:
            sender.bind(("", source_port))
        for payload in payloads:
            sender.sendto(payload, (address, port))


def flood_udp(address: str, port: int, stop: Any, pause: float = 0.002, burst: int = 20) -> None:
    """Send datagrams until the event ``stop`` is set: ``burst`` of them, a pause, and again.

    The pauses are for the emulator, which lets a busy processor run for 100 ms before it
    turns to the next one: a request from one processor to another would take that long.
    """
    os.nice(10)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while not stop.is_set():
            for _ in range(burst):
                # a full queue; the rule counter counts the packets that got through
                with suppress(OSError):
                    sender.sendto(b"x" * 32, (address, port))
            # the emulator turns to the other processor: see above
            time.sleep(pause)


def event() -> Any:
    """An event to share with processes of ``Namespace.start``."""
    return _fork.Event()
