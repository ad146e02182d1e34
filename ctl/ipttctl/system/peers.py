# SPDX-License-Identifier: GPL-2.0
"""The other ends of veth devices, and the network namespaces that these are in.

The kernel is asked in the namespace of a device, and then in the one of its peer: each has to name
the other, under the index and name that events have. The answer holds for events between two looks
that agree, and for a second after the last. No namespace is held open longer than a look takes.

Namespaces of containers have no names that say much. So the container is told whose processes are
in the namespace of the peer.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from ipttctl.errors import IpttctlError
from ipttctl.escape import word
from ipttctl.system import netns
from ipttctl.system.containers import Container, Containers, container_values
from ipttctl.system.inhabitants import Inhabitants
from ipttctl.system.namespace_names import NamespaceNames
from ipttctl.system.netns import NAMED, Namespace
from ipttctl.system.processes import PROC
from ipttctl.system.veths import RouteSocket, VethEnd, prepare
from ipttproto import ProtocolError

_S: Final = 1_000_000_000
_FRESH: Final = 1 * _S
"""Time after a look for which its answer holds."""
_LATE: Final = 5 * _S
"""The same while there is no time for looks."""
_OLDEST: Final = 60 * _S
"""Events that are older are not looked up: another device may have the index by now."""

_SHARE: Final = 10
"""Looks take this part of the time at most."""
_SAVED: Final = _S // 2
"""Most time for looks that is saved up."""

_LEAST_REST: Final = _S // 10
"""Least time between two looks for namespaces."""
_SOON_STALE: Final = 5 * _S
_STALE: Final = 50
"""Processes are looked for anew after this time, or after so many times what a scan takes."""
_MOST_KNOWN: Final = 4096
_GONE: Final = (OSError, IpttctlError, ProtocolError)


class Device(NamedTuple):
    """A device as events name it; the namespace by its cookie and inode number."""

    netns_cookie: int
    netns: int
    ifindex: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth device; ``elsewhere``: in another namespace than the device."""

    device: bytes
    ifindex: int
    netns: int
    netns_cookie: int
    netns_name: str | None
    elsewhere: bool
    container: Container | None = None
    """The only container, or without an id the pod, that has processes in the namespace."""

    def is_of(self, device: Device) -> bool:
        """Whether this is a device that an event names."""
        return (device.netns_cookie, device.ifindex, device.name) == (
            self.netns_cookie,
            self.ifindex,
            self.device,
        )

    def __str__(self) -> str:
        """Text as ``peer of eth0, namespace web`` or ``peer of eth0, container db``, escaped."""
        text = f"peer of {word(self.device)}"
        if not self.elsewhere:
            return text
        if self.container is not None:
            return ", ".join([text, *self.container.facts()])
        return f"{text}, namespace {word(self.netns_name) if self.netns_name else self.netns}"

    def values(self) -> dict[str, Any]:
        """The members of the JSON object."""
        return {
            "device": self.device.decode(errors="backslashreplace"),
            "ifindex": self.ifindex,
            "netns": self.netns,
            "netns_cookie": self.netns_cookie,
            "netns_name": self.netns_name,
            **container_values(self.container),
        }


@dataclass(slots=True)
class _Span:
    """The time for which an answer holds (CLOCK_MONOTONIC, ns)."""

    peer: Peer | None
    since: int
    until: int

    def holds(self, moment: int, longer: int) -> bool:
        return self.since <= moment <= self.until + longer


