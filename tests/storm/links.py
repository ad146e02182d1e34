# SPDX-License-Identifier: GPL-2.0
"""A controller with links of every kind, and random changes of them."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.errors import (
    ExpectationError,
    KernelError,
    NameTakenError,
    SwapRolledBackError,
)
from ipttctl.families import NfFamily
from ipttctl.hooks.chain import ChainHook
from ipttctl.hooks.hook import Hook
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.hooks.table import TableHook
from ipttctl.link.condition import Condition
from ipttctl.link.controller import Controller
from ipttctl.link.limits import Limits
from ipttctl.link.model import Link, ProgramSet, Swap
from ipttproto import NfMode, Slot, SwapOutcome
from tests.kernel.support import assembler as asm
from tests.kernel.support.network import Namespace
from tests.storm.journal import Journal
from tests.storm.shared import Phase, Shared

FILTERS = ("udp", "ip6", "icmp or icmp6", "udp dst port 9 and ip", "len > 100", "tcp")

_MOST_LINKS = 6
#: program sets of table links by their slots: those with fewer events are more frequent
_SHAPES: Final[tuple[tuple[Slot, ...], ...]] = (
    (Slot.ENTRY,),
    (Slot.ENTRY, Slot.EXIT),
    (Slot.RULE,),
    (Slot.EXIT,),
    (Slot.ENTRY, Slot.RULE, Slot.EXIT),
)
_FAMILIES: tuple[Literal[4, 6] | None, ...] = (None, None, 4, 6)
#: netfilter hooks; those of a device use the loopback device, which every namespace has
_NF_HOOKS = (
    "nf:inet/prerouting@first", "nf:inet/input", "nf:inet4/forward@mangle", "nf:inet6/forward",
    "nf:inet4/output@raw", "nf:inet/postrouting@last", "nf:netdev/ingress", "nf:inet/ingress",
    "nf:arp/in", "nf:bridge/prerouting",
)  # fmt: skip  # families together
#: how often a link is at a netfilter hook, at chains, at the spine, and a journey
_NF: Final = 0.3
_CHAIN: Final = 0.2
_SPINE: Final = 0.2
_JOURNEY: Final = 0.1
#: how often a link is put on a journey, if there is one that it can be on
_ON_A_JOURNEY: Final = 0.8
#: how often somebody tries at once to make one of these persistent
_KEPT_IN_VAIN: Final = 0.3
_SPINES = ("spine", "spine:inet4", "spine:inet/output", "spine:netdev", "spine:inet6/input")
#: return values of programs: they select and emit, let pass or drop
_RETURNS = (0, 0, 1)
#: how often a swap expects a wrong generation
_WRONG: Final = 0.3
#: number of links that are swapped in one step
_TOGETHER = (1, 2, 3)
#: names of links: few, so that they are taken sometimes
_NAMES: Final = (None, None, "a", "b", "c", "d", "e", "f")
_LABELS: Final[tuple[dict[str, str] | None, ...]] = (
    None,
    {},
    {"team": "core"},
    {"a": "", "b": "v" * 63},
)
#: seconds until a swap is rolled back: too few for a confirmation, enough, or enough on any kernel
_ROLLBACK = (None, 0.05, 3, 30)
#: most of them for which somebody waits
_AWAITED = 3
#: how often a link whose swap waits is preferred, if there is one
_CONCLUDED: Final = 0.5
#: how often a link that decides gets a shadow instead of being swapped
_SHADOW: Final = 0.6
#: what sets leave out: nothing, a part, nearly all
_LIMITS: Final = (
    None,
    None,
    Limits(sample=2),
    Limits(rate=100),
    Limits(budget_events=20, budget_cpu=1),
)
#: what has a shadow promoted: nothing, what never happens, and what happens sooner or later
_PROMOTE_IF: Final = (
    (),
    ("agreements > 1000000000/s",),
    ("disagreements < 1/2 for 200ms min 5",),
    ("disagreements < 1000000", "agreements > 0 for 100ms"),
)
#: guards of a swap: that hold whatever happens, and that traffic violates soon or at some time
_GUARDS = (
    (),
    (),
    ("lost < 1000000000/s",),
    ("packets < 50 for 10s", "drops < 1/2 for 100ms min 10"),
)
_PATIENCE: Final = 600.0
_POLL: Final = 0.01


def all_links(controller: Controller) -> list[Link]:
    """The links, even if they change during the listing."""
    while True:
        try:
            return controller.links()
        except KernelError as error:
            if error.errno != errno.EINTR:
                raise


class Links:
    """A controller and its links: one random change after the other.

    Programs are loaded anew for every controller, so that each that is killed leaves some behind.
    Links at netfilter hooks are in one of ``places``.
    """

    def __init__(
        self,
        decide: random.Random,
        journal: Journal,
        shared: Shared,
        places: Sequence[Namespace],
    ) -> None:
        self._decide = decide
        self._journal = journal
        self._shared = shared
        self._places = places
        self._links: list[Link] = []
        self._programs = {
            (kind, value): Program.load(asm.returning(value), name=f"storm{value}", type=kind)
            for kind in (ProgramType.KPROBE, ProgramType.SOCKET_FILTER)
            for value in {*_RETURNS}
        }
        try:
            self._controller = Controller()
        except BaseException:
            self._close_programs()
            raise

    @property
    def held(self) -> int:
        """The number of links."""
        return len(self._links)

    def change(self) -> None:
        """Attach a link, swap some, conclude a swap that waits, or detach a link."""
        kind, pick = self._decide.random(), self._decide.random()
        index = int(pick * len(self._links))
        # A link that outlives the attempts to reload the module would keep it loaded.
        short = self._shared.phase is not Phase.ROUND
        if not self._links or (kind < 0.35 and len(self._links) < _MOST_LINKS and not short):
            self._attach()
        elif kind >= 0.8 or short:
            self._detach(index)
        elif kind >= 0.74:
            self._own(index)
        else:
            self._change_programs(self._waiting(index))

    def _waiting(self, index: int) -> int:
        """A link whose swap waits, every now and then; otherwise that of the index.

        Few swaps wait, and not for long: on a slow machine none would be confirmed.
        """
        waiting = [n for n, link in enumerate(self._links) if link.waits]
        if waiting and self._decide.random() < _CONCLUDED:
            return self._decide.choice(waiting)
        return index

    def _change_programs(self, index: int) -> None:
        if self._links[index].shadow is not None:
            self._conclude_shadow(index)
        elif self._links[index].waits:
            self._conclude(index)
        elif self._decides(index) and self._decide.random() < _SHADOW:
            self._give_shadow(index)
        else:
            self._swap(index)

    def drop_all(self) -> None:
        """Remove all links."""
        while self._links:
            self._detach(0)

    def close(self, *, detach: bool = True) -> None:
        """Remove persistent links, disconnect, and unload the programs."""
        try:
            for link in self._links if detach else ():
                if link.persistent:
                    self._controller.detach(link.id)
        finally:
            self._links = []
            self._controller.close()
            self._close_programs()

    def _close_programs(self) -> None:
        for program in self._programs.values():
            program.close()

    def _program_set(self, hook: Hook) -> ProgramSet:
        decide = self._decide
        nf = isinstance(hook, NfHook)
        kind = ProgramType.SOCKET_FILTER if nf else ProgramType.KPROBE
        shape = (Slot.PACKET,) if nf else decide.choice(_SHAPES)
        if isinstance(hook, SpineHook):
            shape = tuple(Slot.FUNCTION if slot is Slot.RULE else slot for slot in shape)
        if isinstance(hook, JourneyHook):
            # links at other hooks choose its packets
            step = self._programs[kind, decide.choice(_RETURNS)].fd
            return ProgramSet({Slot.STEP: step}, cookie=decide.choice((None, 1)))
        programs = {slot: self._programs[kind, decide.choice(_RETURNS)].fd for slot in shape}
        # ARP has no IP header for a filter to look at
        expression = (
            decide.choice((None, *FILTERS))
            if not (isinstance(hook, NfHook) and hook.family == NfFamily.ARP)
            else None
        )
        cookie = None if nf else decide.choice((None, decide.getrandbits(64)))
        limits = decide.choice(_LIMITS) if shape != (Slot.ENTRY,) else None
        code = compile_filter(expression) if expression else None
        return ProgramSet(programs, code, cookie, limits=limits)

    def _nf_hook(self) -> NfHook:
        decide = self._decide
        hook = decide.choice(_NF_HOOKS)
        mode = decide.choice((NfMode.OBSERVE, NfMode.OBSERVE, NfMode.FILTER))
        return NfHook.parse(
            hook,
            netns=decide.choice(self._places).path,
            device="lo" if hook.endswith("ingress") else None,
            mode=mode,
            report_drops=mode is NfMode.FILTER and decide.random() < 0.5,
        )

    def _chain_hook(self) -> ChainHook:
        decide = self._decide
        where = decide.choice(("chain", "chain:inet", "chain:ip", "chain:inet/storm"))
        place = decide.choice((None, *self._places))
        return ChainHook.parse(where, netns=place and place.path)

    def _spine_hook(self) -> SpineHook:
        decide = self._decide
        place = decide.choice((None, *self._places))
        return SpineHook.parse(decide.choice(_SPINES), netns=place and place.path)

    def _attach(self) -> None:
        try:
            self._attach_one()
        except NameTakenError as error:
            self._journal.write("attach-refused", str(error))
        except KernelError as error:
            # the journey of somebody else ended meanwhile
            if error.errno != errno.ENOENT or "link" not in str(error):
                raise
            self._journal.write("journey-missed", str(error))

    def _journey(self) -> int | None:
        """A journey to be on: of this controller, or of anybody."""
        if self._decide.random() >= _ON_A_JOURNEY:
            return None
        journeys: list[int] = []
        for links in (self._links, all_links(self._controller)):
            journeys = journeys or [one.id for one in links if isinstance(one.hook, JourneyHook)]
        return self._decide.choice(journeys) if journeys else None

    def _attach_one(self) -> None:
        decide = self._decide
        kind = decide.random()
        # a netfilter hook cannot be on a journey
        journey = self._journey() if kind >= _NF else None
        # neither a journey nor what is on one can be persistent
        alone = journey is not None or kind >= 1 - _JOURNEY
        persistent = not alone and decide.random() < 0.2
        notes: dict[str, Any] = {
            "persistent": persistent,
            "exclusive": not persistent and decide.random() < 0.5,
            "name": decide.choice(_NAMES),
            "labels": decide.choice(_LABELS),
            "reason": "storm",
        }
        made: tuple[tuple[str, float, Callable[[], Hook]], ...] = (
            ("attach-nf", _NF, self._nf_hook),
            ("attach-chain", _NF + _CHAIN, self._chain_hook),
            ("attach-spine", _NF + _CHAIN + _SPINE, self._spine_hook),
            ("attach", 1 - _JOURNEY, lambda: TableHook(decide.choice(_FAMILIES))),
            ("attach-journey", 1, JourneyHook),
        )
        what, make = next((what, make) for what, below, make in made if kind < below)
        hook = make()
        if isinstance(hook, JourneyHook):
            journey = None
        link = self._controller.attach(hook, self._program_set(hook), journey=journey, **notes)
        # the journey may have ended since
        assert link.journey in {journey, None}
        self._journal.write(what, f"link {link.id} persistent={persistent} {hook}")
        if journey is not None:
            self._journal.write("join", f"link {link.id} on {journey}")
        self._links.append(link)
        if alone and decide.random() < _KEPT_IN_VAIN:
            self._own(-1)

    def _swap(self, index: int) -> None:
        """Swap a link, or several in one step: all, or none if one expectation is wrong."""
        decide = self._decide
        others = [n for n, link in enumerate(self._links) if not link.waits and link.shadow is None]
        others.remove(index)
        together = min(decide.choice(_TOGETHER), len(others) + 1)
        chosen = [index, *decide.sample(others, together - 1)]
        wrong = chosen[-1] if decide.random() < _WRONG else None
        rollback_after = decide.choice(_ROLLBACK)
        guards = [Condition.parse(text) for text in decide.choice(_GUARDS)]
        links = [self._links[n] for n in chosen]
        swaps = [
            Swap(
                link.name or link.id,
                self._program_set(link.hook),
                expect_generation=link.generation + (n == wrong),
                labels=decide.choice(_LABELS),
            )
            for n, link in zip(chosen, links, strict=True)
        ]
        words = ", ".join(f"link {link.id} generation {link.generation}" for link in links)
        kind = "swap" if together == 1 else "transaction"
        try:
            swapped = self._exchange(swaps, rollback_after, guards)
        except ExpectationError:
            assert wrong is not None, f"not as expected: {words}"
            self._look_again()
            self._journal.write(f"{kind}-refused", words)
            return
        assert wrong is None, f"swapped in spite of a wrong generation: {words}"
        for n, swap, before, now in zip(chosen, swaps, links, swapped, strict=True):
            assert (now.id, now.generation) == (before.id, before.generation + 1)
            assert now.labels == (before.labels if swap.labels is None else swap.labels)
            assert (now.rollback_in is None) == (rollback_after is None)
            assert now.guards == tuple(guards)
            assert now.waits == (rollback_after is not None or bool(guards))
            self._links[n] = now
        words += "".join(f", {guard}" for guard in guards)
        self._journal.write(kind, f"{words}, back after {rollback_after} s")

    def _exchange(
        self, swaps: Sequence[Swap], rollback_after: float | None, guards: Sequence[Condition]
    ) -> list[Link]:
        if len(swaps) > 1:
            return self._controller.transact(swaps, rollback_after=rollback_after, guards=guards)
        (swap,) = swaps
        return [
            self._controller.swap(
                swap.link,
                swap.programs,
                expect_generation=swap.expect_generation,
                rollback_after=rollback_after,
                guards=guards,
                labels=swap.labels,
            )
        ]

    def _conclude(self, index: int) -> None:
        """Confirm a swap that waits, have it rolled back, or wait until it is rolled back."""
        link = self._links[index]
        kind = self._decide.random()
        words = f"link {link.id} generation {link.generation}"
        # there may be nothing to wait for
        if kind < 0.7 or link.rollback_in is None or link.rollback_in > _AWAITED:
            by: dict[str, Any] = self._decide.choice(
                (
                    {"link": link.id},
                    {"link": link.name or link.id, "expect_generation": link.generation},
                    {"transaction": link.transaction},
                )
            )
            try:
                if kind < 0.4:
                    self._controller.confirm(**by)
                    self._journal.write("confirm", words)
                else:
                    undone = self._controller.rollback(**by, reason="storm")
                    assert link.id in {one.id for one in undone}
                    assert {one.outcome for one in undone} == {SwapOutcome.ROLLBACK_REQUEST}
                    self._journal.write("rollback", words)
            except SwapRolledBackError as error:
                self._journal.write("too-late", f"{words}: {error}")
        else:
            end = time.monotonic() + _PATIENCE
            while self._controller.link(link.id).waits:
                assert time.monotonic() < end, f"link {link.id} is not rolled back"
                time.sleep(_POLL)
        self._look_again()

    def _decides(self, index: int) -> bool:
        """Whether a link has verdicts, which a shadow's can be compared with."""
        hook = self._links[index].hook
        return isinstance(hook, NfHook) and hook.mode == NfMode.FILTER

    def _give_shadow(self, index: int) -> None:
        link = self._links[index]
        programs = self._program_set(link.hook)
        now = self._controller.shadow(
            link.name or link.id,
            programs,
            expect_generation=link.generation,
            promote_if=[Condition.parse(text) for text in self._decide.choice(_PROMOTE_IF)],
            labels=self._decide.choice(_LABELS),
        )
        assert now.shadow is not None
        assert now.generation == link.generation
        self._links[index] = now
        self._journal.write("shadow", f"link {link.id} shadow {now.shadow.number}")

    def _conclude_shadow(self, index: int) -> None:
        """Promote the shadow of a link, or drop it; now and then with a wrong expectation."""
        decide = self._decide
        link = self._links[index]
        assert link.shadow is not None
        promoted = decide.random() < 0.5
        wrong = decide.random() < _WRONG
        expected = link.shadow.number + wrong
        words = f"link {link.id} shadow {link.shadow.number}"
        back = decide.choice(_ROLLBACK) if promoted else None
        try:
            if promoted:
                now = self._controller.promote(
                    link.name or link.id, expect_shadow=expected, rollback_after=back
                )
            else:
                now = self._controller.drop_shadow(link.name or link.id, expect_shadow=expected)
        except ExpectationError:
            assert wrong, f"not as expected: {words}"
            self._journal.write("shadow-refused", words)
            return
        except KernelError as error:
            # the module has promoted it
            if error.errno != errno.ENODATA or not link.shadow.promote_if:
                raise
            self._look_again()
            return
        assert not wrong, f"concluded in spite of a wrong number: {words}"
        assert (now.generation, now.shadow) == (link.generation + promoted, None)
        assert (now.rollback_in is None) == (back is None)
        self._links[index] = now
        self._journal.write("promote" if promoted else "drop-shadow", words)

    def _own(self, index: int) -> None:
        """Release a link, or adopt one that belongs to nobody."""
        link = self._controller.link(self._links[index].id)
        if isinstance(link.hook, JourneyHook) or link.journey is not None:
            self._keep_in_vain(link)
            return
        if link.persistent:
            exclusive = self._decide.random() < 0.5
            now = self._controller.adopt(link.name or link.id, exclusive=exclusive)
            assert (now.persistent, now.exclusive) == (False, exclusive)
        else:
            now = self._controller.release(link.name or link.id)
            assert (now.persistent, now.exclusive) == (True, False)
        self._check_generation(link, now)
        self._links[index] = now
        self._journal.write("release" if now.persistent else "adopt", f"link {link.id}")

    def _keep_in_vain(self, link: Link) -> None:
        """Release a journey, or a link on one: that is refused, unless the journey has ended."""
        try:
            now = self._controller.release(link.id)
        except KernelError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._journal.write("release-refused", f"link {link.id}")
            return
        assert link.journey is not None, f"journey {link.id} is persistent"
        assert now.journey is None, f"link {link.id} is persistent, and on a journey"
        self._links[[one.id for one in self._links].index(link.id)] = now

    def _look_again(self) -> None:
        """Read the links again: only those that waited for a rollback may have changed."""
        for index, before in enumerate(self._links):
            now = self._controller.link(before.id)
            self._check_generation(before, now)
            self._links[index] = now

    def _check_generation(self, before: Link, now: Link) -> None:
        back = now.generation - before.generation
        waited = before.waits or (before.shadow is not None and bool(before.shadow.promote_if))
        assert back == 0 or (back == 1 and waited), (
            f"link {now.id} is of generation {now.generation}, was of {before.generation}"
            f"{', to be rolled back or promoted' if waited else ''}"
        )
        if back:
            what = "rolled-back" if before.waits else "promoted"
            self._journal.write(what, f"link {now.id} generation {now.generation}")

    def _detach(self, index: int) -> None:
        link = self._links[index]
        last = self._controller.detach(link.id)
        del self._links[index]
        self._check_generation(link, last)
        self._journal.write("detach", f"link {link.id}")
