# SPDX-License-Identifier: GPL-2.0
"""Links that outlive the module: read from it, parked, and restored in the next one.

What is known of a link is kept as the attributes in which the module said it, and goes back to a
module unchanged. A link's programs are known by their ids: somebody has to pin them meanwhile.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from ipttctl.bpf import syscalls
from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import ExpectationError, KernelError, LinkGoneError, ModuleError
from ipttctl.link.model import Link, ModuleStatus, ProgramSet
from ipttctl.link.names import link_attributes, note_attributes
from ipttctl.link.wire import Connection
from ipttproto import Command

_ATTEMPTS: Final = 16
_COUNTERS: Final = "asking for the counters of parked links"


@dataclass(frozen=True)
class LinkRecord:
    """A link as a module described it: the attributes of the link, and of its history."""

    attributes: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]

    @cached_property
    def link(self) -> Link:
        """The link."""
        return Link.from_attributes(self.attributes)

    def counted(self, stats: Mapping[str, Any]) -> LinkRecord:
        """The same link with other counters, given as attributes."""
        return replace(self, attributes={**self.attributes, "stats": stats})

    def same(self, link: Link) -> bool:
        """Whether a link is the recorded one, but for its counters."""
        mine = self.link
        return mine.hook.identity() == link.hook.identity() and mine == replace(
            link, hook=mine.hook, stats=mine.stats
        )

    def request(self, opened: ExitStack) -> dict[str, Any]:
        """The request that restores the link; ``opened`` closes descriptors.

        Raises:
            UsageError: its network namespace or its device cannot be found any more.
            ProgramError: a program has gone.
        """
        link = self.link
        attributes = link.hook.request(opened)
        attributes["flags"] = int(link.flags)
        attributes["programs"] = ProgramSet(
            {
                slot: _opened(syscalls.program_by_id(program.id), opened)
                for slot, program in link.programs.items()
            },
            link.filter,
            link.cookie or None,
            _opened(syscalls.map_by_id(link.payload_map), opened) if link.payload_map else None,
            link.limits,
        ).attributes()
        if link.name:
            attributes["name"] = link.name
        attributes |= note_attributes(link.labels or None, link.reason)
        attributes["restore"] = {
            "link": link.id,
            "generation": link.generation,
            "transaction": link.transaction,
            "owner-pid": link.owner_pid,
            "owner-comm": link.owner_comm,
            "stats": self.attributes.get("stats", {}),
            "past": self.history,
        }
        for name in ("outcome", "violation"):
            if name in self.attributes:
                attributes["restore"][name] = self.attributes[name]
        return attributes


@dataclass(frozen=True)
class Numbers:
    """How far the numbers of a module's links have come: those of changes, and ids."""

    sequence: int
    last_link: int


@dataclass(frozen=True)
class LinkSnapshot:
    """All links at one moment."""

    numbers: Numbers
    records: tuple[LinkRecord, ...]


class Restorer(Closing):
    """A connection to a module, of ours or of another build, whose links are parked or restored.

    Every method raises KernelError if the module refuses.
    """

    def __init__(self) -> None:
        """Connect to the module.

        Raises:
            PrivilegeError: the caller lacks CAP_NET_ADMIN.
            ModuleError: the module is not loaded.
        """
        self._connection = Connection.open()

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def status(self) -> ModuleStatus:
        """The status of the module."""
        replies = self._connection.request(Command.STATS, {}, "asking for statistics")
        return ModuleStatus.from_attributes(replies)

    def snapshot(self) -> LinkSnapshot:
        """Read all links with their histories, as they are at one moment."""
        action = "listing links"
        for _ in range(_ATTEMPTS):
            before = self.status()
            try:
                found = [
                    self._record(part["link"])
                    for part in self._connection.dump(Command.GET, action)
                ]
            except LinkGoneError:
                continue
            if self.status().links_sequence == before.links_sequence:
                numbers = Numbers(before.links_sequence, before.last_link)
                return LinkSnapshot(numbers, tuple(found))
        raise KernelError(action, errno.EINTR, "the links change faster than they can be read")

    def park(self, sequence: int | None, *, force: bool, reason: str) -> None:
        """Take all links from their hooks in one step; no other can be made from then on.

        They must not have changed since the change with the number ``sequence``; None is any. Links
        that somebody owns are refused, or end by ``force``.

        Raises:
            ExpectationError: a link has changed.
        """
        attributes = note_attributes(None, reason) | ({"force": 1} if force else {})
        for attempt in range(1, _ATTEMPTS + 1):
            expected = self.status().links_sequence if sequence is None else sequence
            try:
                self._connection.request(
                    Command.PARK, {**attributes, "links-sequence": expected}, "parking the links"
                )
            except ExpectationError:
                if sequence is not None or attempt == _ATTEMPTS:
                    raise
            else:
                return

    def parked(self) -> dict[int, Mapping[str, Any]]:
        """The last counters of the links that were parked here, as attributes by id."""
        parts = self._connection.dump(Command.PARK, _COUNTERS)
        return {part.get("link", 0): part.get("stats", {}) for part in parts}

    def restore(self, record: LinkRecord) -> Link:
        """Restore a link; when this returns, packets meet its programs again.

        Raises:
            UsageError: its network namespace or its device cannot be found any more.
            ProgramError: a program has gone.
        """
        action = f"restoring link {record.link.name or record.link.id}"
        with ExitStack() as opened:
            replies = self._connection.request(Command.ATTACH, record.request(opened), action)
        if not replies:
            raise ModuleError(f"{action}: the module did it and did not say what it is now")
        return Link.from_attributes(replies[0])

    def restored(self) -> None:
        """End restoring: others may make links from now on."""
        self._connection.request(Command.RESTORED, {}, "ending the restoration of links")

    def links(self) -> list[Link]:
        """All links."""
        return [
            Link.from_attributes(p) for p in self._connection.dump(Command.GET, "listing links")
        ]

    def _record(self, link: int) -> LinkRecord:
        """A link alone, with its filter, and its history."""
        action = f"looking up link {link}"
        (found,) = self._connection.request(Command.GET, link_attributes(link), action)
        replies = self._connection.request(Command.HISTORY, link_attributes(link), action)
        return LinkRecord(found, tuple(past for one in replies for past in one.get("history", ())))


def _opened(fd: int, opened: ExitStack) -> int:
    opened.callback(os.close, fd)
    return fd
