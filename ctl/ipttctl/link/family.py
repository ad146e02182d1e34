# SPDX-License-Identifier: GPL-2.0
"""The family in the kernel: its numbers, and what becomes of it when the module is unloaded.

The numbers belong to one life of the module. A socket that joined a group of it hears nothing once
the module is unloaded, and nothing from the next one either. The kernel's own family, nlctrl, tells
its group ``notify`` when a family goes.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ipttctl.errors import KernelError, ModuleError
from ipttctl.system.netns import initial_namespace, socket_in
from ipttproto import FAMILY, Acknowledgement, Flag, Message, first_type, parse_datagram
from ipttproto.attributes import split

NOTIFY_GROUP: Final = 16
"""The group of nlctrl, whose number is fixed."""

_NLCTRL: Final = 16  # GENL_ID_CTRL
_DELFAMILY: Final = 2  # CTRL_CMD_DELFAMILY
_FAMILY_ID: Final = 1  # CTRL_ATTR_FAMILY_ID
_NETLINK_GENERIC: Final = 16
_DATAGRAM: Final = 1 << 18
_MODULE_DIRECTORY: Final = Path("/sys/module/ipttrace")

_NOT_LOADED: Final = "the ipttrace module is not loaded"
_LOAD_IT: Final = "run `ipttctl module load`"


@dataclass(frozen=True)
class Family:
    """The numbers of the family and its multicast groups in this boot."""

    id: int
    groups: Mapping[str, int]


def resolve_family(sock: socket.socket, name: str) -> Family:
    """Resolve a generic-netlink family by its name.

    Raises:
        ModuleError: there is no family with this name.
        KernelError: the kernel refused otherwise.
    """
    from pyroute2.netlink import (  # noqa: PLC0415  # 60 ms, a command 8: cli/lean.py
        CTRL_CMD_GETFAMILY,
        GENL_ID_CTRL,
        ctrlmsg,
    )

    request = ctrlmsg()
    request["cmd"] = CTRL_CMD_GETFAMILY
    request["version"] = 1
    request["attrs"].append(["CTRL_ATTR_FAMILY_NAME", name])
    request["header"]["type"] = GENL_ID_CTRL
    request["header"]["flags"] = int(Flag.REQUEST)
    request.encode()
    sock.send(bytes(request.data))
    data = sock.recv(_DATAGRAM)
    for answer in parse_datagram(GENL_ID_CTRL, data):
        if isinstance(answer, Acknowledgement):
            if answer.errno == errno.ENOENT:
                raise _unreachable()
            raise KernelError(f"looking up family '{name}'", answer.errno, answer.message)
    reply = ctrlmsg(data)
    reply.decode()
    groups = {
        group.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): group.get_attr("CTRL_ATTR_MCAST_GRP_ID")
        for group in reply.get_attr("CTRL_ATTR_MCAST_GROUPS") or []
    }
    return Family(reply.get_attr("CTRL_ATTR_FAMILY_ID"), groups)


def is_gone(family: Family, data: bytes) -> bool:
    """Whether a datagram says that the kernel has removed a family.

    What the kernel tells a group is a datagram by itself, so nearly all are seen through at once.
    """
    return first_type(data) == _NLCTRL and any(
        message.command == _DELFAMILY and _of(message) == family.id
        for message in parse_datagram(_NLCTRL, data)
        if isinstance(message, Message)
    )


def _of(message: Message) -> int | None:
    """The id of the family that a message of nlctrl is about."""
    found = (payload for number, payload in split(message.payload) if number == _FAMILY_ID)
    return next((int.from_bytes(payload, sys.byteorder) for payload in found), None)


def current_family(known: Family) -> Family | None:
    """The family as it is now; None if the module is not loaded.

    ``known`` if that cannot be seen from here: the caller may have given up the privilege to enter
    the initial network namespace since it looked the family up.
    """
    with open_socket() as sock, suppress(ModuleError):
        sock.bind((0, 0))
        return resolve_family(sock, FAMILY)
    return known if _MODULE_DIRECTORY.is_dir() else None


def unloaded(now: Family | None) -> ModuleError:
    """The error for a connection to a module that was unloaded; ``now`` is the present family."""
    if now is None:
        return ModuleError("the ipttrace module was unloaded", _LOAD_IT)
    return ModuleError(
        "the ipttrace module was unloaded and loaded again: its links and events are others",
        "start again to see them",
    )


def open_socket() -> socket.socket:
    """A socket in the initial network namespace, or in ours if that is out of reach."""
    kind = socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC
    with initial_namespace() as namespace, suppress(OSError):
        if namespace is not None:
            return socket_in(namespace, *kind)
    return socket.socket(*kind)


def _unreachable() -> ModuleError:
    if _MODULE_DIRECTORY.is_dir():
        return ModuleError(
            "the ipttrace module is loaded, but its family is not in this network namespace",
            "run ipttctl in the initial one",
        )
    return ModuleError(_NOT_LOADED, _LOAD_IT)
