# SPDX-License-Identifier: GPL-2.0
"""The links of a trace, one at each back end, and the network namespace that they are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from ipttctl.cli.output import tell_state
from ipttctl.cli.printing import note
from ipttctl.errors import IpttctlError, LinkDetachedError, LinkGoneError
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.limits import LeftOut, Limits
from ipttctl.link.model import Change, Link, LinkChange, ProgramSet
from ipttctl.programs import trace as trace_programs
from ipttctl.programs.join import JoinPrograms, load_join_programs
from ipttctl.system.netns import Namespace
from ipttproto import Slot


@dataclass(frozen=True)
class TracePrograms:
    """Descriptors of the programs of all slots, and what goes with them.

    ``bytecode`` is that of the filter. Filter and limits choose packets: a journey has neither.
    ``capture`` and ``join`` have programs in place of those at the spine, the latter of the journey
    too.
    """

    fds: Mapping[Slot, int]
    bytecode: bytes | None = None
    limits: Limits | None = None
    capture: trace_programs.Capture | None = None
    join: JoinPrograms | None = None

    def of(self, hook: Hook) -> ProgramSet:
        """The set for a hook: the programs of its slots."""
        fds = {slot: fd for slot, fd in self.fds.items() if slot in hook.SLOTS}
        join = self.join
        if isinstance(hook, JourneyHook):
            if join is not None:
                return ProgramSet({Slot.STEP: join.step}, payload=join.departures)
            return ProgramSet(fds)
        payload = None
        if isinstance(hook, SpineHook) and join is not None:
            fds |= {Slot.ENTRY: join.entry, Slot.FUNCTION: join.function, Slot.EXIT: join.exit}
            payload = join.arrivals
        elif isinstance(hook, SpineHook) and self.capture is not None:
            fds |= {Slot.FUNCTION: self.capture.function, Slot.EXIT: self.capture.exit}
            payload = self.capture.payload
        return ProgramSet(fds, self.bytecode, payload=payload, limits=self.limits)


@contextmanager
def loaded_programs(
    wanted: trace_programs.TraceOptions,
    bytecode: bytes | None,
    limits: Limits | None,
    snaplen: int = 0,
    join: bytes | None = None,
) -> Iterator[TracePrograms]:
    """The programs for these options, open until links hold them.

    With ``snaplen`` so many bytes of packets are kept, where hooks are watched. With ``join``, a
    key, events tell what joins stories with those of other hosts.
    """

    def compiling() -> None:
        note("compiling the BPF programs (once; takes some seconds)...")

    with ExitStack() as stack:
        programs = trace_programs.load_trace_programs(wanted, on_compile=compiling)
        for program in programs.values():
            stack.callback(program.close)
        fds = {slot: one.fd for slot, one in programs.items()}
        capture = None
        if snaplen:
            capture = trace_programs.load_capture(snaplen, on_compile=compiling)
            stack.callback(capture.close)
        joining = None
        if join is not None:
            joining = load_join_programs(join, wanted.netns, on_compile=compiling)
            stack.callback(joining.close)
        yield TracePrograms(fds, bytecode, limits, capture, joining)


class TraceLinks:
    """Links with the same programs; if the first is a journey, the others are on it.

    Those that are everywhere are swapped when another namespace is to be traced. Those at chains of
    that namespace cannot be, so that a new one takes the place of the old one.
    """

    def __init__(
        self, controller: Controller, hooks: Iterable[Hook], programs: TracePrograms
    ) -> None:
        """Attach to the hooks, to all or none."""
        self._controller = controller
        self.there: dict[int, Link] = {}
        """The links that are attached."""
        self.ids: set[int] = set()
        """All that were attached so far, by us or still."""
        self.taken: list[int] = []
        """Those that somebody else detached."""
        self.left_out = LeftOut()
        """Packets that those left out which are detached."""
        self.unfollowed = 0
        """Times that the journey had no room to follow a packet; known at the end."""
        self.lost_sight = 0
        """Packets that it lost sight of; known at the end."""
        self._journey: Link | None = None
        try:
            for hook in hooks:
                link = self._attach(hook, programs)
                if isinstance(hook, JourneyHook):
                    self._journey = link
        except BaseException:
            with suppress(IpttctlError):
                self.detach()
            raise

    @property
    def seeing(self) -> bool:
        """Whether packets can come: a link is there that chooses them, and the journey if any."""
        journey = self._journey.id if self._journey else None
        return bool(self.there.keys() - {journey}) and (journey is None or journey in self.there)

    def follow(self, namespace: Namespace, programs: TracePrograms) -> None:
        """Go on with programs for another namespace."""
        for link in list(self.there.values()):
            with suppress(LinkGoneError):
                if self._journey is not None and link.id == self._journey.id:
                    continue
                if not isinstance(link.hook, ChainHook) or self._journey is not None:
                    self._controller.swap(link.id, programs.of(link.hook))
                    continue
                # nothing of the new one is missed meanwhile
                made = self._attach(replace(link.hook, netns=namespace), programs)
                note(f"tracing: link {made.id}")
                del self.there[link.id]
                self._detach(link.id)

    def take(self, change: LinkChange) -> None:
        """Take note of a change of any link, and report what one of ours lacks."""
        if change.link.id not in self.there:
            return
        if change.change is Change.DETACHED:
            del self.there[change.link.id]
            self._count(change.link)
            self.taken.append(change.link.id)
        elif change.change is Change.CHANGED and not _is_gone(change.link.hook):
            tell_state(change.link)

    def look(self) -> tuple[LeftOut, int]:
        """Look at the links; returns how many packets they left out so far.

        With it comes how often the journey could not follow one.

        Raises:
            LinkDetachedError: one is not there any more.
        """
        left_out, unfollowed = self.left_out, 0
        for link_id in list(self.there):
            try:
                now = self._controller.link(link_id)
            except LinkGoneError:
                raise LinkDetachedError(link_id) from None
            left_out += now.stats.left_out
            unfollowed += self._since_it_began(now)[0]
        return left_out, unfollowed

    def detach(self) -> None:
        """Detach those that are left, the journey last."""
        gone: LinkGoneError | None = None
        for link_id in reversed(list(self.there)):
            try:
                self._detach(link_id)
            except LinkGoneError as error:
                # the counts of the others are wanted
                gone = error
        if gone is not None:
            raise gone

    def _detach(self, link_id: int) -> None:
        self._count(self._controller.detach(link_id))

    def _count(self, last: Link) -> None:
        """Take over the counts of a link that is gone."""
        self.left_out += last.stats.left_out
        if self._journey is not None and last.id == self._journey.id:
            self.unfollowed, self.lost_sight = self._since_it_began(last)

    def _since_it_began(self, now: Link) -> tuple[int, int]:
        """How often the journey could not follow a packet, and packets that it lost sight of.

        Both are 0 of other links.
        """
        began = self._journey
        if began is None or now.id != began.id:
            return 0, 0
        # the module counts for all journeys since it was loaded
        if isinstance(now.hook, JourneyHook) and isinstance(began.hook, JourneyHook):
            return now.hook.unfollowed - began.hook.unfollowed, now.hook.lost - began.hook.lost
        return 0, 0

    def _attach(self, hook: Hook, programs: TracePrograms) -> Link:
        journey = self._journey.id if self._journey else None
        link = self._controller.attach(hook, programs.of(hook), journey=journey)
        self.there[link.id] = link
        self.ids.add(link.id)
        return link


def _is_gone(hook: Hook) -> bool:
    """Whether the link's namespace is gone, which the namespace's own line says."""
    return isinstance(hook, ChainHook) and hook.gone is not None
