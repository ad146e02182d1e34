# SPDX-License-Identifier: GPL-2.0
"""Controllers that change links until they disconnect, or are killed."""

from __future__ import annotations

import ctypes
import random
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.sharedctypes import RawArray

from ipttctl.errors import IpttctlError, LinkGoneError
from ipttctl.link.controller import Controller
from tests.kernel.support.network import Namespace
from tests.storm.actor import Actor, Child
from tests.storm.journal import FAILED, Journal
from tests.storm.links import Links, all_links
from tests.storm.shared import Phase, Shared


class _WithLinks(Actor):
    """An actor with links in some namespaces."""

    def __init__(
        self, name: str, seed: str, journal: Journal, shared: Shared, places: Sequence[Namespace]
    ) -> None:
        super().__init__(name, seed, journal, shared)
        self._places = places


class ControllerActor(_WithLinks):
    """A controller that makes many changes, then disconnects, which removes its links."""

    _links: Links | None = None

    def act(self) -> None:
        """Change a link, or remove all of them."""
        if self.shared.phase is Phase.CALM:
            self._drop()
            self.pause(0.02, 0.05)
            return
        with self.unless_reloading():
            try:
                if self._links is None:
                    self._links = Links(self.random, self.journal, self.shared, self._places)
                if self.shared.phase is Phase.RELOADS:
                    self._links.drop_all()
                    # with links for most of the time the module could hardly ever be unloaded
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
        """Close after a failure, or after the module and its links have gone."""
        links, self._links = self._links, None
        if links is not None:
            links.close(detach=False)


class KillerActor(_WithLinks):
    """Starts controllers and kills them at any point; then checks the links that they left."""

    _number = 0

    def act(self) -> None:
        """Start and kill one controller."""
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
            decide = random.Random(f"{self.seed}/{name}")
            links = Links(decide, journal, self.shared, self._places)
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
        """Check the links of a killed owner: only persistent ones are left, and can be adopted.

        After that they are removed, or go with the controller here.
        """
        with self.unless_reloading(), Controller() as controller:
            for link in all_links(controller):
                if link.owner_pid != pid:
                    continue
                assert link.persistent, f"link {link.id} outlived its owner {name}"
                removed = self.random.random() < 0.5
                with suppress(LinkGoneError):
                    controller.adopt(link.id)
                    if removed:
                        controller.detach(link.id)
                self.journal.write("adopt", f"link {link.id} of {name}, removed={removed}")
