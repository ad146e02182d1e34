# SPDX-License-Identifier: GPL-2.0
"""Senders and receivers of packets: processes, with their units and containers.

An event has its sender's number, start, name, uid and cgroup, so that a process that has ended is
told like one that is there. Whatever is told of a receiver is proven to be that process's
(``processes``, ``sockets``). Its command and cgroup are those of the moment at which it is looked
up: a process that ended before that is not found.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ipttctl.escape import word
from ipttctl.system.cgroup_ids import CgroupIds
from ipttctl.system.cgroups import place
from ipttctl.system.containers import Container, Containers, container_values
from ipttctl.system.processes import Process, Processes
from ipttctl.system.sockets import Sockets
from ipttctl.system.users import Users

_MOST_KNOWN: Final = 4096
_SERVICE: Final = ".service"


@dataclass(frozen=True, slots=True)
class Participant:
    """A process at one end of a packet's way; ``user`` is empty for root and in containers.

    A uid means another user in a container, whose names are not known here.
    """

    process: Process
    unit: str = ""
    user_unit: str = ""
    container: Container | None = None
    user: str = ""

    def __str__(self) -> str:
        """Text as ``nginx (pid 31, container web)``, escaped."""
        facts = [f"pid {self.process.pid}", *self._facts()]
        return f"{word(self.process.comm)} ({', '.join(facts)})"

    @property
    def role(self) -> str:
        """Text without the number, as ``nginx (container web)``: equal for a server's workers."""
        facts = self._facts()
        name = word(self.process.comm)
        return f"{name} ({', '.join(facts)})" if facts else name

    def values(self) -> dict[str, Any]:
        """The members of the JSON object; None for what is not known, names as they are."""
        return {
            "text": str(self),
            "pid": self.process.pid,
            "comm": self.process.comm,
            "uid": self.process.uid,
            "user": self.user or None,
            "cgroup": self.process.cgroup or None,
            "unit": self.unit or None,
            "user_unit": self.user_unit or None,
            **container_values(self.container),
        }

    def _facts(self) -> list[str]:
        """What is known but for the number."""
        facts = []
        if self.user:
            facts.append(f"user {word(self.user)}")
        elif self.process.uid:
            facts.append(f"uid {self.process.uid}")
        if self.container is not None:
            return facts + self.container.facts()
        # scopes are sessions and the like, and say no more than the user
        if self.user_unit.endswith(_SERVICE):
            # its name is of the user's choice
            facts.append(f"{word(self.user_unit)} of {word(self.unit)}")
        elif self.unit.endswith(_SERVICE):
            facts.append(word(self.unit))
        return facts


@dataclass(frozen=True, slots=True)
class Receiver:
    """A socket that took a packet, and the processes that are proven to hold it, if any are.

    ``left_out`` and ``complete`` are as in ``sockets.SocketHolders``.
    """

    inode: int
    uid: int | None
    holders: tuple[Participant, ...] = ()
    left_out: int = 0
    complete: bool = False

    def __str__(self) -> str:
        """Text as ``nginx (pid 31, container web) and 3 more``, escaped."""
        if not self.holders:
            return f"socket {self.inode}" + (f" (uid {self.uid})" if self.uid else "")
        others = len(self.holders) - 1 + self.left_out
        if not others:
            return str(self.holders[0])
        return f"{self.holders[0]} and {'' if self.complete else 'at least '}{others} more"

    def values(self) -> dict[str, Any]:
        """The members of the JSON object that say who holds the socket.

        ``holders_complete`` is whether all processes were looked at; None without any holder.
        """
        return {
            "holders": [one.values() for one in self.holders],
            "holders_left_out": self.left_out,
            "holders_complete": self.complete if self.holders else None,
        }


class Sending(NamedTuple):
    """The members of an event that say which process sent the packet; ``pid`` is 0 if none did.

    ``start`` is CLOCK_BOOTTIME in ns: with ``pid`` it is one process only. ``cgroup`` is an id.
    They are in the order in which events have them.
    """

    start: int
    cgroup: int
    pid: int
    uid: int
    comm: bytes


class Who:
    """The processes at both ends of packets; not for several threads at once."""

    def __init__(
        self,
        processes: Processes | None = None,
        sockets: Sockets | None = None,
        containers: Containers | None = None,
        users: Users | None = None,
        cgroups: CgroupIds | None = None,
    ) -> None:
        """Look up at this host; make it before the first event, to know the clocks then."""
        self._processes = processes or Processes()
        self._sockets = sockets or Sockets(self._processes)
        self._containers = containers or Containers()
        self._users = users or Users()
        self._cgroups = cgroups or CgroupIds()
        self._known: OrderedDict[Sending, Participant] = OrderedDict()

    def sender(self, sent: Sending) -> Participant | None:
        """The process that sent a packet; None for a packet that no process sent."""
        if not sent.pid:
            return None
        known = self._known.get(sent)
        if known is not None:
            self._known.move_to_end(sent)
            return known
        known = self._known[sent] = self._participant(self._process(sent))
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return known

    def receiver(self, inode: int, moment: int, uid: int | None = None) -> Receiver | None:
        """The socket that took a packet, and the processes that hold it.

        Args:
            inode: the socket's inode number.
            moment: the event's time (CLOCK_MONOTONIC, ns).
            uid: the socket's uid, if the event has one.

        Returns:
            None for a socket without a number: one of the kernel, or that nobody has accepted yet.
        """
        if not inode:
            return None
        found = self._sockets.holders(inode, moment, uid)
        if found is None:
            return Receiver(inode, uid)
        holders = tuple(map(self._participant, found.processes))
        return Receiver(inode, uid, holders, found.left_out, found.complete)

    def _process(self, sent: Sending) -> Process:
        """The process of an event, with its cgroup at the event, or else at present."""
        comm = sent.comm.decode(errors="surrogateescape")
        cgroup = self._cgroups.path(sent.cgroup)
        if cgroup in {"", "/"}:
            there = self._processes.read(sent.pid)
            if there is not None and self._processes.same(there.start, sent.start):
                cgroup = there.cgroup
        return Process(sent.pid, sent.start, comm, sent.uid, cgroup)

    def _participant(self, process: Process) -> Participant:
        where = place(process.cgroup)
        container = self._containers.of(process.cgroup)
        user = ""
        if process.uid and container is None:
            user = self._users.name(process.uid) or ""
        return Participant(process, where.unit, where.user_unit, container, user)
