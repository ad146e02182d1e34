# SPDX-License-Identifier: GPL-2.0
"""The accountant: leads the rounds, and checks the accounts at the end of each.

In a namespace of its own, which nobody else uses, two rules count the datagrams to one port. A
link of its own runs a rule program for the same datagrams. At the end of a round, with nothing
under way, three equations must hold, exactly:

    packets that the rules counted  =  events the link's rule program asked for + its nested runs
    events that all links asked for  =  events received + lost by cause (ring, memory, observer)
    runs that all links skipped      =  lost as nested

and if nothing was lost, each link's events were received in full. The number of events that a
link asked for comes from its last notification to the group ``links``, sent when it is removed,
for whatever reason.
"""

from __future__ import annotations

import ctypes
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.sharedctypes import RawValue

import numpy as np

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.hooks.table import TableHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Change, Link, LinkStats, ProgramSet
from ipttctl.link.streams import EventStream, LinkChangeStream
from ipttproto import EventBatch, Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import MODULE, load_module, loaded_modules
from tests.kernel.support.network import Namespace, enter_namespace, namespace
from tests.storm.actor import Actor, Child, delete_module
from tests.storm.journal import Journal
from tests.storm.links import all_links
from tests.storm.observers import Order, observe
from tests.storm.shared import FAMILIES, Phase, Shared
from tests.storm.traffic import send_bursts
from tests.storm.upgrades import upgrade

PORT = 4242
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_TOOL = {4: "iptables-legacy", 6: "ip6tables-legacy"}
#: every datagram passes both, once each
_CHAINS = ("OUTPUT", "PREROUTING")
_SENDERS = 2
_PRIORITY = 15
_RELOADS = 3
#: with the small one the accountant loses events of its own socket, with the large one none
_BUFFERS = (1 << 15, 1 << 26)
_PATIENCE = 600


@dataclass
class Ledger:
    """The namespace with the rules, and the processes that send there."""

    namespace: Namespace
    family: int
    sending: ctypes.c_int
    senders: list[Child] = field(default_factory=list)

    def _tables(self, *arguments: str) -> str:
        tool = _TOOL[self.family]
        return self.namespace.run(tool, "-w", "-t", "raw", *arguments, timeout=_PATIENCE)

    def add_rules(self) -> None:
        """Add the rules, which end the evaluation, so that each packet meets only one of them."""
        for chain in _CHAINS:
            self._tables(
                "-A", chain, "-p", "udp", "--dport", str(PORT),
                "-m", "comment", "--comment", "ledger", "-j", "ACCEPT",
            )  # fmt: skip  # pairs together

    def counted(self) -> int:
        """The packets that the rules counted."""
        rows = [self._tables("-vxnL", chain).splitlines()[2].split() for chain in _CHAINS]
        return sum(int(row[0]) for row in rows)

    def start(self) -> None:
        """Begin to send."""
        self.sending.value = 1
        self.senders = [Child(self._send) for _ in range(_SENDERS)]

    def _send(self) -> None:
        os.nice(_PRIORITY)
        enter_namespace(self.namespace.path)
        kind = socket.AF_INET if self.family == 4 else socket.AF_INET6
        address = _LOOPBACK[self.family]
        # a receiver, or a silent drop: no replies
        with socket.socket(kind, socket.SOCK_DGRAM) as sink:
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sink.bind((address, PORT))
            send_bursts(address, (PORT,), lambda: bool(self.sending.value))

    def stop(self) -> None:
        """Stop sending."""
        self.sending.value = 0
        for sender in self.senders:
            status = sender.wait()
            assert status == 0, f"a sender of the ledger ended with {status}"
        self.senders = []


@contextmanager
def open_ledger(family: int) -> Iterator[Ledger]:
    """A ledger for one round."""
    with namespace("storm-ledger") as made:
        ledger = Ledger(made, family, RawValue(ctypes.c_int, 0))
        try:
            yield ledger
        finally:
            for sender in ledger.senders:
                sender.kill()


