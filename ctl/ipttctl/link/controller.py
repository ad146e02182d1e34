# SPDX-License-Identifier: GPL-2.0
"""The verbs: requests that a program can make to the module."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from ipttctl.bpf.descriptors import Closing
from ipttctl.errors import (
    KernelError,
    LinkGoneError,
    ModuleError,
    NameTakenError,
    UsageError,
)
from ipttctl.events.filter import EventFilter
from ipttctl.hooks.hook import Hook
from ipttctl.link.condition import Condition
from ipttctl.link.keep import keep_parts, unchanged_generation
from ipttctl.link.model import (
    HistoryEntry,
    Link,
    LinkList,
    ModuleStatus,
    Part,
    ProgramSet,
    Swap,
    TableRuleset,
    expectations,
)
from ipttctl.link.names import LinkRef, link_attributes, note_attributes
from ipttctl.link.shadows import ShadowVerbs
from ipttctl.link.streams import EventStream, LinkChangeStream, NamespaceStream
from ipttctl.link.terms import how_attributes as _how
from ipttctl.link.terms import terms_attributes as _terms
from ipttctl.link.watch import LinkWatch
from ipttctl.link.wire import EVENT_BUFFER, Connection
from ipttproto import MINOR, VERSION, Command, Feature, Group, LinkFlag, Slot, SwapAck, Walk

_LIST_ATTEMPTS: Final = 16


class Controller(ShadowVerbs, Closing):
    """A connection to the module that owns the links it makes.

    A link is given by its id, or by its name if it has one. A ``reason`` for a change is text of at
    most 127 bytes, which the link's history keeps.

    A link that is not persistent goes when its controller is closed or its process dies.

        with Controller() as controller, controller.events() as events:
            link = controller.attach(
                TableHook(), ProgramSet({Slot.ENTRY: 5, Slot.RULE: 6, Slot.EXIT: 7})
            )
            for record in events.records(link.id):
                ...

    Every method raises KernelError, or a subclass, when the module refuses, and PrivilegeError
    when the caller may not. After the module was unloaded, every method of the controller and of
    its streams raises ModuleError: a new controller speaks to the next one.
    """

    def __init__(
        self, connect: Callable[[], Connection] | None = None, *, check: bool = True
    ) -> None:
        """Connect to the module; ``check`` that it speaks our protocol.

        ``connect`` makes the connections; the default is ``Connection.open``.

        Raises:
            PrivilegeError: the caller lacks CAP_NET_ADMIN.
            ModuleError: the module is not loaded, or speaks another protocol.
        """
        self._connect = connect or Connection.open
        self._connection = self._connect()
        try:
            if check:
                status = self.status()
                require_same_protocol(status)
                self._connection.features = status.features
        except BaseException:
            self._connection.close()
            raise

    @property
    def features(self) -> Feature:
        """Abilities of the module beyond those of its major version; none if it was not asked."""
        return self._connection.features or Feature(0)

    def attach(
        self,
        hook: Hook,
        programs: ProgramSet,
        *,
        persistent: bool = False,
        exclusive: bool = False,
        journey: int | None = None,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> Link:
        """Make a link. When this returns, every packet at the hook meets its programs.

        If the hook's code is not loaded yet (``Hook.misses`` says so), the link works once it is.
        No two links have the same ``name``. An ``exclusive`` link is swapped, detached and released
        by nobody but this controller, unless by force; it cannot be persistent. ``journey`` is the
        id of a link at ``JourneyHook``, whose packets the new one then gets, wherever they come by,
        while its own are followed from there on. Neither of them can be persistent.

        Raises:
            UsageError: there is no such namespace or device.
            NameTakenError: another link has the name.
        """
        with ExitStack() as opened:
            attributes = hook.request(opened)
            if persistent:
                attributes["flags"] = attributes.get("flags", 0) | LinkFlag.PERSISTENT
            if exclusive:
                attributes["flags"] = attributes.get("flags", 0) | LinkFlag.EXCLUSIVE
            if journey is not None:
                attributes["journey"] = journey
            attributes["programs"] = programs.attributes()
            if name is not None:
                attributes["name"] = name
            attributes |= note_attributes(labels, reason)
            return self._link(Command.ATTACH, attributes, "attaching")

    def replace(
        self,
        name: str,
        hook: Hook,
        programs: ProgramSet,
        *,
        expect_generation: int | None = None,
        labels: Mapping[str, str] | None = None,
        reason: str | None = None,
        keep: Collection[Part] = (),
    ) -> Link:
        """Make a persistent link with a name, or swap the programs of the one that has it.

        The link is swapped only if nobody else swaps it meanwhile. With ``labels`` None it keeps
        those that it has; ``expect_generation`` and ``keep`` are as for ``swap``.

        Raises:
            UsageError: there is no such namespace or device.
            NameTakenError: the link of this name is at another place, or somebody owns it.
            ExpectationError: somebody else swapped it meanwhile.
        """
        action = f"replacing link {name}"
        try:
            found = self.link(name)
        except LinkGoneError:
            return self.attach(
                hook, programs, persistent=True, name=name, labels=labels, reason=reason
            )
        if not found.persistent:
            owner = f"process {found.owner_pid} ({found.owner_comm})"
            raise NameTakenError(action, errno.EEXIST, f"link {found.id} belongs to {owner}")
        if found.hook.gone is not None or found.hook.identity() != hook.identity():
            where = f"link {found.id} is at another place, or made in another way: {found.hook}"
            raise NameTakenError(action, errno.EEXIST, where)
        return self.swap(
            found.id,
            programs,
            expect_generation=unchanged_generation(found, expect_generation),
            labels=labels,
            reason=reason,
            keep=keep,
        )

    def rename(self, link: LinkRef, name: str) -> Link:
        """Give a link another name, or its first one. Its generation stays.

        Raises:
            LinkGoneError: there is no such link.
            NameTakenError: another link has the name.
        """
        attributes = {**link_attributes(link), "new-name": name}
        return self._link(Command.RENAME, attributes, f"renaming link {link}")

    def swap(
        self,
        link: LinkRef,
        programs: ProgramSet,
        *,
        expect_generation: int | None = None,
        expect_programs: Mapping[Slot, int] | None = None,
        rollback_after: float | None = None,
        guards: Iterable[Condition] = (),
        labels: Mapping[str, str] | None = None,
        reason: str | None = None,
        force: bool = False,
        keep: Collection[Part] = (),
        wait: bool = False,
        expedite: bool = False,
    ) -> Link:
        """Replace all programs of a link in one step: each packet meets the old set or the new.

        When this returns, the new set is in force: packets that come meet it. Some may still be
        handled by the old one; that they are gone, a change of the link says (``Change.ENDED``).
        With ``wait`` this returns once they are gone, and what the old programs have counted is
        final. ``expedite`` is as ``wait``, and interrupts every CPU so that it takes less time.
        Swaps that can be rolled back, and those of an older module, always wait.

        ``programs`` is the whole set; unnamed slots become empty. ``labels`` are all labels from
        now on; with None the link keeps those that it has. With ``expect_generation``, or
        with program ids by slot in ``expect_programs`` (0 for an empty slot), the swap happens
        only if the link is as expected. With ``force`` it is swapped although somebody else owns it
        exclusively (OwnedError otherwise).

        With ``rollback_after`` or ``guards`` the swap waits for ``confirm``. The module itself
        swaps back, even if this process dies, after ``rollback_after`` seconds, or as soon as one
        of the ``guards`` is violated by the link's counters, counted from the swap on (see
        ``Condition``). Until then the link cannot be swapped again. With ``guards`` alone it waits
        without a limit.

        The parts to ``keep`` are taken from the link's set. If somebody else swaps the link between
        that and the swap, it is refused as unexpected: sets are not mixed. (``KeptMaps`` keeps the
        maps.)

        Raises:
            LinkGoneError: there is no such link.
            SwapWaitingError: the link's last swap waits.
            ExpectationError: the link is not as expected; nothing was changed.
            UsageError: a part to keep is given too, or the time is not 1 ms to a day.
            ProgramError: the new programs have no map for the payload.
        """
        swap = Swap(link, programs, expect_generation, expect_programs, labels, keep)
        with ExitStack() as opened:
            terms = _terms(rollback_after, guards)
            attributes = {
                **self._kept(swap, opened).attributes(),
                **terms,
                **_how(reason, force),
                **self._answered(wait or bool(terms), expedite),
            }
            return self._link(Command.SWAP, attributes, f"swapping link {link}")

    def transact(
        self,
        swaps: Sequence[Swap],
        *,
        rollback_after: float | None = None,
        guards: Iterable[Condition] = (),
        reason: str | None = None,
        force: bool = False,
        wait: bool = False,
        expedite: bool = False,
    ) -> list[Link]:
        """Swap several links in one step, all or none; returns the links in order of ``swaps``.

        A packet in a table, or in a base chain, meets the old sets of all links there or the new
        sets of all. Each netfilter hook changes separately, at about the same time.
        All other parameters are as for ``swap``, and apply to all links together: if one of them
        violates a guard, all go back.

        Raises:
            LinkGoneError: there is no such link.
            SwapWaitingError: the last swap of a link waits.
            ExpectationError: a link is not as expected.
            In every case nothing was changed.
        """
        links = ", ".join(str(swap.link) for swap in swaps)
        with ExitStack() as opened:
            terms = _terms(rollback_after, guards)
            attributes = {
                "change": [self._kept(swap, opened).attributes() for swap in swaps],
                **terms,
                **_how(reason, force),
                **self._answered(wait or bool(terms), expedite),
            }
            action = f"swapping links {links}"
            replies = self._connection.request(Command.TRANSACT, attributes, action)
        if len(replies) != len(swaps):
            raise ModuleError(
                f"swapping links {links}: the module did it and did not say what they are now"
            )
        return [Link.from_attributes(reply) for reply in replies]

    def _answered(self, wait: bool, expedite: bool) -> dict[str, Any]:
        """The attribute of a swap that says when it is answered, unless once the old sets ended."""
        if expedite:
            return {"swap-ack": SwapAck.EXPEDITED}
        if Feature.ENDS in self.features and not wait:
            return {"swap-ack": SwapAck.PUBLISHED}
        return {}

    def confirm(
        self,
        link: LinkRef | None = None,
        *,
        transaction: int | None = None,
        expect_generation: int | None = None,
    ) -> Link:
        """Keep a swap that waits, of the link and of those swapped together with it.

        The swap is given by one of its links, or by its ``transaction`` (see ``Link``).
        ``expect_generation`` is the link's generation that the swap returned. Without it this
        confirms whichever swap waits: a confirmation that comes late, after the roll-back, keeps
        what somebody else has swapped in since.

        Raises:
            LinkGoneError: there is no such link, or no link whose last swap it is.
            ExpectationError: the link is of another generation; nothing was confirmed.
            SwapConfirmedError: it was confirmed already.
            SwapRolledBackError: it is too late: it was rolled back.
            NoSwapWaitsError: there is nothing to confirm.
        """
        attributes, called = _waiting_swap(link, transaction, expect_generation)
        return self._link(Command.CONFIRM, attributes, f"confirming {called}")

    def rollback(
        self,
        link: LinkRef | None = None,
        *,
        transaction: int | None = None,
        expect_generation: int | None = None,
        reason: str | None = None,
        force: bool = False,
    ) -> list[Link]:
        """Undo a swap that waits, at once; returns all its links, as they are afterwards.

        The swap is given as for ``confirm``. When this returns, no packet meets the programs that
        were swapped in. With ``force`` it is undone although somebody else owns a link exclusively.

        Raises:
            LinkGoneError: there is no such link, or no link whose last swap it is.
            ExpectationError: the link is of another generation; nothing was undone.
            SwapConfirmedError: it is too late: it was confirmed.
            SwapRolledBackError: it was rolled back already.
            NoSwapWaitsError: there is nothing to undo.
            KernelError: with EBUSY, somebody else owns a link exclusively.
        """
        attributes, called = _waiting_swap(link, transaction, expect_generation)
        attributes |= _how(reason, force)
        action = f"rolling {called} back"
        replies = self._connection.request(Command.ROLLBACK, attributes, action)
        return [Link.from_attributes(reply) for reply in replies]

    def history(self, link: LinkRef) -> list[HistoryEntry]:
        """The history of a link's last generations, oldest first.

        Raises:
            LinkGoneError: there is no such link.
        """
        action = f"asking for the history of link {link}"
        replies = self._connection.request(Command.HISTORY, link_attributes(link), action)
        return [
            HistoryEntry.from_attributes(entry)
            for reply in replies
            for entry in reply.get("history", ())
        ]

    def adopt(self, link: LinkRef, *, exclusive: bool = False, force: bool = False) -> Link:
        """Take ownership of a link: from now on it goes when this controller is closed.

        ``exclusive`` is as for ``attach``. With ``force`` it is taken from its owner, if any.

        Raises:
            LinkGoneError: there is no such link.
            OwnedError: another socket owns it.
        """
        flags = {"flags": int(LinkFlag.EXCLUSIVE)} if exclusive else {}
        attributes = {**link_attributes(link), **flags, **_how(None, force)}
        return self._link(Command.ADOPT, attributes, f"adopting link {link}")

    def release(self, link: LinkRef, *, force: bool = False) -> Link:
        """Make a link persistent: it outlives its owner, and anybody may adopt it.

        Raises:
            LinkGoneError: there is no such link.
            OwnedError: somebody else owns it exclusively, and there is no ``force``.
        """
        attributes = {**link_attributes(link), **_how(None, force)}
        return self._link(Command.RELEASE, attributes, f"releasing link {link}")

    def detach(
        self,
        link: LinkRef,
        *,
        expect_generation: int | None = None,
        expect_programs: Mapping[Slot, int] | None = None,
        reason: str | None = None,
        force: bool = False,
    ) -> Link:
        """Remove a link; returns its final state. ``force`` is as for ``swap``.

        Raises:
            LinkGoneError: there is no such link.
            ExpectationError: the link is not as expected; it stays.
        """
        attributes = {
            **link_attributes(link),
            **expectations(expect_generation, expect_programs),
            **_how(reason, force),
        }
        return self._link(Command.DETACH, attributes, f"detaching link {link}")

    def link(self, link: LinkRef) -> Link:
        """A link as it is now.

        Raises:
            LinkGoneError: there is no such link.
        """
        return self._link(Command.GET, link_attributes(link), f"looking up link {link}")

    def links(self) -> list[Link]:
        """All links, ordered by id."""
        replies = self._connection.dump(Command.GET, "listing links")
        return _sorted(replies)

    def list_links(self) -> LinkList:
        """All links, and the place of this list among their changes."""
        action = "listing links"
        for _ in range(_LIST_ATTEMPTS):
            # an empty list does not say when it was made
            before = self.status().links_sequence
            replies = self._connection.dump(Command.GET, action)
            if replies:
                return LinkList(replies[0].get("links-sequence", 0), tuple(_sorted(replies)))
            if self.status().links_sequence == before:
                return LinkList(before, ())
        raise KernelError(action, errno.EINTR, "the links change faster than they can be listed")

    def status(self) -> ModuleStatus:
        """The module's version and event streams, and whether links at chains are taken."""
        replies = self._connection.request(Command.STATS, {}, "asking for statistics")
        return ModuleStatus.from_attributes(replies)

    def ruleset(self, namespace: int, family: int, table: str) -> TableRuleset:
        """The generation of a legacy table's rules in the namespace behind a descriptor.

        Rules that are listed between two answers with the same generation, neither of them while
        ``replacing``, are of that generation, and so are those of events that have it.

        Raises:
            KernelError: with ENOENT, there is no such table; with ENODATA, nobody counts: there is
                no link at tables, or something else redirects the kernel's function.
        """
        attributes = {"netns-fd": namespace, "family": family, "table": table}
        action = f"asking for the generation of table {table}"
        replies = self._connection.request(Command.RULESET, attributes, action)
        if not replies:
            raise ModuleError(f"{action}: the module did not say it")
        return TableRuleset(replies[0].get("ruleset", 0), bool(replies[0].get("replacing", 1)))

    def try_walk(self, namespace: int) -> None:
        """Have links at chains and spine taken for a network namespace, to verify the walks.

        That ends when this controller is closed. ``namespace`` is a descriptor of a throw-away
        namespace, not of the initial one.

        Raises:
            KernelError: it is of the initial one, or there are too many of these namespaces.
        """
        self._connection.request(
            Command.VERIFY, {"netns-fd": namespace}, "verifying the module's walks"
        )

    def end_verification(
        self, walk: Walk, *, spine: Walk | None = None, although_not_compared: bool = False
    ) -> None:
        """Tell the module how verifying its walks through chains and along the spine ended.

        ``spine`` is the result for the latter, if that is another one than for chains. Both hold
        until the module is unloaded. On a series of kernels whose sources nobody
        compared with the walk, and where the kernel does not tell how its structures are laid out,
        it is trusted only ``although_not_compared``.

        Raises:
            KernelError: something was not compared, the layouts of structures differ, or there are
                links that a result forbids.
        """
        attributes = {"walk": int(walk)}
        if Feature.SPINE in self.features:
            attributes["spine-walk"] = int(walk if spine is None else spine)
        if although_not_compared:
            attributes["walk-compared"] = 0
        self._connection.request(Command.VERIFY, attributes, "ending the verification of the walks")

    def events(self, wanted: EventFilter | None = None) -> EventStream:
        """Subscribe to the events of all links that pass ``wanted``, on a socket of its own.

        There can be any number of subscribers. Each has its own buffer in the kernel: a slow one
        loses only its own events.

        The stream asks this controller for loss counters: close the stream first. Open it before
        ``attach`` to see every event of the link.
        """
        connection = self._joined(Group.EVENTS)
        try:
            return EventStream(connection, self.status, wanted)
        except BaseException:
            connection.close()
            raise

    def link_changes(self, buffer: int = EVENT_BUFFER) -> LinkChangeStream:
        """Subscribe to changes of links, on a socket of its own with a buffer of this many bytes.

        Changes that do not fit are lost and counted (``overruns``); ``watch_links`` makes up for
        them.
        """
        return LinkChangeStream(self._joined(Group.LINKS, buffer))

    def watch_links(self, buffer: int = EVENT_BUFFER) -> LinkWatch:
        """List all links, and follow their changes from there on, without a gap or a repetition.

        The watch asks this controller for lists: close the watch first.
        """
        return LinkWatch(self.link_changes(buffer), self.list_links)

    def namespaces_going(self) -> NamespaceStream:
        """Subscribe to the end of network namespaces, on a socket of its own."""
        return NamespaceStream(self._joined(Group.NAMESPACES))

    def close(self) -> None:
        """Disconnect: links that are not persistent go."""
        self._connection.close()

    def _kept(self, swap: Swap, opened: ExitStack) -> Swap:
        """The swap with the parts that it keeps, and with the generation that they are of."""
        if not swap.keep:
            return swap
        link = self.link(swap.link)
        return replace(
            swap,
            link=link.id,
            programs=keep_parts(link, swap.programs, swap.keep, opened),
            expect_generation=unchanged_generation(link, swap.expect_generation),
        )

    def _joined(self, group: Group, buffer: int = EVENT_BUFFER) -> Connection:
        connection = self._connect()
        try:
            connection.join(group, buffer)
        except BaseException:
            connection.close()
            raise
        return connection

    def _link(self, command: Command, attributes: Mapping[str, Any], action: str) -> Link:
        replies = self._connection.request(command, attributes, action)
        if not replies:
            raise ModuleError(f"{action}: the module did it and did not say what it is now")
        return Link.from_attributes(replies[0])


