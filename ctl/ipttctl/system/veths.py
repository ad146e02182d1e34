# SPDX-License-Identifier: GPL-2.0
"""Veth devices, as rtnetlink tells them in the network namespace of a thread."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from typing import Any, Final, Self

from ipttproto.attributes import split

_SO_NETNS_COOKIE: Final = 71
_DATAGRAM: Final = 1 << 16
_HEADER: Final = 16
_LINK_HEADER: Final = 16
#: struct rtgenmsg, padded
_NSID_HEADER: Final = 4
_REQUEST: Final = 1
_NEWLINK, _GETLINK, _NEWNSID, _GETNSID = 16, 18, 88, 90
_SKIP_STATS: Final = 8
_IFNAME, _LINK, _LINKINFO, _LINK_NETNSID = 3, 5, 18, 37
_INFO_KIND: Final = 1
_NETNSA_NSID: Final = 1


def prepare() -> None:
    """Import what questions need, which takes longer than these."""
    from pyroute2.netlink.rtnl import ifinfmsg, nsidmsg  # noqa: F401, PLC0415  # 25 ms, a start 80


@dataclass(frozen=True, slots=True)
class VethEnd:
    """A veth device: its name, and the index of the other end.

    ``nsid`` is the number of the other end's namespace in the one of this end; None: the same one.
    """

    name: bytes
    peer: int
    nsid: int | None


class RouteSocket:
    """A socket of rtnetlink in the thread's namespace, which it keeps until the block ends."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def cookie(self) -> int:
        """The cookie of the socket's namespace."""
        value = self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int.from_bytes(value, sys.byteorder)

    def veth(self, index: int) -> VethEnd | None:
        """The veth device with this index; None if there is none, or it is of another kind.

        The kernel numbers the namespace of the other end if it had no number, as for `ip link`.
        """
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: PLC0415  # see prepare()

        request = ifinfmsg()
        request["index"] = index
        request["attrs"].append(["IFLA_EXT_MASK", _SKIP_STATS])
        found = self._ask(request, _GETLINK, _NEWLINK, _LINK_HEADER)
        if found is None or _LINKINFO not in found:
            return None
        kind = dict(split(found[_LINKINFO])).get(_INFO_KIND, b"")
        if bytes(kind).rstrip(b"\0") != b"veth":
            return None
        peer, nsid = _number(found.get(_LINK)), _number(found.get(_LINK_NETNSID))
        if not peer or (nsid is not None and nsid < 0):
            return None
        return VethEnd(bytes(found[_IFNAME]).rstrip(b"\0"), peer, nsid)

    def nsid(self, namespace: int) -> int | None:
        """The number, here, of the namespace behind a descriptor; None if it has none."""
        from pyroute2.netlink.rtnl.nsidmsg import nsidmsg  # noqa: PLC0415  # see prepare()

        request = nsidmsg()
        request["attrs"].append(["NETNSA_FD", namespace])
        found = self._ask(request, _GETNSID, _NEWNSID, _NSID_HEADER)
        number = _number(found.get(_NETNSA_NSID)) if found else None
        return None if number is None or number < 0 else number

    def _ask(
        self, request: Any, kind: int, answer: int, header: int
    ) -> dict[int, memoryview] | None:
        """The attributes of an answer; None if the kernel refused.

        pyroute2 takes names for UTF-8, which they need not be, so answers are taken apart here.
        """
        request["header"]["type"] = kind
        request["header"]["flags"] = _REQUEST
        request.encode()
        self._socket.send(bytes(request.data))
        data = memoryview(self._socket.recv(_DATAGRAM))
        length = int.from_bytes(data[:4], sys.byteorder)
        if int.from_bytes(data[4:6], sys.byteorder) != answer or length > len(data):
            return None
        return dict(split(data[_HEADER + header : length]))


def _number(value: memoryview | None) -> int | None:
    return None if value is None else int.from_bytes(value, sys.byteorder, signed=True)
