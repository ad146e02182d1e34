# SPDX-License-Identifier: GPL-2.0
"""Throw-away network namespaces for packets of our own making.

      client               router                   server
    (no stack)    c0 --- r1  10.77.1.1
                             fd77:1::1
                         r2  10.77.2.1   --- s0  10.77.2.2 to .4
                             fd77:2::1           fd77:2::2 to ::4
                  c1 --- b1 == br0 == b2 --- s1  (with bridges)
                         10.77.3.1

They have no names, and end with the process at the latest. Everything in them is the same each
time: neighbours are permanent, nothing is sent by itself, no rate of ICMP errors is limited.

Packets are handled on the processor that sends them, so that a thread that stays on one can tell
when they have been: what it sends after them, on another way, arrives after them.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.bpf import tools
from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import IpttctlError, UsageError, os_reason
from ipttctl.system import netns
from ipttctl.verify.netlink import TRACE_GROUP, Netlink
from ipttctl.verify.nftables import Nftables
from ipttctl.verify.packets import MAC, PORTS, Origin, Packet
from ipttctl.verify.sysctls import FOREVER, ROUTER_SYSCTLS, SYSCTLS

_SETTLED: Final = 10.0
"""Seconds until a namespace without traffic must be quiet."""

_QUIET: Final = 0.1
"""Seconds without a packet after which a namespace is quiet."""

_STAGES: Final = 12
"""Queues that a packet and the answers to it pass one after the other, at most."""

_SO_RCVBUFFORCE: Final = 33
_RECEIVED: Final = 64 << 20
_ALL_PROTOCOLS: Final = 0x0003
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PACKET_OUTGOING: Final = 4
_IPV6_HDRINCL: Final = 36


class LaboratoryError(IpttctlError):
    """The namespaces cannot be made, or do not behave."""


@dataclass(frozen=True)
class Namespaces:
    """The three namespaces; only the router gets rulesets."""

    client: netns.Namespace
    router: netns.Namespace
    server: netns.Namespace


@dataclass(frozen=True)
class Arrivals:
    """Frames and datagrams that arrived at a place, in order."""

    place: str
    frames: tuple[bytes, ...]


class Laboratory(Closing):
    """The namespaces with their sockets, and a context of libnftables for the router."""

    def __init__(self, *, bridges: bool = False) -> None:
        """Make them.

        Raises:
            PrivilegeError: the caller may not.
            UsageError: a program or library is missing.
            LaboratoryError: it fails otherwise.
        """
        with ExitStack() as stack:
            client, router, server = (stack.enter_context(netns.create()) for _ in range(3))
            self.namespaces = Namespaces(client, router, server)
            self.bridges = bridges
            _configure(self.namespaces, bridges=bridges)
            self.nftables = stack.enter_context(Nftables(router))
            self.netlink = stack.enter_context(Netlink(router.fileno()))
            self.traces = stack.enter_context(Netlink(router.fileno(), TRACE_GROUP))
            self._sockets = _Sockets(self.namespaces, stack, bridges=bridges)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Give up the namespaces. Closing more than once does no harm."""
        self._stack.close()

    def send(self, packets: Sequence[Packet]) -> None:
        """Send packets, and wait until they and all answers have been handled.

        The thread must stay on one processor meanwhile (``one_processor``).
        """
        for packet in packets:
            self._sockets.send(packet)
        self._sockets.wait()

    def keep_fragments(self) -> None:
        """Have connection tracking, which must be on, wait for missing fragments forever.

        It would tell their senders after a minute, in the midst of another case.
        """
        with netns.entered(self.namespaces.router.fileno()):
            path = Path("/proc/sys/net/netfilter/nf_conntrack_frag6_timeout")
            if path.exists():
                path.write_text(FOREVER)

    def arrivals(self) -> list[Arrivals]:
        """Frames and datagrams that arrived since the last call, by place.

        Raises:
            LaboratoryError: some were lost before we saw them.
        """
        return self._sockets.arrivals()

    def run(self, *command: str, text: str = "") -> None:
        """Run a program of the system in the router.

        Raises:
            UsageError: it is not installed.
            LaboratoryError: it fails.
        """
        with netns.entered(self.namespaces.router.fileno()):
            _run(command, text)


@contextmanager
def one_processor() -> Iterator[int]:
    """Keep this thread on one processor, whose number is returned."""
    allowed = os.sched_getaffinity(0)
    chosen = max(allowed)
    os.sched_setaffinity(0, {chosen})
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, allowed)


