# SPDX-License-Identifier: GPL-2.0
"""The verbs: what a program can have the module do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

from ipttctl.errors import ModuleError
from ipttctl.objects import FAMILIES, Link, ModuleStatus, ProgramSet
from ipttctl.streams import EventStream, LinkChangeStream
from ipttctl.wire import Connection
from ipttproto import FINGERPRINT, Command, Group, Hook, LinkFlag, Slot


class Controller:
    """A connection to the module that owns the links it makes.

    A link that is not persistent goes when its controller is closed, or its process dies.

        with Controller() as controller, controller.events() as events:
            link = controller.attach(ProgramSet({Slot.ENTRY: 5, Slot.RULE: 6, Slot.EXIT: 7}))
            for record in events.records(link.id):
                ...

    Every method raises KernelError, or a kind of it, when the module refuses, and PrivilegeError
    when the caller may not.
    """

    def __init__(
        self, connect: Callable[[], Connection] | None = None, *, check: bool = True
    ) -> None:
        """Connect to the module; ``check`` that it speaks our protocol.

        ``connect`` makes the connections; it is ``Connection.open`` unless given.

        Raises:
            PrivilegeError: the caller lacks CAP_NET_ADMIN.
            ModuleError: the module is not loaded, or is of another build than we are.
        """
        self._connect = connect or Connection.open
        self._connection = self._connect()
        try:
            if check:
                require_same_build(self.status())
        except BaseException:
            self._connection.close()
            raise

    def attach(
        self,
        programs: ProgramSet,
        *,
        hook: Hook = Hook.TABLE,
        family: Literal[4, 6] | None = None,
        persistent: bool = False,
    ) -> Link:
        """Make a link. When this returns every packet at the hook meets its programs.

        ``family`` limits it to an IP version. See ``Link.waiting`` for table code that is not
        loaded yet: the link works there once it is.
        """
        attributes: dict[str, Any] = {"hook": hook}
        if family is not None:
            attributes["family"] = FAMILIES[family]
        if persistent:
            attributes["flags"] = LinkFlag.PERSISTENT
        attributes["programs"] = programs.attributes()
        return self._link(Command.ATTACH, attributes, "attaching")

    def swap(
        self,
        link_id: int,
        programs: ProgramSet,
        *,
        expect_generation: int | None = None,
        expect_programs: Mapping[Slot, int] | None = None,
    ) -> Link:
        """Replace all programs of a link in one step: each packet meets the old set or the new.

        With ``expect_generation``, or ids of programs by slot (0 for an empty one) in
        ``expect_programs``, only if the link is so.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: the link is not as expected; nothing was changed.
        """
        attributes: dict[str, Any] = {"link": link_id}
        if expect_generation is not None:
            attributes["expect-generation"] = expect_generation
        if expect_programs:
            attributes["expect-program"] = [
                {"slot": slot, "id": program} for slot, program in expect_programs.items()
            ]
        attributes["programs"] = programs.attributes()
        return self._link(Command.SWAP, attributes, f"swapping link {link_id}")

    def detach(self, link_id: int, *, expect_generation: int | None = None) -> Link:
        """Remove a link; what it was at the end.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: it is of another generation than expected; it stays.
        """
        attributes: dict[str, Any] = {"link": link_id}
        if expect_generation is not None:
            attributes["expect-generation"] = expect_generation
        return self._link(Command.DETACH, attributes, f"detaching link {link_id}")

    def link(self, link_id: int) -> Link:
        """A link as it is now.

        Raises:
            LinkGoneError: there is none of this id.
        """
        return self._link(Command.GET, {"link": link_id}, f"looking up link {link_id}")

    def links(self) -> list[Link]:
        """All links, by id."""
        replies = self._connection.dump(Command.GET, "listing links")
        return sorted((Link.from_attributes(reply) for reply in replies), key=lambda link: link.id)

    def status(self) -> ModuleStatus:
        """The module's version and event streams."""
        replies = self._connection.request(Command.STATS, {}, "asking for statistics")
        return ModuleStatus.from_attributes(replies)

    def events(self) -> EventStream:
        """Subscribe to the events of all links, on a socket of their own.

        The stream asks this controller for loss counters: close it first. Open it before
        ``attach`` to see every event of the link.
        """
        connection = self._joined(Group.EVENTS)
        try:
            return EventStream(connection, self.status)
        except BaseException:
            connection.close()
            raise

    def link_changes(self) -> LinkChangeStream:
        """Subscribe to what happens to links, on a socket of its own."""
        return LinkChangeStream(self._joined(Group.LINKS))

    def close(self) -> None:
        """Disconnect: links that are not persistent go."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _joined(self, group: Group) -> Connection:
        connection = self._connect()
        try:
            connection.join(group)
        except BaseException:
            connection.close()
            raise
        return connection

    def _link(self, command: Command, attributes: Mapping[str, Any], action: str) -> Link:
        replies = self._connection.request(command, attributes, action)
        if not replies:
            raise ModuleError(f"{action}: the module did it and did not say what it is now")
        return Link.from_attributes(replies[0])


def require_same_build(status: ModuleStatus) -> None:
    """Check that the module's protocol is ours.

    Raises:
        ModuleError: it is not.
    """
    if status.fingerprint != FINGERPRINT:
        raise ModuleError(
            f"the ipttrace module (version {status.version or 'unknown'}, protocol "
            f"{status.fingerprint:08x}) and ipttctl (protocol {FINGERPRINT:08x}) are of "
            "different builds",
            "run `ipttctl module build`, `ipttctl module unload` and `ipttctl module load`",
        )
