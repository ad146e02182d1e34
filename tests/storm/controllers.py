# SPDX-License-Identifier: GPL-2.0
"""Links of every kind: made, swapped, removed, and left behind by controllers that are killed."""

from __future__ import annotations

import ctypes
import errno
import random
import traceback
from contextlib import suppress
from multiprocessing.sharedctypes import RawArray
from typing import Literal

from ipttctl.controller import Controller
from ipttctl.errors import ExpectationError, IpttctlError, KernelError, LinkGoneError
from ipttctl.filters import compile_filter
from ipttctl.objects import Link, ProgramSet
from ipttctl.programs import Program
from ipttproto import Slot
from tests.kernel.support import assembler as asm
from tests.storm.actor import Actor, Child
from tests.storm.journal import FAILED, Journal
from tests.storm.shared import Phase, Shared

FILTERS = ("udp", "ip6", "icmp or icmp6", "udp dst port 9 and ip", "len > 100", "tcp")

_MOST_LINKS = 6
#: program sets by their slots: a link of each shape, those with fewer events more often
_SHAPES = (
    (Slot.ENTRY,),
    (Slot.ENTRY, Slot.EXIT),
    (Slot.RULE,),
    (Slot.EXIT,),
    (Slot.ENTRY, Slot.RULE, Slot.EXIT),
)
_FAMILIES: tuple[Literal[4, 6] | None, ...] = (None, None, 4, 6)
#: what programs return: they select and emit, or do not
_RETURNS = (0, 0, 1)


def all_links(controller: Controller) -> list[Link]:
    """The links, however fast they change."""
    while True:
        try:
            return controller.links()
        except KernelError as error:
            if error.errno != errno.EINTR:
                raise


class Links:
    """A controller and its links: one random change after the other.

    Programs are loaded anew for every controller, so that each that is killed leaves some behind.
    """

    def __init__(self, decide: random.Random, journal: Journal, shared: Shared) -> None:
        self._decide = decide
        self._journal = journal
        self._shared = shared
        self._links: list[Link] = []
        self._programs = {
            value: Program.load(asm.returning(value), name=f"storm{value}") for value in {*_RETURNS}
        }
        try:
            self._controller = Controller()
        except BaseException:
            self._close_programs()
            raise

    @property
    def held(self) -> int:
        """How many links there are."""
        return len(self._links)

    def change(self) -> None:
        """Make a link, swap or remove one."""
        kind, pick = self._decide.random(), self._decide.random()
        programs = self._program_set()
        family = self._decide.choice(_FAMILIES)
        persistent = self._decide.random() < 0.2
        # Links that live through a reload's attempts would keep the module from going.
        short = self._shared.phase is not Phase.ROUND
        if not self._links or (kind < 0.25 and len(self._links) < _MOST_LINKS and not short):
            self._attach(programs, family, persistent=persistent)
        elif kind < 0.75 and not short:
            self._swap(int(pick * len(self._links)), programs)
        else:
            self._detach(int(pick * len(self._links)))

    def drop_all(self) -> None:
        """Remove all links."""
        while self._links:
            self._detach(0)

    def close(self, *, detach: bool = True) -> None:
        """Remove what would stay, disconnect, and unload the programs."""
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

    def _program_set(self) -> ProgramSet:
        decide = self._decide
        shape = decide.choice(_SHAPES)
        programs = {slot: self._programs[decide.choice(_RETURNS)].fd for slot in shape}
        expression = decide.choice((None, *FILTERS))
        cookie = decide.choice((None, decide.getrandbits(64)))
        return ProgramSet(programs, compile_filter(expression) if expression else None, cookie)

    def _attach(
        self, programs: ProgramSet, family: Literal[4, 6] | None, *, persistent: bool
    ) -> None:
        link = self._controller.attach(programs, family=family, persistent=persistent)
        self._links.append(link)
        self._journal.write("attach", f"link {link.id} persistent={persistent} family={family}")

    def _swap(self, index: int, programs: ProgramSet) -> None:
        link = self._links[index]
        wrong = self._decide.random() < 0.1
        expected = link.generation + wrong
        try:
            swapped = self._controller.swap(link.id, programs, expect_generation=expected)
        except ExpectationError:
            assert wrong, f"link {link.id} is not of generation {expected}"
            self._journal.write("swap-refused", f"link {link.id}")
            return
        assert not wrong, f"link {link.id} was swapped as generation {expected}"
        assert swapped.generation == link.generation + 1
        self._links[index] = swapped
        self._journal.write("swap", f"link {link.id} generation {swapped.generation}")

    def _detach(self, index: int) -> None:
        link = self._links[index]
        last = self._controller.detach(link.id)
        del self._links[index]
        assert last.generation == link.generation
        self._journal.write("detach", f"link {link.id}")