@dataclass
class Books:
    """The counts of a round's events."""

    events: EventStream
    changes: LinkChangeStream
    received: Counter[int] = field(default_factory=Counter)
    asked: dict[int, LinkStats] = field(default_factory=dict)
    order: Order = field(default_factory=Order)

    def enter(self, batches: list[EventBatch]) -> None:
        """Count events by link."""
        for batch in batches:
            self.order.check(batch)
            links, counts = np.unique(batch.events["link"], return_counts=True)
            for link, count in zip(links.tolist(), counts.tolist(), strict=True):
                self.received[link] += count

    def read(self, seconds: float) -> None:
        """Read events and changes for ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            self.enter(self.events.read(max(0.0, end - time.monotonic())))
            self.read_changes()
            if time.monotonic() >= end:
                return

    def read_changes(self) -> int:
        """Read the last statistics of removed links; return the number of changes."""
        changes = self.changes.read(0)
        for change in changes:
            if change.change is Change.DETACHED:
                self.asked[change.link.id] = change.link.stats
        assert not self.changes.overruns, "changes of links were lost"
        return len(changes)

    def close_for(self, own: Link, counted: int) -> str:
        """Check the equations; return the counts in words."""
        self.asked[own.id] = own.stats
        asked = sum(stats.events for stats in self.asked.values())
        nested = sum(stats.nested for stats in self.asked.values())
        received = sum(self.received.values())
        losses = self.events.losses
        words = (
            f"rules counted {counted}, link {own.id} {own.stats}; {len(self.asked)} links asked "
            f"for {asked} events and left out {nested} runs; received {received}, {losses}, "
            f"{self.events.overruns} overruns"
        )
        assert counted > 0, words
        assert own.stats.selected == counted, words
        assert own.stats.events + own.stats.nested == counted, words
        assert asked == received + losses.events, words
        assert nested == losses.nested, words
        for link, stats in self.asked.items():
            assert self.received[link] <= stats.events, f"link {link}: {stats}; {words}"
            if not losses.events:
                assert self.received[link] == stats.events, f"link {link}: {stats}; {words}"
        return words


class AccountantActor(Actor):
    """Leads one round after the other until the storm is to end."""

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, seconds: float
    ) -> None:
        """``seconds`` is the length of the active part of each round."""
        super().__init__(name, seed, journal, shared)
        self._seconds = seconds
        self._family = self.random.choice(FAMILIES)

    def prepare(self) -> None:
        """Raise the priority: all the others wait for this actor, which reads every event."""
        os.nice(-_PRIORITY)

    def act(self) -> None:
        """Run one round, and reload the module after it."""
        # the other version's table code is unloaded and loaded meanwhile
        self._family = next(family for family in FAMILIES if family != self._family)
        self.shared.accounted = self._family
        with open_ledger(self._family) as ledger:
            words = self._round(ledger)
        self.journal.write("round", f"IPv{self._family}: {words}")
        self._reload()
        if self.shared.finish:
            self.shared.phase = Phase.END

    def leave(self) -> None:
        """End the rounds."""
        self.shared.accounted = 0
        self.shared.phase = Phase.END

    def _round(self, ledger: Ledger) -> str:
        buffer = self.random.choice(_BUFFERS)
        with ExitStack() as end:
            # the rules may collide with the end of an unload of their tables
            self.wait_until(lambda: self._add_rules(ledger), "the ledger has its rules")
            programs = [
                end.enter_context(Program.load(asm.returning(1), name=f"ledger{number}"))
                for number in range(2)
            ]
            sets = [
                ProgramSet({Slot.RULE: p.fd}, compile_filter(f"udp dst port {PORT}"))
                for p in programs
            ]
            controller = end.enter_context(Controller())
            books = self._open_books(controller, buffer, end)
            own = controller.attach(TableHook(4 if self._family == 4 else 6), sets[0])
            ledger.start()
            self.shared.phase = Phase.ROUND
            self.journal.write("round-begins", f"IPv{self._family}, link {own.id}")
            self._watch(controller, books, own, sets)
            ledger.stop()
            with self.shared.gate(exclusive=True):
                self.shared.phase = Phase.CALM
            self._settle(controller, books, own.id)
            counted = ledger.counted()
            own = controller.link(own.id)
            if books.events.overruns:
                self.journal.write("accountant-overrun", books.events.losses)
            words = books.close_for(own, counted)
            controller.detach(own.id)
        return words

    def _add_rules(self, ledger: Ledger) -> bool:
        try:
            ledger.add_rules()
        except AssertionError as error:
            if f"tables-{self._family}" in str(error):
                raise
            self.journal.write("rules-met-an-unload", error)
            return False
        return True

    def _open_books(self, controller: Controller, buffer: int, end: ExitStack) -> Books:
        """Subscribe while there is no link, so that every event is known from the start."""
        changes = end.enter_context(controller.link_changes())
        while True:
            self.wait_until(lambda: not all_links(controller), "all links are gone")
            changes.read(0)
            events = observe(controller, buffer)
            if not all_links(controller) and not changes.read(0):
                return Books(end.enter_context(events), changes)
            events.close()

    def _watch(
        self, controller: Controller, books: Books, own: Link, sets: list[ProgramSet]
    ) -> None:
        """Read, stall and swap for the length of a round."""
        left = self._seconds
        swaps = 0
        while left > 0:
            swap, stall = self.random.random() < 0.2, self.random.random() < 0.03
            reading, stalling = self.random.uniform(0.05, 0.3), self.random.uniform(0.1, 1)
            books.read(reading)
            if swap:
                swaps += 1
                own = controller.swap(own.id, sets[swaps % 2], expect_generation=own.generation)
                self.journal.write("accountant-swap", f"generation {own.generation}")
            if stall:
                self.pause(stalling, stalling)
            # by the decisions, so that their number does not depend on the machine
            left -= reading + stalling * stall

    def _settle(self, controller: Controller, books: Books, own: int) -> None:
        """Wait until nobody else has links and no packet or event is under way."""
        before = None
        while True:

            def alone() -> bool:
                books.read(0)
                return [link.id for link in all_links(controller)] == [own]

            self.wait_until(alone, "the accountant's link is the only one")
            books.enter(list(books.events.drain()))
            # other packets still come to the tables, and are not selected
            now = replace(controller.link(own).stats, packets=0), controller.status().cpus
            changed = books.read_changes()
            if now == before and not changed:
                return
            before = now
            # packets under way have no end to wait for: nothing must move for this long
            self.pause(0.3, 0.3)

    def _reload(self) -> None:
        """Unload and load the module a few times, although others use it; once it keeps links."""
        self.shared.phase = Phase.RELOADS
        for _ in range(_RELOADS):
            self.pause(0, 0.3)
            self.wait_until(lambda: delete_module(MODULE), "the module is unloaded")
            assert MODULE not in loaded_modules()
            self.shared.count_reload()
            self.pause(0, 0.1)
            load_module()
            self.journal.write("reload")
        self.journal.write("upgrade", upgrade(self.shared, self.wait_until))
        self.shared.phase = Phase.CALM