class _Sockets:
    """The sockets of a laboratory."""

    def __init__(self, namespaces: Namespaces, stack: ExitStack, *, bridges: bool) -> None:
        def opened(
            namespace: netns.Namespace, family: int, kind: int, protocol: int = 0
        ) -> socket.socket:
            made = netns.socket_in(namespace.fileno(), family, kind, protocol)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVED)
            return stack.enter_context(made)

        client, router, server = namespaces.client, namespaces.router, namespaces.server
        self._senders: dict[Origin, socket.socket] = {}
        self._listeners: dict[str, socket.socket] = {}
        ends = {Origin.CLIENT: (client, "c0"), Origin.SERVER: (server, "s0")}
        if bridges:
            ends |= {Origin.BRIDGE_CLIENT: (client, "c1"), Origin.BRIDGE_SERVER: (server, "s1")}
        for origin, (namespace, device) in ends.items():
            # without a protocol it receives nothing
            self._senders[origin] = opened(namespace, socket.AF_PACKET, socket.SOCK_RAW)
            self._senders[origin].bind((device, 0))
            listener = opened(namespace, socket.AF_PACKET, socket.SOCK_RAW)
            listener.bind((device, _ALL_PROTOCOLS))
            self._listeners[f"{origin.value} ({device})"] = listener
        raw = opened(router, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw6 = opened(router, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw6.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        self._raw = {4: raw, 6: raw6}
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for port in PORTS[:2]:
                listener = opened(router, family, socket.SOCK_DGRAM)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, port))
                version = 6 if family == socket.AF_INET6 else 4
                self._listeners[f"router (IPv{version}, port {port})"] = listener
        self._probe = opened(client, socket.AF_INET, socket.SOCK_DGRAM)
        self._probe.bind(("127.0.0.1", 0))
        self._probe.connect(self._probe.getsockname())
        self._probe.settimeout(_SETTLED)

    def send(self, packet: Packet) -> None:
        """Send one packet; the router's own may be refused by its rules.

        Raises:
            LaboratoryError: another one cannot be sent.
        """
        if packet.origin is not Origin.ROUTER:
            try:
                self._senders[packet.origin].send(packet.frame)
            except OSError as error:
                # the queue is full if rules make packets go round
                raise LaboratoryError(f"cannot send a packet: {os_reason(error)}") from None
            return
        version = packet.frame[0] >> 4
        try:
            if version == 4:
                address = socket.inet_ntop(socket.AF_INET, packet.frame[16:20])
                self._raw[4].sendto(packet.frame, (address, 0))
            else:
                address = socket.inet_ntop(socket.AF_INET6, packet.frame[24:40])
                self._raw[6].sendto(packet.frame, (address, 0, 0, 0))
        except OSError:
            # dropped by a rule (EPERM), or without a route: seen in counters and arrivals
            return

    def wait(self) -> None:
        """Wait until this processor's queue has been empty as often as packets pass it."""
        for _ in range(_STAGES):
            self._probe.send(b"")
            self._probe.recv(1)

    def arrivals(self) -> list[Arrivals]:
        """Frames and datagrams by place."""
        return [Arrivals(place, tuple(_waiting(s, place))) for place, s in self._listeners.items()]