class ControllerActor(Actor):
    """A controller that lives for many changes, then disconnects, links and all."""

    _links: Links | None = None

    def act(self) -> None:
        """One change of a link, or the end of all of them."""
        if self.shared.phase is Phase.CALM:
            self._drop()
            self.pause(0.02, 0.05)
            return
        with self.unless_reloading():
            try:
                if self._links is None:
                    self._links = Links(self.random, self.journal, self.shared)
                if self.shared.phase is Phase.RELOADS:
                    self._links.drop_all()
                    # with a link for most of the time the module would hardly ever go
                    self.pause(0.2, 2)
                self._links.change()
                if self.random.random() < 0.05:
                    self._links.close()
                    self._links = None
                    self.journal.write("disconnect")
            except BaseException:
                self._forget()
                raise
        self.pause(0.02, 0.2)

    def leave(self) -> None:
        """Remove the links."""
        self._drop()

    def _drop(self) -> None:
        if self._links is not None:
            with self.unless_reloading():
                try:
                    self._links.close()
                finally:
                    self._links = None

    def _forget(self) -> None:
        """The module is gone, and the links with it, or something failed."""
        links, self._links = self._links, None
        if links is not None:
            links.close(detach=False)


class KillerActor(Actor):
    """Starts controllers and kills them, wherever they are; then looks for what they left."""

    _number = 0

    def act(self) -> None:
        """One victim."""
        if self.shared.phase is not Phase.ROUND:
            self.pause(0.02, 0.1)
            return
        self._number += 1
        after, moment = self.random.randrange(12), self.random.uniform(0, 0.05)
        progress = RawArray(ctypes.c_int, 2)
        name = f"{self.name}/victim-{self._number}"
        victim = Child(self._be_killed, name, progress)
        try:
            self.wait_until(
                lambda: (
                    progress[0] >= after
                    or self.shared.phase is not Phase.ROUND
                    or victim.process.exitcode is not None
                ),
                f"{name} has changed links {after} times",
            )
            self.pause(moment, moment)
        finally:
            victim.kill()
        self.journal.write("kill" if progress[1] else "kill-early", f"{name} after {progress[0]}")
        self._look_for_remains(victim.pid, name)

    def _be_killed(self, name: str, progress: ctypes.Array[ctypes.c_int]) -> None:
        journal = self.journal.of(name)
        reloads = self.shared.reloads
        try:
            links = Links(random.Random(f"{self.seed}/{name}"), journal, self.shared)
            while self.shared.phase is Phase.ROUND:
                links.change()
                progress[1] = links.held
                progress[0] += 1
        except Exception as error:
            # it was not killed at once when the round ended
            late = self.shared.phase is not Phase.ROUND or self.shared.reloads != reloads
            if not (late and isinstance(error, IpttctlError)):
                journal.write(FAILED, traceback.format_exc())

    def _look_for_remains(self, pid: int, name: str) -> None:
        """Links that are not persistent are gone with their owner; the others can be removed."""
        with self.unless_reloading(), Controller() as controller:
            for link in all_links(controller):
                if link.owner_pid != pid:
                    continue
                assert link.persistent, f"link {link.id} outlived its owner {name}"
                with suppress(LinkGoneError):
                    controller.detach(link.id)
                self.journal.write("remove-persistent", f"link {link.id} of {name}")
