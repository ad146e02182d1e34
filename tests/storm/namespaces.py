# SPDX-License-Identifier: GPL-2.0
"""Namespaces that appear with rules, traffic and a link, and disappear under traffic."""

from __future__ import annotations

from contextlib import ExitStack

from ipttctl.bpf.programs import Program
from ipttctl.bpf.syscalls import ProgramType
from ipttctl.hooks.nf import NfHook
from ipttctl.link.controller import Controller
from ipttctl.link.model import Link, ProgramSet
from ipttproto import Gone, Slot
from tests.kernel.support import assembler as asm
from tests.kernel.support.kernel import run
from tests.kernel.support.network import Namespace
from tests.kernel.support.nf import nf_hook
from tests.storm.actor import Actor
from tests.storm.journal import Journal
from tests.storm.rules import kernel_tables, random_rules, replace
from tests.storm.shared import FAMILIES, Phase, Shared
from tests.storm.traffic import start_bursts

_PATIENCE = 600


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
                for place, address in (
                    (namespace, "10.78.0.1"), (namespace, "fd78::1"), (self._router, "10.78.0.2"),
                ):  # fmt: skip  # pairs together
                    going.callback(start_bursts(place, address, (9,), lambda: True).kill)
                watch = None
                # not while the module may go; last, as a round does not end before its links
                if self.shared.phase is Phase.ROUND:
                    with self.unless_reloading():
                        watch = self._watch(namespace, watching)
                self.journal.write("namespace-made", f"{namespace.name} IPv{family}")
                self.pause(0.3, 2)
            self.journal.write("namespace-gone", namespace.name)
            if watch is not None:
                self._see_it_gone(*watch)

    def _watch(self, namespace: Namespace, end: ExitStack) -> tuple[Controller, Link]:
        """Attach a link in the namespace, until the end."""
        program = end.enter_context(
            Program.load(asm.returning(0), name="doomed", type=ProgramType.SOCKET_FILTER)
        )
        controller = end.enter_context(Controller())
        hook = NfHook.parse("nf:inet/prerouting", netns=namespace.path)
        return controller, controller.attach(hook, ProgramSet({Slot.PACKET: program.fd}))

    def _see_it_gone(self, controller: Controller, link: Link) -> None:
        """Wait until the link reports that its hook is gone, and remove it."""
        with self.unless_reloading():
            self.wait_until(
                lambda: controller.link(link.id).hook.gone is not None,
                f"link {link.id} is gone with its namespace",
            )
            last = controller.detach(link.id)
            assert (last.hook.gone, nf_hook(last).registered) == (Gone.NETNS, False), last
            self.journal.write("hook-gone", f"link {link.id}, {last.stats.packets} packets")

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