def _waiting(listener: socket.socket, place: str) -> Iterator[bytes]:
    """The frames that wait in a socket."""
    packets = listener.family == socket.AF_PACKET
    while True:
        try:
            data, sender = listener.recvfrom(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        if not packets:
            yield f"from {sender[0]} port {sender[1]}: ".encode() + data
        elif sender[2] != _PACKET_OUTGOING:
            yield data
    if packets:
        statistics = listener.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        if lost := struct.unpack("=II", statistics)[1]:
            raise LaboratoryError(f"{lost} packets that arrived at {place} were not seen")


def _run(command: Sequence[str], text: str) -> str:
    """Run a program in this thread's namespace, and return its output."""
    program = tools.find(command[0])
    if program is None:
        raise UsageError(f"{command[0]} is missing", "install it")
    result = tools.run([program, *command[1:]], text=text)
    if result.returncode:
        raise LaboratoryError(f"{command[0]} fails: {result.stderr.strip()}")
    return result.stdout


def _configure(namespaces: Namespaces, *, bridges: bool) -> None:
    """Make devices, addresses, routes and neighbours."""
    for namespace in (namespaces.client, namespaces.router, namespaces.server):
        with netns.entered(namespace.fileno()):
            routing = ROUTER_SYSCTLS if namespace is namespaces.router else {}
            for name, value in (SYSCTLS | routing).items():
                # a kernel may lack one
                if (path := Path("/proc/sys") / name).exists():
                    path.write_text(value)
    files = {
        name: f"/proc/{os.getpid()}/fd/{namespace.fileno()}"
        for name, namespace in (("c", namespaces.client), ("s", namespaces.server))
    }
    router = [
        *_cable("r1", "c0", files["c"]),
        *_cable("r2", "s0", files["s"]),
        *_addresses("r1", 1, (1,)),
        *_addresses("r2", 2, (1,)),
        *_neighbours("r1", 1, (2, 3, 4), MAC["c0"]),
        *_neighbours("r2", 2, (2, 3, 4), MAC["s0"]),
        # how often the kernel says that there is no route cannot be set here
        "route add blackhole 192.0.2.0/24",
        "link set lo up",
    ]
    client = ["link set c0 arp off addrgenmode none", "link set lo up", "link set c0 up"]
    server = [
        *_addresses("s0", 2, (2, 3, 4)),
        *_neighbours("s0", 2, (1,), MAC["r2"]),
        "route add default via 10.77.2.1",
        "route add default via fd77:2::1",
        "link set lo up",
    ]
    if bridges:
        router += [
            f"link add br0 address {MAC['br0']} type bridge stp_state 0 mcast_snooping 0",
            "link set br0 addrgenmode none",
            *_cable("b1", "c1", files["c"]),
            *_cable("b2", "s1", files["s"]),
            *(f"link set {b} master br0 addrgenmode none" for b in ("b1", "b2")),
            *(f"link set {b} up" for b in ("b1", "b2", "br0")),
            "address add 10.77.3.1/24 dev br0",
            f"neigh replace 10.77.3.2 lladdr {MAC['c1']} dev br0 nud permanent",
        ]
        client += ["link set c1 arp off addrgenmode none", "link set c1 up"]
        server += ["link set s1 arp off addrgenmode none", "link set s1 up"]
    for namespace, commands in (
        (namespaces.router, router),
        (namespaces.client, client),
        (namespaces.server, server),
    ):
        with netns.entered(namespace.fileno()):
            _run(("ip", "-batch", "-"), "\n".join(commands))
    _settle(namespaces)


def _cable(device: str, peer: str, namespace: str) -> list[str]:
    macs = f"address {MAC[device]} type veth peer name {peer} address {MAC[peer]}"
    return [f"link add {device} {macs} netns {namespace}"]


def _addresses(device: str, net: int, hosts: Sequence[int]) -> list[str]:
    return [
        f"link set {device} addrgenmode none",
        *(f"address add 10.77.{net}.{host}/24 dev {device}" for host in hosts),
        *(f"address add fd77:{net}::{host}/64 dev {device} nodad" for host in hosts),
        f"link set {device} up",
    ]


def _neighbours(device: str, net: int, hosts: Sequence[int], mac: str) -> list[str]:
    return [
        f"neigh replace {address} lladdr {mac} dev {device} nud permanent"
        for host in hosts
        for address in (f"10.77.{net}.{host}", f"fd77:{net}::{host}")
    ]


def _settle(namespaces: Namespaces) -> None:
    """Wait until devices are up, and reports of IPv6 multicast groups are sent.

    The kernel looks at new carriers once a second, and repeats the reports then.

    Raises:
        LaboratoryError: packets are sent all the time.
    """
    deadline = time.monotonic() + _SETTLED
    before, since = _sent(namespaces), time.monotonic()
    ready = False
    while (now := time.monotonic()) < since + _QUIET or not ready:
        if now > deadline:
            raise LaboratoryError("namespaces without traffic do not become quiet")
        # counters tell nobody when they change
        time.sleep(_QUIET / 5)
        sent = _sent(namespaces)
        if sent != before or not ready:
            ready = ready or _up(namespaces)
            before, since = sent, time.monotonic()


def _up(namespaces: Namespaces) -> bool:
    """Whether the kernel has seen that all cables are plugged in."""
    for namespace in (namespaces.client, namespaces.router, namespaces.server):
        with netns.entered(namespace.fileno()):
            shown = _run(("ip", "-o", "link", "show", "type", "veth"), "").splitlines()
        if not all(" state UP " in line for line in shown):
            return False
    return True


def _sent(namespaces: Namespaces) -> list[str]:
    """The counters of all devices."""
    counters = []
    for namespace in (namespaces.client, namespaces.router, namespaces.server):
        with netns.entered(namespace.fileno()):
            counters.append(Path("/proc/thread-self/net/dev").read_text())
    return counters