class Peers:
    """The other ends of veth devices; not for several threads at once."""

    def __init__(
        self,
        names: NamespaceNames | None = None,
        directories: Iterable[Path] = NAMED,
        containers: Containers | None = None,
    ) -> None:
        """Find namespaces by processes and by names in ``directories``; ``names`` shows names."""
        self._names = names
        self._inhabitants = Inhabitants(containers)
        self._namespaces = _Namespaces(directories)
        self._spans: OrderedDict[Device, list[_Span]] = OrderedDict()
        self._saved = _SAVED
        self._counted = time.monotonic_ns()

    def of(self, device: Device, moment: int) -> Peer | None:
        """The other end of a device at a moment (CLOCK_MONOTONIC, ns); None: none, or not known."""
        if not (device.netns_cookie and device.netns and device.ifindex and device.name):
            return None
        spans = self._spans.get(device, [])
        held = _held(spans, moment)
        if held is not None:
            return held.peer
        now = time.monotonic_ns()
        newer = not spans or moment > spans[-1].until
        if newer and 0 <= now - moment <= _OLDEST and self._has_time(now):
            held = _held(self._look(device, moment), moment)
            return held.peer if held else None
        if newer and spans and spans[-1].holds(moment, _LATE):
            return spans[-1].peer
        return None

    def _has_time(self, now: int) -> bool:
        self._saved = min(_SAVED, self._saved + (now - self._counted) // _SHARE)
        self._counted = now
        return self._saved > 0

    def _look(self, device: Device, moment: int) -> list[_Span]:
        """Ask the kernel about an event of a moment; returns the device's spans."""
        prepare()
        begin = time.monotonic_ns()
        peer = self._find(device, moment)
        end = time.monotonic_ns()
        self._saved -= end - begin
        spans = self._spans.setdefault(device, [])
        bare = replace(peer, container=None) if peer else None
        if not spans:
            # nothing tells when the container came into the namespace, but that it was before
            if peer != bare:
                spans.append(_Span(bare, begin - _OLDEST, moment - 1))
            spans.append(_Span(peer, begin - _OLDEST if peer == bare else moment, begin))
        elif spans[-1].peer == peer:
            spans[-1].until = begin
        else:
            # what changed since the last look may have done so after the event
            last = spans[-1].peer
            if last and bare == replace(last, container=None):
                spans.append(_Span(bare, spans[-1].until + 1, begin - 1))
            spans.append(_Span(peer, begin, begin))
        del spans[:-3]
        self._spans.move_to_end(device)
        if len(self._spans) > _MOST_KNOWN:
            self._spans.popitem(last=False)
        return spans

    def _find(self, device: Device, moment: int) -> Peer | None:
        with suppress(*_GONE):
            near = self._namespaces.open(device.netns)
            if near is not None:
                with near:
                    return netns.within(near.fileno(), lambda: self._from(near, device, moment))
        return None

    def _from(self, near: Namespace, device: Device, moment: int) -> Peer | None:
        """The other end of a device, in whose namespace this thread is."""
        with RouteSocket() as sock:
            if sock.cookie != device.netns_cookie:
                return None
            end = sock.veth(device.ifindex)
            if end is None or end.name != device.name:
                return None
            if end.nsid is None:
                other = sock.veth(end.peer)
                if other is None or other.nsid is not None:
                    return None
                return self._made(other, device, end, near.inode, device.netns_cookie)
            far = self._namespaces.numbered(sock, device.netns_cookie, end.nsid)
        if far is None:
            return None
        with far:
            peer = netns.within(far.fileno(), lambda: self._back(near, far, device, end))
            return self._with_container(peer, moment) if peer else None

    def _with_container(self, peer: Peer, moment: int) -> Peer:
        """A peer with the container that its namespace is of, which is held open."""
        inside = self._namespaces.processes(peer.netns)
        return replace(peer, container=self._inhabitants.container(peer.netns, inside, moment))

    def _back(self, near: Namespace, far: Namespace, device: Device, end: VethEnd) -> Peer | None:
        """The other end, in whose namespace this thread is, if it names the device as its peer."""
        with RouteSocket() as sock:
            other = sock.veth(end.peer)
            if other is None or other.nsid is None or other.nsid != sock.nsid(near.fileno()):
                return None
            return self._made(other, device, end, far.inode, sock.cookie)

    def _made(
        self, other: VethEnd, device: Device, end: VethEnd, inode: int, cookie: int
    ) -> Peer | None:
        if other.peer != device.ifindex:
            return None
        name = self._names.name(cookie) if self._names else None
        return Peer(other.name, end.peer, inode, cookie, name, end.nsid is not None)


def _held(spans: Sequence[_Span], moment: int) -> _Span | None:
    """The latest span whose answer holds at a moment."""
    return next((span for span in reversed(spans) if span.holds(moment, _FRESH)), None)


class _Namespaces:
    """Where network namespaces can be opened."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._directories = tuple(directories)
        self._paths: dict[int, Path] = {}
        self._inside: dict[int, list[int]] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._next = 0
        self._stale = 0

    def open(self, inode: int) -> Namespace | None:
        """The namespace that has an inode number now."""
        found = self._opened(inode)
        return self._opened(inode) if found is None and self._scan() else found

    def processes(self, inode: int) -> Sequence[int]:
        """The numbers of the processes that were in a namespace some seconds ago, or are now."""
        if time.monotonic_ns() >= self._stale:
            self._scan()
        return self._inside.get(inode, ())

    def numbered(self, sock: RouteSocket, cookie: int, nsid: int) -> Namespace | None:
        """The namespace that has the number ``nsid`` in the one of ``sock``, which has ``cookie``.

        The caller closes it.
        """
        known = self._numbers.get((cookie, nsid))
        hint = () if known is None else (known,)
        found = self._searched(sock, cookie, nsid, (*hint, *self._paths))
        if found is None and self._scan():
            found = self._searched(sock, cookie, nsid, self._paths)
        return found

    def _searched(
        self, sock: RouteSocket, cookie: int, nsid: int, inodes: Iterable[int]
    ) -> Namespace | None:
        if len(self._numbers) > _MOST_KNOWN:
            self._numbers.clear()
        for inode in inodes:
            one = self._opened(inode)
            if one is None:
                continue
            number = sock.nsid(one.fileno())
            if number is not None:
                # peers of other devices are found at once
                self._numbers[cookie, number] = inode
            if number == nsid:
                return one
            one.close()
        return None

    def _opened(self, inode: int) -> Namespace | None:
        path = self._paths.get(inode)
        with suppress(*_GONE):
            if path is not None:
                found = Namespace(path)
                if found.inode == inode:
                    return found
                found.close()
        return None

    def _scan(self) -> bool:
        """Look at names and processes, if that is due; returns whether it was."""
        begin = time.monotonic_ns()
        if begin < self._next:
            return False
        self._paths, self._inside = {}, {}
        with suppress(OSError):
            for inode, path in netns.everywhere(self._directories):
                self._paths.setdefault(inode, path)
                if path.parts[1] == PROC.name and path.parts[2].isdecimal():
                    self._inside.setdefault(inode, []).append(int(path.parts[2]))
        end = time.monotonic_ns()
        self._next = end + max(_LEAST_REST, _SHARE * (end - begin))
        self._stale = end + max(_SOON_STALE, _STALE * (end - begin))
        return True
