# SPDX-License-Identifier: GPL-2.0
"""Namespaces that appear with rules, traffic and links, and disappear under traffic.

Some of their packets are followed and still there at the end: those that nobody reads from a
socket, and those that wait for the address of a host that does not exist.
"""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from ipttctl.bpf.filters import compile_filter
from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.journey import JourneyHook
from ipttctl.hooks.nf import NfHook
from ipttctl.hooks.spine import SpineHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Gone, Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace, enter_namespace
from tests.kernel.support.nf import nf_hook
from tests.storm.actor import Actor, Child
from tests.storm.journal import Journal
from tests.storm.rules import kernel_tables, random_rules, replace
from tests.storm.shared import FAMILIES, Phase, Shared
from tests.storm.traffic import start_bursts

_PATIENCE = 600
_PORT: Final = 9
#: packets to it wait for its address
_NOBODY: Final = "10.78.0.99"


def _hold_packets(namespace: Namespace) -> None:
    """Have a socket that nobody reads take what comes, until this process is killed."""
    enter_namespace(namespace.path)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as full:
        # of both IP versions
        full.bind(("::", _PORT))
        signal.pause()


@dataclass(frozen=True)
class _Doomed:
    """Links in a namespace, and the journey that follows its packets."""

    controller: Controller
    at_hook: Link
    at_spine: Link
    journey: Link


def _ip(*arguments: str) -> None:
    run("ip", *arguments, timeout=_PATIENCE)


class NamespacesActor(Actor):
    """Makes and deletes one namespace after the other, each on a cable to the router.

    storm-nsN  eth0 10.78.0.2 --- veth --- sN 10.78.0.1  router
                    fd78::2                   fd78::1
    """

    _number = 0

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, router: Namespace
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._router = router
        self._tables = kernel_tables()

    def act(self) -> None:
        """Make one namespace, use it and delete it."""
        self._number += 1
        namespace = Namespace(f"storm-ns{self._number}")
        with ExitStack() as watching:
            with ExitStack() as end:
                _ip("netns", "add", namespace.name)
                # the namespace loses its name under traffic; the last of its processes is killed
                # after that, which destroys the namespace
                going = end.enter_context(ExitStack())
                end.callback(_ip, "netns", "delete", namespace.name)
                self._connect(namespace)
                family = self._family()
                rules = random_rules(self.random, family, self._tables, copies=True)
                replace(namespace, family, rules, self.shared, self.journal)
                going.callback(Child(_hold_packets, namespace).kill)
                for place, address in (
                    (namespace, "10.78.0.1"), (namespace, "fd78::1"), (self._router, "10.78.0.2"),
                    (namespace, _NOBODY),
                ):  # fmt: skip  # pairs together
                    going.callback(start_bursts(place, address, (_PORT,), lambda: True).kill)
                watch = None
                # not while the module may go; last, as a round does not end before its links
                if self.shared.phase is Phase.ROUND:
                    with self.unless_reloading():
                        watch = self._watch(namespace, watching)
                self.journal.write("namespace-made", f"{namespace.name} IPv{family}")
                self.pause(0.3, 2)
            self.journal.write("namespace-gone", namespace.name)
            if watch is not None:
                self._see_it_gone(watch)

    def _watch(self, namespace: Namespace, end: ExitStack) -> _Doomed:
        """Attach links in the namespace, and follow its packets, until the end."""
        packet = end.enter_context(
            Program.load(asm.returning(0), name="doomed", type=ProgramType.SOCKET_FILTER)
        )
        program = end.enter_context(Program.load(asm.returning(1), name="doomed")).fd
        controller = end.enter_context(Controller())
        at_hook = controller.attach(
            NfHook.parse("nf:inet/prerouting", netns=namespace.path),
            ProgramSet({Slot.PACKET: packet.fd}),
        )
        journey = controller.attach(JourneyHook(), ProgramSet({Slot.STEP: program}))
        at_spine = controller.attach(
            SpineHook(netns=namespace.path),
            ProgramSet({Slot.EXIT: program}, compile_filter("udp")),
            journey=journey.id,
        )
        return _Doomed(controller, at_hook, at_spine, journey)

    def _see_it_gone(self, doomed: _Doomed) -> None:
        """Wait until the links report that their namespace is gone, and remove them.

        The journey is in no namespace, and stays.
        """
        controller = doomed.controller
        with self.unless_reloading():
            for link in (doomed.at_hook, doomed.at_spine):
                self.wait_until(
                    partial(self._gone, controller, link),
                    f"link {link.id} is gone with its namespace",
                )
            last = controller.detach(doomed.at_hook.id)
            assert (last.hook.gone, nf_hook(last).registered) == (Gone.NETNS, False), last
            self.journal.write("hook-gone", f"link {last.id}, {last.stats.packets} packets")
            left = controller.detach(doomed.at_spine.id)
            assert (left.hook.gone, left.journey) == (Gone.NETNS, doomed.journey.id), left
            ended = controller.detach(doomed.journey.id)
            words = f"link {ended.id}, of {left.stats.selected} packets {ended.stats.events} steps"
            self.journal.write("journey-outlives" if ended.stats.events else "journey-idle", words)

    def _gone(self, controller: Controller, link: Link) -> bool:
        return controller.link(link.id).hook.gone is not None

    def _family(self) -> int:
        """The IP version of the rules: mostly one whose table code stays, as rules hold it."""
        family, stays = self.random.choice(FAMILIES), self.random.random() < 0.7
        return self.shared.accounted or family if stays else family

    def _connect(self, namespace: Namespace) -> None:
        near, name = f"s{self._number}", namespace.name
        _ip(
            "-n", self._router.name, "link", "add", near, "type", "veth",
            "peer", "name", "eth0", "netns", name,
        )  # fmt: skip  # pairs together
        for where, device, host in ((self._router.name, near, 1), (name, "eth0", 2)):
            _ip("-n", where, "address", "add", f"10.78.0.{host}/24", "dev", device)
            _ip("-n", where, "-6", "address", "add", f"fd78::{host}/64", "dev", device, "nodad")
            _ip("-n", where, "link", "set", device, "up")
