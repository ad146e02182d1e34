# SPDX-License-Identifier: GPL-2.0
"""Attempts to unload the module although it has links."""

from __future__ import annotations

from tests.kernel.support.kernel import MODULE
from tests.storm.actor import Actor, delete_module
from tests.storm.shared import Phase


class UnloaderActor(Actor):
    """While the accountant's link is there, the kernel must refuse."""

    def act(self) -> None:
        """Make one attempt."""
        with self.shared.gate():
            if self.shared.phase is Phase.ROUND:
                assert not delete_module(MODULE), "the module was unloaded under a link"
                self.journal.write("unload-refused")
        self.pause(0.1, 1)