def _sorted(replies: Iterable[Mapping[str, Any]]) -> list[Link]:
    return sorted(map(Link.from_attributes, replies), key=lambda link: link.id)


def _waiting_swap(
    link: LinkRef | None, transaction: int | None, expect_generation: int | None
) -> tuple[dict[str, Any], str]:
    """The attributes that name a swap which waits, and its name in errors.

    Raises:
        UsageError: it is not given by either its link or its transaction.
    """
    if (link is None) == (transaction is None):
        raise UsageError("a swap is given by one of its links, or by its transaction")
    if link is None:
        if expect_generation is not None:
            raise UsageError("a generation is expected of a link, not of a transaction")
        return {"transaction": transaction}, f"transaction {transaction}"
    attributes = {**link_attributes(link), **expectations(expect_generation, None)}
    return attributes, f"link {link}"


def require_same_protocol(status: ModuleStatus) -> None:
    """Check that the module speaks our protocol: another minor version of it will do.

    Raises:
        ModuleError: it speaks another one.
    """
    if status.protocol is None or status.protocol[0] != VERSION:
        raise ModuleError(
            f"the ipttrace module (version {status.version or 'unknown'}, "
            f"{status.protocol_text}) and ipttctl (protocol {VERSION}.{MINOR}) do not understand "
            "each other",
            "run `ipttctl module build`, `ipttctl module unload` and `ipttctl module load`",
        )
